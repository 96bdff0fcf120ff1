"""The pixel grid: where on the sky each pixel, and each sub-pixel sample, lies."""

from dataclasses import dataclass

import numpy as np

from tflens.errors import ParameterError


@dataclass(frozen=True)
class PixelGrid:
    """A regular grid of square pixels.

    Pixel [0, 0] is the bottom-left one, x grows to the right (along the last axis), y upwards. Sky
    orientation is no business of the grid: it sits in the observation's WCS.

    Args:
        shape: number of pixels `(ny, nx)`.
        pixel_scale: side of a pixel, arcsec.
        center: coordinates `(x, y)` of the middle of the image, arcsec.

    Raises:
        ParameterError: the shape is not two positive integers, the pixel scale is not positive and finite, or the
            centre is not two finite numbers.

    Example:
        >>> grid = PixelGrid(shape=(2, 3), pixel_scale=0.1)
        >>> x, y = grid.coordinates()
        >>> x.shape, y.shape
        ((1, 3), (2, 1))
        >>> [round(float(v), 3) for v in x[0]]
        [-0.1, 0.0, 0.1]
    """

    shape: tuple[int, int]
    pixel_scale: float
    center: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        if np.shape(self.shape) != (2,) or not all(_is_whole(n, 1) for n in self.shape):
            raise ParameterError(f"PixelGrid.shape must be two positive integers (ny, nx), got {self.shape!r}")
        if not (np.isfinite(self.pixel_scale) and self.pixel_scale > 0):
            raise ParameterError(
                f"PixelGrid.pixel_scale must be positive and finite (arcsec per pixel), got {self.pixel_scale!r}"
            )
        if np.shape(self.center) != (2,) or not np.isfinite(self.center).all():
            raise ParameterError(f"PixelGrid.center must be two finite numbers (x, y), arcsec, got {self.center!r}")
        object.__setattr__(self, "shape", (int(self.shape[0]), int(self.shape[1])))
        object.__setattr__(self, "pixel_scale", float(self.pixel_scale))
        object.__setattr__(self, "center", (float(self.center[0]), float(self.center[1])))

    @property
    def pixel_area(self) -> float:
        """Area of a pixel, arcsec^2."""
        return self.pixel_scale**2

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Outer edges `(left, right, bottom, top)`, arcsec, as matplotlib's `imshow` wants them."""
        half_y, half_x = (n * self.pixel_scale / 2 for n in self.shape)
        x, y = self.center
        return (x - half_x, x + half_x, y - half_y, y + half_y)

    def cutout(self, rows: slice, columns: slice) -> "PixelGrid":
        """The part of the grid that `image[rows, columns]` covers; its pixels keep their coordinates.

        Example:
            >>> PixelGrid((4, 6), 0.1).cutout(slice(0, 2), slice(3, 6)).center
            (0.15, -0.1)
        """
        x, y = self.coordinates()
        x, y = x[0, columns], y[rows, 0]
        if x.size == 0 or y.size == 0:
            raise ParameterError(f"cutout {rows}, {columns} of a grid of shape {self.shape} is empty")
        center = (round((x[0] + x[-1]) / 2, 12), round((y[0] + y[-1]) / 2, 12))
        return PixelGrid((y.size, x.size), self.pixel_scale, center)

    def coordinates(self, supersampling: int = 1, padding: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Coordinates of pixel (or sub-pixel) centres, arcsec, float64.

        Args:
            supersampling: samples along each side of a pixel.
            padding: whole pixels added on every side of the frame.

        Returns:
            `x` of shape `[1, nx * s]` and `y` of shape `[ny * s, 1]`: kept apart because they broadcast,
            which is faster than two full images.

        Raises:
            ParameterError: `supersampling` is not an integer >= 1, or `padding` not an integer >= 0.
        """
        if not (_is_whole(supersampling, 1) and _is_whole(padding, 0)):
            raise ParameterError(
                "supersampling must be an integer >= 1 and padding an integer >= 0, "
                f"got supersampling={supersampling!r}, padding={padding!r}"
            )

        def axis(n: int, middle: float) -> np.ndarray:
            samples = (n + 2 * padding) * supersampling
            return (np.arange(samples) - (samples - 1) / 2) * (self.pixel_scale / supersampling) + middle

        ny, nx = self.shape
        return axis(nx, self.center[0])[None, :], axis(ny, self.center[1])[:, None]


def require_window(extent: tuple[float, float, float, float], step: float) -> None:
    """Refuses a window `(left, right, bottom, top)` or a step in it, both arcsec, that no search can use.

    Raises:
        ParameterError: the window is not finite or empty, or the step is not positive or above half its shorter side.

    Example:
        >>> require_window((-1.0, 1.0, -2.0, 2.0), step=0.1)
    """
    left, right, bottom, top = extent
    if not (np.isfinite(extent).all() and left < right and bottom < top):
        raise ParameterError(
            f"extent must be (left, right, bottom, top) with left < right, bottom < top, got {extent!r}"
        )
    if not 0 < step <= min(right - left, top - bottom) / 2:
        raise ParameterError(
            f"step must be positive and at most half the window's shorter side, got {step!r} arcsec "
            f"for extent={extent!r}"
        )


def _is_whole(value: object, least: int) -> bool:
    return isinstance(value, int | np.integer) and value >= least
