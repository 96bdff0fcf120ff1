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
        ParameterError: the shape is not two positive integers, or the pixel scale is not positive and finite.

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
        if len(self.shape) != 2 or any(int(n) != n or n < 1 for n in self.shape):
            raise ParameterError(f"PixelGrid.shape must be two positive integers (ny, nx), got {self.shape!r}")
        if not (np.isfinite(self.pixel_scale) and self.pixel_scale > 0):
            raise ParameterError(
                f"PixelGrid.pixel_scale must be positive and finite (arcsec per pixel), got {self.pixel_scale!r}"
            )
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

    def coordinates(self, supersampling: int = 1, padding: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Coordinates of pixel (or sub-pixel) centres, arcsec, float64.

        Args:
            supersampling: samples along each side of a pixel.
            padding: whole pixels added on every side of the frame.

        Returns:
            `x` of shape `[1, nx * s]` and `y` of shape `[ny * s, 1]`: kept apart because they broadcast,
            which is faster than two full images.
        """
        if supersampling < 1 or padding < 0:
            raise ParameterError(
                f"supersampling must be >= 1 and padding >= 0, got supersampling={supersampling}, padding={padding}"
            )

        def axis(n: int, middle: float) -> np.ndarray:
            samples = (n + 2 * padding) * supersampling
            return (np.arange(samples) - (samples - 1) / 2) * (self.pixel_scale / supersampling) + middle

        ny, nx = self.shape
        return axis(nx, self.center[0])[None, :], axis(ny, self.center[1])[:, None]
