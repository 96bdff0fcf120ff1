"""How far a prior is from the aggregate posterior (L1 to L4 of the tables)."""

import warnings
from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike, NDArray
from scipy.special import logsumexp
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_limits

from tflens.errors import ParameterError

Draws = NDArray[np.floating]


def c2st(target: ArrayLike, sample: ArrayLike, seed: int = 0) -> float:
    """Classifier two-sample test (Lopez-Paz & Oquab 2017, arXiv:1610.06545): 0.5 if none can tell the samples apart.

    The out-of-fold accuracy in 5 folds of a network with two hidden layers of 10 D units, or that of gradient-boosted
    trees, whichever is higher; both samples standardised by the target. The higher of two is a little above 0.5 even
    for two samples of one distribution: compare with the null.

    Args:
        target: `[N, D]`.
        sample: as many, `[N, D]`.
        seed: of folds and classifiers.

    Raises:
        ParameterError: the samples differ in shape.

    Example:
        >>> rng = np.random.default_rng(1)
        >>> c2st(rng.normal(size=(200, 2)), 6 + rng.normal(size=(200, 2))) > 0.95
        True
    """
    target, sample = _standardise(target, sample)
    dimensions = target.shape[1]
    x = np.concatenate([target, sample]).astype(np.float32)
    y = np.repeat([0, 1], [len(target), len(sample)])
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    network = MLPClassifier(
        (10 * dimensions,) * 2, early_stopping=True, n_iter_no_change=10, max_iter=200, random_state=seed
    )
    trees = HistGradientBoostingClassifier(early_stopping=False, max_iter=100, random_state=seed)
    # Threads that wait for each other cost more than they give on so few data.
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # an accuracy is an accuracy, wherever training stopped
        return max(float(np.mean(cross_val_score(kind, x, y, cv=folds))) for kind in (network, trees))


def sliced_wasserstein(target: ArrayLike, sample: ArrayLike, directions: int = 1000, seed: int = 0) -> float:
    """Mean 1-D Wasserstein distance over random directions, after standardising by the target.

    Args:
        target: `[N, D]`.
        sample: as many, `[N, D]`.
        directions: number of directions, uniform on the sphere.
        seed: of the directions; the same seed is the same directions.

    Raises:
        ParameterError: the samples differ in shape.

    Example:
        >>> x = np.random.default_rng(1).normal(size=(500, 1))
        >>> round(sliced_wasserstein(x, x + 0.5 * x.std(), directions=10), 6)
        0.5
    """
    target, sample = _standardise(target, sample)
    axes = np.random.default_rng(seed).normal(size=(target.shape[1], directions))
    axes /= np.linalg.norm(axes, axis=0)
    return float(np.mean(np.abs(np.sort(target @ axes, axis=0) - np.sort(sample @ axes, axis=0))))


def importance_weighted_bounds(
    image: ArrayLike,
    sigma: ArrayLike,
    dimensions: int,
    propose: Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]],
    log_likelihood: Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor],
    log_priors: Mapping[str, Callable[[Draws, Draws | None], Draws]],
    condition: ArrayLike | None = None,
    samples: int = 500,
    chunk: int = 2,
    seed: int = 0,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, Draws]:
    """Lower bounds of log p(x) by importance sampling from q(z|x) (Burda et al. 2016, arXiv:1509.00519).

    log of the mean over K draws of p(x|z) p(z) / q(z|x); all priors see the same draws. In expectation it rises with
    K to the marginal likelihood. Memory holds `chunk * samples` images.

    Args:
        image: `[N, ny, nx]`.
        sigma: noise per pixel `[N]`.
        dimensions: D.
        propose: image `[n, ny, nx]`, sigma `[n]` and standard normal noise `[n, K, D]` to the draws of q that the noise
            is carried to, `[n, K, D]`, and their log q(z|x), `[n, K]`.
        log_likelihood: image, sigma and z `[n, K, D]` to log p(x|z), `[n, K]`. Both are compiled as a graph.
        log_priors: names to log densities: z `[M, D]` and condition `[M, C]` or None to `[M]`.
        condition: what a conditional prior is told of each galaxy, `[N, C]`.
        samples: K.
        chunk: galaxies at a time.
        seed: of the draws.
        progress: called with the number of galaxies done.

    Returns:
        For each prior the bound of each galaxy, nats, `[N]`.
    """
    image, sigma = np.asarray(image, np.float32), np.asarray(sigma, np.float32)
    count = len(image)

    @tf.function(reduce_retracing=True)
    def weigh(image: tf.Tensor, sigma: tf.Tensor, start: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        shape = [tf.shape(image)[0], samples, dimensions]
        noise = tf.random.stateless_normal(shape, tf.stack([tf.constant(seed, tf.int32), start]))
        z, log_q = propose(image, sigma, noise)
        return z, log_likelihood(image, sigma, z) - log_q

    bounds: dict[str, list[Draws]] = {name: [] for name in log_priors}
    for start in range(0, count, chunk):
        part = slice(start, start + chunk)
        z, log_weight = (values.numpy() for values in weigh(image[part], sigma[part], tf.constant(start)))
        told = None if condition is None else np.repeat(np.asarray(condition)[part], samples, axis=0)
        for name, log_prior in log_priors.items():
            log_density = np.asarray(log_prior(z.reshape(-1, dimensions), told)).reshape(log_weight.shape)
            bounds[name].append(logsumexp(log_weight + log_density, axis=1) - np.log(samples))
        progress(min(start + chunk, count))
    return {name: np.concatenate(parts) for name, parts in bounds.items()}


def mean_and_error(values: ArrayLike) -> tuple[float, float]:
    """The mean of `[N]` independent values and its standard error.

    Example:
        >>> mean_and_error([1.0, 3.0])
        (2.0, 1.0)
    """
    values = np.asarray(values, np.float64)
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))


def _standardise(target: ArrayLike, sample: ArrayLike) -> tuple[Draws, Draws]:
    target, sample = np.asarray(target, np.float64), np.asarray(sample, np.float64)
    if target.ndim != 2 or target.shape != sample.shape:
        raise ParameterError(f"target and sample must be of one shape [N, D], got {target.shape} and {sample.shape}")
    mean, spread = target.mean(axis=0), target.std(axis=0)
    return (target - mean) / spread, (sample - mean) / spread
