"""Straight coordinates: the same density, with its ridges straightened to second order."""

from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
import tiny_lens

from tflens.density import Density
from tflens.inference.map import Optimum, polish
from tflens.inference.optimize import GaussNewton, gauss_newton, jacobian
from tflens.inference.straight import Straight, bend_of
from tflens.lens_batch import LensBatch


class Parabola(Density):
    """u_2 lies near a parabola over u_0 and u_1, which are known by the prior alone."""

    model = SimpleNamespace(dim=3, dtype="float64", latent_dim=0)
    width = 0.01
    second = np.array([[0.6, -0.2], [-0.2, 0.3]])

    def residual(self, u):
        return (u[..., 2] - 0.5 * tf.einsum("...a,ab,...b->...", u[..., :2], self.second, u[..., :2])) / self.width

    def log_likelihood(self, u):
        return -0.5 * self.residual(u) ** 2

    def value_and_gradient(self, u, power=1.0):
        raise NotImplementedError


@jacobian.register
def _(target: Parabola, u):
    with tf.GradientTape() as tape:
        tape.watch(u)
        residual = target.residual(u)
    return tape.gradient(residual, u)[:, None]


@gauss_newton.register
def _(target: Parabola, u):
    slope = jacobian(target, u)
    return GaussNewton(slope @ tf.transpose(slope) + tf.eye(3, dtype=u.dtype), None, None)


def test_a_parabola_becomes_a_gaussian():
    target = Parabola()
    bend = bend_of(target, tf.zeros(3, tf.float64))
    v = tf.constant(np.random.default_rng(0).normal(size=(50, 3)))
    # But for the prior of u_2, which is beside a likelihood of a hundredth of its width.
    expected = -0.5 * tf.reduce_sum(v**2, -1)
    u = bend.to_u(v)
    found = target.log_likelihood(u) + target.log_prior(u)
    u_2 = u[:, 2]
    np.testing.assert_allclose(found + 0.5 * u_2**2, expected, atol=0.05)
    line = bend._replace(bending=tf.zeros_like(bend.bending)).to_u(v)
    assert np.abs(target.log_likelihood(line) + target.log_prior(line) - expected).max() > 100


def bends():
    target = tiny_lens.target()
    best = polish(target, Optimum(tiny_lens.truth()[None], np.zeros(1), 0), 12).u[0]
    return target, bend_of(target, tf.constant(best))


@pytest.fixture(scope="module")
def bent():
    return bends()


class TestLens:
    def test_volumes_are_kept(self, bent):
        _, bend = bent
        v = tf.constant(np.random.default_rng(0).normal(size=(4, bend.center.shape[0])))
        with tf.GradientTape() as tape:
            tape.watch(v)
            u = bend.to_u(v)
        slopes = tape.batch_jacobian(u, v)
        for one, slope in zip(v, slopes, strict=True):
            np.testing.assert_allclose(bend.slope(one), slope, rtol=1e-9, atol=1e-12)
            log_det = np.linalg.slogdet(slope)[1]
            assert log_det == pytest.approx(np.linalg.slogdet(bend.basis)[1], abs=1e-9)

    def test_center_and_slope_are_those_of_the_optimum(self, bent):
        target, bend = bent
        np.testing.assert_array_equal(bend.to_u(tf.zeros([1, *bend.center.shape], tf.float64))[0], bend.center)
        curvature = gauss_newton(target, bend.center).curvature
        white = tf.transpose(bend.basis) @ curvature @ bend.basis
        np.testing.assert_allclose(white, np.eye(len(white)), atol=1e-6)

    def test_the_ridges_are_straighter(self, bent):
        """Where the stiff directions are at their optimum, a straight ridge loses no more than v^2 / 2."""
        target, bend = bent
        line = bend._replace(bending=tf.zeros_like(bend.bending))
        v = np.random.default_rng(1).normal(size=(40, len(bend.center)))
        v[:, 8:] = 0  # along the ridges, in the middle across
        v = tf.constant(v)

        def lost(bend):
            u = bend.to_u(v)
            top = target.log_likelihood(bend.center[None]) + target.log_prior(bend.center[None])
            return (top - target.log_likelihood(u) - target.log_prior(u) - 0.5 * tf.reduce_sum(v**2, -1)).numpy()

        assert np.std(lost(bend)) < 0.5 * np.std(lost(line))

    def test_curvature_by_v(self, bent):
        target, bend = bent
        straight = Straight(target)
        straight.straighten(0, bend.center.numpy())
        v = 0.5 * np.random.default_rng(2).normal(size=(1, len(bend.center)))
        u = straight.to_u(tf.constant(v))
        np.testing.assert_allclose(u, bend.to_u(tf.constant(v)), rtol=1e-9)
        slope = bend.slope(tf.constant(v[0]))
        expected = tf.transpose(slope) @ gauss_newton(target, u[0]).curvature @ slope
        np.testing.assert_allclose(straight.curvatures(0, v)[0], expected, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(straight.log_prob(tf.constant(v)), target.log_prob(u), rtol=1e-9)


def test_latents_are_whitened_and_no_more():
    target = tiny_lens.latent_target()
    center = tf.constant(0.2 * np.random.default_rng(4).normal(size=target.model.dim))
    bend = bend_of(target, center)
    assert not np.any(bend.bending)
    white = tf.transpose(bend.basis) @ gauss_newton(target, center).curvature @ bend.basis
    np.testing.assert_allclose(white, np.eye(len(white)), atol=1e-6)


def twice(target):
    """The lens of a target beside itself."""
    both = LensBatch(target, 2)
    for lens in range(2):
        both.take(lens)
    return both


def test_each_lens_has_coordinates_of_its_own():
    target = tiny_lens.target()
    both = twice(target)
    straight = Straight(both)
    centers = tiny_lens.near_truth(2, 0.05)
    for lens, center in enumerate(centers):
        straight.straighten(lens, center)
    v = 0.3 * np.random.default_rng(3).normal(size=(4, target.model.dim))
    found = straight.to_u(tf.constant(v)).numpy()
    for lens, center in enumerate(centers):
        mine = slice(2 * lens, 2 * lens + 2)
        np.testing.assert_allclose(found[mine], bend_of(target, tf.constant(center)).to_u(tf.constant(v[mine])))
        np.testing.assert_allclose(straight.draws_to_u(lens, v[mine][None])[0], found[mine])


@pytest.fixture(scope="module")
def learned():
    target = tiny_lens.latent_target()
    straight = Straight(target)
    straight.straighten(0, 0.2 * np.random.default_rng(4).normal(size=target.model.dim))
    v = np.random.default_rng(5).normal(size=(60, target.model.dim))
    u = straight.draws_to_u(0, v[None])[0]
    return target, straight, u, straight.learn(0, v, np.random.default_rng(6))


def test_each_lens_learns_for_itself():
    target = tiny_lens.latent_target()
    both = twice(target)
    straight = Straight(both)
    v = np.random.default_rng(5).normal(size=(2, 40, target.model.dim))
    for lens in range(2):
        straight.straighten(lens, np.zeros(target.model.dim))
    before = straight.draws_to_u(0, v[:1])
    u = straight.draws_to_u(1, v[1:])
    v[1] = straight.learn(1, v[1], np.random.default_rng(6))
    np.testing.assert_array_equal(straight.draws_to_u(0, v[:1]), before)
    np.testing.assert_allclose(straight.draws_to_u(1, v[1:]), u, atol=1e-9)
    together = straight.to_u(tf.constant(v.reshape(80, -1)))
    np.testing.assert_allclose(together, np.concatenate([before[0], u[0]]), atol=1e-9)


class TestLearned:
    """Coordinates of a lens whose source has latents, learned from draws around its optimum."""

    def test_points_stay_where_they_are(self, learned):
        target, straight, u, v = learned
        np.testing.assert_allclose(straight.draws_to_u(0, v[None])[0], u, atol=1e-9)
        np.testing.assert_allclose(straight.to_u(tf.constant(v)), u, atol=1e-9)
        np.testing.assert_allclose(straight.log_prob(tf.constant(v)), target.log_prob(tf.constant(u)), rtol=1e-9)

    def test_the_map_is_no_longer_linear_and_keeps_volumes(self, learned):
        _, straight, _, v = learned
        points = tf.constant(v[:6])
        with tf.GradientTape() as tape:
            tape.watch(points)
            u = straight.to_u(points)
        slopes = tape.batch_jacobian(u, points).numpy()
        log_det = np.linalg.slogdet(slopes)[1]
        np.testing.assert_allclose(log_det, log_det[0], atol=1e-9)
        assert np.abs(slopes - slopes[0]).max() > 1e-3 * np.abs(slopes).max()

    def test_curvature_by_v(self, learned):
        target, straight, u, v = learned
        point = tf.constant(v[:1])
        with tf.GradientTape() as tape:
            tape.watch(point)
            moved = straight.to_u(point)
        slope = tape.batch_jacobian(moved, point)[0]
        expected = tf.transpose(slope) @ gauss_newton(target, tf.constant(u[0])).curvature @ slope
        np.testing.assert_allclose(straight.curvatures(0, v[:1])[0], expected, rtol=1e-6, atol=1e-6)

    def test_it_is_forgotten_with_the_next_lens(self, learned):
        target, straight, _, _ = learned
        center = 0.1 * np.random.default_rng(7).normal(size=target.model.dim)
        fresh = Straight(target)
        v = np.random.default_rng(8).normal(size=(1, 3, target.model.dim))
        for each in (straight, fresh):
            each.straighten(0, center)
        np.testing.assert_array_equal(straight.draws_to_u(0, v), fresh.draws_to_u(0, v))
