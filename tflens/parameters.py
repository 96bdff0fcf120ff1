"""Declaration of parameters and the map from the base space u ~ N(0, 1) to their physical values.

Every parameter of a lens model is declared with its unit and a default prior, a TFP distribution. Inference never
sees that prior's density: it works on u, standard normal in every dimension, and `from_base` carries u to the
parameter. So the log prior is -|u|^2 / 2 for every model, and supports need no bounds or rejections.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, ParamSpec

import numpy as np
import tensorflow as tf

from tflens._tfp import tfb, tfd
from tflens.errors import ParameterError

PriorFactory = Callable[[tf.DType], Any]
Arguments = ParamSpec("Arguments")

_LARGEST_U = 8.0  # float64 tells its probability, 1 - 6e-16, from 1


@dataclass(frozen=True)
class Parameter:
    """One parameter of a profile, or several that share a joint prior.

    Args:
        names: the parameter's name, or the names of the entries of a vector (`("e1", "e2")`).
        unit: its unit, as printed in tables ("arcsec", "" for none).
        description: one line for people.
        prior: makes the default prior, given a dtype; a scalar distribution for one name, a vector one for several.
    """

    names: tuple[str, ...]
    unit: str
    description: str
    prior: PriorFactory


@dataclass(frozen=True)
class NamedPrior:
    """A prior that can be written down: called with a dtype, it makes the distribution.

    Args:
        name: of the function that made it, one of `PRIORS`.
        arguments: of that function, name and value.
        make: makes the distribution.
    """

    name: str
    arguments: tuple[tuple[str, float], ...]
    make: PriorFactory = field(repr=False, compare=False)

    def __call__(self, dtype: tf.DType) -> Any:
        return self.make(dtype)


PRIORS: dict[str, Callable[..., NamedPrior]] = {}
"""The functions that make a `NamedPrior`, by name."""


def _named(function: Callable[Arguments, PriorFactory]) -> Callable[Arguments, NamedPrior]:
    """Makes the function return a `NamedPrior`, and puts it among `PRIORS`."""

    @wraps(function)
    def named(*args: Arguments.args, **kwargs: Arguments.kwargs) -> NamedPrior:
        arguments = inspect.signature(function).bind(*args, **kwargs).arguments
        return NamedPrior(function.__name__, tuple(arguments.items()), function(*args, **kwargs))

    PRIORS[function.__name__] = named
    return named


def from_base(prior: Any, u: tf.Tensor) -> tf.Tensor:
    """Carries standard normal draws to draws of `prior`, smoothly and monotonically.

    A prior that is not made from a normal by bijectors goes through its quantile function, in float64 and for
    |u| <= 8; beyond, the value stays where it is.

    Args:
        prior: a scalar TFP distribution, or a vector one built by bijectors from a standard `MultivariateNormalDiag`.
        u: base-space values, `[...batch]` (or `[...batch, d]` for a vector prior).

    Returns:
        Parameter values of the same shape and dtype as `u`.

    Raises:
        ParameterError: the distribution has neither a bijector from a normal nor a quantile function.

    Example:
        >>> import tensorflow as tf
        >>> from tflens._tfp import tfd
        >>> float(from_base(tfd.LogNormal(0.0, 0.5), tf.constant(0.0)))
        1.0
    """
    u = tf.convert_to_tensor(u, dtype_hint=prior.dtype)
    values = _forward(prior, tf.cast(u, prior.dtype))
    return tf.cast(values, u.dtype)


def to_base(prior: Any, value: tf.Tensor) -> tf.Tensor:
    """The inverse of `from_base`: the u at which the parameter takes `value`.

    Example:
        >>> import tensorflow as tf
        >>> from tflens._tfp import tfd
        >>> float(to_base(tfd.Normal(2.0, 0.5), tf.constant(3.0)))
        2.0
    """
    value = tf.convert_to_tensor(value, dtype_hint=prior.dtype)
    return tf.cast(_inverse(prior, tf.cast(value, prior.dtype)), value.dtype)


@_named
def normal(loc: float, scale: float) -> PriorFactory:
    """Factory of a normal prior."""
    _require(np.isfinite(loc) and 0 < scale < np.inf, f"normal({loc}, {scale}): loc finite, scale positive")
    return lambda dtype: tfd.Normal(tf.constant(loc, dtype), tf.constant(scale, dtype))


@_named
def log_normal(median: float, scale: float) -> PriorFactory:
    """Factory of a log-normal prior; `scale` is the standard deviation of the natural logarithm."""
    _require(0 < median < np.inf and 0 < scale < np.inf, f"log_normal({median}, {scale}): median and scale positive")
    return lambda dtype: tfd.LogNormal(tf.math.log(tf.constant(median, dtype)), tf.constant(scale, dtype))


@_named
def log_normals(median: float, scale: float, count: int) -> PriorFactory:
    """Factory of the joint prior of `count` independent log-normal numbers."""
    one = log_normal(median, scale)

    def prior(dtype: tf.DType) -> Any:
        loc, width = (tf.fill([count], value) for value in (one(dtype).loc, one(dtype).scale))
        return tfd.TransformedDistribution(tfd.MultivariateNormalDiag(loc, width), tfb.Exp())

    return prior


@_named
def uniform(low: float, high: float) -> PriorFactory:
    """Factory of a uniform prior on (low, high)."""
    _require(-np.inf < low < high < np.inf, f"uniform({low}, {high}): low < high, both finite")
    return lambda dtype: tfd.Uniform(tf.constant(low, dtype), tf.constant(high, dtype))


@_named
def bounded_normal(low: float, high: float, median: float, scale: float) -> PriorFactory:
    """Factory of a logit-normal prior on (low, high) that near its median resembles N(median, scale).

    Smooth everywhere, unlike a truncated normal, so gradients stay informative close to the bounds.
    """
    _require(
        -np.inf < low < median < high < np.inf and 0 < scale < np.inf,
        f"bounded_normal({low}, {high}, {median}, {scale}): low < median < high, scale positive",
    )
    fraction = (median - low) / (high - low)
    # d value / d logit at the median, so that `scale` means what it says there.
    slope = (high - low) * fraction * (1 - fraction)

    def prior(dtype: tf.DType) -> Any:
        logit = tf.math.log(tf.constant(fraction / (1 - fraction), dtype))
        base = tfd.LogitNormal(logit, tf.constant(scale / slope, dtype))
        stretch = tfb.Chain([tfb.Shift(tf.constant(low, dtype)), tfb.Scale(tf.constant(high - low, dtype))])
        return tfd.TransformedDistribution(base, stretch)

    return prior


@_named
def ellipticity(scale: float, maximum: float) -> PriorFactory:
    """Factory of an isotropic prior on (e1, e2) inside the disc |e| < maximum, near 0 like N(0, scale) in each."""
    _require(
        0 < scale < np.inf and 0 < maximum <= 1, f"ellipticity({scale}, {maximum}): scale positive, 0 < maximum <= 1"
    )

    def prior(dtype: tf.DType) -> Any:
        base = tfd.MultivariateNormalDiag(tf.zeros(2, dtype), tf.fill([2], tf.constant(scale, dtype)))
        return tfd.TransformedDistribution(base, Disc(maximum))

    return prior


class Disc(tfb.Bijector):
    """Maps R^d onto the open ball of radius `maximum`: x -> x / sqrt(1 + |x|^2 / maximum^2)."""

    def __init__(self, maximum: float, validate_args: bool = False, name: str = "disc") -> None:
        parameters = dict(locals())
        if not 0 < maximum <= 1:
            raise ParameterError(f"the largest ellipticity must lie in (0, 1], got {maximum!r}")
        self.maximum = float(maximum)
        super().__init__(forward_min_event_ndims=1, validate_args=validate_args, parameters=parameters, name=name)

    def _forward(self, x: tf.Tensor) -> tf.Tensor:
        return x / tf.sqrt(1 + tf.reduce_sum(x**2, -1, keepdims=True) / self.maximum**2)

    def _inverse(self, y: tf.Tensor) -> tf.Tensor:
        return y / tf.sqrt(1 - tf.reduce_sum(y**2, -1, keepdims=True) / self.maximum**2)

    def _forward_log_det_jacobian(self, x: tf.Tensor) -> tf.Tensor:
        # d - 1 tangential directions scale by g, the radial one by g^3, with g = 1 / sqrt(1 + |x|^2 / maximum^2).
        d = tf.cast(tf.shape(x)[-1], x.dtype)
        return -0.5 * (d + 2) * tf.math.log1p(tf.reduce_sum(x**2, -1) / self.maximum**2)


def _forward(prior: Any, u: tf.Tensor) -> tf.Tensor:
    if _is_transformed(prior):
        return prior.bijector.forward(_forward(prior.distribution, u))
    if isinstance(prior, tfd.Normal):
        return prior.loc + prior.scale * u
    if isinstance(prior, tfd.MultivariateNormalDiag):
        return prior.mean() + prior.stddev() * u
    _require_quantile(prior)
    probability = _standard_normal().cdf(tf.clip_by_value(tf.cast(u, tf.float64), -_LARGEST_U, _LARGEST_U))
    return tf.cast(_in_float64(prior).quantile(probability), u.dtype)


def _inverse(prior: Any, value: tf.Tensor) -> tf.Tensor:
    if _is_transformed(prior):
        return _inverse(prior.distribution, prior.bijector.inverse(value))
    if isinstance(prior, tfd.Normal):
        return (value - prior.loc) / prior.scale
    if isinstance(prior, tfd.MultivariateNormalDiag):
        return (value - prior.mean()) / prior.stddev()
    _require_quantile(prior)
    u = _standard_normal().quantile(_in_float64(prior).cdf(tf.cast(value, tf.float64)))
    return tf.cast(tf.clip_by_value(u, -_LARGEST_U, _LARGEST_U), value.dtype)


def _standard_normal() -> tfd.Normal:
    return tfd.Normal(tf.zeros([], tf.float64), tf.ones([], tf.float64))


def _in_float64(prior: Any) -> Any:
    # In float32 the probability of u > 5.4 rounds to 1: values would be infinite there and gradients not a number.
    def is_number(value: Any) -> bool:
        return not isinstance(value, bool) and (tf.is_tensor(value) or isinstance(value, int | float | np.ndarray))

    return prior.copy(**{k: tf.cast(v, tf.float64) for k, v in prior.parameters.items() if is_number(v)})


def _require(rule_holds: bool, rule: str) -> None:
    if not rule_holds:
        raise ParameterError(f"a prior breaks its rule, {rule}")


def _is_transformed(prior: Any) -> bool:
    # By its parts, for TFP makes such distributions from two classes; a diagonal normal is one of them, but known here.
    return (
        hasattr(prior, "bijector")
        and hasattr(prior, "distribution")
        and not isinstance(prior, tfd.MultivariateNormalDiag)
    )


def _require_quantile(prior: Any) -> None:
    # A distribution without a quantile function inherits the base class's, which only raises.
    if prior.event_shape.rank != 0 or type(prior)._quantile is tfd.Distribution._quantile:
        raise ParameterError(
            f"prior {prior.name!r} ({type(prior).__name__}) has neither a bijector from a normal nor a quantile "
            "function; build it as a TransformedDistribution of a Normal"
        )
