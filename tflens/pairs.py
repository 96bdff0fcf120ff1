"""Complex numbers as pairs of real tensors: what XLA vectorises on a CPU, unlike its complex types."""

from collections.abc import Iterator
from dataclasses import dataclass

import tensorflow as tf

Real = tf.Tensor | float


@dataclass(frozen=True)
class Pair:
    """A complex number re + i im; every operation is written out in real arithmetic.

    Example:
        >>> product = Pair(1.0, 2.0) * Pair(3.0, -1.0)
        >>> product.re, product.im
        (5.0, 5.0)
    """

    re: Real
    im: Real

    def __iter__(self) -> Iterator[Real]:
        return iter((self.re, self.im))

    def __add__(self, other: "Pair | Real") -> "Pair":
        other = _pair(other)
        return Pair(self.re + other.re, self.im + other.im)

    def __radd__(self, other: Real) -> "Pair":
        return Pair(other + self.re, self.im)

    def __sub__(self, other: "Pair | Real") -> "Pair":
        other = _pair(other)
        return Pair(self.re - other.re, self.im - other.im)

    def __rsub__(self, other: Real) -> "Pair":
        return Pair(other - self.re, -self.im)

    def __neg__(self) -> "Pair":
        return Pair(-self.re, -self.im)

    def __mul__(self, other: "Pair | Real") -> "Pair":
        if not isinstance(other, Pair):
            return Pair(self.re * other, self.im * other)
        return Pair(self.re * other.re - self.im * other.im, self.re * other.im + self.im * other.re)

    def __rmul__(self, other: Real) -> "Pair":
        return Pair(other * self.re, other * self.im)

    def __truediv__(self, other: "Pair | Real") -> "Pair":
        if not isinstance(other, Pair):
            return Pair(self.re / other, self.im / other)
        # Two divisions, not one and two products: XLA writes out what was divided, once for all who use it, where
        # products are computed again in every kernel that needs them.
        product, squared = self * other.conj, other.squared
        return Pair(product.re / squared, product.im / squared)

    @property
    def conj(self) -> "Pair":
        """The complex conjugate."""
        return Pair(self.re, -self.im)

    @property
    def squared(self) -> tf.Tensor:
        """|z|^2."""
        return self.re * self.re + self.im * self.im


def polynomial(coefficients: list[Real], z: Pair, z_squared: Real) -> Pair:
    """sum_n c_n z^n for real c_n, by synthetic division with the real quadratic that has z as a root.

    Two real products a term, against four for Horner's scheme in complex numbers. `z_squared` is |z|^2, given apart
    since it may be known once for many z.

    Example:
        >>> polynomial([1.0, 2.0, 3.0], Pair(0.0, 1.0), 1.0)
        Pair(re=-2.0, im=2.0)
    """
    constant, *rest = coefficients
    if not rest:
        return Pair(constant + 0 * z.re, 0 * z.im)
    twice = 2 * z.re
    high, higher = rest[-1], None
    for c in reversed(rest[:-1]):
        high, higher = c + twice * high - (0.0 if higher is None else z_squared * higher), high
    real = constant + z.re * high - (0.0 if higher is None else z_squared * higher)
    return Pair(real, z.im * high)


def _pair(value: Pair | Real) -> Pair:
    return value if isinstance(value, Pair) else Pair(value, 0.0)
