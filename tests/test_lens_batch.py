"""Lenses side by side: each must be what it is by itself."""

import functools

import numpy as np
import pytest
import tensorflow as tf
import tiny_lens

from tflens.errors import ParameterError
from tflens.inference import hmc
from tflens.inference.map import Optimum, polish, polish_each
from tflens.inference.straight import Straight
from tflens.lens_batch import LensBatch
from tflens.model import LensModel, LensTarget
from tflens.observation import Observation

CORRELATION = np.array([[0.05, 0.1, 0.05], [0.2, 1.0, 0.2], [0.05, 0.1, 0.05]])


class Pattern:
    """Something forgiven: one pattern of variance 3 beside unit noise, with more of it than of the source."""

    amplitude, stays, told = 8.0, np.array([0.6]), 0.4

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        pattern = rng.normal(size=(1, np.prod(tiny_lens.SHAPE)))
        self.stamps, self.slope = rng.normal(size=(2, 1, 6, 7))
        self.mean = np.array([3.0])
        self.volume, self.point = rng.normal(size=(2, 16))
        self.modes = np.sqrt(1 - 1 / np.sqrt(1 + 3.0)) * pattern / np.linalg.norm(pattern)
        self.images = pattern.reshape(1, *tiny_lens.SHAPE)


def another(correlated: bool) -> list[Observation]:
    """Three images of one shape: the lens, the lens with more noise, noise alone."""
    first, kernel = tiny_lens.observation(), CORRELATION if correlated else None
    rng = np.random.default_rng(5)
    louder = first.image + rng.normal(0, 0.05, first.image.shape)
    images = [(first.image, 0.02), (louder, 0.055), (rng.normal(0, 0.02, first.image.shape), 0.02)]
    scale = tiny_lens.PIXEL_SCALE
    return [
        Observation(image, np.full(image.shape, noise), tiny_lens.PSF, scale, noise_correlation=kernel)
        for image, noise in images
    ]


@functools.cache
def batch(kind: str) -> tuple[LensBatch, tuple]:
    """A batch of three, and what each of them sees."""
    source = tiny_lens.Blobs() if kind in ("latent", "forgiving") else None
    seen = another(kind == "correlated")
    target = LensTarget(tiny_lens.model(source), seen[0], modes=1 if kind == "forgiving" else 0)
    mask = np.ones(tiny_lens.SHAPE, bool)
    mask[3:6, 4:9] = False
    found = LensBatch(target, 3)
    taken = []
    for lens, observation in enumerate(seen):
        target.observe(observation)
        target.use(mask if lens == 1 else observation.mask)
        if kind == "forgiving" and lens != 2:
            target.forgive(Pattern(lens))
        found.take(lens)
        taken.append((observation, target.mask, target.discrepancy))
    return found, tuple(taken)


def points(model: LensModel, n: int) -> tf.Tensor:
    return tf.constant(0.3 * np.random.default_rng(2).normal(size=(n, model.dim)))


@pytest.mark.parametrize(
    "kind", ["latent", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("sersic", "forgiving", "correlated"))]
)
def test_log_posterior_and_gradient_are_those_of_each_lens(kind):
    both, taken = batch(kind)
    u = points(both.model, 6)
    value, gradient = both.value_and_gradient(u, 0.7)
    likelihood = both.log_likelihood(u)
    for lens in range(3):
        both.see(lens)
        assert (both.target.observation, both.target.discrepancy) == (taken[lens][0], taken[lens][2])
        np.testing.assert_array_equal(both.target.mask, taken[lens][1])
        mine = slice(2 * lens, 2 * lens + 2)
        alone = both.target.value_and_gradient(u[mine], 0.7)
        np.testing.assert_allclose(value[mine], alone[0], rtol=1e-10)
        np.testing.assert_allclose(gradient[mine], alone[1], rtol=1e-8, atol=1e-7)
        np.testing.assert_allclose(likelihood[mine], both.target.log_likelihood(u[mine]), rtol=1e-9)
    assert len(set(np.round(likelihood.numpy()[::2], 3))) == 3


def test_polish_and_curvature_are_those_of_each_lens():
    both, _ = batch("sersic")
    u = np.stack([tiny_lens.truth(), tiny_lens.truth() + 0.1, *points(both.model, 4).numpy()])
    optima = [Optimum(part, np.zeros(2), 0) for part in np.split(u, 3)]
    together = polish_each(both, optima, 8)
    for lens in range(3):
        both.see(lens)
        alone = polish(both.target, optima[lens], 8)
        np.testing.assert_allclose(together[lens].log_prob, alone.log_prob, rtol=1e-6)
        straight = Straight(both)
        straight.straighten(lens, together[lens].u[0])
        curvature = straight.curvatures(lens, np.zeros((1, both.model.dim)))[0]
        np.testing.assert_allclose(curvature, np.eye(both.model.dim), atol=1e-4)
    assert together[0].log_prob[0] > both.target.log_prior(tf.constant(u[:1])).numpy()[0] - 1e4


def test_a_number_of_lenses_must_be_one():
    both, _ = batch("sersic")
    with pytest.raises(ParameterError, match=r"LensBatch\.lenses must be a whole number from 1, got 0"):
        LensBatch(both.target, 0)


class TestChains:
    """Gaussians of other means and widths side by side."""

    MEAN = np.array([[0.0, 3.0], [10.0, -2.0], [1.0, 1.0]])
    WIDTH = np.array([[1.0, 0.1], [5.0, 5.0], [1e-3, 1.0]])

    def log_prob(self, u: tf.Tensor) -> tf.Tensor:
        by_lens = tf.reshape(u, [3, -1, 2])
        return tf.reshape(-0.5 * tf.reduce_sum(((by_lens - self.MEAN[:, None]) / self.WIDTH[:, None]) ** 2, -1), [-1])

    def curvature(self, lens: int, at: np.ndarray) -> np.ndarray:
        return np.repeat(np.diag(self.WIDTH[lens] ** -2)[None], len(at), 0)

    def test_moments_within_monte_carlo_error(self):
        import arviz as az

        sampler = hmc.Sampler(self.log_prob, 2, "float64", lenses=3)
        each = hmc.sample_each(sampler, self.MEAN + self.WIDTH, self.curvature, chains=4, warmup=80, draws=250, seed=1)
        assert len(each) == 3
        for lens, chains in enumerate(each):
            assert chains.u.shape == (4, 250, 2)
            assert chains.acceptance.mean() > 0.7
            scaled = (chains.u - self.MEAN[lens]) / self.WIDTH[lens]
            for i in range(2):
                ess = float(az.ess(scaled[..., i]))
                assert ess > 250
                assert abs(scaled[..., i].mean()) < 4 / np.sqrt(ess)
                assert abs(scaled[..., i].var() - 1) < 4 * np.sqrt(2 / 250)

    def test_same_seed_same_draws(self):
        sampler = hmc.Sampler(self.log_prob, 2, "float64", lenses=3)
        runs = [
            hmc.sample_each(sampler, self.MEAN, self.curvature, chains=2, warmup=40, draws=20, seed=4) for _ in range(2)
        ]
        np.testing.assert_array_equal(runs[0][2].u, runs[1][2].u)
        assert sampler.transit.experimental_get_tracing_count() == 1
