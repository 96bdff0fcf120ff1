"""Priors: u ~ N(0, 1) becomes the declared distribution, and comes back."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from tflens._tfp import tfb, tfd
from tflens.errors import ParameterError
from tflens.parameters import Disc, bounded_normal, ellipticity, from_base, log_normal, normal, to_base, uniform

SCALAR = {
    "normal": (normal(0.3, 2.0), stats.norm(0.3, 2.0).cdf),
    "log_normal": (log_normal(1.2, 0.5), stats.lognorm(0.5, scale=1.2).cdf),
    # Its logit (v - 1.2) / (2.8 - v) is normal; a scale of 0.2 at the median is 0.2 / (1.6 * 0.25) there.
    "bounded_normal": (
        bounded_normal(1.2, 2.8, 2.0, 0.2),
        lambda v: stats.norm(0, 0.5).cdf(np.log((v - 1.2) / (2.8 - v))),
    ),
    "uniform": (uniform(-1.0, 3.0), stats.uniform(-1, 4).cdf),
    "Gamma": (lambda dtype: tfd.Gamma(*_constants(dtype, 2, 3)), stats.gamma(2, scale=1 / 3).cdf),
    "TruncatedNormal": (
        lambda dtype: tfd.TruncatedNormal(*_constants(dtype, 0.5, 1, 0, 3)),
        stats.truncnorm(-0.5, 2.5, loc=0.5).cdf,
    ),
    "HalfNormal": (lambda dtype: tfd.HalfNormal(*_constants(dtype, 2)), stats.halfnorm(scale=2).cdf),
    "shifted Gamma": (
        lambda dtype: tfd.TransformedDistribution(
            tfd.Gamma(*_constants(dtype, 2, 3)), tfb.Shift(tf.constant(1.0, dtype))
        ),
        stats.gamma(2, loc=1, scale=1 / 3).cdf,
    ),
}
every_scalar = pytest.mark.parametrize("name", list(SCALAR))


def _constants(dtype: tf.DType, *values: float) -> list[tf.Tensor]:
    return [tf.constant(float(v), dtype) for v in values]


class TestScalarPriors:
    @every_scalar
    def test_standard_normal_draws_become_draws_of_the_prior(self, name):
        factory, cdf = SCALAR[name]
        u = tf.constant(np.random.default_rng(1).normal(size=4000))
        assert stats.kstest(from_base(factory(tf.float64), u).numpy(), cdf).pvalue > 0.01

    @every_scalar
    def test_quantiles_are_those_of_the_prior(self, name):
        factory, cdf = SCALAR[name]
        u = np.linspace(-5, 5, 21)
        value = from_base(factory(tf.float64), tf.constant(u)).numpy()
        np.testing.assert_allclose(cdf(value), stats.norm.cdf(u), rtol=1e-8)
        assert (np.diff(value) > 0).all()

    @every_scalar
    @pytest.mark.parametrize(("dtype", "limit", "tolerance"), [("float32", 3, 3e-5), ("float64", 5, 1e-8)])
    def test_to_base_inverts_from_base(self, name, dtype, limit, tolerance):
        prior = SCALAR[name][0](tf.as_dtype(dtype))
        u = tf.constant(np.linspace(-limit, limit, 31), dtype)
        value = from_base(prior, u)
        assert value.dtype == dtype
        np.testing.assert_allclose(to_base(prior, value), u, rtol=0, atol=tolerance)

    @every_scalar
    @pytest.mark.parametrize(("dtype", "xla"), [("float32", False), ("float64", False), ("float32", True)])
    def test_values_and_gradients_are_finite_in_the_far_tails(self, name, dtype, xla):
        prior = SCALAR[name][0](tf.as_dtype(dtype))

        def value_and_gradient(u):
            with tf.GradientTape() as tape:
                tape.watch(u)
                value = from_base(prior, u)
            return value, tape.gradient(value, u)

        run = tf.function(value_and_gradient, jit_compile=True, autograph=False) if xla else value_and_gradient
        value, gradient = run(tf.constant([-20.0, -8.0, -6.0, 0.0, 5.5, 6.0, 8.0, 20.0], dtype))
        assert np.isfinite(value).all()
        assert np.isfinite(gradient).all()
        assert (gradient.numpy()[2:6] > 0).all()

    @every_scalar
    def test_float32_equals_float64_in_the_tails(self, name):
        factory = SCALAR[name][0]
        u = np.array([-5.0, -3.0, 0.0, 3.0, 4.5, 5.0])
        single, double = (from_base(factory(tf.as_dtype(d)), tf.constant(u, d)) for d in ("float32", "float64"))
        np.testing.assert_allclose(single, double, rtol=5e-6, atol=2e-6)

    @every_scalar
    def test_gradient_is_the_ratio_of_the_densities(self, name):
        prior = SCALAR[name][0](tf.float64)
        u = tf.constant(np.linspace(-4, 4, 9))
        with tf.GradientTape() as tape:
            tape.watch(u)
            value = from_base(prior, u)
        expected = np.exp(stats.norm.logpdf(u.numpy()) - prior.log_prob(value).numpy())
        np.testing.assert_allclose(tape.gradient(value, u), expected, rtol=1e-7)

    def test_values_at_the_bounds_have_a_finite_u(self):
        prior = tfd.Uniform(tf.constant(0.0), tf.constant(1.0))
        np.testing.assert_array_equal(to_base(prior, tf.constant([0.0, 1.0])), [-8, 8])

    def test_scale_of_a_bounded_normal_is_its_slope_at_the_median(self):
        prior = bounded_normal(0.5, 8.0, 1.5, 1.1)(tf.float64)
        u = tf.constant(0.0, tf.float64)
        with tf.GradientTape() as tape:
            tape.watch(u)
            value = from_base(prior, u)
        np.testing.assert_allclose(value, 1.5, rtol=1e-14)
        np.testing.assert_allclose(tape.gradient(value, u), 1.1, rtol=1e-13)

    def test_plain_numbers_take_the_precision_of_the_prior(self):
        prior = normal(0.1, 0.3)(tf.float64)
        np.testing.assert_allclose(from_base(prior, 0.7), 0.1 + 0.3 * 0.7, rtol=1e-15)
        np.testing.assert_allclose(to_base(prior, 0.31), 0.7, rtol=1e-15)

    def test_batches_of_any_shape_keep_it(self):
        u = tf.zeros([2, 3, 1])
        for factory, _ in SCALAR.values():
            assert from_base(factory(tf.float32), u).shape == (2, 3, 1)


class TestEllipticity:
    def test_draws_are_isotropic_and_inside_the_disc(self):
        scale, maximum = 0.3, 0.6
        u = tf.constant(np.random.default_rng(4).normal(size=(4000, 2)))
        e = from_base(ellipticity(scale, maximum)(tf.float64), u).numpy()
        modulus, angle = np.hypot(*e.T), np.arctan2(e[:, 1], e[:, 0])
        assert modulus.max() < maximum
        # |scale u| is Rayleigh, and |e| = r / sqrt(1 + r^2 / maximum^2).
        expected = stats.rayleigh(scale=scale)
        assert stats.kstest(modulus / np.sqrt(1 - (modulus / maximum) ** 2), expected.cdf).pvalue > 0.01
        assert stats.kstest(angle, stats.uniform(-np.pi, 2 * np.pi).cdf).pvalue > 0.01

    @pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-5), ("float64", 1e-13)])
    def test_to_base_inverts_from_base(self, dtype, tolerance):
        prior = ellipticity(0.15, 0.6)(tf.as_dtype(dtype))
        u = tf.constant(np.random.default_rng(4).normal(size=(5, 7, 2)), dtype)
        np.testing.assert_allclose(to_base(prior, from_base(prior, u)), u, rtol=0, atol=tolerance)

    def test_density_integrates_to_one_over_the_disc(self):
        prior = ellipticity(0.2, 0.6)(tf.float64)
        nodes, weights = np.polynomial.legendre.leggauss(200)
        radius = 0.3 * (nodes + 1)
        density = prior.prob(tf.constant(np.stack([radius * 0.6, radius * 0.8], -1))).numpy()
        np.testing.assert_allclose(np.sum(0.3 * weights * 2 * np.pi * radius * density), 1, rtol=1e-9)

    @pytest.mark.parametrize("dimension", [1, 2, 3])
    def test_log_determinant_is_that_of_the_jacobian(self, dimension):
        disc = Disc(0.7)
        x = tf.constant(np.random.default_rng(6).normal(size=(9, dimension)))
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = disc.forward(x)
        jacobian = tape.batch_jacobian(y, x)
        expected = np.linalg.slogdet(jacobian.numpy()).logabsdet
        np.testing.assert_allclose(disc.forward_log_det_jacobian(x), expected, rtol=1e-12)
        # Through tf.identity, past the bijector's cache of what it has just computed.
        np.testing.assert_allclose(disc.inverse(tf.identity(y)), x, rtol=1e-12)
        np.testing.assert_allclose(disc.inverse_log_det_jacobian(tf.identity(y)), -expected, rtol=1e-12)


class TestVectorPrior:
    def test_diagonal_normal_maps_component_by_component(self):
        prior = tfd.MultivariateNormalDiag(*_vectors([0.1, -0.2], [0.5, 2.0]))
        u = tf.constant([[1.0, -1.0], [0.0, 2.0]], tf.float64)
        np.testing.assert_allclose(from_base(prior, u), [[0.6, -2.2], [0.1, 3.8]], rtol=1e-14)
        np.testing.assert_allclose(to_base(prior, from_base(prior, u)), u, rtol=1e-14, atol=1e-15)


def _vectors(*values: list[float]) -> list[tf.Tensor]:
    return [tf.constant(v, tf.float64) for v in values]


class TestErrors:
    @pytest.mark.parametrize(
        "prior",
        [
            tfd.VonMises(0.0, 1.0),
            tfd.Dirichlet([1.0, 2.0]),
            tfd.MixtureSameFamily(tfd.Categorical([0.0, 0.0]), tfd.Normal([0.0, 1.0], 1.0)),
        ],
        ids=lambda prior: type(prior).__name__,
    )
    def test_prior_without_a_map_from_a_normal_is_refused_by_name(self, prior):
        with pytest.raises(ParameterError, match=f"{type(prior).__name__}.*neither a bijector.*nor a quantile"):
            from_base(prior, tf.zeros([2]))
        with pytest.raises(ParameterError, match=prior.name):
            to_base(prior, tf.ones([2]) / 2)

    @pytest.mark.parametrize(
        ("factory", "arguments"),
        [
            (normal, (0.0, 0.0)),
            (normal, (float("nan"), 1.0)),
            (log_normal, (-1.0, 0.5)),
            (log_normal, (1.0, float("inf"))),
            (bounded_normal, (1.2, 2.8, 3.0, 0.2)),
            (bounded_normal, (1.2, 2.8, 1.2, 0.2)),
            (bounded_normal, (1.2, 2.8, 2.0, -0.2)),
            (ellipticity, (0.0, 0.5)),
            (ellipticity, (0.1, 1.5)),
        ],
    )
    def test_factories_refuse_what_makes_no_prior(self, factory, arguments):
        with pytest.raises(ParameterError, match=rf"prior breaks its rule, {factory.__name__}\("):
            factory(*arguments)

    @pytest.mark.parametrize("maximum", [0.0, -1.0, 1.1, float("nan")])
    def test_disc_needs_a_radius_up_to_one(self, maximum):
        with pytest.raises(ParameterError, match=r"largest ellipticity must lie in \(0, 1\]"):
            Disc(maximum)
