"""Whitening: images of correlated noise as images of independent unit noise, whatever pixels are masked.

Pixels are taken row by row. From each, what its used neighbours among the pixels before it predict of it is
subtracted, and the rest is divided by its standard deviation (Vecchia 1988, J. R. Stat. Soc. B 50, 297; in an image
without masks or borders this is the causal factor of the inverse power spectrum, Whittle 1954, Biometrika 41, 434).

Every prediction is exact for the neighbours that it has, at borders and around bad pixels too. So each whitened pixel
has exactly unit variance, chi^2 of n pixels has exactly the expectation n, and the log-determinant of the covariance is
a constant of mask and noise, which no fit needs. What is approximate is that only the 28 nearest neighbours predict a
pixel. For noise as drizzling makes it, whitened pixels correlate by less than a percent, and the errors of a linear fit
are stated right, and as small as the exact covariance would make them, to half a percent; where the power spectrum
vanishes somewhere, to less than a tenth.

A covariance that is diagonal in Fourier space would be simpler. But it takes a masked pixel for one that was seen to be
zero, and the left border for a neighbour of the right one. In the same image, with 9 % of its pixels masked, it made
chi^2 20 % too large, and stated errors up to 43 % too small.
"""

from typing import Any

import numpy as np
import tensorflow as tf
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

REACH = 4
"""Pixels along x and y within which neighbours predict a pixel, however far its noise is correlated: they screen those
behind them."""

_AT_ONCE = 2048  # systems of equations that are solved together: 28 x 28 numbers each


def whitening_taps(
    noise: NDArray[np.floating], mask: NDArray[np.bool_], correlation: NDArray[np.floating] | None = None
) -> NDArray[np.float64]:
    """The weights by which `whiten` whitens.

    Args:
        noise: 1 sigma per pixel, `[ny, nx]`.
        mask: `[ny, nx]`, True = used.
        correlation: of the noise over sigma, `[ky, kx]` with its centre in the middle, as `Observation` checks it;
            None for white noise.

    Returns:
        `[taps, ny, nx]`: of the pixel itself and of its neighbours before it, 0 for those that are not used. For white
        noise there is one tap, 1 / noise.

    Example:
        >>> taps = whitening_taps(np.ones((5, 6)), np.ones((5, 6), bool), np.array([[0.3, 1.0, 0.3]]))
        >>> taps.shape, whitening_taps(np.ones((5, 6)), np.ones((5, 6), bool)).shape
        ((29, 5, 6), (1, 5, 6))
        >>> float(taps[0, 0, 0]), float(abs(taps[1:, 0, 0]).max())  # the first pixel has none before it
        (1.0, 0.0)
    """
    weight = np.where(mask, 1 / noise, 0.0)
    if correlation is None:
        return weight[None]
    kernels = _kernels(mask, correlation)
    padded = np.pad(weight, REACH)
    # A neighbour's tap carries the neighbour's own weight: correlations are those of the noise over its sigma.
    return np.stack([_shifted(padded, place, mask.shape) * kernels[..., k] for k, place in enumerate(_PLACES)])


def taps_for(correlation: NDArray[np.floating] | None) -> int:
    """How many taps there are: observations with equal numbers can share a compiled program."""
    return 1 if correlation is None else len(_PLACES)


def whiten(images: tf.Tensor, taps: tf.Tensor) -> tf.Tensor:
    """Images `[...batch, ny, nx]` divided by the noise and whitened; 0 where pixels are not used.

    Linear in the images, and differentiable in them alone.

    Args:
        images: in the unit of the noise.
        taps: of `whitening_taps`, of the images' type; or `[batch, taps, ny, nx]`, others for each image of the first
            axis of images `[batch, components, ny, nx]`.

    Example:
        >>> taps = whitening_taps(np.full((1, 3), 2.0), np.array([[True, False, True]]))
        >>> whiten(tf.constant([[1.0, 1.0, 3.0]]), tf.constant(taps, tf.float32)).numpy()
        array([[0.5, 0. , 1.5]], dtype=float32)
    """
    taps = tf.convert_to_tensor(taps)
    size = taps.shape[-2:]
    rows = tf.unstack(taps if taps.shape.rank == 3 else taps[:, :, None], axis=-3 if taps.shape.rank == 3 else 1)
    if len(rows) == 1:
        return images * rows[0]

    # Left to itself, reverse mode would pad and add up one image for each tap.
    @tf.custom_gradient
    def apply(images: tf.Tensor):
        def adjoint(upstream: tf.Tensor) -> tf.Tensor:
            backwards = [(-dy, -dx) for dy, dx in _PLACES]
            turned = [_shifted(_padded(row), place, size) for row, place in zip(rows, backwards, strict=True)]
            return _weighted_sum(upstream, turned, backwards)

        return _weighted_sum(images, rows, _PLACES), adjoint

    return apply(images)


def deflate(white: tf.Tensor, modes: tf.Tensor) -> tf.Tensor:
    """Whitened images `[...batch, pixels]` as they are white once more, if some patterns in them vary beside the noise.

    With a covariance of 1 + sum v_k q_k q_k^T its inverse root is 1 - sum (1 - 1 / sqrt(1 + v_k)) q_k q_k^T.

    Args:
        white: images of unit noise.
        modes: `[n, pixels]`, sqrt(1 - 1 / sqrt(1 + v_k)) q_k with orthonormal patterns q_k of variances v_k; or
            `[batch, n, pixels]`, others for each image of the first axis of images `[batch, components, pixels]`.

    Example:
        >>> modes = tf.constant([[np.sqrt(1 - 1 / np.sqrt(1 + 3.0)), 0.0]])  # the first pixel has a variance of 4
        >>> deflate(tf.constant([[2.0, 2.0]], tf.float64), modes).numpy()
        array([[1., 2.]])
    """
    modes = tf.convert_to_tensor(modes)
    if modes.shape[-2] == 0:
        return white
    if modes.shape.rank == 3:
        return white - tf.matmul(tf.matmul(white, modes, transpose_b=True), modes)
    return white - tf.tensordot(tf.tensordot(white, modes, [[-1], [1]]), modes, 1)


# (dy, dx) of the pixel itself, and of those before it by rows that lie within a disc: corners tell the least.
_PLACES = [
    (0, 0),
    *(
        (dy, dx)
        for dy in range(-REACH, 1)
        for dx in range(-REACH, REACH + 1)
        if (dy, dx) < (0, 0) and dy**2 + dx**2 <= REACH**2 + 1
    ),
]


def _weighted_sum(images: tf.Tensor, weights: list[tf.Tensor], places: list[tuple[int, int]]) -> tf.Tensor:
    # As in `tflens.psf`: what is used many times is written out first, or XLA computes it anew for every tap.
    padded = _padded(images + 0 * images[..., :1, :1])
    size = images.shape[-2:]
    return tf.add_n([weight * _shifted(padded, place, size) for weight, place in zip(weights, places, strict=True)])


def _padded(images: tf.Tensor) -> tf.Tensor:
    return tf.pad(images, [[0, 0]] * (len(images.shape) - 2) + [[REACH, REACH]] * 2)


def _shifted(padded: Any, place: tuple[int, int], size: Any) -> Any:
    """What lies (dy, dx) from each pixel of padded images, arrays and tensors alike."""
    (dy, dx), (ny, nx) = place, size
    return padded[..., REACH + dy : REACH + dy + ny, REACH + dx : REACH + dx + nx]


def _kernels(mask: NDArray[np.bool_], correlation: NDArray[np.floating]) -> NDArray[np.float64]:
    """Of each pixel over its sigma, what it and those before it are multiplied by, `[ny, nx, taps]`.

    Pixels with the same pattern of used neighbours, as most have, share theirs.
    """
    places = np.array(_PLACES)
    windows = sliding_window_view(np.pad(mask, REACH), (2 * REACH + 1,) * 2)
    used = windows[..., places[:, 0] + REACH, places[:, 1] + REACH].reshape(mask.size, -1)
    _, first, pattern = np.unique(np.packbits(used, axis=1), axis=0, return_index=True, return_inverse=True)
    among = _correlations(correlation, places)
    found = [_predictions(used[first[i : i + _AT_ONCE]], among) for i in range(0, len(first), _AT_ONCE)]
    return np.concatenate(found)[pattern.reshape(mask.shape)]


def _predictions(used: NDArray[np.bool_], among: NDArray[np.float64]) -> NDArray[np.float64]:
    """`_kernels` for given patterns `[patterns, taps]` of used neighbours, correlated `among` each other."""
    both = used[:, :, None] & used[:, None, :]
    # Of those that are not used, what is left is the identity: they predict nothing.
    covariance = np.where(both, among, np.eye(len(among)))
    neighbours, own = covariance[:, 1:, 1:], covariance[:, 1:, 0]
    prediction = np.linalg.solve(neighbours, own[..., None])[..., 0]
    sigma = np.sqrt(1 - np.sum(prediction * own, -1, keepdims=True))
    kernels = np.concatenate([np.ones_like(sigma), -prediction], 1) / sigma
    return np.where(used[:, :1], kernels, 0.0)


def _correlations(correlation: NDArray[np.floating], places: NDArray[np.integer]) -> NDArray[np.float64]:
    """Of the pixels at `places` among each other, `[taps, taps]`."""
    half = np.array(correlation.shape) // 2
    lag = places[:, None] - places[None]
    inside = (np.abs(lag) <= half).all(-1)
    y, x = np.moveaxis(np.clip(lag + half, 0, 2 * half), -1, 0)
    among = np.where(inside, correlation[y, x], 0.0)
    # As read from a file, the two halves may differ in their last digits, and the centre from 1.
    among = (among + among.T) / 2
    np.fill_diagonal(among, 1.0)
    return among
