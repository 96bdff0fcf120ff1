"""Variational fits: the nearest of a family of densities that one can draw from at once.

The evidence lower bound (ELBO) is climbed by Adam on reparametrised draws (Kingma & Welling 2014, arXiv:1312.6114),
first by a Gaussian of full rank, which starts from the curvature at the optimum; then, if asked for, by an inverse
autoregressive flow (Kingma et al. 2016, arXiv:1606.04934) in the coordinates that this Gaussian whitens. How far the
result is from the posterior, the importance weights of its draws tell (Vehtari et al. 2024, J. Mach. Learn. Res. 25,
72; Yao et al. 2018, ICML).
"""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import keras
import numpy as np
import tensorflow as tf
from scipy import special

with warnings.catch_warnings():
    # ArviZ announces its version 1 at every import.
    warnings.filterwarnings("ignore", category=FutureWarning, module="arviz")
    import arviz as az

from tflens.galaxies.flow import InverseAutoregressiveFlow
from tflens.inference.hmc import draw_seed
from tflens.inference.metric import whitening
from tflens.inference.progress import Progress, silent

# Above this, importance weights have too heavy a tail for their means to be of use (Vehtari et al. 2024, section 3).
PARETO_K_GOOD = 0.7

_BATCH = 32  # draws of a step, and of one call of the compiled density
_CHUNK = 50  # steps between two looks of the host
_GAUSSIAN_RATE, _FLOW_RATE = 0.03, 0.005
_LAST_RATE = 0.01  # in units of the first
_FLOW_STAGES, _LEAST_HIDDEN = 4, 32


class VariationalFit(NamedTuple):
    """Draws of a surrogate, and how near it is to the density.

    Attributes:
        u: independent draws of the surrogate, `[draws, dim]`.
        log_prob: log density there, `[draws]`.
        log_weights: log density minus that of the surrogate, `[draws]`; importance weights correct its draws.
        elbo: evidence lower bound, nats: the mean of `log_weights`. A lower bound of the log of the density's integral.
        elbo_error: its standard error.
        pareto_k: shape of the tail of the weights; above `PARETO_K_GOOD` the surrogate misses a part of the density.
        history: the bound at every step of the fit, from `_BATCH` draws.
        bad_steps: steps that were skipped, for a gradient was not finite.
        gradients: gradient evaluations of all draws together.
    """

    u: np.ndarray
    log_prob: np.ndarray
    log_weights: np.ndarray
    elbo: float
    elbo_error: float
    pareto_k: float
    history: np.ndarray
    bad_steps: int
    gradients: int


class Variational:
    """A log density, a family of surrogates, and the compiled programs that fit them to it.

    Args:
        log_prob: of `[draws, dim]`, returning `[draws]`.
        dim: number of coordinates.
        dtype: of the coordinates. A flow itself is float32; the density is evaluated in this type at what it gives.
        flow: whether an inverse autoregressive flow follows on the Gaussian.
    """

    def __init__(
        self, log_prob: Callable[[tf.Tensor], tf.Tensor], dim: int, dtype: Any = "float32", flow: bool = False
    ) -> None:
        self.gaussian = _Stage(log_prob, _Gaussian(dim, dtype), _GAUSSIAN_RATE)
        self.flow = _Stage(log_prob, _Flow(dim, dtype), _FLOW_RATE) if flow else None


def fit(
    variational: Variational,
    center: np.ndarray,
    curvature: np.ndarray,
    *,
    steps: int = 600,
    draws: int = 2000,
    seed: int = 0,
    progress: Progress = silent,
) -> VariationalFit:
    """Fits a surrogate to a log density, and draws from it.

    Args:
        variational: the density and the family, with their compiled programs.
        center: `[dim]`, the optimum.
        curvature: `[dim, dim]`, positive definite: the Gauss-Newton (Fisher) matrix there. The Gaussian starts as the
            Laplace approximation that the two make.
        steps: of Adam, for the Gaussian; a flow takes three times as many after them. The rate falls to a hundredth.
        draws: of the finished surrogate.
        seed: of everything random; the same seed gives the same draws.

    Example:
        >>> variational = Variational(lambda u: -0.5 * tf.reduce_sum((u - 3.0)**2, -1), 2, "float64")
        >>> found = fit(variational, np.full(2, 3.0), np.eye(2), steps=50, draws=100)
        >>> found.u.shape, bool(abs(found.elbo - np.log(2 * np.pi)) < 0.01)
        ((100, 2), True)
    """
    rng = np.random.default_rng([seed, 3])
    stage, history, bad, total = variational.gaussian, [], 0, steps * (1 if variational.flow is None else 4)
    done = 0

    def climb(stage: "_Stage", steps: int) -> None:
        nonlocal bad, done
        for first in range(0, steps, _CHUNK):
            rates = _rates(stage.rate, first, min(_CHUNK, steps - first), steps)
            bounds, skipped, points = stage.climb(tf.constant(rates, tf.float32), draw_seed(rng))
            history.append(bounds.numpy())
            bad += int(skipped)
            done += len(rates)
            progress("warm-up", done / total, points.numpy())

    stage.begin(center, whitening(curvature).numpy(), rng)
    climb(stage, steps)
    if variational.flow is not None:
        mean, factor = stage.surrogate.affine()
        origin = stage.origin.numpy() + stage.factor.numpy() @ mean
        factor = stage.factor.numpy() @ factor
        stage = variational.flow
        stage.begin(origin, factor, rng)
        climb(stage, 3 * steps)

    batches = []
    for i in range(-(-draws // _BATCH)):
        batches.append([value.numpy() for value in stage.draw(draw_seed(rng))])
        progress("sampling", min(1.0, (i + 1) * _BATCH / draws), batches[-1][0])
    u, log_prob, log_weights = (np.concatenate(parts)[:draws] for parts in zip(*batches, strict=True))
    log_weights = np.where(np.isfinite(log_weights), log_weights, -np.inf).astype(np.float64)
    return VariationalFit(
        u=u,
        log_prob=log_prob,
        log_weights=log_weights,
        elbo=float(log_weights.mean()),
        elbo_error=float(log_weights.std(ddof=1) / np.sqrt(draws)) if np.isfinite(log_weights).all() else np.inf,
        pareto_k=pareto_k(log_weights),
        history=np.concatenate(history),
        bad_steps=bad,
        gradients=(total + len(batches)) * _BATCH,
    )


def pareto_k(log_weights: np.ndarray) -> float:
    """Shape of the generalised Pareto distribution of the largest importance weights `[draws]`.

    Below 0.5 their variance is finite; above 0.7 their means are of no use, and so is what was weighted; infinite
    where a weight is not finite or there are too few (less than 25) to tell.

    Example:
        >>> pareto_k(np.zeros(100))
        -inf
        >>> pareto_k(np.random.default_rng(0).standard_cauchy(1000) ** 2) > 1
        True
    """
    if np.isnan(log_weights).any() or np.isposinf(log_weights).any() or len(log_weights) < 25:
        return float("inf")
    if np.ptp(log_weights) < 1e-6:  # no tail at all: the surrogate is the density
        return float("-inf")
    return float(az.psislw(log_weights)[1])


def importance_evidence(log_weights: np.ndarray) -> float:
    """Log of the density's integral from importance weights `[draws]`; good where `pareto_k` is.

    Example:
        >>> round(importance_evidence(np.full(10, 3.0)), 6)
        3.0
    """
    return float(special.logsumexp(log_weights) - np.log(len(log_weights)))


class _Surrogate(Protocol):
    """A family of densities of whitened coordinates w, with trainable parameters."""

    trainable_variables: list[Any]

    def reset(self, rng: np.random.Generator) -> None:
        """Back to the unit Gaussian."""

    def sample(self, epsilon: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """w and its log density under the surrogate, from unit normals `[draws, dim]`."""


class _Gaussian(keras.layers.Layer):
    """w = mean + A epsilon, with A lower triangular, its diagonal by its logarithm."""

    def __init__(self, dim: int, dtype: Any) -> None:
        super().__init__(dtype=tf.as_dtype(dtype).name)
        self.dim = dim
        self.mean = self.add_weight(shape=(dim,), initializer="zeros", name="mean")
        self.raw = self.add_weight(shape=(dim, dim), initializer="zeros", name="raw")

    def reset(self, rng: np.random.Generator) -> None:
        for weight in self.trainable_variables:
            weight.assign(tf.zeros(weight.shape, weight.dtype))

    def affine(self) -> tuple[np.ndarray, np.ndarray]:
        """The mean and A."""
        mean, factor, _ = self._parameters()
        return mean.numpy(), factor.numpy()

    def sample(self, epsilon: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        mean, factor, log_scales = self._parameters()
        w = mean + tf.linalg.matvec(factor, epsilon)
        # The gradient passes through w alone: what is left out has mean zero, and noise even where the surrogate is
        # the density (Roeder et al. 2017, arXiv:1703.09194, "sticking the landing").
        mean, factor, log_scales = (tf.stop_gradient(value) for value in (mean, factor, log_scales))
        back = tf.linalg.triangular_solve(factor, tf.transpose(w - mean))
        return w, -0.5 * tf.reduce_sum(back**2, 0) - 0.5 * self.dim * np.log(2 * np.pi) - tf.reduce_sum(log_scales)

    def _parameters(self) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        raw = tf.convert_to_tensor(self.raw)
        log_scales = tf.linalg.diag_part(raw)
        strictly_lower = tf.linalg.band_part(raw, -1, 0) - tf.linalg.diag(log_scales)
        return tf.convert_to_tensor(self.mean), strictly_lower + tf.linalg.diag(tf.exp(log_scales)), log_scales


class _Flow:
    """The project's inverse autoregressive flow: one pass to draw, one to know the density of a draw."""

    def __init__(self, dim: int, dtype: Any) -> None:
        self.dim, self.dtype = dim, dtype
        hidden = max(_LEAST_HIDDEN, 2 * dim)
        self.flow = InverseAutoregressiveFlow(dim, stages=_FLOW_STAGES, hidden=(hidden, hidden))
        self.flow.build()
        # Those that begin at zero make the flow begin as the identity.
        self._begin = [weight.numpy() for weight in self.trainable_variables]

    @property
    def trainable_variables(self) -> list[Any]:
        return self.flow.trainable_variables

    def reset(self, rng: np.random.Generator) -> None:
        for weight, begin in zip(self.trainable_variables, self._begin, strict=True):
            limit = np.sqrt(6 / sum(begin.shape))  # Glorot & Bengio 2010
            weight.assign(rng.uniform(-limit, limit, begin.shape) if begin.any() else begin)

    def sample(self, epsilon: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        epsilon = tf.cast(epsilon, tf.float32)
        w, log_det = self.flow.forward_and_log_det(epsilon)
        log_q = -0.5 * tf.reduce_sum(epsilon**2, -1) - 0.5 * self.dim * np.log(2 * np.pi) - log_det
        return tf.cast(w, self.dtype), tf.cast(log_q, self.dtype)


class _Stage:
    """A surrogate of a density in coordinates w, u = origin + factor w, with its compiled programs."""

    def __init__(self, log_prob: Callable[[tf.Tensor], tf.Tensor], surrogate: _Surrogate, rate: float) -> None:
        self.log_prob, self.surrogate, self.rate = log_prob, surrogate, rate
        dim, dtype = surrogate.dim, surrogate.dtype
        self.origin = tf.Variable(np.zeros(dim), dtype=dtype, trainable=False)
        self.factor = tf.Variable(np.eye(dim), dtype=dtype, trainable=False)
        self._optimizer = keras.optimizers.Adam(rate, global_clipnorm=_LARGEST_GRADIENT)
        self._optimizer.build(surrogate.trainable_variables)
        self._fresh = [variable.numpy() for variable in self._optimizer.variables]
        self.climb = tf.function(self._climb, autograph=False)
        self.draw = tf.function(self._draw, autograph=False)

    def begin(self, origin: np.ndarray, factor: np.ndarray, rng: np.random.Generator) -> None:
        """The unit Gaussian of these coordinates, and an optimiser that knows nothing yet."""
        self.origin.assign(origin.astype(self.origin.dtype.as_numpy_dtype))
        self.factor.assign(factor.astype(self.factor.dtype.as_numpy_dtype))
        self.surrogate.reset(rng)
        for variable, value in zip(self._optimizer.variables, self._fresh, strict=True):
            variable.assign(value)

    def _climb(self, rates: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """A step for each rate: the bound at each of them, how many were skipped, and the last draws."""
        weights = self.surrogate.trainable_variables

        def body(i: tf.Tensor, bounds: tf.TensorArray, skipped: tf.Tensor, _: tf.Tensor) -> tuple[Any, ...]:
            with tf.GradientTape() as tape:
                u, _, log_weights = self._weighted(seed + tf.stack([i, 0]))
                loss = -tf.reduce_mean(log_weights)
            gradients = tape.gradient(loss, [getattr(weight, "value", weight) for weight in weights])
            finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(each)) for each in gradients])
            finite &= tf.math.is_finite(loss)
            gradients = [tf.where(finite, each, tf.zeros_like(each)) for each in gradients]
            self._optimizer.learning_rate.assign(rates[i])
            self._optimizer.apply(gradients, weights)
            return i + 1, bounds.write(i, -loss), skipped + tf.cast(~finite, tf.int32), u

        steps = rates.shape[0]
        bounds = tf.TensorArray(self.origin.dtype, steps)
        nowhere = tf.zeros([_BATCH, self.surrogate.dim], self.origin.dtype)
        _, bounds, skipped, u = tf.while_loop(
            lambda i, *_: i < steps, body, (tf.constant(0), bounds, tf.constant(0), nowhere)
        )
        return bounds.stack(), skipped, u

    def _draw(self, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        return self._weighted(seed)

    def _weighted(self, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Draws, their log density, and its difference to that of the surrogate."""
        epsilon = tf.random.stateless_normal([_BATCH, self.surrogate.dim], seed, dtype=self.origin.dtype)
        w, log_q = self.surrogate.sample(epsilon)
        u = self.origin + tf.linalg.matvec(self.factor, w)
        log_prob = self.log_prob(u)
        # log q(u) is log q(w) less the log determinant of the coordinates.
        return u, log_prob, log_prob - log_q + tf.reduce_sum(tf.math.log(tf.linalg.diag_part(self.factor)))


_LARGEST_GRADIENT = 10.0


def _rates(rate: float, first: int, count: int, steps: int) -> np.ndarray:
    """Learning rates of steps `first` to `first + count` of so many: half a cosine down to `_LAST_RATE`."""
    fraction = (first + np.arange(count)) / steps
    return rate * (_LAST_RATE + (1 - _LAST_RATE) * (1 + np.cos(np.pi * fraction)) / 2)
