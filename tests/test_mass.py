"""One harness that every mass profile passes, and the laws and parities of each of them."""

import warnings

import numpy as np
import pytest
import tensorflow as tf
from scipy.special import hyp2f1

from tflens.errors import ParameterError
from tflens.grid import PixelGrid
from tflens.mass import EPL, SIE, MassProfile, Shear
from tflens.parameters import from_base

# Series to the last digit, so that what is left is the formulas' own error.
EXACT = {"EPL": EPL(tolerance=1e-15), "SIE": SIE(tolerance=1e-15), "Shear": Shear()}
SHIPPED = {"EPL": EPL(), "SIE": SIE(), "Shear": Shear()}
# Short series, for XLA takes seconds to compile the gradient of a long one; no term of it is unlike another.
SHORT = {"EPL": EPL(tolerance=0.1), "SIE": SIE(tolerance=0.1), "Shear": Shear()}
METHODS = ("deflection", "potential", "convergence")

# What a prior can reach and arithmetic can trip over, changed one at a time from the prior's median.
NASTY = {
    "median": {},
    "flattest": {"e1": 0.6 * (1 - 1e-6)},
    "flattest, tilted": {"e1": -0.36, "e2": 0.4799},
    "shallowest": {"gamma": 1.2 + 1e-6},
    "steepest": {"gamma": 2.8 - 1e-6},
    "steepest and flattest": {"gamma": 2.8 - 1e-6, "e2": -0.6 * (1 - 1e-6)},
    "tiny": {"theta_E": 1e-6},
    "large": {"theta_E": 30.0},
    "no shear": {"gamma1": 0.0, "gamma2": 0.0},
}
# The centre itself, closer than any pixel, on the axes, far away.
NASTY_X = np.array([[0.0, 0.0, 1e-9, 1e-7, 2e-6, 1.0, 1.0, 0.0, 1e4]])
NASTY_Y = np.array([[0.0, 1e-9, 0.0, -1e-7, 1e-6, 0.0, 1.0, -1.0, -3e3]])

every_profile = pytest.mark.parametrize("name", list(EXACT))


def medians(profile: MassProfile, dtype: str = "float64") -> dict[str, tf.Tensor]:
    return drawn(profile, np.zeros([len(profile.parameter_names)]), dtype)


def drawn(profile: MassProfile, u: np.ndarray, dtype: str = "float64") -> dict[str, tf.Tensor]:
    """Parameters at base-space values `[...batch, dim]`, by the profile's default priors."""
    values, start = {}, 0
    for parameter in profile.parameters:
        part = tf.constant(u[..., start : start + len(parameter.names)], dtype)
        scalar = len(parameter.names) == 1
        value = from_base(parameter.prior(tf.as_dtype(dtype)), part[..., 0] if scalar else part)
        values |= (
            {parameter.names[0]: value}
            if scalar
            else dict(zip(parameter.names, tf.unstack(value, axis=-1), strict=True))
        )
        start += len(parameter.names)
    return values


def draws(profile: MassProfile, shape: tuple[int, ...], dtype: str = "float64") -> dict[str, tf.Tensor]:
    return drawn(profile, np.random.default_rng(5).normal(size=(*shape, len(profile.parameter_names))), dtype)


def evaluate(profile: MassProfile, x, y, parameters) -> list[tf.Tensor]:
    """alpha_x, alpha_y, psi, kappa."""
    return [
        *profile.deflection(x, y, **parameters),
        profile.potential(x, y, **parameters),
        profile.convergence(x, y, **parameters),
    ]


def sky(dtype: str = "float64") -> tuple[tf.Tensor, tf.Tensor]:
    """A non-square frame, [1, nx] and [ny, 1], no pixel at a centre."""
    x, y = PixelGrid((5, 8), 0.41, center=(0.13, -0.07)).coordinates()
    return tf.constant(x, dtype), tf.constant(y, dtype)


class TestEveryProfile:
    @every_profile
    def test_deflection_is_the_gradient_of_the_potential(self, name):
        profile = EXACT[name]
        parameters = draws(profile, (20,))
        x, y = (tf.broadcast_to(v, [20, 5, 8]) for v in sky())
        with tf.GradientTape() as tape:
            tape.watch([x, y])
            psi = profile.potential(x, y, **parameters)
        for gradient, alpha in zip(tape.gradient(psi, [x, y]), profile.deflection(x, y, **parameters), strict=True):
            np.testing.assert_allclose(gradient, alpha, rtol=0, atol=1e-12 * np.abs(alpha).max())

    @every_profile
    def test_convergence_is_half_the_divergence_and_the_curl_is_zero(self, name):
        profile = EXACT[name]
        parameters = draws(profile, (20,))
        x, y = (tf.broadcast_to(v, [20, 5, 8]) for v in sky())
        with tf.GradientTape(persistent=True) as tape:
            tape.watch([x, y])
            alpha_x, alpha_y = profile.deflection(x, y, **parameters)
        xx, xy = tape.gradient(alpha_x, [x, y], unconnected_gradients="zero")
        yx, yy = tape.gradient(alpha_y, [x, y], unconnected_gradients="zero")
        kappa = profile.convergence(x, y, **parameters)
        np.testing.assert_allclose((xx + yy) / 2, kappa, rtol=1e-11, atol=1e-14)
        np.testing.assert_allclose(xy, yx, rtol=0, atol=1e-12 * np.abs(xx).max())

    @every_profile
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    @pytest.mark.parametrize("xla", [False, True], ids=["eager", "xla"])
    def test_values_and_gradients_are_finite_at_nasty_points(self, name, dtype, xla):
        profile = SHORT[name] if xla else SHIPPED[name]
        cases = [
            medians(profile, dtype) | {k: tf.constant(v, dtype) for k, v in changes.items()}
            for changes in NASTY.values()
            if set(changes) <= set(profile.parameter_names)
        ]
        parameters = {k: tf.stack([case[k] for case in cases]) for k in profile.parameter_names}
        x, y = (tf.repeat(tf.constant(v[None], dtype), len(cases), axis=0) for v in (NASTY_X, NASTY_Y))

        def value_and_gradients(x, y, parameters):
            # One sum of all four: what is not finite in a gradient of any of them stays so in the sum's.
            with tf.GradientTape() as tape:
                tape.watch([x, y, parameters])
                values = evaluate(profile, x, y, parameters)
                total = tf.add_n([tf.reduce_sum(v) for v in values])
            return values, tape.gradient(total, [x, y, *parameters.values()], unconnected_gradients="zero")

        run = tf.function(value_and_gradients, jit_compile=True, autograph=False) if xla else value_and_gradients
        values, gradients = run(x, y, parameters)
        for result in tf.nest.flatten([values, gradients]):
            assert np.isfinite(result).all()
            assert result.dtype == dtype

    @every_profile
    def test_gradients_equal_finite_differences(self, name):
        profile = SHIPPED[name]
        parameters = draws(profile, ())
        x, y = sky()
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(parameters)
            sums = [tf.reduce_sum(v) for v in evaluate(profile, x, y, parameters)]
        step = 1e-5
        for parameter in profile.parameter_names:
            up, down = (
                [
                    float(tf.reduce_sum(v))
                    for v in evaluate(profile, x, y, parameters | {parameter: parameters[parameter] + s})
                ]
                for s in (step, -step)
            )
            expected = (np.array(up) - np.array(down)) / (2 * step)
            found = [tape.gradient(v, parameters[parameter], unconnected_gradients="zero") for v in sums]
            np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-7)

    @every_profile
    @pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-5), ("float64", 1e-12)])
    def test_xla_equals_eager(self, name, dtype, tolerance):
        profile = SHIPPED[name]
        parameters = draws(profile, (3,), dtype)
        x, y = sky(dtype)
        compiled = tf.function(lambda *args: evaluate(profile, *args), jit_compile=True, autograph=False)(
            x, y, parameters
        )
        for fast, slow in zip(compiled, evaluate(profile, x, y, parameters), strict=True):
            np.testing.assert_allclose(fast, slow, rtol=tolerance, atol=tolerance)

    @every_profile
    def test_float32_equals_float64(self, name):
        profile = SHIPPED[name]
        exact = evaluate(profile, *sky(), draws(profile, (20,)))
        for single, double in zip(
            evaluate(profile, *sky("float32"), draws(profile, (20,), "float32")), exact, strict=True
        ):
            np.testing.assert_allclose(single, double, rtol=0, atol=1e-5 * max(np.abs(double).max(), 1e-3))

    @every_profile
    def test_batch_equals_loop(self, name):
        profile = SHIPPED[name]
        parameters = draws(profile, (2, 3))
        batch = evaluate(profile, *sky(), parameters)
        for result in batch:
            assert result.shape == (2, 3, 5, 8)
        for i, j in np.ndindex(2, 3):
            single = evaluate(profile, *sky(), {k: v[i, j] for k, v in parameters.items()})
            for whole, one in zip(batch, single, strict=True):
                np.testing.assert_allclose(whole[i, j], one, rtol=1e-13, atol=1e-14)

    @every_profile
    def test_row_and_column_coordinates_equal_a_full_mesh(self, name):
        profile = SHIPPED[name]
        parameters = draws(profile, (3,))
        x, y = sky()
        full = tf.broadcast_to(x, [5, 8]), tf.broadcast_to(y, [5, 8])
        for thin, mesh in zip(evaluate(profile, x, y, parameters), evaluate(profile, *full, parameters), strict=True):
            np.testing.assert_array_equal(thin, mesh)

    @every_profile
    def test_parameters_of_different_batch_shapes_broadcast(self, name):
        profile = SHIPPED[name]
        first, *rest = profile.parameter_names
        one = draws(profile, ())
        mixed = {first: one[first] * tf.constant([0.5, 1.0], "float64"), **{k: one[k] for k in rest}}
        for result in evaluate(profile, *sky(), mixed)[:3]:
            assert result.shape == (2, 5, 8)
        np.testing.assert_allclose(
            profile.deflection(*sky(), **mixed)[0][1], profile.deflection(*sky(), **one)[0], rtol=1e-13
        )

    @every_profile
    def test_plain_numbers_take_the_precision_of_the_coordinates(self, name):
        profile = SHIPPED[name]
        tensors = draws(profile, ())
        numbers = {k: float(v) for k, v in tensors.items()}
        for given, expected in zip(evaluate(profile, *sky(), numbers), evaluate(profile, *sky(), tensors), strict=True):
            assert given.dtype == tf.float64
            np.testing.assert_allclose(given, expected, rtol=1e-14)

    @every_profile
    def test_config_rebuilds_the_profile(self, name):
        profile = EXACT[name]
        rebuilt = type(profile).from_config(profile.get_config())
        assert rebuilt.get_config() == profile.get_config()
        assert repr(rebuilt) == repr(profile)
        parameters = draws(profile, (2,))
        for new, old in zip(evaluate(rebuilt, *sky(), parameters), evaluate(profile, *sky(), parameters), strict=True):
            np.testing.assert_array_equal(new, old)

    @every_profile
    def test_default_priors_declare_units_and_draw_finite_values(self, name):
        profile = EXACT[name]
        assert len(set(profile.parameter_names)) == len(profile.parameter_names)
        for parameter in profile.parameters:
            assert parameter.unit in ("arcsec", "")
            assert parameter.description
        for value in draws(profile, (100,)).values():
            assert np.isfinite(value).all()


def by_hypergeometric_function(x, y, theta_E, gamma, e1, e2) -> np.ndarray:
    """Tessore & Metcalf 2015, eq. 13, in axis ratio and angle; alpha_x + i alpha_y."""
    e, phi = np.hypot(e1, e2), np.arctan2(e2, e1) / 2
    q, t = (1 - e) / (1 + e), gamma - 1
    z = (x + 1j * y) * np.exp(-1j * phi)
    elliptical = q * z.real + 1j * z.imag
    angle = np.angle(elliptical)
    b = theta_E * np.sqrt(q)
    alpha = 2 * b / (1 + q) * (b / np.abs(elliptical)) ** (t - 1) * np.exp(1j * angle)
    return alpha * hyp2f1(1, t / 2, 2 - t / 2, -e * np.exp(2j * angle)) * np.exp(1j * phi)


class TestPowerLaw:
    @pytest.mark.parametrize("gamma", [1.25, 1.7, 2.0, 2.4, 2.75])
    def test_deflection_equals_the_hypergeometric_function(self, gamma):
        x, y = PixelGrid((9, 14), 0.3, center=(0.05, 0.02)).coordinates()
        shape = {"theta_E": 1.3, "gamma": gamma, "e1": -0.31, "e2": 0.42}
        expected = by_hypergeometric_function(x, y, **shape)
        profile = EPL(tolerance=1e-13)
        alpha = profile.deflection(tf.constant(x + 0.2), tf.constant(y - 0.1), **shape, center_x=0.2, center_y=-0.1)
        np.testing.assert_allclose(alpha[0], expected.real, rtol=0, atol=1e-11)
        np.testing.assert_allclose(alpha[1], expected.imag, rtol=0, atol=1e-11)

    @pytest.mark.parametrize("gamma", [1.6, 2.0, 2.3])
    def test_everything_equals_lenstronomy(self, gamma):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from lenstronomy.LensModel.lens_model import LensModel

        x, y = (v.ravel() for v in np.meshgrid(np.linspace(-2, 2.5, 8), np.linspace(-1.5, 1.7, 5)))
        values = {"theta_E": 1.1, "gamma": gamma, "e1": 0.2, "e2": -0.15, "center_x": 0.07, "center_y": -0.03}
        reference = LensModel(["EPL"])
        profile = EPL(tolerance=1e-13)
        at = tf.constant(x[None]), tf.constant(y[None])
        alpha = profile.deflection(*at, **values)
        np.testing.assert_allclose([a[0] for a in alpha], reference.alpha(x, y, [values]), rtol=0, atol=1e-10)
        np.testing.assert_allclose(
            profile.potential(*at, **values)[0], reference.potential(x, y, [values]), rtol=0, atol=1e-10
        )
        np.testing.assert_allclose(profile.convergence(*at, **values)[0], reference.kappa(x, y, [values]), rtol=1e-10)

    @pytest.mark.parametrize("max_ellipticity", [0.05, 0.3, 0.6, 0.85])
    @pytest.mark.parametrize("tolerance", [1e-3, 1e-6, 1e-10])
    def test_truncation_keeps_the_stated_tolerance(self, max_ellipticity, tolerance):
        angle = np.linspace(0, 2 * np.pi, 97)
        x, y = tf.constant(np.cos(angle)[None]), tf.constant(np.sin(angle)[None])
        gamma = tf.constant([1.2, 1.6, 2.0, 2.4, 2.8], tf.float64)
        values = {
            "theta_E": 1.0,
            "gamma": gamma,
            "e1": 0.6 * max_ellipticity,
            "e2": -0.8 * max_ellipticity,
            "center_x": 0.0,
            "center_y": 0.0,
        }
        truncated = EPL(max_ellipticity, tolerance)
        found, exact = (tf.complex(*p.deflection(x, y, **values)) for p in (truncated, EPL(max_ellipticity, 1e-15)))
        error = np.abs(found / exact - 1).max()
        assert error < tolerance
        # The tolerance is a bound, yet not one that pays for digits nobody asked for.
        assert error > 1e-4 * tolerance

    @pytest.mark.parametrize("gamma", [1.3, 2.0, 2.7])
    def test_mean_convergence_inside_the_einstein_ellipse_is_one(self, gamma):
        # Gauss: the flux of the deflection through R = theta_E is twice the mass inside, 2 pi theta_E^2.
        theta_E, e1, e2 = 1.4, 0.25, -0.35
        e, phi = np.hypot(e1, e2), np.arctan2(e2, e1) / 2
        q = (1 - e) / (1 + e)
        t = np.linspace(0, 2 * np.pi, 400, endpoint=False)
        rotation = np.exp(1j * phi)
        ellipse = theta_E * (np.cos(t) / np.sqrt(q) + 1j * np.sin(t) * np.sqrt(q)) * rotation
        tangent = theta_E * (-np.sin(t) / np.sqrt(q) + 1j * np.cos(t) * np.sqrt(q)) * rotation
        center = 0.3 - 0.2j
        at = ellipse + center
        alpha_x, alpha_y = EXACT["EPL"].deflection(
            tf.constant(at.real[None]),
            tf.constant(at.imag[None]),
            theta_E=theta_E,
            gamma=gamma,
            e1=e1,
            e2=e2,
            center_x=center.real,
            center_y=center.imag,
        )
        flux = (alpha_x[0] * tangent.imag - alpha_y[0] * tangent.real).numpy().mean() * 2 * np.pi
        np.testing.assert_allclose(flux / (2 * np.pi * theta_E**2), 1, rtol=1e-12)

    def test_isothermal_ellipsoid_is_the_power_law_of_slope_two(self):
        parameters = draws(SIE(), (10,))
        for sie, epl in zip(
            evaluate(SIE(), *sky(), parameters),
            evaluate(EPL(), *sky(), parameters | {"gamma": tf.constant(2.0, tf.float64)}),
            strict=True,
        ):
            np.testing.assert_allclose(sie, epl, rtol=1e-14)

    def test_round_isothermal_sphere_deflects_by_its_einstein_radius(self):
        alpha = SIE().deflection(*sky(), theta_E=1.7, e1=0.0, e2=0.0, center_x=0.0, center_y=0.0)
        np.testing.assert_allclose(np.hypot(*alpha), 1.7, rtol=1e-14)

    def test_deflection_at_the_centre_is_zero(self):
        at = tf.constant([[0.3]], tf.float64), tf.constant([[-0.2]], tf.float64)
        alpha = EPL().deflection(*at, theta_E=1.0, gamma=1.8, e1=0.1, e2=0.2, center_x=0.3, center_y=-0.2)
        np.testing.assert_array_equal(alpha, np.zeros([2, 1, 1]))

    def test_ellipticity_turns_with_the_lens(self):
        # The same lens, turned by 30 degrees: e turns by 60.
        turn = np.exp(1j * np.pi / 6)
        e = 0.3 + 0.1j
        x, y = sky()
        w = x.numpy() + 1j * y.numpy()
        rest = {"theta_E": 1.2, "gamma": 2.2, "center_x": 0.0, "center_y": 0.0}

        def alpha(w, e):
            found = EPL().deflection(tf.constant(w.real), tf.constant(w.imag), e1=e.real, e2=e.imag, **rest)
            return found[0].numpy() + 1j * found[1].numpy()

        np.testing.assert_allclose(alpha(w * turn, e * turn**2), alpha(w, e) * turn, rtol=1e-13)

    @pytest.mark.parametrize("value", [0.0, 1.0, -0.1, float("nan")])
    def test_unusable_settings_are_refused_by_name(self, value):
        with pytest.raises(ParameterError, match=r"EPL\.max_ellipticity must lie in"):
            EPL(max_ellipticity=value)
        with pytest.raises(ParameterError, match=r"EPL\.tolerance must lie in"):
            SIE(tolerance=value)


class TestShear:
    def test_equals_lenstronomy(self):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from lenstronomy.LensModel.lens_model import LensModel

        values = {"gamma1": 0.06, "gamma2": -0.09}
        x, y = (tf.broadcast_to(v, [5, 8]) for v in sky())
        expected = LensModel(["SHEAR"]).alpha(x.numpy().ravel(), y.numpy().ravel(), [values])
        found = [a.numpy().ravel() for a in Shear().deflection(x, y, **values)]
        np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("index", range(6))
def test_forward_mode_agrees_with_reverse_mode(index: int, jit_compile: bool) -> None:
    """The series has a hand-written reverse-mode gradient that forward mode does not use."""
    rng = np.random.default_rng(5)
    lens = EPL(max_ellipticity=0.3, tolerance=1e-3)
    x, y = tf.constant(rng.normal(size=(1, 4))), tf.constant(rng.normal(size=(3, 1)))
    values = [
        tf.constant(v, tf.float64) for v in ([1.2, 0.7], [1.8, 2.3], [0.1, -0.2], [0.2, 0.0], [0.0, 0.1], [0.1, 0.0])
    ]

    def total(values: list[tf.Tensor]) -> tf.Tensor:
        alpha_x, alpha_y = lens.deflection(x, y, **dict(zip(lens.parameter_names, values, strict=True)))
        return tf.reduce_sum(alpha_x * x + alpha_y * tf.sin(y), [-1, -2])

    @tf.function(jit_compile=jit_compile, autograph=False)
    def both(values: list[tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        directions = [tf.ones_like(v) if i == index else tf.zeros_like(v) for i, v in enumerate(values)]
        with tf.autodiff.ForwardAccumulator(values, directions) as accumulator, tf.GradientTape() as tape:
            tape.watch(values)
            result = total(values)
        return accumulator.jvp(result), tape.gradient(result, values)[index]

    forward, reverse = both(values)
    np.testing.assert_allclose(forward, reverse, rtol=1e-10)
