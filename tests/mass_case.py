"""What the harness of test_mass.py asks of a mass profile, and its comparison with lenstronomy."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf

from tflens.mass import MassProfile
from tflens.parameters import from_base

Values = dict[str, float]
# (parameters, x, y) -> psi, alpha_x, alpha_y, kappa at points x, y of shape [n]
Reference = Callable[[Values, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Lenstronomy:
    """A profile's counterpart.

    Args:
        evaluate: potential, deflection and convergence of the counterpart, of *our* parameters; `counterpart` makes it
            from names and a conversion of keyword arguments.
        potential_offset: the two potentials differ by a constant, which is left out of the comparison; say why.
        tolerances: largest relative errors where lenstronomy's own accuracy is below 1e-10; say why beside it.
    """

    evaluate: Reference
    potential_offset: bool = False
    tolerances: dict[str, float] = field(default_factory=dict)

    def tolerance(self, quantity: str) -> float:
        return self.tolerances.get(quantity, 1e-10)


@dataclass(frozen=True)
class MassCase:
    """A profile as the harness meets it.

    Args:
        exact: the profile at full precision (series to the last digit), for laws and parity.
        shipped: the profile as a user gets it; `exact` if there is no difference.
        short: a variant that XLA compiles within a second, of the same formulas; `exact` if there is no difference.
        nasty: changes of the median parameters that arithmetic can trip over, each with a name. The median itself is
            always among the lanes.
        points: positions (x, y), arcsec, evaluated in every lane beside those of `NASTY_POINTS`.
        ranges: (low, high) of parameters for parity; others take their priors' values at u in (-4, 4).
        lenstronomy: the counterpart, if there is one.
        draw: makes parameters of a batch shape from standard normal numbers where scalar priors cannot:
            `draw(rng, shape) -> {name: array [*shape, ...]}`.
        single: largest error of float32, as a fraction of the frame's largest value.
        law: relative error the laws are held to in float64.
        skips: names of harness tests that do not apply, each with the reason.
        parity_only: a second counterpart of a profile whose other case holds the laws.
        repeats: name of a case of the same formulas; tests that compile or trace this one are slow ones.
    """

    exact: MassProfile
    shipped: MassProfile | None = None
    short: MassProfile | None = None
    nasty: dict[str, Values] = field(default_factory=dict)
    points: tuple[tuple[float, float], ...] = ()
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    lenstronomy: Lenstronomy | None = None
    draw: Callable[[np.random.Generator, tuple[int, ...]], dict[str, np.ndarray]] | None = None
    single: float = 1e-5
    law: float = 1e-11
    skips: dict[str, str] = field(default_factory=dict)
    parity_only: bool = False
    repeats: str | None = None

    @property
    def as_shipped(self) -> MassProfile:
        return self.shipped or self.exact

    @property
    def cheap(self) -> MassProfile:
        return self.short or self.exact

    def draws(self, shape: tuple[int, ...], dtype: str = "float64", seed: int = 5) -> dict[str, tf.Tensor]:
        """Parameters `[*shape]` drawn from the default priors."""
        rng = np.random.default_rng(seed)
        if self.draw is not None:
            return {k: tf.constant(v, dtype) for k, v in self.draw(rng, shape).items()}
        return at_base(self.exact, rng.normal(size=(*shape, len(self.exact.parameter_names))), dtype)

    def medians(self, dtype: str = "float64") -> dict[str, tf.Tensor]:
        """Parameters at the medians of the default priors (a fixed draw where `draw` is given)."""
        if self.draw is not None:
            return self.draws((), dtype)
        return at_base(self.exact, np.zeros([len(self.exact.parameter_names)]), dtype)

    def nasty_lanes(self, dtype: str) -> list[dict[str, tf.Tensor]]:
        median = self.medians(dtype)
        return [
            median,
            *(median | {k: tf.constant(v, dtype) for k, v in change.items()} for change in self.nasty.values()),
        ]


# The centre itself, closer than any pixel, on the axes, far away.
NASTY_POINTS = (
    (0.0, 0.0),
    (0.0, 1e-9),
    (1e-9, 0.0),
    (1e-7, -1e-7),
    (2e-6, 1e-6),
    (1.0, 0.0),
    (1.0, 1.0),
    (0.0, -1.0),
    (1e4, -3e3),
)

# What |e| and its direction can do, for every profile with a default ellipticity prior (|e| < 0.6).
NASTY_ELLIPTICITIES: dict[str, Values] = {
    "flattest": {"e1": 0.6 * (1 - 1e-6)},
    "flattest, other way": {"e1": -0.6 * (1 - 1e-6)},
    "flattest, tilted": {"e1": -0.36, "e2": 0.4799},
    "almost round": {"e1": 1e-9, "e2": -1e-9},
}


def at_base(profile: MassProfile, u: np.ndarray, dtype: str = "float64") -> dict[str, tf.Tensor]:
    """Parameters at base-space values `[...batch, dim]`, by the profile's default priors."""
    values, start = {}, 0
    for parameter in profile.parameters:
        part = tf.constant(u[..., start : start + len(parameter.names)], dtype)
        scalar = len(parameter.names) == 1
        value = from_base(parameter.prior(tf.as_dtype(dtype)), part[..., 0] if scalar else part)
        parts = [value] if scalar else tf.unstack(value, axis=-1)
        values |= dict(zip(parameter.names, parts, strict=True))
        start += len(parameter.names)
    return values


def counterpart(names: list[str], keywords: Callable[[Values], list[dict[str, float]]]) -> Reference:
    """The reference made of lenstronomy's lens models of these names (their sum), given the converted keywords."""

    def evaluate(values: Values, x: np.ndarray, y: np.ndarray):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from lenstronomy.LensModel.lens_model import LensModel

            model, kwargs = LensModel(names), keywords(values)
            return model.potential(x, y, kwargs), *model.alpha(x, y, kwargs), model.kappa(x, y, kwargs)

    return evaluate


def parity(case: MassCase, draws: int, seed: int) -> dict[str, float]:
    """Largest relative differences from lenstronomy of potential, deflection and convergence, in float64.

    Over random parameters of their whole range, each on 60 random points within 4 arcsec. A difference is relative to
    the value at the point, or to the frame's median where the value is smaller.
    """
    if case.lenstronomy is None:
        raise ValueError(f"{case.exact!r} has no counterpart in lenstronomy")
    rng = np.random.default_rng(seed)
    worst = {"potential": 0.0, "deflection": 0.0, "convergence": 0.0}
    for _ in range(draws):
        values = _over_the_range(case, rng)
        x, y = rng.uniform(-4, 4, (2, 60))
        psi, ax, ay, kappa = case.lenstronomy.evaluate(values, x, y)
        at = tf.constant(x[None]), tf.constant(y[None])
        tensors = {k: tf.constant(v, "float64") for k, v in values.items()}
        difference = case.exact.potential(*at, **tensors)[0].numpy() - psi
        if case.lenstronomy.potential_offset:
            difference -= np.median(difference)
        alpha = [a[0].numpy() for a in case.exact.deflection(*at, **tensors)]
        found = {
            "potential": _relative(difference, psi),
            "deflection": _relative(np.hypot(alpha[0] - ax, alpha[1] - ay), np.hypot(ax, ay)),
            "convergence": _relative(case.exact.convergence(*at, **tensors)[0].numpy() - kappa, kappa),
        }
        worst = {k: max(worst[k], found[k]) for k in worst}
    return worst


def _over_the_range(case: MassCase, rng: np.random.Generator) -> Values:
    u = rng.uniform(-4, 4, len(case.exact.parameter_names))
    drawn = case.draw(rng, ()) if case.draw is not None else at_base(case.exact, u)
    uniform = {k: rng.uniform(*limits) for k, limits in case.ranges.items()}
    values = {k: np.asarray(v) for k, v in drawn.items()} | uniform
    return {k: float(v) if np.ndim(v) == 0 else v for k, v in values.items()}


def _relative(difference: np.ndarray, value: np.ndarray) -> float:
    size = np.maximum(np.abs(value), np.median(np.abs(value)))
    return float(np.max(np.abs(difference) / np.where(size > 0, size, 1)))
