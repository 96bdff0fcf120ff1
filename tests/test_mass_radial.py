"""Circular mass profiles and what is made from them, against mpmath, quadrature and splines of other libraries."""

import json
import warnings
from typing import ClassVar

import mpmath as mp
import numpy as np
import pytest
import tensorflow as tf
from mass_cases_radial import potential_map
from scipy.interpolate import CubicSpline

from tflens.errors import ParameterError
from tflens.mass import (
    NFW,
    SIE,
    TNFW,
    CircularMass,
    EllipticalMass,
    EllipticalPotential,
    GaussianMass,
    Hernquist,
    MultiGaussianMass,
    PixelatedConvergence,
    PixelatedPotential,
    SersicMass,
    Shear,
    special,
)
from tflens.mass.circular import CENTER
from tflens.parameters import Parameter, log_normal
from tflens.sersic import b_n

ORIGIN = {"center_x": 0.0, "center_y": 0.0}
# From the centre to far out, the switches between formulas and Rs itself from both sides.
RADII = np.concatenate(
    [
        np.logspace(-6, 6, 25),
        1 + np.array([-1e-2, -1e-4, -1e-7, -1e-12, 0, 1e-12, 1e-7, 1e-4, 1e-2]),
        np.sqrt([0.1, 0.1 - 1e-9, 0.5, 0.5 - 1e-9, 2.0, 2.0 + 1e-9, 4.0, 4.0 - 1e-9]),
    ]
)


def c_m(u: mp.mpf, m: int) -> mp.mpf:
    """C_m(u) of `tflens.mass.special`, as an integral's closed form: 2F1."""
    return mp.hyp2f1(1, m + mp.mpf(1) / 2, m + mp.mpf(3) / 2, 1 - u) / (2 * m + 1)


def log_half(u: mp.mpf) -> mp.mpf:
    return mp.log(u / 4) / 2


FUNCTIONS = {
    "angle_ratio": lambda u: c_m(u, 0),
    "angle_difference": lambda u: c_m(u, 1),
    "hernquist_convergence": lambda u: 3 * c_m(u, 2) - c_m(u, 1),
    "nfw_mass": lambda u: (log_half(u) + c_m(u, 0)) / u,
    "nfw_potential": lambda u: log_half(u) ** 2 - (1 - u) * c_m(u, 0) ** 2,
    "entire_exponential_integral": lambda u: mp.e1(u) + mp.log(u) + mp.euler,
    "log1p_ratio": lambda u: mp.log1p(u) / u,
    "expm1_ratio": lambda u: -mp.expm1(-u) / u,
}


def relative_errors(found: tf.Tensor, exact: list[mp.mpf]) -> np.ndarray:
    return np.array([float(abs(mp.mpf(float(f)) / e - 1)) for f, e in zip(found, exact, strict=True)])


@pytest.mark.parametrize(("dtype", "value", "slope"), [("float64", 1e-14, 1e-14), ("float32", 1e-6, 4e-6)])
@pytest.mark.parametrize("name", list(FUNCTIONS))
def test_special_functions_and_their_derivatives_keep_their_digits(name, dtype, value, slope):
    u = tf.constant(RADII**2, dtype)
    with tf.GradientTape() as tape:
        tape.watch(u)
        found = getattr(special, name)(u)
    with mp.workdps(50):
        exact = [mp.mpf(float(v)) for v in u]
        derivatives = [mp.diff(FUNCTIONS[name], v, h=v * mp.mpf(10) ** -15) for v in exact]
        assert relative_errors(found, [FUNCTIONS[name](v) for v in exact]).max() < value
        if name == "entire_exponential_integral":
            slope *= 10  # the derivative of a Chebyshev fit, at its end
        assert relative_errors(tape.gradient(found, u), derivatives).max() < slope


def truncated_halo(r: float, Rs: float, alpha_Rs: float, r_trunc: float) -> tuple[mp.mpf, mp.mpf, mp.mpf]:
    """Potential (up to its constant), deflection, convergence of Baltz et al. 2009 as lenstronomy writes them."""
    x, tau = mp.mpf(r) / mp.mpf(Rs), mp.mpf(r_trunc) / mp.mpf(Rs)
    u, t2 = x**2, tau**2
    rho = mp.mpf(alpha_Rs) / (4 * mp.mpf(Rs) ** 2 * (1 - mp.log(2)))
    t, c, c1 = mp.sqrt(t2 + u), c_m(u, 0), c_m(u, 1)
    log = mp.log(x / (tau + t))
    kappa = (t2 + 1) * c1 + 2 * c - mp.pi / t + (t2 - 1) / (tau * t) * log
    mass = (t2 + 1 + 2 * (u - 1)) * c + tau * mp.pi + (t2 - 1) * mp.log(tau) + t * (-mp.pi + log * (t2 - 1) / tau)
    psi = (
        2 * mp.pi * (tau - t + tau * mp.log(tau + t))
        + 2 * (t2 - 1) / tau * t * log
        + (t2 - 1) * (log**2 - (1 - u) * c**2)
        + 4 * (u - 1) * c
        + ((t2 - 1) * mp.log(tau) - t2 - 1) * mp.log(u)
        - (t2 - 1) * mp.log(tau) * mp.log(4 * tau)
        - 2 * mp.log(tau / 2)
        + 2 * tau * (tau - mp.pi) * mp.log(2 * tau)
    )
    scale = t2 / (t2 + 1) ** 2 * rho * Rs
    return 2 * scale * Rs**2 * psi, 4 * scale * Rs * mass / x, 2 * scale * kappa


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-13), ("float32", 2e-5)])
@pytest.mark.parametrize("r_trunc", [0.02, 0.7, 2.0, 9.0, 3e3])
def test_truncated_halo_keeps_its_digits_everywhere(r_trunc, dtype, tolerance):
    r = tf.constant(2.0 * np.concatenate([np.logspace(-5, 3, 33), [1.0, 1 + 1e-9, np.sqrt(2.0)]]), dtype)
    halo = {"Rs": 2.0, "alpha_Rs": 1.0, "r_trunc": r_trunc}
    exact_halo = {k: float(tf.constant(v, dtype)) for k, v in halo.items()}
    at = r[None], tf.zeros_like(r)[None]
    found = TNFW().potential(*at, **halo, **ORIGIN), TNFW().deflection(*at, **halo, **ORIGIN)[0]
    with mp.workdps(60):
        psi, alpha, kappa = zip(*(truncated_halo(float(v), **exact_halo) for v in r), strict=True)
        assert relative_errors(found[0][0], psi).max() < tolerance
        assert relative_errors(found[1][0], alpha).max() < tolerance
        # The convergence falls as r^-4; what it keeps is digits of (Rs / r)^2.
        difference = TNFW().convergence(*at, **halo, **ORIGIN)[0].numpy() - np.array(kappa, float)
        scale = float(truncated_halo(2.0, **exact_halo)[2])
        size = np.maximum(np.array(kappa, float), scale * np.minimum(1, (2 / r.numpy()) ** 2))
        assert np.abs(difference / size).max() < tolerance


def test_halo_truncated_at_infinity_is_the_halo():
    r2 = tf.constant(np.logspace(-4, 2, 13))
    halo = {"Rs": tf.constant(2.0, tf.float64), "alpha_Rs": tf.constant(1.3, tf.float64)}
    for name in ("radial_potential", "radial_mean_convergence", "radial_convergence"):
        # The truncation shows in relative order r / r_trunc.
        truncated = getattr(TNFW(), name)(r2, **halo, r_trunc=tf.constant(1e13, tf.float64))
        np.testing.assert_allclose(truncated, getattr(NFW(), name)(r2, **halo), rtol=1e-11)


@pytest.mark.parametrize(
    ("profile", "shape"),
    [
        (TNFW(), {"Rs": 2.0, "alpha_Rs": 1.0, "r_trunc": 5.0}),
        (TNFW(), {"Rs": 2.0, "alpha_Rs": 1.0, "r_trunc": 2.0}),
        (Hernquist(), {"sigma0": 0.7, "Rs": 1.4}),
    ],
)
def test_mass_within_a_large_radius_tends_to_the_total(profile, shape):
    shape = {k: tf.constant(v, tf.float64) for k, v in shape.items()}
    inside = [float(profile.mass_within(r, **shape) / profile.total_mass(**shape)) for r in (1e3, 1e6)]
    assert inside[0] < inside[1] < 1
    np.testing.assert_allclose(inside[1], 1, rtol=1e-5)


def circle(name: str) -> tuple[CircularMass, dict[str, tf.Tensor]]:
    """Every circular profile with a scale radius of 1 or so."""
    profile, values = {
        "NFW": (NFW(), {"Rs": 1.0, "alpha_Rs": 1.0}),
        "TNFW": (TNFW(), {"Rs": 1.0, "alpha_Rs": 1.0, "r_trunc": 3.0}),
        "Hernquist": (Hernquist(), {"sigma0": 1.0, "Rs": 1.0}),
        "SersicMass, n = 1": (SersicMass(), {"k_eff": 0.3, "R_sersic": 1.0, "n_sersic": 1.0}),
        "SersicMass, n = 4": (SersicMass(), {"k_eff": 0.3, "R_sersic": 1.0, "n_sersic": 4.0}),
        "GaussianMass": (GaussianMass(), {"amp": 3.0, "sigma": 1.0}),
        "IsothermalSphere": (IsothermalSphere(), {"theta_E": 1.0}),
    }[name]
    return profile, {k: tf.constant(v, tf.float64) for k, v in values.items()}


class IsothermalSphere(CircularMass):
    """The singular one, for EllipticalMass to make the SIE of it."""

    parameters = (Parameter(("theta_E",), "arcsec", "Einstein radius", log_normal(1.0, 0.3)), *CENTER)

    def radial_potential(self, r2, *, theta_E):
        return theta_E * tf.sqrt(r2)

    def radial_mean_convergence(self, r2, *, theta_E):
        return theta_E / tf.sqrt(r2)

    def radial_convergence(self, r2, *, theta_E):
        return theta_E / (2 * tf.sqrt(r2))


CIRCLES = ["NFW", "TNFW", "Hernquist", "SersicMass, n = 1", "SersicMass, n = 4", "GaussianMass", "IsothermalSphere"]
every_circle = pytest.mark.parametrize("name", CIRCLES)


def ring(radius: float) -> tuple[tf.Tensor, tf.Tensor]:
    angle = np.linspace(0, 2 * np.pi, 29)
    return tf.constant(radius * np.cos(angle)[None]), tf.constant(radius * np.sin(angle)[None])


class TestEllipticalMass:
    @every_circle
    @pytest.mark.parametrize("radius", [1e-3, 0.3, 1.0, 10.0])
    def test_default_number_of_nodes_keeps_the_stated_error(self, name, radius):
        circular, shape = circle(name)
        shape |= {"e1": tf.constant(0.36, tf.float64), "e2": tf.constant(-0.48, tf.float64)} | ORIGIN
        default, exact = EllipticalMass(circular), EllipticalMass(circular, nodes=80)
        tolerance = 1e-7 if name == "GaussianMass" and radius == 10.0 else 1e-9
        for quantity in ("deflection", "potential"):
            found, expected = (getattr(p, quantity)(*ring(radius), **shape) for p in (default, exact))
            np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())

    def test_compact_mass_seen_from_afar_keeps_the_stated_error(self):
        circular, shape = circle("GaussianMass")
        shape |= {"e1": 0.36, "e2": -0.48} | ORIGIN
        found, expected = (EllipticalMass(circular, n).deflection(*ring(100.0), **shape) for n in (20, 400))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())

    @every_circle
    def test_round_lens_is_the_circular_one_with_any_number_of_nodes(self, name):
        circular, shape = circle(name)
        lens = EllipticalMass(circular, nodes=1)
        for quantity in ("deflection", "potential", "convergence"):
            found = getattr(lens, quantity)(*ring(0.7), **shape, e1=0.0, e2=0.0, **ORIGIN)
            np.testing.assert_allclose(found, getattr(circular, quantity)(*ring(0.7), **shape, **ORIGIN), rtol=1e-13)

    @every_circle
    def test_deflection_is_the_exact_gradient_with_few_nodes(self, name):
        circular, shape = circle(name)
        shape |= {"e1": 0.3, "e2": 0.2} | ORIGIN
        lens = EllipticalMass(circular, nodes=3)
        x, y = ring(0.7)
        with tf.GradientTape() as tape:
            tape.watch([x, y])
            psi = lens.potential(x, y, **shape)
        np.testing.assert_allclose(tape.gradient(psi, [x, y]), lens.deflection(x, y, **shape), rtol=0, atol=2e-13)

    def test_isothermal_ellipsoid_is_made_from_the_sphere(self):
        lens = EllipticalMass(IsothermalSphere(), nodes=40)
        values = {"theta_E": 1.3, "e1": 0.31, "e2": -0.42, "center_x": 0.1, "center_y": -0.2}
        x, y = ring(2.0)
        for quantity in ("deflection", "potential", "convergence"):
            found, expected = (getattr(p, quantity)(x, y, **values) for p in (lens, SIE(tolerance=1e-15)))
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)

    @every_circle
    def test_equals_the_integrals_of_keeton(self, name):
        # Keeton 2001, eq. 16-19: kappa constant on xi^2 = x^2 + y^2 / q^2, our R^2 = q xi^2.
        circular, shape = circle(name)
        e = 0.37
        q = (1 - e) / (1 + e)
        x, y = 0.9, -0.6
        found = EllipticalMass(circular, nodes=40).deflection(
            tf.constant([[x]], tf.float64), tf.constant([[y]], tf.float64), **shape, e1=e, e2=0.0, **ORIGIN
        )

        # u = p^4: smooth for a cusp.
        p, weights = np.polynomial.legendre.leggauss(200)
        p = (p + 1) / 2
        u, weights = p**4, 2 * p**3 * weights
        minor2 = 1 - (1 - q**2) * u
        kappa = circular.radial_convergence(tf.constant(q * u * (x**2 + y**2 / minor2)), **shape).numpy()
        for alpha, coordinate, power in zip(found, (x, y), (0.5, 1.5), strict=True):
            expected = q * coordinate * np.sum(weights * kappa / minor2**power)
            np.testing.assert_allclose(alpha[0, 0], expected, rtol=1e-12)

    def test_halo_agrees_with_lenstronomy_within_its_expansion(self):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from lenstronomy.LensModel.lens_model import LensModel

        x, y = ring(1.7)
        values = {"Rs": 2.0, "alpha_Rs": 1.1, "e1": 0.2, "e2": -0.1, **ORIGIN}
        expected = LensModel(["NFW_ELLIPSE_CSE"]).alpha(x[0].numpy(), y[0].numpy(), [values])
        found = EllipticalMass(NFW()).deflection(x, y, **values)
        # Its sum of cored steep ellipsoids has six digits or so (Oguri 2021, PASP 133, 074504).
        np.testing.assert_allclose([a[0] for a in found], expected, rtol=0, atol=1e-5)

    @pytest.mark.parametrize("nodes", [0, -3, 2.5])
    def test_unusable_numbers_of_nodes_are_refused(self, nodes):
        with pytest.raises(ParameterError, match=r"EllipticalMass\.nodes must be a positive integer"):
            EllipticalMass(NFW(), nodes=nodes)


@pytest.mark.parametrize("wrapper", [EllipticalMass, EllipticalPotential])
class TestEllipticalWrappers:
    def test_only_circular_profiles_are_taken(self, wrapper):
        for wrong in (Shear(), SIE(), EllipticalPotential(NFW())):
            with pytest.raises(ParameterError, match=rf"{wrapper.__name__}\.circular must be a CircularMass or"):
                wrapper(wrong)

    def test_configuration_survives_json(self, wrapper):
        lens = wrapper(MultiGaussianMass([0.1, 0.5]))
        rebuilt = wrapper.from_config(json.loads(json.dumps(lens.get_config())))
        assert repr(rebuilt) == repr(lens)
        assert rebuilt.parameter_names == ("amp_0", "amp_1", "e1", "e2", "center_x", "center_y")


class TestSersicMass:
    @pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 3e-13), ("float32", 5e-6)])
    @pytest.mark.parametrize("n", [0.5, 0.51, 0.7, 1.0, 1.7, 4.0, 8.0, 10.0])
    def test_equals_the_incomplete_gamma_function(self, n, dtype, tolerance):
        shape = {"k_eff": 0.3, "R_sersic": 1.0, "n_sersic": n}
        shape = {k: tf.constant(v, dtype) for k, v in shape.items()}
        r2 = tf.constant(np.logspace(-4, 3, 15) ** 2, dtype)
        found = SersicMass().radial_mean_convergence(r2, **shape), SersicMass().radial_potential(r2, **shape)
        with mp.workdps(40):
            n, k, b = (mp.mpf(float(v)) for v in (shape["n_sersic"], shape["k_eff"], b_n(shape["n_sersic"])))
            means, potentials = [], []
            for v in r2:
                r2_, a = mp.mpf(float(v)), 2 * n
                t = b * r2_ ** (1 / (2 * n))
                gamma = mp.gammainc(a, 0, t)
                # The derivative of gamma(a, t) with respect to a, for the integral of gamma(a, t) / t.
                integral = mp.log(t) * gamma - mp.diff(lambda order, t=t: mp.gammainc(order, 0, t), a)
                means.append(2 * n * k * mp.exp(b) * t**-a * gamma)
                potentials.append(2 * n**2 * k * mp.exp(b) * r2_ * t**-a * integral)
            assert relative_errors(found[0], means).max() < tolerance
            assert relative_errors(found[1], potentials).max() < tolerance

    @pytest.mark.parametrize("n", [0.5, 1.0, 4.0, 8.0])
    def test_half_of_the_mass_lies_within_the_effective_radius(self, n):
        shape = {"k_eff": 0.3, "R_sersic": 2.0, "n_sersic": n}
        shape = {k: tf.constant(v, tf.float64) for k, v in shape.items()}
        half, total = (SersicMass().mass_within(r, **shape) for r in (2.0, 1e7))
        np.testing.assert_allclose(half / total, 0.5, rtol=1e-7)


class TestGaussians:
    def test_sum_of_gaussians_is_the_sum(self):
        amps, sigmas = [0.7, 2.0], [0.2, 0.9]
        x, y = ring(0.8)
        both = {"amp_0": amps[0], "amp_1": amps[1], **ORIGIN}
        for quantity in ("deflection", "potential", "convergence"):
            single = [
                np.array(getattr(GaussianMass(), quantity)(x, y, amp=a, sigma=s, **ORIGIN))
                for a, s in zip(amps, sigmas, strict=True)
            ]
            np.testing.assert_allclose(
                getattr(MultiGaussianMass(sigmas), quantity)(x, y, **both), sum(single), rtol=1e-13
            )

    def test_mass_within_a_large_radius_is_the_amplitude(self):
        shape = {"amp": tf.constant(2.5, tf.float64), "sigma": tf.constant(0.3, tf.float64)}
        np.testing.assert_allclose(GaussianMass().mass_within(50.0, **shape), 2.5, rtol=1e-14)

    @pytest.mark.parametrize("sigmas", [[], [0.1, 0.0], [float("inf")], [float("nan")]])
    def test_unusable_widths_are_refused(self, sigmas):
        with pytest.raises(ParameterError, match=r"MultiGaussianMass\.sigmas must be"):
            MultiGaussianMass(sigmas)

    def test_missing_amplitudes_are_named(self):
        with pytest.raises(ParameterError, match="amp_1"):
            MultiGaussianMass([0.1, 0.2]).potential(*ring(1.0), amp_0=1.0, **ORIGIN)


class TestPixelatedPotential:
    PLACE: ClassVar[dict[str, float]] = {"amp": 1.7, "center_x": 0.3, "center_y": -0.2}

    def test_equals_the_natural_spline_of_scipy(self):
        image, side = potential_map((7, 10)), 0.4
        rows, columns = (side * (np.arange(n) - (n - 1) / 2) for n in image.shape)
        x, y = np.random.default_rng(0).uniform([-1.5, -1.4], [2.1, 1.0], (40, 2)).T
        along_y = CubicSpline(rows, image, axis=0, bc_type="natural")

        def spline(dx: int, dy: int) -> np.ndarray:
            at_y = [CubicSpline(columns, along_y(v, dy), bc_type="natural") for v in y - self.PLACE["center_y"]]
            return 1.7 * np.array([s(v, dx) for s, v in zip(at_y, x - self.PLACE["center_x"], strict=True)])

        lens, at = PixelatedPotential(side, image), (tf.constant(x[None]), tf.constant(y[None]))
        np.testing.assert_allclose(lens.potential(*at, **self.PLACE)[0], spline(0, 0), rtol=0, atol=1e-13)
        np.testing.assert_allclose(lens.deflection(*at, **self.PLACE)[0][0], spline(1, 0), rtol=0, atol=1e-12)
        np.testing.assert_allclose(lens.deflection(*at, **self.PLACE)[1][0], spline(0, 1), rtol=0, atol=1e-12)
        expected = (spline(2, 0) + spline(0, 2)) / 2
        np.testing.assert_allclose(lens.convergence(*at, **self.PLACE)[0], expected, rtol=0, atol=1e-11)

    def test_goes_on_linearly_beyond_the_map(self):
        lens = PixelatedPotential(0.4, potential_map((7, 10)))
        x, y = tf.constant([[2.5, 4.5, 6.5]], tf.float64), tf.constant([[-0.3]], tf.float64)
        place = {"amp": 1.0, **ORIGIN}
        psi, (alpha_x, _) = lens.potential(x, y, **place)[0], lens.deflection(x, y, **place)
        np.testing.assert_allclose(np.diff(psi), 2 * alpha_x[0, 0], rtol=1e-12)
        np.testing.assert_allclose(alpha_x[0], alpha_x[0, 0], rtol=1e-12)

    def test_free_pixels_come_in_batches_and_have_gradients(self):
        free, x, y = PixelatedPotential(0.4), tf.constant([[0.1, 0.6]], tf.float64), tf.constant([[0.2]], tf.float64)
        images = tf.constant(np.stack([potential_map((5, 6)), 2 * potential_map((5, 6))]))
        with tf.GradientTape() as tape:
            tape.watch(images)
            psi = free.potential(x, y, image=images, **self.PLACE)
        fixed = PixelatedPotential(0.4, potential_map((5, 6))).potential(x, y, **self.PLACE)
        np.testing.assert_allclose(psi, np.stack([fixed, 2 * fixed]), rtol=1e-13)
        # Linear in the pixels.
        gradient = tape.gradient(psi, images)
        np.testing.assert_allclose(tf.reduce_sum(gradient * images, [1, 2]), tf.reduce_sum(psi, [1, 2]), rtol=1e-12)

    def test_a_position_that_is_not_a_number_stays_alone(self):
        lens = PixelatedPotential(0.4, potential_map((5, 6)))
        psi = lens.potential(tf.constant([[np.nan, 0.1]]), tf.constant([[0.0]]), amp=1.0, **ORIGIN)
        assert np.isnan(psi[0, 0])
        assert np.isfinite(psi[0, 1])

    @pytest.mark.parametrize("kind", [PixelatedPotential, PixelatedConvergence])
    def test_unusable_maps_are_refused_by_name(self, kind):
        for scale in (0.0, -1.0, float("nan")):
            with pytest.raises(ParameterError, match=rf"{kind.__name__}\.pixel_scale must be positive"):
                kind(scale)
        for image in (np.zeros(4), np.zeros([1, 5]), np.zeros([2, 2, 2])):
            with pytest.raises(ParameterError, match=rf"{kind.__name__}\.image must be"):
                kind(0.1, image)
        with pytest.raises(ParameterError, match="must be finite, got 1 bad pixels"):
            kind(0.1, [[0.0, np.nan], [0.0, 0.0]])
        with pytest.raises(ParameterError, match="has no map"):
            kind(0.1).potential(tf.constant([[0.0]]), tf.constant([[0.0]]), amp=1.0, **ORIGIN)


class TestPixelatedConvergence:
    SHAPE: ClassVar[dict[str, tf.Tensor]] = {"amp": tf.constant(2.0, tf.float64), "sigma": tf.constant(0.5, tf.float64)}

    def errors(self, side: float) -> list[float]:
        """Largest errors of potential, deflection and convergence for a Gaussian in pixels of that side."""
        ny, nx = round(5.0 / side), round(6.0 / side)
        x, y = (side * (np.arange(n) - (n - 1) / 2) for n in (nx, ny))
        kappa = GaussianMass().convergence(tf.constant(x[None]), tf.constant(y[:, None]), **self.SHAPE, **ORIGIN)
        lens = PixelatedConvergence(side, kappa)
        at = tf.constant(np.linspace(-2.2, 2.1, 23)[None]), tf.constant(np.linspace(-1.9, 2.0, 11)[:, None])
        found = [getattr(lens, q)(*at, amp=1.0, **ORIGIN) for q in ("potential", "deflection", "convergence")]
        exact = [
            getattr(GaussianMass(), q)(*at, **self.SHAPE, **ORIGIN) for q in ("potential", "deflection", "convergence")
        ]
        differences = [np.array(f) - np.array(e) for f, e in zip(found, exact, strict=True)]
        # The potential of a map is 0 at infinity of the logarithm ln r, not at the centre.
        differences[0] -= differences[0].mean()
        return [float(np.abs(d).max()) for d in differences]

    def test_a_smooth_map_converges_with_the_square_of_the_pixel(self):
        coarse, fine = np.array(self.errors(0.25)), np.array(self.errors(0.125))
        assert (fine < [2e-3, 4e-3, 2e-2]).all()
        assert (np.log2(coarse / fine) > 1.9).all()

    def test_far_outside_the_pixels_it_is_their_mass(self):
        image = np.zeros([15, 21])
        image[7, 10] = 3.0
        lens = PixelatedConvergence(0.1, image)
        x = tf.constant([[0.9, 1.2]], tf.float64)
        alpha_x, alpha_y = lens.deflection(x, tf.zeros_like(x), amp=1.0, **ORIGIN)
        np.testing.assert_allclose(alpha_x[0], 3.0 * 0.1**2 / (np.pi * x[0]), rtol=1e-3)
        np.testing.assert_allclose(alpha_y[0], 0, atol=1e-14)
