"""Galaxies as a network is trained on them, as a `tf.data` pipeline: symmetries, PSF, and fresh noise.

Simulated galaxies come as the truth before the PSF, and are observed anew in every epoch. Real ones come with their
noise, to which nothing is added.

Everything random is a function of `(seed, epoch, batch)`: noise is fresh in every epoch, and a run that is killed and
taken up again sees exactly what it would have seen.
"""

from collections.abc import Callable, Mapping

import galsim
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from tflens.errors import ParameterError
from tflens.psf import PSF

Extra = Mapping[str, NDArray]
Batch = dict[str, tf.Tensor]

SNR_RANGE = (15.0, 50.0)


def hst_psf(pixel_scale: float = 0.05, size: int = 25) -> NDArray[np.float32]:
    """A kernel like that of HST's ACS in F814W: the diffraction pattern of an obscured 2.4 m mirror, in the pixel.

    Args:
        pixel_scale: arcsec.
        size: pixels on a side, odd.

    Returns:
        `[size, size]`, of unit sum.

    Raises:
        ParameterError: `size` is even or not positive.

    Example:
        >>> kernel = hst_psf()
        >>> kernel.shape, bool(kernel.argmax() == kernel.size // 2), abs(float(kernel.sum()) - 1) < 1e-5
        ((25, 25), True, True)
    """
    if size < 1 or size % 2 == 0:
        raise ParameterError(f"hst_psf: size must be odd and positive, so that a pixel is the centre; got {size!r}")
    optics = galsim.OpticalPSF(lam=814, diam=2.4, obscuration=0.33)
    kernel = optics.drawImage(nx=size, ny=size, scale=pixel_scale, dtype=float).array
    return (kernel / kernel.sum()).astype(np.float32)


def observed_galaxies(
    galaxies: NDArray[np.float32],
    psf: NDArray[np.float32] | None,
    batch_size: int = 64,
    seed: int = 0,
    epoch: int = 0,
    snr_range: tuple[float, float] = SNR_RANGE,
    augment: bool = True,
    extra: Extra | None = None,
    symmetries: bool = True,
) -> tf.data.Dataset:
    """One epoch of observations of simulated galaxies.

    The noise of a stamp is Gaussian with one known sigma, such that S/N = sqrt(sum((signal / sigma)^2)) is drawn
    log-uniformly from the range. Negative pixels stay.

    Args:
        galaxies: `[N, ny, nx]`, unit sum, before the PSF.
        psf: `[odd, odd]`, unit sum; None for none.
        batch_size: galaxies a batch; the last batch may be smaller.
        seed: with `epoch`, what everything random follows from.
        epoch: another one gives another order, other symmetries and other noise.
        snr_range: lowest and highest S/N.
        augment: draw one of the eight symmetries of the square for each galaxy (square stamps), and shuffle.
        extra: more about each galaxy, `[N, ...]` by name, to be handed through.
        symmetries: without, augmentation only shuffles, as suits what has an upright.

    Returns:
        A dataset of `{"image": [batch, ny, nx], "sigma": [batch], "signal": [batch, ny, nx]}`, float32, and what is
        extra; `signal` is the image without its noise.

    Raises:
        ParameterError: the S/N range is not positive and increasing, augmented stamps are not square, or what is
            extra is not of N galaxies.

    Example:
        >>> galaxies = np.full((4, 8, 8), 1 / 64, np.float32)
        >>> batch = next(iter(observed_galaxies(galaxies, hst_psf(size=5), batch_size=2)))
        >>> batch["image"].shape, batch["sigma"].shape
        (TensorShape([2, 8, 8]), TensorShape([2]))
    """
    low, high = snr_range
    if not 0 < low <= high:
        raise ParameterError(f"observed_galaxies: snr_range must be positive and increasing, got {snr_range!r}")
    convolve = (lambda images: images) if psf is None else PSF(psf, galaxies.shape[1:]).convolve

    def observe(truth: tf.Tensor, seed: tf.Tensor) -> Batch:
        signal = convolve(truth)
        seeds = tf.random.split(seed, 2)
        snr = tf.exp(tf.random.stateless_uniform(tf.shape(signal)[:1], seeds[0], np.log(low), np.log(high)))
        sigma = tf.sqrt(tf.reduce_sum(signal**2, (-2, -1))) / snr
        noise = sigma[:, None, None] * tf.random.stateless_normal(tf.shape(signal), seeds[1])
        return {"image": signal + noise, "sigma": sigma, "signal": signal}

    return _batches("observed_galaxies", galaxies, observe, extra or {}, batch_size, seed, epoch, augment, symmetries)


def noisy_galaxies(
    images: NDArray[np.float32],
    sigma: NDArray[np.float32],
    batch_size: int = 64,
    seed: int = 0,
    epoch: int = 0,
    augment: bool = True,
    extra: Extra | None = None,
) -> tf.data.Dataset:
    """One epoch of galaxies that have their noise, as `observed_galaxies` gives them, without a `signal`.

    Args:
        images: `[N, ny, nx]`, of unit flux before noise.
        sigma: noise per pixel in the same unit, `[N]`.
        batch_size, seed, epoch, augment, extra: as `observed_galaxies`. The PSF is turned with the galaxy, so that
            symmetries suit a PSF that has them.

    Raises:
        ParameterError: sigma is not positive or not of N galaxies, augmented stamps are not square, or what is extra
            is not of N galaxies.

    Example:
        >>> batch = next(iter(noisy_galaxies(np.ones((4, 8, 8), np.float32), np.ones(4), batch_size=2)))
        >>> sorted(batch), batch["image"].shape
        (['image', 'sigma'], TensorShape([2, 8, 8]))
    """
    sigma = np.asarray(sigma, np.float32)
    if not (sigma > 0).all():
        raise ParameterError(f"noisy_galaxies: sigma must be positive, got {sigma.min()} as the least")
    extra = {"sigma": sigma, **(extra or {})}
    return _batches(
        "noisy_galaxies", images, lambda image, seed: {"image": image}, extra, batch_size, seed, epoch, augment
    )


def random_symmetry(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Each square image `[batch, n, n]` under one of the eight flips and quarter turns, drawn by the seed `[2]`."""
    choice = tf.random.stateless_uniform([tf.shape(images)[0]], seed, 0, 8, tf.int32)
    operations = (lambda x: tf.reverse(x, [1]), lambda x: tf.reverse(x, [2]), lambda x: tf.transpose(x, [0, 2, 1]))
    for bit, operation in enumerate(operations):
        chosen = tf.bitwise.bitwise_and(choice, 2**bit) > 0
        images = tf.where(chosen[:, None, None], operation(images), images)
    return images


def _batches(
    caller: str,
    stamps: NDArray[np.float32],
    observe: Callable[[tf.Tensor, tf.Tensor], Batch],
    extra: Extra,
    batch_size: int,
    seed: int,
    epoch: int,
    augment: bool,
    symmetries: bool = True,
) -> tf.data.Dataset:
    """Batches in the order of the epoch; `observe` is given the turned stamps and a seed."""
    count, ny, nx = stamps.shape
    turned = augment and symmetries
    if turned and ny != nx:
        raise ParameterError(f"{caller}: only square stamps have eight symmetries, got {ny} x {nx}")
    for name, values in extra.items():
        if len(values) != count:
            raise ParameterError(f"{caller}: {name} must be of all {count} galaxies, got {len(values)}")
    # Captured by reference: one copy, whatever the number of epochs.
    images = tf.convert_to_tensor(stamps)
    others = {name: tf.convert_to_tensor(values) for name, values in extra.items()}
    order = np.random.default_rng([seed, epoch]).permutation(count) if augment else np.arange(count)
    stream = (seed * 1_000_003 + epoch) % 2**31

    def make(batch: tf.Tensor, indices: tf.Tensor) -> Batch:
        symmetry, observation = tf.unstack(tf.random.split(tf.stack([stream, tf.cast(batch, tf.int32)]), 2))
        chosen = tf.gather(images, indices)
        if turned:
            chosen = random_symmetry(chosen, symmetry)
        return {**observe(chosen, observation), **{name: tf.gather(values, indices) for name, values in others.items()}}

    batches = tf.data.Dataset.from_tensor_slices(order).batch(batch_size).enumerate()
    return batches.map(make, num_parallel_calls=1).prefetch(2)
