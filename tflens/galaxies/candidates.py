"""Candidates for the prior of the latent variables, to be compared with the aggregate posterior."""

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

if TYPE_CHECKING:
    from tflens.galaxies.source import GalaxyModel

Array = NDArray[np.floating]


class Prior(Protocol):
    """A distribution of z, of D dimensions."""

    def sample(self, n: int, seed: int) -> Array:
        """`[n, D]`, the same for the same seed."""
        ...

    def log_prob(self, z: ArrayLike, condition: ArrayLike | None = None) -> Array:
        """z `[N, D]` to its log density in nats, `[N]`; `condition` `[N, C]` is heeded by a conditional flow alone."""
        ...


@dataclass(frozen=True)
class GaussianPrior:
    """A Gaussian of mean `[D]` and lower triangular scale `[D, D]`, the Cholesky factor of its covariance.

    Example:
        >>> prior = GaussianPrior.standard(2)
        >>> round(float(prior.log_prob(np.zeros((1, 2)))[0]), 3)  # -log(2 pi)
        -1.838
    """

    mean: Array
    scale: Array

    @classmethod
    def standard(cls, dimensions: int) -> "GaussianPrior":
        return cls(np.zeros(dimensions), np.eye(dimensions))

    @classmethod
    def diagonal(cls, draws: Array) -> "GaussianPrior":
        return cls(draws.mean(axis=0), np.diag(draws.std(axis=0)))

    @classmethod
    def full(cls, draws: Array) -> "GaussianPrior":
        return cls(draws.mean(axis=0), np.linalg.cholesky(np.cov(draws, rowvar=False, bias=True)))

    def sample(self, n: int, seed: int) -> Array:
        return self.mean + np.random.default_rng(seed).normal(size=(n, len(self.mean))) @ self.scale.T

    def log_prob(self, z: ArrayLike, condition: ArrayLike | None = None) -> Array:
        standardised = np.linalg.solve(self.scale, (np.asarray(z, np.float64) - self.mean).T)
        volume = np.log(np.diag(self.scale)).sum() + len(self.mean) / 2 * np.log(2 * np.pi)
        return -np.sum(standardised**2, axis=0) / 2 - volume


class MixturePrior:
    """A mixture of Gaussians of full covariance, fitted by expectation maximisation (scikit-learn).

    Args:
        draws: `[N, D]`.
        components: number of Gaussians.
        seed: of the start.

    Example:
        >>> draws = np.random.default_rng(1).normal([[-3.0], [3.0]], 0.1, size=(2, 500)).reshape(-1, 1)
        >>> np.sort(MixturePrior(draws, components=2).means.ravel()).round().tolist()
        [-3.0, 3.0]
    """

    def __init__(self, draws: Array, components: int, seed: int = 0) -> None:
        draws = np.asarray(draws, np.float64)
        mixture = GaussianMixture(components, tol=1e-3, max_iter=300, reg_covar=1e-6, random_state=seed)
        # Means from a part of the draws: a tenth of the time, and the same place in the end.
        part = draws[np.random.default_rng(seed).permutation(len(draws))[: max(len(draws) // 10, 50 * components)]]
        start = GaussianMixture(components, tol=1e-2, max_iter=100, reg_covar=1e-3, random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            start.fit(part)
            mixture.set_params(weights_init=start.weights_, means_init=start.means_, precisions_init=start.precisions_)
            mixture.fit(draws)
        self.converged = bool(mixture.converged_)
        self._mixture = mixture

    @property
    def means(self) -> Array:
        return self._mixture.means_

    def sample(self, n: int, seed: int) -> Array:
        self._mixture.random_state = seed
        draws, _ = self._mixture.sample(n)
        return np.random.default_rng(seed).permutation(draws)  # scikit-learn orders them by component

    def log_prob(self, z: ArrayLike, condition: ArrayLike | None = None) -> Array:
        return self._mixture.score_samples(np.asarray(z, np.float64))


class FlowPrior:
    """The flow of a galaxy model: z = T(u), u ~ N(0, I).

    Args:
        model: with its flow.
        condition: of the galaxies whose population is to be sampled, `[N, C]`; None if the flow is not conditional.
        batch: latents at a time.
    """

    def __init__(self, model: "GalaxyModel", condition: ArrayLike | None = None, batch: int = 4000) -> None:
        self._model = model
        self._condition = condition
        self._batch = batch
        self._log_prob = tf.function(model.flow.log_prob, reduce_retracing=True)

    def sample(self, n: int, seed: int) -> Array:
        u = tf.random.stateless_normal([n, self._model.latent_dim], [seed, 0])
        condition = None
        if self._condition is not None:
            condition = np.resize(self._condition, (n, self._model.condition.dim))
        return self._model.to_latent(u, condition).numpy()

    def log_prob(self, z: ArrayLike, condition: ArrayLike | None = None) -> Array:
        z = np.asarray(z, np.float32)
        parts = []
        for start in range(0, len(z), self._batch):
            part = slice(start, start + self._batch)
            told = None if self._condition is None else np.asarray(condition, np.float32)[part]
            parts.append(self._log_prob(z[part], told).numpy())
        return np.concatenate(parts).astype(np.float64)


MIXTURES = (10, 50)


def fit_candidates(draws: Array, flow: Prior, seed: int = 0) -> dict[str, Prior]:
    """All candidates, from the simplest to the flow.

    Args:
        draws: of q(z|x) for training galaxies, `[N, D]`; as many as the flow was fitted to.
        flow: of the model.
        seed: of the mixtures' starts.

    Returns:
        Names to priors: `N(0, I)`, `diagonal Gaussian`, `full Gaussian`, `mixture of 10`, `mixture of 50`, `flow`.
    """
    candidates: dict[str, Prior] = {
        "N(0, I)": GaussianPrior.standard(draws.shape[1]),
        "diagonal Gaussian": GaussianPrior.diagonal(draws),
        "full Gaussian": GaussianPrior.full(draws),
    }
    for components in MIXTURES:
        candidates[f"mixture of {components}"] = MixturePrior(draws, components, seed)
    return {**candidates, "flow": flow}
