"""Real galaxies, never trained on: how well a model fits stamps whose noise is correlated.

The stamps were deconvolved from their own PSF and drawn with a common Gaussian one, which leaves their noise smooth
over a few pixels. Its correlation is measured where the stamps are empty; residuals are then expressed in the
eigenvectors of its covariance, and those that hold next to no noise (and no signal, for they lie beyond the PSF) are
left out.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import galsim
import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike, NDArray

from tflens.errors import ParameterError
from tflens.galaxies.adam import adam_minimum
from tflens.galaxies.source import GalaxyModel

Array = NDArray[np.floating]

BORDER = 1 / 8
"""Width of the frame of a stamp in which its noise is measured, as a share of its side."""

REACH = 6
"""Pixels over which the noise is taken to be correlated."""

FLOOR = 0.01
"""Smallest eigenvalue of the noise's covariance that is used, as a share of the largest."""


@dataclass(frozen=True)
class RealStamps:
    """Stamps of real galaxies with one Gaussian PSF.

    Args:
        images: `[N, n, n]`, background subtracted, sampled at the centres of the pixels (the PSF includes the pixel).
        ident: number of each galaxy, `[N]`.
        mag, snr: `[N]`, for the table.
        pixel_scale: arcsec.
        psf_fwhm: of the Gaussian, arcsec.
    """

    images: Array
    ident: NDArray[np.integer]
    mag: Array
    snr: Array
    pixel_scale: float
    psf_fwhm: float


@dataclass(frozen=True)
class RealFits:
    """Fits of stamps: whitened chi^2 per pixel with u found by optimisation and from the encoder `[N]`, the images
    `[N, n, n]` of data and model, the noise `[N]` per pixel, |u|^2/D `[N]`, and the number of independent pixels."""

    chi2: Array
    chi2_encoder: Array
    image: Array
    model: Array
    sigma: Array
    u2: Array
    modes: int


def load_real_stamps(path: str | Path) -> RealStamps:
    """Stamps from an .npz file with `images, ident, mag, snr, pixel_scale, psf_fwhm`.

    So galaxies that were all brought to one pixel scale and one round PSF suit. Images of single galaxies or of a
    field, with a noise map and a PSF of their own (`image, psf` ...), or without a pixel scale, do not.

    Raises:
        ParameterError: the file is missing, is no .npz file, lacks one of the arrays, or does not have an entry of each
            for every galaxy.
    """
    names = ("images", "ident", "mag", "snr", "pixel_scale", "psf_fwhm")
    try:
        with np.load(path, allow_pickle=False) as file:
            found = {name: file[name] for name in names if name in file}
            there = ", ".join(file)
    except (OSError, ValueError, AttributeError) as error:
        raise ParameterError(f"{path} cannot be read as an .npz file of stamps: {error}") from None
    missing = [name for name in names if name not in found]
    if missing:
        raise ParameterError(
            f"{path} lacks {', '.join(missing)} (it has {there}); stamps need {', '.join(names)}: galaxies on one "
            "pixel scale, seen through one round PSF"
        )
    images, ident, mag, snr, pixel_scale, psf_fwhm = (found[name] for name in names)
    if images.ndim != 3 or any(np.shape(each) != images.shape[:1] for each in (ident, mag, snr)):
        raise ParameterError(
            f"{path}: images must be [N, n, n], and ident, mag and snr [N]; their shapes are {images.shape}, "
            f"{ident.shape}, {mag.shape}, {snr.shape}"
        )
    return RealStamps(images.astype(np.float64), ident, mag, snr, float(pixel_scale), float(psf_fwhm))


def fit_real_stamps(
    model: GalaxyModel,
    stamps: RealStamps,
    steps: int = 400,
    starts: int = 3,
    seed: int = 0,
    report: Callable[[str], None] = lambda message: None,
) -> RealFits:
    """Fit every stamp by u, position and flux: minimum of the whitened chi^2 + |u|^2, by Adam.

    Args:
        model: of the galaxies.
        stamps: of the model's stamp size and pixel scale.
        steps: of Adam, with a cosine schedule.
        starts: u = 0, and draws of the prior for the others; the best of them counts.
        seed: of the starts.
        report: called with a line for each step that begins.

    Raises:
        ParameterError: the stamps are not of the model's size or pixel scale, or their PSF is sharper than what the
            model draws.
    """
    side = model.stamp_size
    if stamps.images.shape[1:] != (side, side) or abs(stamps.pixel_scale - model.pixel_scale) > 1e-6:
        raise ParameterError(
            f"fit_real_stamps: the model draws {side} x {side} pixels of {model.pixel_scale} arcsec, the stamps are "
            f"{stamps.images.shape[1:]} of {stamps.pixel_scale}"
        )
    sigma = border_noise(stamps.images)
    report("correlation of the noise")
    correlation = noise_correlation(stamps.images / sigma[:, None, None])
    sigma = border_noise(stamps.images, correlation=correlation)
    whitening = Whitening(correlation, (side, side))
    observe = _Observer(model, stamps, whitening)
    data = (stamps.images / sigma[:, None, None]).astype(np.float32)
    report(f"u by optimisation, {whitening.modes} independent pixels of {side**2}")
    best = None
    for start in range(starts):
        found = _optimise(model, observe, tf.constant(data), steps, start, seed)
        best = found if best is None else _better(best, found)
    flux = np.maximum(best.flux, 1) * sigma  # the encoder divides by it
    mean, _ = model.encode((stamps.images / flux[:, None, None]).astype(np.float32), (sigma / flux).astype(np.float32))
    encoded = observe.fit(model.decode(mean), tf.constant(best.shift), data)
    return RealFits(
        chi2=best.chi2 / whitening.modes,
        chi2_encoder=encoded[0].numpy() / whitening.modes,
        image=stamps.images,
        model=best.image * sigma[:, None, None],
        sigma=sigma,
        u2=np.mean(best.u**2, axis=1),
        modes=whitening.modes,
    )


def border_noise(images: ArrayLike, border: float = BORDER, correlation: ArrayLike | None = None) -> Array:
    """Noise per pixel of stamps `[N, ny, nx]`, `[N]`, from their frames; robust against a neighbour in them.

    It is the median absolute deviation times 1.4826. With the correlation of the noise known, that of the independent
    combinations of the pixels in the frame, which are many more than the patches of the noise: to a few per cent.

    Example:
        >>> noise = np.random.default_rng(1).normal(0, 3.0, size=(1, 200, 150))
        >>> round(float(border_noise(noise)[0]), 1)
        3.0
    """
    images = np.asarray(images, np.float64)
    frame = _frame(images.shape[1:], border)
    pixels = images[:, frame]
    pixels = pixels - np.median(pixels, axis=1, keepdims=True)
    if correlation is not None:
        pixels = pixels @ _whitening(correlation, frame, FLOOR).T
    return 1.4826 * np.median(np.abs(pixels), axis=1)


def noise_correlation(images: ArrayLike, border: float = BORDER, reach: int = REACH) -> Array:
    """Mean product of two empty pixels as a function of their separation, for stamps in units of their noise.

    Empty are the pixels of the frame that are within 4 sigma of its median.

    Args:
        images: `[N, ny, nx]`.
        border: width of the frame, as a share of the stamp's smaller side.
        reach: largest separation along x and y; beyond it there is no correlation.

    Returns:
        `[2 reach + 1, 2 reach + 1]`, point-symmetric about its centre, where it is 1.

    Example:
        >>> noise = np.random.default_rng(1).normal(size=(20, 40, 50))
        >>> found = noise_correlation(noise, reach=1)
        >>> float(found[1, 1]), bool(abs(found[0, 1]) < 0.03)
        (1.0, True)
    """
    images = np.asarray(images, np.float64)
    frame = _frame(images.shape[1:], border)
    centred = images - np.median(images[:, frame], axis=1)[:, None, None]
    empty = frame & (np.abs(centred) < 4)
    pixels = np.where(empty, centred, 0.0)
    correlation = np.empty((2 * reach + 1,) * 2)
    ny, nx = images.shape[1:]
    for dy in range(reach + 1):
        for dx in range(-reach, reach + 1):
            first = np.s_[:, dy:, max(dx, 0) : nx + min(dx, 0)]
            second = np.s_[:, : ny - dy, max(-dx, 0) : nx + min(-dx, 0)]
            value = np.sum(pixels[first] * pixels[second]) / np.sum(empty[first] & empty[second])
            correlation[reach + dy, reach + dx] = correlation[reach - dy, reach - dx] = value
    return correlation / correlation[reach, reach]


class Whitening:
    """Linear combinations of the pixels whose noise is independent and of unit variance.

    The eigenvectors of the covariance, each divided by the root of its eigenvalue. Those with less than `floor` of the
    largest eigenvalue are left out: what noise they hold is not known well enough to divide by it.

    Args:
        correlation: `[2 reach + 1, 2 reach + 1]` as a function of the separation, 1 at its centre.
        shape: `(ny, nx)` of the images.
        floor: smallest eigenvalue kept, as a share of the largest.

    Attributes:
        matrix: `[modes, ny * nx]`.

    Example:
        >>> Whitening(np.ones((1, 1)), (3, 4))(np.full((2, 3, 4), 2.0)).shape  # white noise: nothing to do
        TensorShape([2, 12])
    """

    def __init__(self, correlation: ArrayLike, shape: tuple[int, int], floor: float = FLOOR) -> None:
        self.matrix = _whitening(correlation, np.ones(shape, bool), floor)

    @property
    def modes(self) -> int:
        return len(self.matrix)

    def __call__(self, images: ArrayLike) -> tf.Tensor:
        """Images `[...batch, ny, nx]` in units of their noise to `[...batch, modes]`."""
        images = tf.convert_to_tensor(images)
        flat = tf.reshape(images, tf.concat([tf.shape(images)[:-2], [self.matrix.shape[1]]], 0))
        return tf.linalg.matmul(flat, tf.constant(self.matrix, images.dtype), transpose_b=True)


@dataclass(frozen=True)
class _Fit:
    u: Array
    shift: Array
    flux: Array
    chi2: Array
    image: Array


class _Observer:
    """From decoded galaxies to stamps: shift, PSF, and the flux of least chi^2."""

    def __init__(self, model: GalaxyModel, stamps: RealStamps, whitening: Whitening) -> None:
        if stamps.psf_fwhm <= model.resolution:
            raise ParameterError(
                f"fit_real_stamps: the PSF of the stamps, FWHM {stamps.psf_fwhm} arcsec, must be wider than what the "
                f"model's galaxies are already convolved with, {model.resolution}"
            )
        side, scale = model.stamp_size, model.pixel_scale
        # Decoded galaxies hold a Gaussian of the model's resolution and the pixel; the stamps' PSF holds both.
        kernel = galsim.Convolve(
            [
                galsim.Gaussian(fwhm=np.sqrt(stamps.psf_fwhm**2 - model.resolution**2)),
                galsim.Deconvolve(galsim.Pixel(scale)),
            ]
        ).drawImage(nx=side // 2 + 1, ny=side // 2 + 1, scale=scale, method="no_pixel", dtype=float)
        self._padded = side + side // 2
        offset = side // 4
        frequency = np.fft.fftfreq(self._padded), np.fft.rfftfreq(self._padded)
        center = np.exp(2j * np.pi * offset * (frequency[0][:, None] + frequency[1][None, :]))
        self._transform = (np.fft.rfft2(kernel.array / kernel.array.sum(), [self._padded] * 2) * center).astype(
            np.complex64
        )
        self._frequency = [values.astype(np.float32) for values in frequency]
        self._side = side
        self._whiten = whitening

    def __call__(self, galaxies: tf.Tensor, shift: tf.Tensor) -> tf.Tensor:
        """Galaxies `[N, n, n]` before the PSF, shift (x, y) `[N, 2]` in pixels."""
        fy, fx = self._frequency
        phase = -2 * np.pi * (shift[:, 1, None, None] * fy[:, None] + shift[:, 0, None, None] * fx[None, :])
        product = tf.signal.rfft2d(galaxies, [self._padded] * 2) * self._transform
        product *= tf.complex(tf.cos(phase), tf.sin(phase))
        return tf.signal.irfft2d(product, [self._padded] * 2)[:, : self._side, : self._side]

    def fit(self, galaxies: tf.Tensor, shift: tf.Tensor, data: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """chi^2 and flux of least chi^2 `[N]`, and the fitted images `[N, n, n]`."""
        images = self(galaxies, shift)
        wanted, found = self._whiten(data), self._whiten(images)
        flux = tf.reduce_sum(wanted * found, -1) / tf.reduce_sum(found**2, -1)
        chi2 = tf.reduce_sum((wanted - flux[:, None] * found) ** 2, -1)
        return chi2, flux, flux[:, None, None] * images


def _optimise(model: GalaxyModel, observe: _Observer, data: tf.Tensor, steps: int, start: int, seed: int) -> _Fit:
    count = data.shape[0]
    begin = tf.random.stateless_normal([count, model.latent_dim], [seed, start]) * (0.0 if start == 0 else 1.0)

    def loss(u: tf.Tensor, shift: tf.Tensor) -> tf.Tensor:
        chi2, _, _ = observe.fit(model.generate(u), shift, data)
        return tf.reduce_sum(chi2) + tf.reduce_sum(u**2)

    u, shift = adam_minimum(loss, [begin, tf.zeros([count, 2])], steps)
    chi2, flux, images = observe.fit(model.generate(u), shift, data)
    return _Fit(*(values.numpy() for values in (u, shift, flux, chi2, images)))


def _better(a: _Fit, b: _Fit) -> _Fit:
    """The one of lower chi^2 + |u|^2, galaxy by galaxy."""
    chosen = b.chi2 + np.sum(b.u**2, 1) < a.chi2 + np.sum(a.u**2, 1)

    def choose(first: Array, second: Array) -> Array:
        return np.where(chosen.reshape(-1, *[1] * (first.ndim - 1)), second, first)

    return _Fit(*(choose(getattr(a, name), getattr(b, name)) for name in ("u", "shift", "flux", "chi2", "image")))


def _frame(shape: tuple[int, int], border: float) -> NDArray[np.bool_]:
    width = max(round(border * min(shape)), 1)
    frame = np.ones(shape, bool)
    frame[width:-width, width:-width] = False
    return frame


def _whitening(correlation: ArrayLike, used: NDArray[np.bool_], floor: float) -> Array:
    """`[modes, pixels]` for the pixels in use, `[ny, nx]`, a pattern that looks the same upside down."""
    values, vectors = _eigenvectors(_covariance(np.asarray(correlation, np.float64), used))
    kept = values > floor * values.max()
    return (vectors[:, kept] / np.sqrt(values[kept])).T


def _covariance(correlation: Array, used: NDArray[np.bool_]) -> Array:
    """`[pixels, pixels]` of stationary noise with that correlation."""
    ny, nx = used.shape
    reach = len(correlation) // 2
    full = np.zeros((2 * ny - 1, 2 * nx - 1))
    ry, rx = min(reach, ny - 1), min(reach, nx - 1)
    full[ny - 1 - ry : ny + ry, nx - 1 - rx : nx + rx] = correlation[
        reach - ry : reach + ry + 1, reach - rx : reach + rx + 1
    ]
    y, x = np.nonzero(used)
    return full[y[:, None] - y[None, :] + ny - 1, x[:, None] - x[None, :] + nx - 1]


def _eigenvectors(covariance: Array) -> tuple[Array, Array]:
    """Eigenvalues and the eigenvectors in columns, of a matrix that is the same when both axes are reversed.

    Its eigenvectors are symmetric or antisymmetric under that reversal, which leaves two problems of half the size.
    """
    size = len(covariance)
    if size % 2:
        return np.linalg.eigh(covariance)
    half = size // 2
    same, other = covariance[:half, :half], covariance[:half, : half - 1 : -1]
    values, vectors = [], []
    for sign in (1, -1):
        found, parts = np.linalg.eigh(same + sign * other)
        values.append(found)
        vectors.append(np.concatenate([parts, sign * parts[::-1]]) / np.sqrt(2))
    return np.concatenate(values), np.concatenate(vectors, axis=1)
