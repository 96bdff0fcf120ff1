"""One harness that every mass profile passes, and the laws of each of them. The profiles stand in mass_cases.py."""

import functools
import warnings

import lenstronomy_conventions as conventions
import numpy as np
import pytest
import tensorflow as tf
from mass_case import NASTY_POINTS
from mass_cases import CASES, parity
from scipy.integrate import quad
from scipy.special import hyp2f1

import tflens.mass
from tflens.errors import ParameterError
from tflens.grid import PixelGrid
from tflens.mass import (
    DPIE,
    EPL,
    NIE,
    SIE,
    CircularMass,
    ConvergenceSheet,
    EllipticalMultipole,
    MassProfile,
    MultiPlane,
    Multipole,
    PointMass,
)
from tflens.mass.derivatives import hessian

# Interfaces; and several planes, whose deflection is no gradient and which have no potential (test_multi_plane.py).
NO_CASE = {MassProfile, CircularMass, MultiPlane}

LAWS = {name: case for name, case in CASES.items() if not case.parity_only}
every_profile = pytest.mark.parametrize("name", list(LAWS))
# For tests that compile or trace a profile, which takes seconds: those of the same formulas are for the slow tests.
every_formula = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if case.repeats else ()) for name, case in LAWS.items()]
)


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


def value_and_gradients(profile: MassProfile, x, y, parameters, weights):
    # One sum of all four: what is not finite in a gradient of any of them stays so in the sum's.
    with tf.GradientTape() as tape:
        tape.watch([x, y, parameters])
        values = evaluate(profile, x, y, parameters)
        total = tf.add_n([tf.reduce_sum(weights * v) for v in values])
    return values, tape.gradient(total, [x, y, *parameters.values()], unconnected_gradients="zero")


def nasty_and_ordinary(name: str, dtype: str):
    """Nasty lanes and points and ordinary ones in one batch, for one compilation; and a mask of the ordinary."""
    case = CASES[name]
    ordinary = case.draws((3,), dtype)
    lanes = case.nasty_lanes(dtype) + [{k: v[i] for k, v in ordinary.items()} for i in range(3)]
    parameters = {k: tf.stack([lane[k] for lane in lanes]) for k in case.exact.parameter_names}
    mesh = np.stack(np.broadcast_arrays(*sky()), axis=-1).reshape(-1, 2)
    points = np.concatenate([np.array(NASTY_POINTS + case.points), mesh])
    x, y = (tf.constant(np.repeat(v[None, None], len(lanes), axis=0), dtype) for v in points.T)
    mask = np.zeros(x.shape, bool)
    mask[-3:, :, -len(mesh) :] = True
    return (x, y, parameters), mask


class TestEveryProfile:
    @pytest.fixture(autouse=True)
    def _leave_out_what_does_not_apply(self, request, name):
        reason = CASES[name].skips.get(request.node.originalname)
        if reason is not None:
            pytest.skip(reason)

    @every_profile
    def test_deflection_is_the_gradient_of_the_potential(self, name):
        profile, parameters = CASES[name].exact, CASES[name].draws((20,))
        x, y = (tf.broadcast_to(v, [20, 5, 8]) for v in sky())
        with tf.GradientTape() as tape:
            tape.watch([x, y])
            psi = profile.potential(x, y, **parameters)
        for gradient, alpha in zip(tape.gradient(psi, [x, y]), profile.deflection(x, y, **parameters), strict=True):
            np.testing.assert_allclose(gradient, alpha, rtol=0, atol=CASES[name].law * np.abs(alpha).max())

    @every_profile
    def test_convergence_is_half_the_divergence_and_the_curl_is_zero(self, name):
        profile, parameters = CASES[name].exact, CASES[name].draws((20,))
        x, y = (tf.broadcast_to(v, [20, 5, 8]) for v in sky())
        xx, xy, yx, yy = by_reverse_mode(profile, x, y, parameters)
        kappa = profile.convergence(x, y, **parameters)
        size = np.abs([xx, yy]).max()
        np.testing.assert_allclose((xx + yy) / 2, kappa, rtol=0, atol=CASES[name].law * size)
        np.testing.assert_allclose(xy, yx, rtol=0, atol=CASES[name].law * size)

    @every_formula
    def test_jacobian_and_forward_mode_agree_with_reverse_mode(self, name):
        profile, parameters = CASES[name].exact, CASES[name].draws((3,))
        x, y = sky()
        rng = np.random.default_rng(2)
        primals = [x, y, *parameters.values()]
        tangents = [tf.constant(rng.normal(size=v.shape)) for v in primals]

        @tf.function(autograph=False)
        def forward(*primals):
            x, y, *values = primals
            given = dict(zip(parameters, values, strict=True))
            with tf.autodiff.ForwardAccumulator(list(primals), tangents) as accumulator:
                quantities = evaluate(profile, x, y, given)
            change = [tf.reduce_sum(accumulator.jvp(v, unconnected_gradients="zero")) for v in quantities]
            return change, profile.jacobian(x, y, **given)

        change, jacobian = forward(*primals)
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(primals)
            sums = [tf.reduce_sum(v) for v in evaluate(profile, x, y, parameters)]
        for found, total in zip(change, sums, strict=True):
            gradients = tape.gradient(total, primals, unconnected_gradients="zero")
            terms = [tf.reduce_sum(g * t) for g, t in zip(gradients, tangents, strict=True)]
            np.testing.assert_allclose(found, tf.add_n(terms), rtol=0, atol=1e-10 * max(np.abs(terms).max(), 1e-3))
        xx, xy, _, yy = by_reverse_mode(profile, *(tf.broadcast_to(v, [3, 5, 8]) for v in (x, y)), parameters)
        expected = np.array([1 - xx, -xy, 1 - yy])
        np.testing.assert_allclose(jacobian, expected, rtol=0, atol=1e-11 * np.abs(expected).max())

    @every_profile
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_values_and_gradients_are_finite_at_nasty_points(self, name, dtype):
        (x, y, parameters), _ = nasty_and_ordinary(name, dtype)
        found = value_and_gradients(CASES[name].as_shipped, x, y, parameters, tf.ones_like(x))
        for result in tf.nest.flatten(found):
            assert np.isfinite(result).all()
            assert result.dtype == dtype

    # Compilations in float64 are for the slow tests.
    @every_formula
    @pytest.mark.parametrize(
        ("dtype", "tolerance"), [("float32", 2e-5), pytest.param("float64", 1e-12, marks=pytest.mark.slow)]
    )
    def test_xla_is_finite_at_nasty_points_and_equals_eager_elsewhere(self, name, dtype, tolerance):
        (x, y, parameters), ordinary = nasty_and_ordinary(name, dtype)
        program = tf.function(
            functools.partial(value_and_gradients, CASES[name].cheap), jit_compile=True, autograph=False
        )
        for result in tf.nest.flatten(program(x, y, parameters, tf.ones_like(x))):
            assert np.isfinite(result).all()
            assert result.dtype == dtype
        weights = tf.constant(ordinary, dtype)
        fast_values, fast_gradients = program(x, y, parameters, weights)
        values, gradients = value_and_gradients(CASES[name].cheap, x, y, parameters, weights)
        for fast, slow in zip(fast_values, values, strict=True):
            fast, slow = fast.numpy()[ordinary], slow.numpy()[ordinary]
            np.testing.assert_allclose(fast, slow, rtol=0, atol=tolerance * max(np.abs(slow).max(), 1e-3))
        for fast, slow in zip(fast_gradients, gradients, strict=True):
            np.testing.assert_allclose(fast, slow, rtol=0, atol=10 * tolerance * max(np.abs(slow).max(), 1e-3))

    @every_profile
    def test_gradients_equal_finite_differences(self, name):
        profile, parameters = CASES[name].as_shipped, CASES[name].draws(())
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
            found = [np.sum(tape.gradient(v, parameters[parameter], unconnected_gradients="zero")) for v in sums]
            np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-7)

    @every_profile
    def test_float32_equals_float64(self, name):
        case = CASES[name]
        exact = evaluate(case.as_shipped, *sky(), case.draws((20,)))
        found = evaluate(case.as_shipped, *sky("float32"), case.draws((20,), "float32"))
        for single, double in zip(found, exact, strict=True):
            np.testing.assert_allclose(single, double, rtol=0, atol=case.single * max(np.abs(double).max(), 1e-3))

    @every_profile
    def test_batch_equals_loop(self, name):
        profile, parameters = CASES[name].as_shipped, CASES[name].draws((2, 3))
        batch = evaluate(profile, *sky(), parameters)
        for result in batch:
            assert result.shape == (2, 3, 5, 8)
        for i, j in np.ndindex(2, 3):
            single = evaluate(profile, *sky(), {k: v[i, j] for k, v in parameters.items()})
            for whole, one in zip(batch, single, strict=True):
                np.testing.assert_allclose(whole[i, j], one, rtol=1e-13, atol=1e-14)

    @every_profile
    def test_row_and_column_coordinates_equal_a_full_mesh(self, name):
        profile, parameters = CASES[name].as_shipped, CASES[name].draws((3,))
        x, y = sky()
        full = tf.broadcast_to(x, [5, 8]), tf.broadcast_to(y, [5, 8])
        for thin, mesh in zip(evaluate(profile, x, y, parameters), evaluate(profile, *full, parameters), strict=True):
            np.testing.assert_allclose(thin, mesh, rtol=1e-13, atol=1e-15)

    @every_profile
    def test_parameters_of_different_batch_shapes_broadcast(self, name):
        profile, one = CASES[name].as_shipped, CASES[name].draws(())
        first, *rest = profile.parameter_names
        factor = tf.reshape(tf.constant([0.5, 1.0], "float64"), [2] + [1] * one[first].shape.rank)
        mixed = {first: one[first] * factor, **{k: one[k] for k in rest}}
        for result in evaluate(profile, *sky(), mixed)[:3]:
            assert result.shape == (2, 5, 8)
        np.testing.assert_allclose(
            profile.deflection(*sky(), **mixed)[0][1], profile.deflection(*sky(), **one)[0], rtol=1e-13, atol=1e-15
        )

    @every_profile
    def test_plain_numbers_take_the_precision_of_the_coordinates(self, name):
        profile, tensors = CASES[name].as_shipped, CASES[name].draws(())
        numbers = {k: v.numpy().tolist() for k, v in tensors.items()}
        for given, expected in zip(evaluate(profile, *sky(), numbers), evaluate(profile, *sky(), tensors), strict=True):
            assert given.dtype == tf.float64
            np.testing.assert_allclose(given, expected, rtol=1e-14)

    @every_profile
    def test_config_rebuilds_the_profile(self, name):
        profile = CASES[name].exact
        rebuilt = type(profile).from_config(profile.get_config())
        assert repr(rebuilt) == repr(profile)
        parameters = CASES[name].draws((2,))
        for new, old in zip(evaluate(rebuilt, *sky(), parameters), evaluate(profile, *sky(), parameters), strict=True):
            np.testing.assert_array_equal(new, old)

    @every_profile
    def test_default_priors_declare_units_and_draw_finite_values(self, name):
        case = CASES[name]
        assert len(set(case.exact.parameter_names)) == len(case.exact.parameter_names)
        for parameter in case.exact.parameters:
            assert parameter.unit in ("arcsec", "arcsec^2", "")
            assert parameter.description
        draws = case.draws((100,))
        assert tuple(draws) == case.exact.parameter_names
        for value in draws.values():
            assert np.isfinite(value).all()


def by_reverse_mode(profile: MassProfile, x, y, parameters) -> list[np.ndarray]:
    """psi_xx, psi_xy, psi_yx, psi_yy."""
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([x, y])
        alpha_x, alpha_y = profile.deflection(x, y, **parameters)
    return [
        v.numpy() for alpha in (alpha_x, alpha_y) for v in tape.gradient(alpha, [x, y], unconnected_gradients="zero")
    ]


def test_every_public_profile_has_a_case() -> None:
    public = {getattr(tflens.mass, name) for name in tflens.mass.__all__}
    profiles = {v for v in public if isinstance(v, type) and issubclass(v, MassProfile)}
    assert profiles - NO_CASE - {type(case.exact) for case in CASES.values()} == set()


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.lenstronomy is not None])
def test_every_counterpart_in_lenstronomy_agrees(name: str) -> None:
    for quantity, error in parity(CASES[name], draws=25, seed=3).items():
        assert error < CASES[name].lenstronomy.tolerance(quantity), quantity


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
        alpha_x, alpha_y = CASES["EPL"].exact.deflection(
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
        parameters = CASES["SIE"].draws((10,))
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


def schramm(x: float, y: float, convergence, q: float) -> tuple[float, float]:
    """Deflection of a lens with elliptical isodensity contours along the axes, by quadrature (Schramm 1990).

    `convergence` is a function of the intermediate-axis radius, the major axis lies along x.
    """

    def component(power: float) -> float:
        def integrand(root: float) -> float:
            u = root**2
            squash = 1 - (1 - q**2) * u
            radius = np.sqrt(q * u * (x**2 + y**2 / squash))
            return 2 * root * convergence(radius) / squash**power

        return quad(integrand, 0, 1, epsabs=1e-13, epsrel=1e-13, limit=200)[0]

    return q * x * component(0.5), q * y * component(1.5)


class TestNIE:
    @pytest.mark.parametrize("e", [0.0, 1e-6, 0.03, 0.0999, 0.1001, 0.3, 0.6, 0.9])
    def test_deflection_equals_quadrature(self, e):
        q, s = (1 - e) / (1 + e), 0.3
        x, y = np.array([0.7, -1.3, 0.01]), np.array([0.4, 2.1, -0.02])
        expected = np.array([schramm(u, v, lambda r: 0.6 / np.hypot(r, s), q) for u, v in zip(x, y, strict=True)])
        phi = 0.4
        w, center = (x + 1j * y) * np.exp(1j * phi), 0.2 - 0.1j
        found = NIE().deflection(
            tf.constant((w + center).real[None]), tf.constant((w + center).imag[None]),
            theta_E=1.2, e1=e * np.cos(2 * phi), e2=e * np.sin(2 * phi), s_scale=s,
            center_x=center.real, center_y=center.imag,
        )  # fmt: skip
        expected = (expected[:, 0] + 1j * expected[:, 1]) * np.exp(1j * phi)
        np.testing.assert_allclose(tf.complex(*found)[0], expected, rtol=0, atol=2e-12)

    @pytest.mark.parametrize(("dtype", "step", "tolerance"), [("float64", 1e-14, 1e-12), ("float32", 2e-7, 2e-6)])
    @pytest.mark.parametrize("direction", [(1.0, 0.0), (-1.0, 0.0), (0.0, 1.0), (-0.6, -0.8)])
    def test_series_and_closed_form_meet(self, dtype, step, tolerance, direction):
        x, y = sky(dtype)
        rest = {"theta_E": 1.0, "s_scale": tf.constant([0.0, 0.1, 2.0], dtype), "center_x": 0.0, "center_y": 0.0}
        sides = []
        for e in (0.1 * (1 - step), 0.1 * (1 + step)):
            ellipticity = tf.constant(np.array(direction) * e, dtype)
            with tf.GradientTape() as tape:
                tape.watch(ellipticity)
                values = evaluate(NIE(), x, y, rest | {"e1": ellipticity[0], "e2": ellipticity[1]})
                mean = tf.add_n([tf.reduce_mean(v) for v in values[:3]])
            sides.append((values, tape.gradient(mean, ellipticity)))
        (below, gradient_below), (above, gradient_above) = sides
        for one, other in zip(below, above, strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * np.abs(one).max())
        np.testing.assert_allclose(gradient_below, gradient_above, rtol=0, atol=10 * tolerance)

    def test_without_a_core_it_is_the_singular_ellipsoid(self):
        parameters = CASES["SIE"].draws((10,))
        core = {"s_scale": tf.zeros([10], tf.float64)}
        for nie, sie in zip(
            evaluate(NIE(), *sky(), parameters | core), evaluate(CASES["SIE"].exact, *sky(), parameters), strict=True
        ):
            np.testing.assert_allclose(nie, sie, rtol=1e-12, atol=1e-14)

    def test_jacobian_at_the_centre_of_a_core_is_that_of_a_sheet_if_round(self):
        at = tf.constant([[0.2]], tf.float64), tf.constant([[-0.1]], tf.float64)
        values = {"theta_E": 1.2, "e1": 0.0, "e2": 0.0, "s_scale": 2.0, "center_x": 0.2, "center_y": -0.1}
        found = tf.function(lambda: NIE().jacobian(*at, **values), autograph=False)()
        np.testing.assert_allclose(np.squeeze(found), [0.7, 0.0, 0.7], rtol=1e-13)

    def test_lenstronomy_is_off_where_ours_is_exact(self):
        # Round, lenstronomy takes q = 0.99999999; its convergence is always a difference over 1e-10 arcsec.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from lenstronomy.LensModel.lens_model import LensModel

        values = {"theta_E": 1.2, "e1": 0.0, "e2": 0.0, "s_scale": 0.5, "center_x": 0.0, "center_y": 0.0}
        x = np.array([0.3, 1.0, 3.0])
        alpha = 1.2 * (np.hypot(x, 0.5) - 0.5) / x
        kappa = 0.6 / np.hypot(x, 0.5)
        at = tf.constant(x[None]), tf.zeros([1, 1], tf.float64)
        np.testing.assert_allclose(NIE().deflection(*at, **values)[0][0], alpha, rtol=1e-14)
        np.testing.assert_allclose(NIE().convergence(*at, **values)[0], kappa, rtol=1e-14)
        theirs = LensModel(["NIE"])
        assert np.abs(theirs.alpha(x, 0 * x, [values])[0] / alpha - 1).max() > 1e-10
        assert np.abs(theirs.kappa(x, 0 * x, [values]) / kappa - 1).max() > 1e-8


class TestDPIE:
    def test_mass_within_a_large_circle_is_the_total_mass(self):
        # Gauss: the flux of the deflection is twice the mass, pi theta_E (Rs - Ra), elliptical or not.
        t = np.linspace(0, 2 * np.pi, 200, endpoint=False)
        x, y = 1e7 * np.cos(t), 1e7 * np.sin(t)
        lens = {"theta_E": 1.4, "e1": 0.2, "e2": -0.3, "Ra": 0.1, "Rs": 3.0, "center_x": 0.0, "center_y": 0.0}
        ax, ay = DPIE().deflection(tf.constant(x[None]), tf.constant(y[None]), **lens)
        mass = np.mean(ax[0] * x + ay[0] * y) * np.pi
        np.testing.assert_allclose(mass, np.pi * 1.4 * 2.9, rtol=1e-6)

    def test_deflection_equals_quadrature(self):
        e = 0.25
        lens = {"theta_E": 1.4, "e1": e, "e2": 0.0, "Ra": 0.1, "Rs": 1.5, "center_x": 0.0, "center_y": 0.0}
        expected = schramm(0.8, -0.5, lambda r: 0.7 / np.hypot(r, 0.1) - 0.7 / np.hypot(r, 1.5), (1 - e) / (1 + e))
        found = DPIE().deflection(tf.constant([[0.8]], tf.float64), tf.constant([[-0.5]], tf.float64), **lens)
        np.testing.assert_allclose(np.squeeze(found), expected, rtol=1e-11)


class TestMultipole:
    @staticmethod
    def by_fourier_series(phi: np.ndarray, profile: MassProfile, values: dict[str, float]) -> np.ndarray:
        """alpha_x + i alpha_y of a convergence G(phi) / 2r, from F'' + F = G for the potential r F(phi), no dipole."""
        t = np.linspace(0, 2 * np.pi, 512, endpoint=False)
        at = tf.constant(np.cos(t)[None]), tf.constant(np.sin(t)[None])
        g = np.fft.fft(2 * profile.convergence(*at, **values)[0]) / len(t)
        k = np.rint(np.fft.fftfreq(len(t), 1 / len(t)))
        f = np.divide(g, 1 - k**2, out=np.zeros_like(g), where=np.abs(k) != 1)
        waves = np.exp(1j * k * phi[:, None])
        radial, angular = (waves @ f).real, (waves @ (1j * k * f)).real
        return (radial + 1j * angular) * np.exp(1j * phi)

    @pytest.mark.parametrize("e", [0.0, 1e-9, 1e-4, 0.01, 0.3, 0.59])
    def test_even_orders_equal_a_fourier_series(self, e):
        phi = np.linspace(0.1, 6.2, 11)
        at = tf.constant(3 * np.cos(phi)[None]), tf.constant(3 * np.sin(phi)[None])
        values = {"a_cos": 0.03, "a_sin": -0.02, "e1": 0.6 * e, "e2": -0.8 * e, "center_x": 0.0, "center_y": 0.0}
        profile = EllipticalMultipole(4, tolerance=1e-15)
        found = tf.complex(*profile.deflection(*at, **values))[0]
        np.testing.assert_allclose(found, self.by_fourier_series(phi, profile, values), rtol=0, atol=1e-15)

    @pytest.mark.parametrize("m", [1, 3])
    @pytest.mark.parametrize("e", [0.0, 1e-9, 1e-4, 0.01, 0.3, 0.59])
    def test_odd_orders_equal_a_fourier_series_but_for_the_dipole(self, m, e):
        phi = np.linspace(0.1, 6.2, 11)
        at = tf.constant(3 * np.cos(phi)[None]), tf.constant(3 * np.sin(phi)[None])
        values = {"a_cos": 0.03, "a_sin": -0.02, "e1": 0.6 * e, "e2": -0.8 * e, "center_x": 0.0, "center_y": 0.0}
        profile = EllipticalMultipole(m, tolerance=1e-15)
        found = tf.complex(*profile.deflection(*at, **values))[0].numpy()
        # The dipole, of potential Re(conj(d) w) log(r) / 2; its uniform part is free.
        amplitude, conj_e = 0.03 - 0.02j, e * (0.6 + 0.8j)
        dipole = np.sqrt(1 - e**2) * amplitude * (-conj_e if m == 3 else 1)
        along = np.exp(1j * phi)
        expected = self.by_fourier_series(phi, profile, values)
        expected += dipole / 2 * np.log(3) + (np.conj(dipole) * along).real * along / 2
        difference = found - expected
        np.testing.assert_allclose(difference, np.full_like(difference, difference[0]), rtol=0, atol=1e-15)

    @pytest.mark.parametrize("m", [1, 2, 3, 4, 5])
    def test_round_elliptical_multipole_is_the_circular_one(self, m):
        values = {"a_cos": 0.03, "a_sin": -0.02, "center_x": 0.1, "center_y": 0.0}
        elliptical = evaluate(EllipticalMultipole(m), *sky(), values | {"e1": 0.0, "e2": 0.0})
        for found, expected in zip(elliptical, evaluate(Multipole(m), *sky(), values), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-17)

    def test_a_dipole_of_another_reference_radius_adds_a_uniform_deflection(self):
        values = {k: v for k, v in CASES["EllipticalMultipole, m = 1"].draws(()).items()}
        ax, ay = (
            np.subtract(*v)
            for v in zip(*(EllipticalMultipole(1, r_E=r).deflection(*sky(), **values) for r in (1.0, 2.0)), strict=True)
        )
        assert np.ptp(ax) < 1e-15
        assert np.ptp(ay) < 1e-15
        assert np.hypot(ax, ay).min() > 1e-3

    @pytest.mark.parametrize("m", [1, 3, 4])
    @pytest.mark.parametrize(("max_ellipticity", "tolerance"), [(0.05, 1e-6), (0.6, 1e-3), (0.6, 1e-6), (0.85, 1e-10)])
    def test_truncation_keeps_the_stated_tolerance(self, m, max_ellipticity, tolerance):
        e1, e2 = 0.6 * max_ellipticity, -0.8 * max_ellipticity
        values = {"a_cos": 0.6, "a_sin": 0.8, "e1": e1, "e2": e2, "center_x": 0.0, "center_y": 0.0}
        truncated, exact = (
            tf.complex(*EllipticalMultipole(m, 1.0, max_ellipticity, t).deflection(*sky(), **values))
            for t in (tolerance, 1e-15)
        )
        assert np.abs(truncated - exact).max() < tolerance

    def test_lenstronomy_is_off_near_the_round_lens_where_ours_is_exact(self):
        # It divides by (1 - q^2)^(5/2), and below 1e-8 takes the round lens instead.
        phi = np.linspace(0.1, 6.2, 11)
        profile = EllipticalMultipole(4, tolerance=1e-15)
        for e in (1.2e-4, 2e-4):
            values = {"a_cos": 0.03, "a_sin": -0.02, "e1": e, "e2": 0.0, "center_x": 0.0, "center_y": 0.0}
            expected = self.by_fourier_series(phi, profile, values)
            _, ax, ay, _ = CASES["EllipticalMultipole, m = 4"].lenstronomy.evaluate(values, np.cos(phi), np.sin(phi))
            found = profile.deflection(tf.constant(np.cos(phi)[None]), tf.constant(np.sin(phi)[None]), **values)
            assert np.abs(tf.complex(*found)[0] - expected).max() < 1e-15
            assert np.abs(ax + 1j * ay - expected).max() > 1e-10

    def test_unusable_settings_are_refused_by_name(self):
        for m in (0, -1, 2.5, True):
            with pytest.raises(ParameterError, match=r"Multipole\.m, the order of the multipole, must be an integer"):
                EllipticalMultipole(m)
        with pytest.raises(ParameterError, match=r"Multipole\.r_E must be positive"):
            Multipole(1, r_E=0.0)
        with pytest.raises(ParameterError, match=r"EllipticalMultipole\.max_ellipticity must lie in"):
            EllipticalMultipole(max_ellipticity=1.0)
        with pytest.raises(ParameterError, match=r"EllipticalMultipole\.tolerance must lie in"):
            EllipticalMultipole(tolerance=float("nan"))


class TestSecondDerivatives:
    """What the base class makes of `deflection`."""

    def test_magnification_and_shear_of_a_point_mass(self):
        x, y = sky()
        values = {"theta_E": 0.8, "center_x": 0.0, "center_y": 0.0}
        r2 = (x**2 + y**2).numpy()
        lens = PointMass()
        found = tf.function(
            lambda: (lens.magnification(x, y, **values), *lens.shear(x, y, **values)), jit_compile=True
        )()
        np.testing.assert_allclose(found[0], 1 / (1 - 0.8**4 / r2**2), rtol=1e-10)
        # Tangential: psi = theta_E^2 log r.
        np.testing.assert_allclose(found[1], -(0.8**2) * (x**2 - y**2) / r2**2, rtol=1e-11, atol=1e-14)
        np.testing.assert_allclose(found[2], -(0.8**2) * 2 * x * y / r2**2, rtol=1e-11, atol=1e-14)

    def test_magnification_of_a_sheet(self):
        found = ConvergenceSheet().magnification(*sky(), kappa=tf.constant([0.2, -0.1], tf.float64))
        assert found.shape == (2, 5, 8)
        np.testing.assert_allclose(found[:, 0, 0], [1 / 0.8**2, 1 / 1.1**2], rtol=1e-14)

    @pytest.mark.parametrize("jit_compile", [False, True])
    def test_gradient_of_the_magnification_equals_finite_differences(self, jit_compile):
        values = {
            k: tf.constant(v, tf.float64) for k, v in {"theta_E": 1.1, "s_scale": 0.2, "e1": 0.2, "e2": 0.1}.items()
        }
        x, y = sky()

        def total(theta_E):
            lens = values | {"theta_E": theta_E, "center_x": 0.0, "center_y": 0.0}
            return tf.reduce_sum(tf.math.tanh(NIE().magnification(x, y, **lens)))

        @tf.function(jit_compile=jit_compile, autograph=False)
        def gradient(theta_E):
            with tf.GradientTape() as tape:
                tape.watch(theta_E)
                result = total(theta_E)
            return result, tape.gradient(result, theta_E)

        step = 1e-6
        up, down = (gradient(values["theta_E"] + s)[0] for s in (step, -step))
        np.testing.assert_allclose(gradient(values["theta_E"])[1], (up - down) / (2 * step), rtol=1e-6)

    def test_hessian_keeps_both_mixed_derivatives_and_constants(self):
        # A row and a column, a rotation (which no single lens has), and a component that knows nothing of x.
        x, y = sky()
        xx, xy, yx, yy = hessian(lambda x, y: (3.0 * y + 0 * x, tf.ones_like(x * y)), x, y)
        for found, expected in ((xx, 0.0), (xy, 3.0), (yx, 0.0), (yy, 0.0)):
            np.testing.assert_array_equal(found, np.full([5, 8], expected))


class TestConventions:
    """Ours against the other codes' formulas of the convergence, at converted parameters."""

    VALUES = {"theta_E": 1.3, "gamma": 2.2, "e1": 0.15, "e2": -0.25, "center_x": 0.0, "center_y": 0.0}  # noqa: RUF012

    def in_frame(self, q: float, phi: float) -> tuple[np.ndarray, np.ndarray]:
        x, y = sky()
        w = (x.numpy() + 1j * y.numpy()) * np.exp(-1j * phi)
        return w.real, w.imag

    def kappa(self, profile: MassProfile, **changes: float) -> np.ndarray:
        names = profile.parameter_names
        return profile.convergence(*sky(), **{k: v for k, v in (self.VALUES | changes).items() if k in names}).numpy()

    @pytest.mark.parametrize("gamma", [1.6, 2.0, 2.4])
    def test_pyautolens(self, gamma):
        e1, e2 = self.VALUES["e1"], self.VALUES["e2"]
        y_comp, x_comp = conventions.pyautolens_ell_comps(e1, e2)
        f, phi = np.hypot(y_comp, x_comp), np.arctan2(y_comp, x_comp) / 2
        q = (1 - f) / (1 + f)
        x, y = self.in_frame(q, phi)
        radius = conventions.pyautolens_einstein_radius(1.3, gamma, e1, e2)
        theirs = (3 - gamma) / (1 + q) * (radius / np.hypot(x, y / q)) ** (gamma - 1)
        np.testing.assert_allclose(theirs, self.kappa(EPL(), gamma=gamma), rtol=1e-13)
        if gamma == 2.0:
            np.testing.assert_allclose(radius, 1.3 * (1 + q) / (2 * np.sqrt(q)), rtol=1e-14)

    def test_pyautolens_multipole(self):
        sine, cosine = conventions.pyautolens_multipole_comps(0.03, -0.02, theta_E=1.3)
        k_m, phi_m = np.hypot(sine, cosine), np.arctan2(sine, cosine) / 3
        x, y = self.in_frame(1.0, 0.0)
        theirs = 1.3 / np.hypot(x, y) / 2 * k_m * np.cos(3 * (np.arctan2(y, x) - phi_m))
        np.testing.assert_allclose(theirs, self.kappa(Multipole(3), a_cos=0.03, a_sin=-0.02), rtol=1e-12, atol=1e-16)

    def test_caustics(self):
        epl = conventions.caustics_epl(self.VALUES)
        x, y = self.in_frame(epl["q"], epl["phi"])
        theirs = (2 - epl["t"]) / 2 * (epl["b"] / np.sqrt(epl["q"] ** 2 * x**2 + y**2)) ** epl["t"]
        np.testing.assert_allclose(theirs, self.kappa(EPL()), rtol=1e-13)
        sie = conventions.caustics_sie(self.VALUES | {"s_scale": 0.4})
        theirs = np.sqrt(sie["q"]) * sie["b"] / 2 / np.sqrt(sie["q"] ** 2 * (x**2 + sie["s"] ** 2) + y**2)
        np.testing.assert_allclose(theirs, self.kappa(NIE(), s_scale=0.4), rtol=1e-13)

    def test_coolest(self):
        assert conventions.coolest_angle(0.0) == pytest.approx(90.0)
        assert conventions.coolest_angle(np.pi / 2) == pytest.approx(0.0)
        # East of north, east to the left: 100 degrees from +x is 10 degrees from +y.
        assert conventions.coolest_angle(np.radians(100)) == pytest.approx(10.0)
        assert conventions.coolest_angle(np.radians(80)) == pytest.approx(-10.0)
        q, angle = conventions.coolest_ellipticity(0.0, 0.2)
        assert (q, angle) == (pytest.approx(2 / 3), pytest.approx(-45.0))
        assert conventions.coolest_shear(0.03, -0.04) == (pytest.approx(0.05), pytest.approx(63.434948822922))
