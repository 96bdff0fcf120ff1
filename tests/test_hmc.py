"""The sampler on densities whose moments are known."""

import functools

import bent_sheet
import numpy as np
import pytest
import tensorflow as tf

from tflens.inference import hmc

MEAN = np.array([1.0, -2.0, 0.5])
COVARIANCE = np.array([[1.0, 0.95, 0.0], [0.95, 1.0, 0.3], [0.0, 0.3, 4.0]]) * np.outer([1, 10, 0.1], [1, 10, 0.1])
COVARIANCE[0, 2] = COVARIANCE[2, 0] = 0.02
PRECISION = np.linalg.inv(COVARIANCE)


def gaussian(u):
    delta = u - tf.constant(MEAN, u.dtype)
    return -0.5 * tf.einsum("ni,ij,nj->n", delta, tf.constant(PRECISION, u.dtype), delta)


def fisher(points):
    return np.repeat(PRECISION[None], len(points), 0)


def identity(points):
    return np.repeat(np.eye(points.shape[1])[None], len(points), 0)


@functools.cache
def long_run() -> tuple[hmc.Chains, list]:
    heard = []
    chains = hmc.sample(
        hmc.Sampler(gaussian, 3, "float64"),
        MEAN + 0.3,
        fisher,
        chains=6,
        warmup=120,
        draws=410,
        seed=3,
        progress=lambda *told: heard.append(told),
    )
    return chains, heard


def short_run(seed: int) -> hmc.Chains:
    return hmc.sample(hmc.Sampler(gaussian, 3, "float64"), MEAN, fisher, chains=2, warmup=60, draws=20, seed=seed)


class TestGaussian:
    def test_moments_within_monte_carlo_error(self):
        import arviz as az

        u = long_run()[0].u
        for i in range(3):
            ess = float(az.ess(u[..., i]))
            assert ess > 500
            error = np.sqrt(COVARIANCE[i, i] / ess)
            assert abs(u[..., i].mean() - MEAN[i]) < 4 * error
            # The variance of a Gaussian's sample variance is 2 sigma^4 / ESS, its ESS that of the squares.
            squares = (u[..., i] - MEAN[i]) ** 2
            ess_square = float(az.ess(squares))
            assert abs(squares.mean() / COVARIANCE[i, i] - 1) < 4 * np.sqrt(2 / ess_square)
            assert float(az.rhat(u[..., i])) < 1.02
        whitened = (u.reshape(-1, 3) - MEAN) @ np.linalg.cholesky(PRECISION)
        np.testing.assert_allclose(np.cov(whitened.T), np.eye(3), atol=4 * np.sqrt(2 / 500))

    def test_shapes_and_acceptance(self):
        chains, _ = long_run()
        assert chains.u.shape == (6, 410, 3)
        assert chains.log_prob.shape == chains.acceptance.shape == chains.diverging.shape == (6, 410)
        assert chains.u.dtype == np.float64
        assert 0.7 < chains.acceptance.mean() < 0.99
        assert (chains.acceptance >= 0).all()
        assert (chains.acceptance <= 1).all()
        assert not chains.diverging.any()
        assert 0 < chains.step_size < 2  # leapfrog is unstable beyond 2 in whitened units
        assert 1 <= chains.leapfrog_steps <= 32
        assert chains.gradients > 6 * (120 + 410)

    def test_density_is_that_of_the_draws(self):
        chains, _ = long_run()
        expected = gaussian(tf.constant(chains.u.reshape(-1, 3))).numpy().reshape(6, 410)
        np.testing.assert_allclose(chains.log_prob, expected, rtol=1e-10, atol=1e-10)

    def test_progress_never_runs_backwards(self):
        _, heard = long_run()
        assert list(dict.fromkeys(stage for stage, _, _ in heard)) == ["warm-up", "sampling"]
        for name in ("warm-up", "sampling"):
            fractions = [fraction for stage, fraction, _ in heard if stage == name]
            assert fractions == sorted(fractions)
            assert fractions[0] > 0
            assert fractions[-1] == 1.0
        assert all(points.shape == (6, 3) and np.isfinite(points).all() for _, _, points in heard)


@pytest.fixture(scope="module")
def shifted():
    shift, told = tf.Variable(np.zeros(3)), []

    def straighten(lens, points, rng):
        told.append((lens, points + shift.numpy()))
        shift.assign_add([3.0, -2.0, 1.0])
        return points - np.array([3.0, -2.0, 1.0])

    found = hmc.sample_each(
        hmc.Sampler(lambda v: gaussian(v + shift), 3, "float64"),
        MEAN[None],
        lambda lens, points: fisher(points),
        straighten=straighten,
        chains=6,
        warmup=80,
        draws=150,
        rounds=2,
        enough=lambda _: False,
        seed=4,
    )[0]
    return found, shift.numpy(), told


class TestStraighten:
    """Coordinates that change on the way: here, shifted ones, each time by more."""

    def test_draws_are_in_the_last_ones(self, shifted):
        found, shift, _ = shifted
        u = found.u.reshape(-1, 3) + shift
        errors = np.sqrt(np.diag(COVARIANCE) / 400)
        assert (np.abs(u.mean(0) - MEAN) < 4 * errors).all()
        np.testing.assert_allclose(found.log_prob.ravel(), gaussian(tf.constant(u)), rtol=1e-9)

    def test_they_change_in_the_warm_up_and_before_a_further_round(self, shifted):
        _, shift, told = shifted
        assert [lens for lens, _ in told] == [0, 0]
        np.testing.assert_array_equal(shift, [6.0, -4.0, 2.0])
        assert len(told[1][1]) == 6 * 150  # all of the round before
        for _, u in told:
            assert (np.abs(u.mean(0) - MEAN) < np.sqrt(np.diag(COVARIANCE))).all()


class TestSeed:
    def test_same_seed_same_draws_another_seed_others(self):
        first, again, other = short_run(1), short_run(1), short_run(2)
        np.testing.assert_array_equal(first.u, again.u)
        np.testing.assert_array_equal(first.acceptance, again.acceptance)
        assert (first.u != other.u).all()


class TestHardDensities:
    @staticmethod
    def cliff(u):
        # A unit Gaussian that falls off a cliff right of 1.
        fall = tf.where(u[:, 0] > 1, tf.constant(1e5, u.dtype), tf.constant(0, u.dtype))
        return -0.5 * tf.reduce_sum(u**2, -1) - fall

    def test_divergences_are_counted_where_the_density_falls_off_a_cliff(self):
        chains = hmc.sample(hmc.Sampler(self.cliff, 2, "float64"), np.zeros(2), identity, chains=4, warmup=60, draws=60)
        assert chains.diverging.any()
        assert (chains.acceptance[chains.diverging] == 0).all()
        assert (chains.u[..., 0] <= 1).all()
        assert np.isfinite(chains.u).all()

    @pytest.mark.parametrize("outside", [-np.inf, np.nan])
    def test_no_draw_lies_where_the_density_is_not_finite(self, outside):
        def walled(u):
            inside = u[:, 0] < 1
            return tf.where(inside, -0.5 * tf.reduce_sum(u**2, -1), tf.constant(outside, u.dtype))

        chains = hmc.sample(hmc.Sampler(walled, 2, "float64"), np.zeros(2), identity, chains=4, warmup=60, draws=60)
        assert (chains.u[..., 0] < 1).all()
        assert np.isfinite(chains.log_prob).all()
        assert np.isfinite(chains.acceptance).all()
        assert chains.diverging.any()

    def test_float32_stays_float32(self):
        center = np.zeros(2, np.float32)
        chains = hmc.sample(hmc.Sampler(self.cliff, 2), center, identity, chains=2, warmup=60, draws=25)
        assert chains.u.dtype == np.float32
        assert chains.u.shape == (2, 25, 2)


def test_moments_of_a_bent_sheet_within_monte_carlo_error():
    import arviz as az

    sampler = hmc.Sampler(bent_sheet.log_prob, 8, "float64")
    effort = {"chains": 6, "warmup": 150, "draws": 200, "rounds": 3, "enough": lambda u: False}
    u = hmc.sample(sampler, bent_sheet.CENTER, bent_sheet.fisher, seed=2, **effort).u
    for values, mean, variance in ((u[..., :4], 0.0, 1.0), (u[..., 4:], 0.0, 0.5 + bent_sheet.WIDTH**2)):
        for i in range(4):
            ess = float(az.ess(values[..., i]))
            assert ess > 100
            assert float(az.rhat(values[..., i])) < 1.05
            assert abs(values[..., i].mean() - mean) < 4 * np.sqrt(variance / ess)


class TestSampler:
    def test_another_density_of_the_same_sampler_needs_no_new_program(self):
        width = tf.Variable(1.0, dtype=tf.float64)
        sampler = hmc.Sampler(lambda u: -0.5 * tf.reduce_sum((u / width) ** 2, -1), 2, "float64")
        first = hmc.sample(sampler, np.zeros(2), identity, chains=2, warmup=40, draws=40).u
        traces = sampler.transit.experimental_get_tracing_count()
        width.assign(10.0)
        curvature = lambda points: identity(points) / 100  # noqa: E731
        second = hmc.sample(sampler, np.zeros(2), curvature, chains=2, warmup=40, draws=40).u
        assert sampler.transit.experimental_get_tracing_count() == traces == 1
        np.testing.assert_allclose(second, 10 * first, rtol=1e-6)


class TestRounds:
    """Of a density whose curvature is told wrongly: few draws make a poor metric, and few draws are not enough."""

    WIDTHS = np.geomspace(0.2, 5, 12)

    def sample(self, **options) -> hmc.Chains:
        def log_prob(u):
            return -0.5 * tf.reduce_sum((u / tf.constant(self.WIDTHS, u.dtype)) ** 2, -1)

        return hmc.sample(
            hmc.Sampler(log_prob, 12, "float64"), np.zeros(12), identity, chains=4, warmup=40, draws=20, **options
        )

    def test_each_draws_twice_as_many_until_they_are_enough(self):
        asked = []
        found = self.sample(rounds=4, enough=lambda u: asked.append(u.shape) or len(asked) == 2)
        assert asked == [(4, 20, 12), (4, 40, 12)]
        assert found.u.shape == (4, 40, 12)
        assert found.figures["rounds"] == 2

    def test_the_last_is_kept_whatever_it_is(self):
        found = self.sample(rounds=3, enough=lambda u: False)
        assert found.u.shape == (4, 80, 12)
        assert found.log_prob.shape == found.acceptance.shape == found.diverging.shape == (4, 80)
        assert found.figures["rounds"] == 3

    def test_one_round_asks_nothing(self):
        def never(u):
            raise AssertionError

        assert self.sample(enough=never).u.shape == (4, 20, 12)

    def test_draws_of_a_round_are_a_better_metric(self):
        """With it a trajectory is as long in every direction, and draws follow each other less."""
        import arviz as az

        def efficiency(found: hmc.Chains) -> float:
            return min(float(az.ess(found.u[..., i])) for i in range(12)) / found.u[..., 0].size

        assert efficiency(self.sample(rounds=4, enough=lambda u: False)) > 2 * efficiency(self.sample())

    def test_progress_only_rises(self):
        heard = []
        self.sample(rounds=3, enough=lambda u: u.shape[1] > 20, progress=lambda *told: heard.append(told[:2]))
        fractions = [fraction for stage, fraction in heard if stage == "sampling"]
        assert fractions == sorted(fractions)
        assert fractions[-1] == 1.0
