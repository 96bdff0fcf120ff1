"""Learned coordinates: maps that keep volumes, and straighten a sheet that is bent."""

import bent_sheet
import numpy as np
import pytest
import tensorflow as tf

from tflens.inference.couplings import Couplings, Teacher, roughness, unlearned

DIM = 5


def couplings(seed: int, dim: int = DIM, dtype: str = "float64") -> Couplings:
    """Any weights."""
    rng = np.random.default_rng(seed)
    return Couplings(*(tf.constant(0.3 * rng.standard_normal(each.shape), dtype) for each in unlearned(dim, rng)))


def points(n: int, dim: int = DIM) -> tf.Tensor:
    return tf.constant(np.random.default_rng(9).standard_normal((n, dim)))


def test_volumes_are_kept_and_something_moves():
    v = points(6)
    with tf.GradientTape() as tape:
        tape.watch(v)
        w = couplings(1).forward(v)
    slopes = tape.batch_jacobian(w, v).numpy()
    np.testing.assert_allclose(np.linalg.det(slopes), 1, rtol=1e-10)
    assert (np.abs(w - v) > 1e-3).all()


@pytest.mark.parametrize(("dtype", "error"), [("float64", 1e-12), ("float32", 1e-4)])
def test_the_inverse_takes_back(dtype, error):
    found, v = couplings(2, dtype=dtype), tf.cast(points(6), dtype)
    np.testing.assert_allclose(found.inverse(found.forward(v)), v, atol=error)
    np.testing.assert_allclose(found.forward(found.inverse(v)), v, atol=error)


def test_unlearned_moves_nothing():
    start = Couplings(*map(tf.constant, unlearned(DIM, np.random.default_rng(0))))
    np.testing.assert_array_equal(start.forward(points(3)), points(3))


def test_each_of_several_lenses_has_its_own():
    each = [couplings(seed) for seed in (3, 4)]
    v = tf.stack([points(4), -points(4)])
    both = Couplings(*(tf.stack(pair) for pair in zip(*each, strict=True)))
    for one, its, found in zip(each, v, both.forward(v), strict=True):
        np.testing.assert_allclose(found, one.forward(its), atol=1e-12)


def sheet(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws `[n, 8]`, and slopes `[n, 8, 8]` whose squares are the Fisher matrix, all in units of the spread."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 4))
    y = (x**2 - 1) / 2 + bent_sheet.WIDTH * rng.standard_normal((n, 4))
    u = np.concatenate([x, y], 1)
    slopes = np.linalg.cholesky(bent_sheet.fisher(u)).transpose(0, 2, 1)
    return u, slopes


@pytest.fixture(scope="module")
def learned():
    u, slopes = sheet(600, 1)
    prior = np.zeros((1, 8))
    teacher = Teacher(8, "float64")
    return [teacher.learn(u, slopes, prior, np.random.default_rng(seed)) for seed in (5, 6, 5)]


class TestLearning:
    """Of a sheet in eight dimensions whose stiff directions turn from place to place."""

    def test_stiffness_falls_where_it_was_not_seen(self, learned):
        u, slopes = (tf.constant(each) for each in sheet(200, 2))
        none = tf.zeros([200, 8], tf.float64)
        start = Couplings(*map(tf.constant, unlearned(8, np.random.default_rng(0))))
        before = roughness(start, u, slopes, none)
        after = roughness(Couplings(*map(tf.constant, learned[0])), u, slopes, none)
        # 4 / 0.1^2 = 400 are the widths across the sheet, which no map that keeps volumes can lose for nothing; the
        # bends add as much again.
        assert before > 800
        assert after < 0.65 * before

    def test_a_teacher_begins_anew(self, learned):
        first, second, again = learned
        assert np.abs(first.last - second.last).max() > 1e-3
        for one, other in zip(first, again, strict=True):
            np.testing.assert_array_equal(one, other)


def test_slopes_that_are_too_steep_teach_nothing():
    u, slopes = sheet(80, 3)
    found = Teacher(8, "float64").learn(u, 1e200 * slopes, np.zeros((1, 8)), np.random.default_rng(1))
    np.testing.assert_array_equal(Couplings(*map(tf.constant, found)).forward(tf.constant(u)), u)
