"""A field beside the source: found where something is missing, and only there; and what is forgiven is white."""

import functools
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
import tiny_lens
from scipy import stats

from tflens.errors import ParameterError
from tflens.inference import hmc
from tflens.inference.derived import derived
from tflens.inference.discrepancy import (
    MODES,
    STAYS,
    Discrepancy,
    allow_for_discrepancy,
    find_discrepancy,
    seen_back,
    seen_through,
    volume_slope,
)
from tflens.inference.map import Optimum, polish
from tflens.inference.optimize import gauss_newton
from tflens.inference.posterior import assemble, draw_images
from tflens.inference.progress import silent
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
    after = target.evaluate(allow_for_discrepancy(target, Optimum(u[None], np.zeros(1), 0), 16, silent).u[0])
    assert before.chi2 > 1.2
    assert after.chi2 < 0.5 * (1 + before.chi2)
    np.testing.assert_allclose(after.image, after.lens_light + after.lensed_source)
    # The fit comes nearer to what there was without noise, not only to the noise.
    noise = np.random.default_rng(4).normal(0, tiny_lens.NOISE, tiny_lens.SHAPE)
    error = [np.std(fit.image - (target.image - noise)) for fit in (before, after)]
    assert error[1] < 0.5 * error[0]


def test_what_is_forgiven_is_white():
    """Draws of noise and patterns have unit covariance once deflated."""
    rng, field = np.random.default_rng(1), found().at_rest()
    n, pixels = 40_000, field.white.shape[1]
    draws = rng.normal(size=(n, pixels)) + rng.normal(size=(n, len(field.white))) @ field.white
    white = deflate(tf.constant(draws), tf.constant(field.modes)).numpy()
    direction = field.modes[-1] / np.linalg.norm(field.modes[-1])
    assert (draws @ direction).var() > 3
    assert abs((white @ direction).var() - 1) < 5 * np.sqrt(2 / n)
    chi2 = (white**2).sum(1)
    assert abs(chi2.mean() / pixels - 1) < 0.005
    assert stats.kstest(chi2[:2000], stats.chi2(pixels).cdf).pvalue > 1e-3


def test_all_patterns_of_a_field_are_forgiven():
    """However many: those of a strong field in a large image are all of them stronger than the noise."""
    white = np.random.default_rng(2).normal(size=(200, 500))
    white = np.linalg.eigh(white @ white.T)[1].T @ white  # without overlap, as all patterns
    modes = replace(found(), white=white).at_rest().modes
    root = deflate(tf.eye(500, dtype=tf.float64), tf.constant(modes)).numpy()
    np.testing.assert_allclose(root @ (np.eye(500) + white.T @ white) @ root, np.eye(500), atol=1e-8)


def test_coefficients_are_those_of_the_joint_gaussian():
    rng, field = np.random.default_rng(3), found().at_rest()
    white = field.white
    residual = rng.normal(size=(3, white.shape[1]))
    covariance = np.eye(white.shape[1]) + white.T @ white
    expected = np.linalg.solve(covariance, residual.T).T @ white.T
    np.testing.assert_allclose(field.coefficients(residual), expected, atol=1e-8)
    np.testing.assert_allclose(field.coefficients(residual[0]), expected[0], atol=1e-8)
    draws = field.coefficients(np.repeat(residual[:1], 20_000, 0), rng)
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


@functools.cache
def settled() -> tuple[LensTarget, np.ndarray, Discrepancy]:
    """The lens with the knot, its optimum once a field is allowed for, and the field as it is found there."""
    target, u = at_truth(0.3)
    u = allow_for_discrepancy(target, Optimum(u[None], np.zeros(1), 0), 16, silent).u[0]
    return target, u, find_discrepancy(target, u)


def as_each_lens_shows_it(target: LensTarget, u: np.ndarray, field: Discrepancy) -> float:
    """Log likelihood of a point with the field marginalised through its own lens."""
    target.forgive(field)
    images = seen_through(target, u, field.stamps)
    white = target.white(images)
    turn = np.linalg.eigh(white @ white.T)[1].T
    target.forgive(replace(field, images=images, white=turn @ white).at_rest())
    determinant = np.linalg.slogdet(np.eye(len(white)) + white @ white.T)[1]
    return target.log_likelihood(tf.constant(u[None])).numpy()[0] - determinant / 2


def test_a_field_goes_with_the_lens():
    """Over the width of the posterior the likelihood is that of a field seen through each lens; one of a field that
    stays where it was is another."""
    target, u, field = settled()
    factor = np.linalg.cholesky(np.linalg.inv(gauss_newton(target, tf.constant(u)).curvature.numpy()))
    points = u + 0.5 * np.random.default_rng(0).normal(size=(8, len(u))) @ factor.T
    exact = np.array([as_each_lens_shows_it(target, each, field) for each in [u, *points]])
    errors = []
    for each in (field, field.at_rest()):
        target.forgive(each)
        found = target.log_likelihood(tf.constant(np.stack([u, *points]))).numpy()
        errors.append(np.std((found - found[0]) - (exact - exact[0])))
    assert errors[0] < 0.3
    assert errors[0] < 0.2 * errors[1]


def test_however_much_stays_the_optimum_is_the_same():
    """Where the field was found it is marginalised exactly, however it is divided."""
    target, u, field = settled()
    values, slopes = [], []
    for most in (STAYS, 10 * STAYS, np.inf):
        target.forgive(replace(field, most=most))
        value, slope = target.value_and_gradient(tf.constant(u[None]))
        values.append(value.numpy()[0])
        slopes.append(slope.numpy()[0])
    assert field.variance.max() > 10 * STAYS
    assert np.ptp(values) < 0.02
    width = np.sqrt(np.diag(np.linalg.inv(gauss_newton(target, tf.constant(u)).curvature.numpy())))
    assert np.abs(np.ptp(slopes, axis=0) * width).max() < 0.05


def test_what_moves_and_what_stays_are_all_of_the_field():
    """Draws of the source, and of its image, do not depend on how the field is divided."""
    target, u, field = settled()
    source, n = target.model.source_amplitudes[0], 400
    stamps, seen = [], []
    for most in (STAYS, np.inf):
        target.forgive(replace(field, most=most))
        amplitudes = np.repeat(target.linear(tf.constant(u[None])).mean.numpy(), n, 0)
        images, drawn = draw_images(target, np.repeat(u[None], n, 0), amplitudes, np.random.default_rng(8))
        network = target.model.source_images(tf.constant(u[None]))[0].numpy()[0] * amplitudes[0, source]
        stamps.append(network + drawn.mean(0))
        seen.append(images[:, source].mean(0))
        # Four standard errors of draws that are no wider than the noise.
        np.testing.assert_allclose(seen[-1], target.evaluate(u).lensed_source, atol=4 / np.sqrt(n) * tiny_lens.NOISE)
    np.testing.assert_allclose(stamps[0], stamps[1], atol=0.05 * stamps[1].max())
    np.testing.assert_allclose(seen[0], seen[1], atol=4 * np.sqrt(2 / n) * tiny_lens.NOISE)


def test_flux_size_and_magnification_are_of_all_of_the_source():
    target, u, field = settled()
    rng = np.random.default_rng(9)
    chains = hmc.Chains(
        u=u + 1e-3 * rng.normal(size=(2, 40, len(u))),
        log_prob=np.zeros((2, 40)),
        acceptance=np.ones((2, 40)),
        diverging=np.zeros((2, 40), bool),
        step_size=0.1,
        leapfrog_steps=1.0,
        gradients=1,
    )
    found = {}
    for most in (STAYS, np.inf):
        target.forgive(replace(field, most=most))
        fit = SimpleNamespace(
            model=target.model,
            target=target,
            posterior=assemble(target, chains, 0),
            settings=SimpleNamespace(seed=0),
            optimum=Optimum(u[None], np.zeros(1), 0),
            best=target.evaluate(u),
        )
        found[most] = derived(fit)
        flux, magnification = (found[most][f"source.{name}"] for name in ("flux", "magnification"))
        network = float(np.median(fit.posterior.draws("source.amp")))
        assert abs(flux["median"] / network - 1) > 0.03  # of which the field takes away some
        assert magnification["best"] * flux["median"] == pytest.approx(fit.best.lensed_source.sum(), rel=0.05)
        assert magnification["low95"] < magnification["best"] < magnification["high95"]
    for name in ("flux", "half_light_radius", "magnification"):
        one, other = (found[most][f"source.{name}"] for most in (STAYS, np.inf))
        assert abs(one["median"] - other["median"]) < 0.5 * (one["high"] - one["low"])


def test_the_volume_of_a_field_moves_as_its_determinant():
    target, u, field = settled()
    target.forgive(field)
    weights = np.linalg.solve(np.eye(len(field.white)) + field.white @ field.white.T, field.white)
    slope = -volume_slope(target, u, field.stamps, weights)
    places = [target.model.names.index(name) for name in ("lens.theta_E", "lens.e1", "source.center_x")]
    for place in places:
        halves = []
        for step in (1e-4, -1e-4):
            moved = u + step * np.eye(len(u))[place]
            white = target.white(seen_through(target, moved, field.stamps))
            halves.append(-0.5 * np.linalg.slogdet(np.eye(len(white)) + white @ white.T)[1])
        assert slope[place] == pytest.approx((halves[0] - halves[1]) / 2e-4, rel=0.05, abs=0.02)


def test_seeing_back_is_the_transpose_of_seeing_through():
    target, u, field = settled()
    target.forgive(field)
    rng = np.random.default_rng(5)
    stamps, weights = rng.normal(size=(2, 6, 7)), rng.normal(size=(2, np.prod(tiny_lens.SHAPE)))
    forth = target.white(seen_through(target, u, stamps))
    back = seen_back(target, u, weights)
    np.testing.assert_allclose(forth @ weights.T, np.tensordot(stamps, back, [[1, 2], [1, 2]]), rtol=1e-8)


def test_tangents_see_the_field_move():
    target, u, field = settled()
    target.forgive(field)
    u = u + 0.1 * np.random.default_rng(7).normal(size=len(u))
    tangents = target.linearize(tf.constant(u))[1].numpy()
    for place in (0, 2, target.model.physical_dim, len(u) - 1):
        step = 1e-5 * np.eye(len(u))[place]
        up, down = target.design(tf.constant(np.stack([u + step, u - step]))).numpy()
        difference = (up - down) / 2e-5
        np.testing.assert_allclose(tangents[place], difference, atol=1e-4 * np.abs(difference).max())


def test_another_mask_forgives_nothing_any_more():
    target, _ = at_truth(0.3)
    target.forgive(found())
    target.use(target.mask)
    assert target.discrepancy is None
    assert not target.seen.modes.numpy().any()


def test_a_target_without_modes_says_what_to_do():
    with pytest.raises(ParameterError, match=r"takes up to 0 modes of 480 pixels.*make the target with more `modes`"):
        LensTarget(tiny_lens.model(), tiny_lens.observation()).forgive(found())
