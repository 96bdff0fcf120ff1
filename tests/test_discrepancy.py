"""A field beside the source: found where something is missing, and only there; and what is forgiven is white."""

import functools

import numpy as np
import pytest
import tensorflow as tf
import tiny_lens
from scipy import stats

from tflens.errors import ParameterError
from tflens.inference.discrepancy import MODES, Discrepancy, find_discrepancy, seen_through
from tflens.inference.map import Optimum, polish
from tflens.model import LensTarget
from tflens.observation import Observation
from tflens.whitening import deflate

KNOT = np.zeros((6, 7))
KNOT[2, 4] = 1.0


@functools.cache
def at_truth(knot: float) -> tuple[LensTarget, np.ndarray]:
    """The tiny lens with a source of `Blobs`, of which a share of the light is a knot that it cannot draw, and its
    optimum."""
    model = tiny_lens.model(tiny_lens.Blobs())
    u = model.base(tiny_lens.TRUTH)
    u[model.physical_dim :] = [0.4, -0.3, 0.2]
    blank = LensTarget(model, tiny_lens.blank())
    image = blank.component_images(tf.constant(u[None]), tf.constant([[3.0, 8.0, 0.01]], tf.float64)).numpy()[0].sum(0)
    image = image + 8.0 * knot * seen_through(blank, u, KNOT[None])[0]
    image = image + np.random.default_rng(4).normal(0, tiny_lens.NOISE, image.shape)
    noise = np.full(image.shape, tiny_lens.NOISE)
    target = LensTarget(model, Observation(image, noise, tiny_lens.PSF, tiny_lens.PIXEL_SCALE), modes=MODES)
    return target, polish(target, Optimum(u[None], np.zeros(1), 0), 16).u[0]


@functools.cache
def found() -> Discrepancy:
    target, u = at_truth(0.3)
    discrepancy = find_discrepancy(target, u)
    target.forgive(None)
    return discrepancy


def test_nothing_is_found_where_nothing_is_missing():
    assert find_discrepancy(*at_truth(0.0)) is None


def test_a_knot_is_found_where_it_is():
    target, u = at_truth(0.3)
    target.forgive(None)
    before = target.evaluate(u)
    assert found().gain > 10
    target.forgive(found())
    after = target.evaluate(polish(target, Optimum(u[None], np.zeros(1), 0), 16).u[0])
    assert before.chi2 > 1.2
    assert after.chi2 < 0.5 * (1 + before.chi2)
    np.testing.assert_allclose(after.image, after.lens_light + after.lensed_source)
    # The fit comes nearer to what there was without noise, not only to the noise.
    noise = np.random.default_rng(4).normal(0, tiny_lens.NOISE, tiny_lens.SHAPE)
    error = [np.std(fit.image - (target.image - noise)) for fit in (before, after)]
    assert error[1] < 0.5 * error[0]


def test_what_is_forgiven_is_white():
    """Draws of noise and patterns have unit covariance once deflated."""
    rng = np.random.default_rng(1)
    n, pixels = 40_000, found().white.shape[1]
    draws = rng.normal(size=(n, pixels)) + rng.normal(size=(n, len(found().white))) @ found().white
    white = deflate(tf.constant(draws), tf.constant(found().modes)).numpy()
    direction = found().modes[-1] / np.linalg.norm(found().modes[-1])
    assert (draws @ direction).var() > 3
    assert abs((white @ direction).var() - 1) < 5 * np.sqrt(2 / n)
    chi2 = (white**2).sum(1)
    assert abs(chi2.mean() / pixels - 1) < 0.005
    assert stats.kstest(chi2[:2000], stats.chi2(pixels).cdf).pvalue > 1e-3


def test_all_patterns_of_a_field_are_forgiven():
    """However many: those of a strong field in a large image are all of them stronger than the noise."""
    white = np.random.default_rng(2).normal(size=(200, 500))
    modes = Discrepancy(1.0, 1.0, 1.0, np.zeros((200, 1, 1)), np.zeros((200, 20, 25)), white).modes
    root = deflate(tf.eye(500, dtype=tf.float64), tf.constant(modes)).numpy()
    np.testing.assert_allclose(root @ (np.eye(500) + white.T @ white) @ root, np.eye(500), atol=1e-8)


def test_coefficients_are_those_of_the_joint_gaussian():
    rng = np.random.default_rng(3)
    white = found().white
    residual = rng.normal(size=(3, white.shape[1]))
    covariance = np.eye(white.shape[1]) + white.T @ white
    expected = np.linalg.solve(covariance, residual.T).T @ white.T
    np.testing.assert_allclose(found().coefficients(residual), expected, atol=1e-8)
    np.testing.assert_allclose(found().coefficients(residual[0]), expected[0], atol=1e-8)
    draws = found().coefficients(np.repeat(residual[:1], 20_000, 0), rng)
    exact = np.linalg.inv(np.eye(len(white)) + white @ white.T)
    np.testing.assert_allclose(draws.mean(0), expected[0], atol=5 / np.sqrt(20_000))
    np.testing.assert_allclose(np.cov(draws.T), exact, atol=6 * np.sqrt(2 / 20_000))


def test_gradients_stay_those_of_the_value():
    target, u = at_truth(0.3)
    target.forgive(found())
    direction = np.random.default_rng(6).normal(size=len(u))
    step = 1e-5 * direction
    value = [target.value_and_gradient(tf.constant((u + sign * step)[None]))[0].numpy()[0] for sign in (1, -1)]
    gradient = target.value_and_gradient(tf.constant(u[None]))[1].numpy()[0]
    np.testing.assert_allclose((value[0] - value[1]) / 2e-5, gradient @ direction, rtol=1e-4, atol=1e-4)


def test_another_mask_forgives_nothing_any_more():
    target, _ = at_truth(0.3)
    target.forgive(found())
    target.use(target.mask)
    assert target.discrepancy is None
    assert not target.seen.modes.numpy().any()


def test_a_target_without_modes_says_what_to_do():
    with pytest.raises(ParameterError, match=r"takes up to 0 modes of 480 pixels.*make the target with more `modes`"):
        LensTarget(tiny_lens.model(), tiny_lens.observation()).forgive(found())
