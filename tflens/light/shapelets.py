"""Cartesian shapelets."""

import math
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from tflens._tfp import tfd
from tflens.errors import ParameterError
from tflens.light.light_set import LightSet
from tflens.parameters import Parameter, PriorFactory, log_normal, normal
from tflens.profile import on_pixels

_MOST = 50  # beyond this order e^(-t^2/2) rounds to zero in float32 where the polynomials still have weight


class Shapelets(LightSet):
    """Gauss-Hermite functions sum amp_i phi_n1((x - center_x) / beta) phi_n2((y - center_y) / beta), n1 + n2 <= n_max.

    phi_n(t) = (2^n sqrt(pi) n!)^(-1/2) H_n(t) exp(-t^2 / 2), orthonormal in t: Refregier 2003 (MNRAS 338, 35, eq. 1)
    without the factor 1 / beta, and in the order of lenstronomy's SHAPELETS, (n1, n2) = (0, 0), (1, 0), (0, 1), (2, 0),
    (1, 1), (0, 2), ... Brightness may be negative. The default prior of the amplitudes is normal: 1 +- 0.5 for the
    Gaussian of order 0, 0 +- 0.5 / (1 + n1 + n2) for the others, whose sign is free.

    Args:
        n_max: highest order, which makes (n_max + 1) (n_max + 2) / 2 components.

    Raises:
        ParameterError: `n_max` is not an integer from 1 to 50.

    Example:
        >>> import tensorflow as tf
        >>> light = Shapelets(n_max=1)
        >>> light.orders
        ((0, 0), (1, 0), (0, 1))
        >>> shape = {"beta": 0.5, "center_x": 0.0, "center_y": 0.0}
        >>> amplitudes = {"amp_0": 1.0, "amp_1": 0.1, "amp_2": 3.0}
        >>> value = light.brightness(tf.constant([[0.5]]), tf.constant([[0.0]]), **shape, **amplitudes)
        >>> round(float(value[0, 0]) * math.sqrt(math.pi * math.e), 5)  # 1 + 0.1 sqrt(2)
        1.14142
    """

    shape: ClassVar[tuple[Parameter, ...]] = (
        Parameter(("beta",), "arcsec", "scale: width of the Gaussian of order 0", log_normal(0.2, 0.5)),
        Parameter(("center_x",), "arcsec", "centre", normal(0.0, 0.3)),
        Parameter(("center_y",), "arcsec", "centre", normal(0.0, 0.3)),
    )

    def __init__(self, n_max: int) -> None:
        if not isinstance(n_max, int | np.integer) or not 1 <= n_max <= _MOST:
            raise ParameterError(
                f"Shapelets.n_max must be an integer from 1 to {_MOST} (for order 0 take Gaussian), got {n_max!r}"
            )
        self.n_max = int(n_max)
        self.orders = tuple((order - n2, n2) for order in range(self.n_max + 1) for n2 in range(order + 1))
        super().__init__(self.shape, len(self.orders), _fading(self.orders))

    def get_config(self) -> dict[str, Any]:
        return {"n_max": self.n_max}

    def basis(self, x, y, *, beta, center_x, center_y):
        along_x, along_y = self._along_axes(x, y, beta, center_x, center_y)
        return [along_x[n1] * along_y[n2] for n1, n2 in self.orders]

    def brightness(self, x, y, **parameters):
        shape, amplitudes = self._split(parameters)
        along_x, along_y = self._along_axes(x, y, **shape)
        terms = dict(zip(self.orders, on_pixels(*amplitudes, like=x), strict=True))
        # First over n1: on a grid, where x has one row, that costs nothing and leaves n_max + 1 terms for each pixel.
        rows = [
            tf.add_n([terms[n1, n2] * along_x[n1] for n1 in range(self.n_max + 1 - n2)]) for n2 in range(self.n_max + 1)
        ]
        return tf.add_n([row * along_y[n2] for n2, row in enumerate(rows)])

    def flux(self, *, beta, center_x=None, center_y=None, **amplitudes):
        shape = {"beta": beta, "center_x": center_x, "center_y": center_y}
        _, amplitudes = self._split(shape | amplitudes)
        unit = [_integral(n1) * _integral(n2) for n1, n2 in self.orders]
        return beta**2 * sum(a * u for a, u in zip(amplitudes, unit, strict=True) if u)

    def _along_axes(self, x, y, beta, center_x, center_y) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        beta, center_x, center_y = on_pixels(beta, center_x, center_y, like=x)
        return hermite_functions((x - center_x) / beta, self.n_max), hermite_functions(
            (y - center_y) / beta, self.n_max
        )


def hermite_functions(t: tf.Tensor, n_max: int) -> list[tf.Tensor]:
    """phi_0 ... phi_n_max at t, orthonormal on the real line.

    phi_n = sqrt(2 / n) t phi_(n-1) - sqrt((n-1) / n) phi_(n-2), stable upwards; nothing overflows, for the exponential
    is there from the start.
    """
    functions = [math.pi**-0.25 * tf.exp(-0.5 * t**2)]
    for n in range(1, n_max + 1):
        value = math.sqrt(2 / n) * t * functions[-1]
        functions.append(value - math.sqrt((n - 1) / n) * functions[-2] if n > 1 else value)
    return functions


def _integral(n: int) -> float:
    """Integral of phi_n over the real line (Refregier 2003); 0 for odd n."""
    return 0.0 if n % 2 else math.sqrt(2.0 ** (1 - n) * math.sqrt(math.pi) * math.comb(n, n // 2))


def _fading(orders: tuple[tuple[int, int], ...]) -> PriorFactory:
    scale = [0.5 / (1 + n1 + n2) for n1, n2 in orders]
    loc = [1.0, *(0.0 for _ in orders[1:])]
    return lambda dtype: tfd.MultivariateNormalDiag(tf.constant(loc, dtype), tf.constant(scale, dtype))
