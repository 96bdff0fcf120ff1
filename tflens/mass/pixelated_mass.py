"""Lenses given by the pixels of a map: of the potential, or of the convergence."""

from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from tflens.errors import ParameterError
from tflens.mass.base import MassProfile
from tflens.parameters import Parameter, normal
from tflens.profile import on_pixels


class PixelatedPotential(MassProfile):
    """A potential given on a grid, interpolated by a cubic spline.

    The spline goes through the pixels' centres and has two continuous derivatives; deflection and convergence are its
    exact gradient and half its Laplacian. Its ends are natural (no second derivative), and beyond the outermost
    centres it goes on linearly along each axis: the map should reach over all of the image.

    `image` (arcsec^2 at the pixels' centres) is either fixed, an argument of the constructor, or given with each call
    as a tensor `[...batch, ny, nx]`, such as a network's output or a set of free pixels.

    Args:
        pixel_scale: side of the map's pixels, arcsec.
        image: a fixed map, `[ny, nx]`, at least 2 pixels along each side.

    Raises:
        ParameterError: `pixel_scale` or `image` break these rules, or a call has no map.

    Example:
        >>> import tensorflow as tf
        >>> lens = PixelatedPotential(pixel_scale=0.5, image=[[0.0, 0.1, 0.2], [0.3, 0.4, 0.5]])
        >>> place = {"amp": 1.0, "center_x": 0.0, "center_y": 0.0}
        >>> alpha_x, alpha_y = lens.deflection(tf.constant([[0.3]]), tf.constant([[0.1]]), **place)
        >>> round(float(alpha_x[0, 0]), 5), round(float(alpha_y[0, 0]), 5)
        (0.2, 0.6)
    """

    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter(("amp",), "", "factor on the map", normal(1.0, 0.2)),
        Parameter(("center_x",), "arcsec", "centre of the map", normal(0.0, 0.1)),
        Parameter(("center_y",), "arcsec", "centre of the map", normal(0.0, 0.1)),
    )

    def __init__(self, pixel_scale: float, image: Any | None = None) -> None:
        name = type(self).__name__
        if not 0 < pixel_scale < float("inf"):
            raise ParameterError(f"{name}.pixel_scale must be positive and finite (arcsec), got {pixel_scale!r}")
        self.pixel_scale = float(pixel_scale)
        self.image = None if image is None else np.asarray(image, np.float64)
        if self.image is not None:
            if self.image.ndim != 2 or min(self.image.shape) < 2:
                raise ParameterError(f"{name}.image must be [ny, nx], both at least 2, got shape {self.image.shape}")
            if not np.isfinite(self.image).all():
                raise ParameterError(f"{name}.image must be finite, got {np.sum(~np.isfinite(self.image))} bad pixels")

    def get_config(self) -> dict[str, Any]:
        return {"pixel_scale": self.pixel_scale, "image": None if self.image is None else self.image.tolist()}

    def __repr__(self) -> str:
        shape = None if self.image is None else self.image.shape
        return f"{type(self).__name__}(pixel_scale={self.pixel_scale}, image of shape {shape})"

    def deflection(self, x, y, *, amp, center_x, center_y, image=None):
        (along_x, along_y), (pixels, amp) = self._spline(x, y, amp, center_x, center_y, image)
        amp = amp / self.pixel_scale
        return (
            amp * _product(pixels, along_x[1], along_y[0]),
            amp * _product(pixels, along_x[0], along_y[1]),
        )

    def potential(self, x, y, *, amp, center_x, center_y, image=None):
        (along_x, along_y), (pixels, amp) = self._spline(x, y, amp, center_x, center_y, image)
        return amp * _product(pixels, along_x[0], along_y[0])

    def convergence(self, x, y, *, amp, center_x, center_y, image=None):
        (along_x, along_y), (pixels, amp) = self._spline(x, y, amp, center_x, center_y, image)
        xx, yy = _product(pixels, along_x[2], along_y[0]), _product(pixels, along_x[0], along_y[2])
        return amp * (xx + yy) / (2 * self.pixel_scale**2)

    def _map(self, image: tf.Tensor) -> tf.Tensor:
        """The potential at the nodes of the spline, whose middle is the map's."""
        return image

    def _spline(self, x, y, amp, center_x, center_y, image):
        """Spline weights of every position along each axis; the 16 coefficients around it, and the factor on them."""
        if image is None and self.image is None:
            raise ParameterError(f"{self!r} has no map: give `image` to the constructor or with the call")
        amp, center_x, center_y = on_pixels(amp, center_x, center_y, like=x)
        x, y = (x - center_x) / self.pixel_scale, (y - center_y) / self.pixel_scale
        image = tf.constant(self.image, x.dtype) if image is None else tf.convert_to_tensor(image, dtype_hint=x.dtype)
        coefficients = _coefficients(self._map(image))
        ny, nx = (n - 2 for n in coefficients.shape[-2:])
        column, along_x = _weights(x + (nx - 1) / 2, nx)
        row, along_y = _weights(y + (ny - 1) / 2, ny)
        return (along_x, along_y), (_neighbours(coefficients, column, row), amp)


class PixelatedConvergence(PixelatedPotential):
    """A convergence given on a grid: square pixels, each of uniform convergence.

    The potential of all pixels is exact at the nodes of the grid (analytic potential of a square, zero-padded FFT) and
    interpolated between them as in `PixelatedPotential`, so that the deflection stays the exact gradient. The
    convergence, the spline's half Laplacian, therefore is a smoothed version of the map: it and the deflection of a
    smooth map converge with the square of the pixel. The nodes reach beyond the map by half its size on each side;
    farther out the potential goes on linearly.

    Args:
        pixel_scale: side of the map's pixels, arcsec.
        image: a fixed map of the convergence, `[ny, nx]`, at least 2 pixels along each side.

    Raises:
        ParameterError: as for `PixelatedPotential`.

    Example:
        >>> import tensorflow as tf
        >>> lens = PixelatedConvergence(pixel_scale=0.1, image=tf.ones([21, 21]))
        >>> place = {"amp": 1.0, "center_x": 0.0, "center_y": 0.0}
        >>> kappa = lens.convergence(tf.constant([[0.03]]), tf.constant([[0.0]]), **place)
        >>> round(float(kappa[0, 0]), 3)
        1.0
    """

    def _map(self, image: tf.Tensor) -> tf.Tensor:
        ny, nx = image.shape[-2:]
        margins = ny // 2, nx // 2
        shape = [n + 2 * m for n, m in zip((ny, nx), margins, strict=True)]
        # From the first node to the last pixel, both ways.
        full = [n + s - 1 for n, s in zip((ny, nx), shape, strict=True)]
        kernel = _square_potential(ny, nx, *margins, self.pixel_scale)
        transform = tf.constant(np.fft.rfft2(kernel), tf.complex128 if image.dtype == tf.float64 else tf.complex64)
        spectrum = tf.signal.rfft2d(image, full) * transform
        potential = tf.signal.irfft2d(spectrum, full)
        return potential[..., ny - 1 :, nx - 1 :]


def _square_potential(ny: int, nx: int, margin_y: int, margin_x: int, side: float) -> np.ndarray:
    """Potential of a square pixel of convergence 1, at all offsets of a node from a pixel."""

    def corner(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        # Second integral of ln(r) / pi. No corner lies at x = 0 or y = 0.
        return (x * y * (np.log(x**2 + y**2) - 3) + x**2 * np.arctan(y / x) + y**2 * np.arctan(x / y)) / (2 * np.pi)

    x = (np.arange(2 * (nx + margin_x) - 1) - (nx + margin_x - 1))[None] * side
    y = (np.arange(2 * (ny + margin_y) - 1) - (ny + margin_y - 1))[:, None] * side
    half = side / 2
    return (
        corner(x + half, y + half)
        - corner(x - half, y + half)
        - corner(x + half, y - half)
        + corner(x - half, y - half)
    )


def _coefficients(values: tf.Tensor) -> tf.Tensor:
    """Coefficients of the natural cubic B-spline through `[..., ny, nx]`, with one more beyond each edge."""
    to_rows, to_columns = (tf.constant(_spline_matrix(n), values.dtype) for n in values.shape[-2:])
    return tf.einsum("ij,...jk,lk->...il", to_rows, values, to_columns)


def _spline_matrix(n: int) -> np.ndarray:
    """The matrix `[n + 2, n]` from values to B-spline coefficients."""
    system = np.zeros([n + 2, n + 2])
    for i in range(n):
        system[i + 1, i : i + 3] = 1 / 6, 2 / 3, 1 / 6
    system[0, :3] = system[-1, -3:] = 1, -2, 1
    return np.linalg.solve(system, np.eye(n + 2)[:, 1:-1])


def _weights(position: tf.Tensor, n: int) -> tuple[tf.Tensor, tuple[list[tf.Tensor], ...]]:
    """First of the four coefficients at a position (in pixels), and their weights in value, slope and curvature."""
    inside = tf.clip_by_value(position, 0.0, n - 1.0)
    first = tf.clip_by_value(tf.floor(inside), 0.0, n - 2.0)
    t = inside - tf.stop_gradient(first)
    u = 1 - t
    value = [u**3 / 6, (3 * t - 6) * t**2 / 6 + 2 / 3, (3 * u - 6) * u**2 / 6 + 2 / 3, t**3 / 6]
    slope = [-(u**2) / 2, (1.5 * t - 2) * t, (2 - 1.5 * u) * u, t**2 / 2]
    curvature = [u, 3 * t - 2, 3 * u - 2, t]
    beyond = position - inside
    value = [v + beyond * s for v, s in zip(value, slope, strict=True)]
    return tf.cast(first, tf.int32), (value, slope, curvature)


def _neighbours(coefficients: tf.Tensor, column: tf.Tensor, row: tf.Tensor) -> tf.Tensor:
    """The 4 x 4 coefficients around each position, `[...batch, ny, nx, 16]`; packed first, so that one gather does."""
    height, width = (n - 3 for n in coefficients.shape[-2:])
    packed = tf.stack([coefficients[..., i : i + height, j : j + width] for i in range(4) for j in range(4)], axis=-1)
    # Clipped as integers: a position that is not a number would otherwise stop the whole batch.
    index = tf.clip_by_value(row, 0, height - 1) * width + tf.clip_by_value(column, 0, width - 1)
    batch = tf.broadcast_dynamic_shape(tf.shape(index)[:-2], tf.shape(coefficients)[:-2])
    pixels = tf.shape(index)[-2:]
    index = tf.reshape(tf.broadcast_to(index, tf.concat([batch, pixels], 0)), [-1, pixels[0] * pixels[1]])
    packed = tf.broadcast_to(packed, tf.concat([batch, tf.shape(packed)[-3:]], 0))
    found = tf.gather(tf.reshape(packed, [-1, height * width, 16]), index, axis=1, batch_dims=1)
    return tf.reshape(found, tf.concat([batch, pixels, [16]], 0))


def _product(pixels: tf.Tensor, along_x: list[tf.Tensor], along_y: list[tf.Tensor]) -> tf.Tensor:
    lines = [tf.add_n([pixels[..., 4 * i + j] * along_x[j] for j in range(4)]) for i in range(4)]
    return tf.add_n([line * weight for line, weight in zip(lines, along_y, strict=True)])
