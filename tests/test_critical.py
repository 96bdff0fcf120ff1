"""Critical curves, caustics, cut and Einstein radius, against closed forms and quadrature."""

import numpy as np
import pytest
import tensorflow as tf
from scipy.integrate import quad
from scipy.optimize import brentq

from tflens.critical import caustics, critical_curves, cut, einstein_radius, magnification
from tflens.errors import ParameterError
from tflens.mass import SIE, Shear
from tflens.mass.total import total

WINDOW = (-2.4, 2.6, -2.0, 2.2)


def sis(theta_E=1.0, x0=0.0, y0=0.0):
    def deflection(x, y):
        x, y = x - x0, y - y0
        r = tf.sqrt(x**2 + y**2 + 1e-30)
        return theta_E * x / r, theta_E * y / r

    return deflection


def power(theta_E, t):
    """A round power law of slope gamma = t + 1: alpha = theta_E (r / theta_E)^(1 - t)."""

    def deflection(x, y):
        over_r = theta_E**t * (x**2 + y**2 + 1e-30) ** (-t / 2)
        return over_r * x, over_r * y

    return deflection


def with_shear(deflection, gamma1, gamma2):
    def sheared(x, y):
        alpha_x, alpha_y = deflection(x, y)
        return alpha_x + gamma1 * x + gamma2 * y, alpha_y + gamma2 * x - gamma1 * y

    return sheared


def sie(theta_E=1.2, e1=0.2, e2=-0.1, center_x=0.05, center_y=0.1, gamma1=0.0, gamma2=0.0):
    values = {"theta_E": theta_E, "e1": e1, "e2": e2, "center_x": center_x, "center_y": center_y}
    profiles = [SIE(max_ellipticity=0.3, tolerance=1e-12), Shear()]
    return total(profiles, [values, {"gamma1": gamma1, "gamma2": gamma2}]).deflection


def test_critical_curve_of_the_sie_is_its_contour_of_convergence_one_half():
    curves = critical_curves(sie(), WINDOW, step=0.1)
    assert (len(curves.tangential), len(curves.radial)) == (1, 0)
    (curve,) = curves.tangential
    np.testing.assert_array_equal(curve[0], curve[-1])
    x, y = curve[:, 0] - 0.05, curve[:, 1] - 0.1
    # R^2 = |w - e conj(w)|^2 / (1 - |e|^2)
    radius = np.abs(x + 1j * y - (0.2 - 0.1j) * (x - 1j * y)) / np.sqrt(1 - 0.05)
    np.testing.assert_allclose(radius, 1.2, atol=1e-9)
    # Evenly sampled.
    spacing = np.hypot(*np.diff(curve, axis=0).T)
    assert spacing.max() < 0.1 * 1.05
    assert spacing.min() > 0.05


@pytest.mark.parametrize("t", [0.6, 0.85])
def test_curves_and_caustics_of_a_round_power_law(t):
    theta_E = 1.1
    deflection = power(theta_E, t)
    curves = critical_curves(deflection, WINDOW, step=0.05)
    radial_radius = theta_E * (1 - t) ** (1 / t)
    for kind, radius in zip(curves, (theta_E, radial_radius), strict=True):
        assert len(kind) == 1
        np.testing.assert_allclose(np.hypot(*kind[0].T), radius, atol=1e-9)
    tangential, radial = caustics(deflection, curves)
    np.testing.assert_allclose(tangential[0], 0, atol=1e-8)
    # |beta| = theta (theta_E / theta)^t - theta at the radial curve.
    expected = radial_radius * ((theta_E / radial_radius) ** t - 1)
    np.testing.assert_allclose(np.hypot(*radial[0].T), expected, atol=1e-12)


def test_caustic_of_isothermal_sphere_with_shear_is_an_astroid():
    """Cusps on the axes at 2 theta_E gamma / (1 +- gamma): the Chang-Refsdal form of the isothermal sphere."""
    gamma, theta_E = 0.1, 1.3
    deflection = with_shear(sis(theta_E), gamma, 0.0)
    curves = critical_curves(deflection, WINDOW, step=0.02)
    (curve,), (caustic,) = curves.tangential, caustics(deflection, curves).tangential
    phi = np.arctan2(curve[:, 1], curve[:, 0])
    np.testing.assert_allclose(np.hypot(*curve.T), theta_E * (1 - gamma * np.cos(2 * phi)) / (1 - gamma**2), atol=1e-8)
    # beta = -2 theta_E gamma (cos^3 phi / (1 + gamma), -sin^3 phi / (1 - gamma)), from det = 0 by hand.
    expected = 2 * theta_E * gamma * np.stack([-(np.cos(phi) ** 3) / (1 + gamma), np.sin(phi) ** 3 / (1 - gamma)], -1)
    np.testing.assert_allclose(caustic, expected, atol=1e-8)


def test_magnification_map():
    x, y = np.linspace(-1.9, 2.0, 7)[None, :], np.linspace(-1.0, 1.1, 5)[:, None]
    mu = magnification(sis(1.3), tf.constant(x), tf.constant(y))
    assert mu.shape == (5, 7)
    np.testing.assert_allclose(mu, 1 / (1 - 1.3 / np.hypot(x, y)), rtol=1e-10)


def test_cut_of_the_sie_in_closed_form():
    """Kormann, Schneider & Bartelmann 1994, eq. 24: minus the deflection, which depends on the angle alone."""
    theta_E, e1 = 1.2, 0.25
    q = (1 - e1) / (1 + e1)
    f = np.sqrt(1 - q**2)
    curve = cut(sie(theta_E, e1, 0.0, 0.0, 0.0, gamma1=0.05), (0.0, 0.0), points=100)
    phi = 2 * np.pi * np.arange(101) / 100
    psi = np.hypot(q * np.cos(phi), np.sin(phi))
    alpha = np.stack([np.arctan(f * np.cos(phi) / psi), np.arctanh(f * np.sin(phi) / psi)], -1) * np.sqrt(q) / f
    np.testing.assert_allclose(curve, -theta_E * alpha, atol=1e-9)


def test_einstein_radius_of_the_sie_is_theta_E():
    radius = einstein_radius(sie(), WINDOW, step=0.05)
    assert radius.shape == ()
    np.testing.assert_allclose(radius, 1.2, rtol=1e-8)


def test_einstein_radius_of_a_sheared_isothermal_sphere_in_closed_form():
    """r = theta_E (1 - gamma cos 2 phi) / (1 - gamma^2) has the area pi theta_E^2 (1 + gamma^2/2) / (1 - gamma^2)^2."""
    theta_E, gamma = tf.constant(1.2, tf.float64), tf.constant(0.15, tf.float64)
    with tf.GradientTape() as tape:
        tape.watch([theta_E, gamma])
        radius = einstein_radius(with_shear(sis(theta_E), gamma * 0.6, gamma * 0.8), WINDOW, step=0.05)
    g = 0.15
    expected = 1.2 * np.sqrt(1 + g**2 / 2) / (1 - g**2)
    np.testing.assert_allclose(radius, expected, rtol=1e-8)
    by_shear = expected * (g / 2 / (1 + g**2 / 2) + 2 * g / (1 - g**2))
    np.testing.assert_allclose(tape.gradient(radius, [theta_E, gamma]), [expected / 1.2, by_shear], rtol=1e-6)


def test_einstein_radius_of_a_sheared_ellipsoid_against_quadrature():
    """Area by adaptive quadrature over the angle, the radius at each angle by bisection of det written by hand."""
    e, shear = 0.2 - 0.1j, -0.08 + 0.05j

    def edge(phi):
        w = np.exp(1j * phi)
        # The SIE: kappa = theta_E / 2R; its shear is -kappa w / conj(w), for the potential is homogeneous of degree 1.
        kappa_r = 1.2 / 2 * np.sqrt(1 - abs(e) ** 2) / abs(w - e * np.conj(w))
        return brentq(
            lambda r: (1 - kappa_r / r) ** 2 - abs(-kappa_r / r * w / np.conj(w) + shear) ** 2, 0.5, 3, xtol=1e-14
        )

    expected = np.sqrt(quad(lambda phi: edge(phi) ** 2 / 2, 0, 2 * np.pi, epsabs=1e-11)[0] / np.pi)
    deflection = sie(center_x=0.0, center_y=0.0, gamma1=-0.08, gamma2=0.05)
    np.testing.assert_allclose(einstein_radius(deflection, WINDOW, step=0.05), expected, rtol=1e-7)
    assert abs(expected / 1.2 - 1) > 1e-3


@pytest.mark.slow
def test_gradient_of_the_einstein_radius_is_its_difference_quotient():
    names = ("e1", "gamma1")
    point = [tf.constant(value, tf.float64) for value in (0.2, 0.07)]

    def radius(values):
        return einstein_radius(sie(**dict(zip(names, values, strict=True))), WINDOW, step=0.06)

    with tf.GradientTape() as tape:
        tape.watch(point)
        value = radius(point)
    gradients = tape.gradient(value, point)
    for i, gradient in enumerate(gradients):
        up, down = list(point), list(point)
        up[i], down[i] = point[i] + 1e-3, point[i] - 1e-3
        np.testing.assert_allclose(gradient, (radius(up) - radius(down)) / 2e-3, rtol=1e-5, atol=1e-6)


def test_a_singular_centre_on_a_grid_point_makes_no_curve():
    curves = critical_curves(sis(), (-2.0, 2.0, -1.5, 1.5), step=0.1)
    assert (len(curves.tangential), len(curves.radial)) == (1, 0)


def test_two_lenses_apart_have_a_curve_each_the_larger_first():
    def deflection(x, y):
        (a_x, a_y), (b_x, b_y) = sis(0.8, -1.5)(x, y), sis(0.2, 1.5, 0.3)(x, y)
        return a_x + b_x, a_y + b_y

    tangential, radial = critical_curves(deflection, (-3.0, 3.0, -2.0, 2.0), step=0.04)
    assert [len(tangential), len(radial)] == [2, 0]
    assert tangential[0][:, 0].max() < 0 < tangential[1][:, 0].min()


def test_two_planes():
    """The Jacobian is not symmetric; det still vanishes on every curve."""

    def deflection(x, y):
        near_x, near_y = power(0.9, 0.7)(x, y)
        far_x, far_y = power(0.5, 0.7)(x - 0.4 * near_x - 0.15, y - 0.4 * near_y + 0.1)
        return near_x + far_x, near_y + far_y

    curves = critical_curves(with_shear(deflection, 0.05, 0.0), (-3.0, 3.1, -2.9, 3.2), step=0.05)
    assert len(curves.tangential) == 1
    for curve in (*curves.tangential, *curves.radial):
        x, y = (tf.constant(curve[None, :, i]) for i in (0, 1))
        mu = magnification(with_shear(deflection, 0.05, 0.0), x, y)
        np.testing.assert_allclose(1 / mu, 0, atol=1e-7)


def test_a_weak_lens_has_no_curves_and_no_einstein_radius():
    weak = with_shear(lambda x, y: (0.1 * x, 0.1 * y), 0.1, 0.0)
    assert critical_curves(weak, WINDOW, step=0.2) == ([], [])
    with pytest.raises(ParameterError, match="no tangential critical curve"):
        einstein_radius(weak, WINDOW, step=0.2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"extent": (0.0, 0.0, -1.0, 1.0)}, "left < right"),
        ({"extent": (-0.9, 2.0, -2.0, 2.0)}, "tangential critical curve leaves the window .* enlarge it"),
        ({"step": -0.1}, "step must be positive"),
        ({"accuracy": 0.0}, "accuracy must be positive"),
    ],
)
def test_errors_say_what_is_wrong(options, message):
    with pytest.raises(ParameterError, match=message):
        critical_curves(sis(), **{"extent": WINDOW, "step": 0.1, **options})


def test_a_batch_of_lenses_is_refused():
    theta_E = tf.constant([1.0, 1.2], tf.float64)[:, None, None]
    with pytest.raises(ParameterError, match="one lens at a time"):
        critical_curves(sis(theta_E), WINDOW, step=0.2)


def test_a_cut_needs_three_points():
    with pytest.raises(ParameterError, match="at least 3"):
        cut(sis(), (0.0, 0.0), points=2)


def test_total_is_the_sum_of_its_profiles():
    sie_values = {"theta_E": 1.2, "e1": 0.2, "e2": -0.1, "center_x": 0.05, "center_y": 0.1}
    shear_values = {"gamma1": 0.05, "gamma2": -0.02}
    x, y = tf.constant([[1.0, 2.0, -1.0]], tf.float64), tf.constant([[0.5], [-0.7]], tf.float64)
    lens = total([SIE(), Shear()], [sie_values, shear_values])
    for method in lens._fields:
        value = getattr(lens, method)(x, y)
        parts = getattr(SIE(), method)(x, y, **sie_values), getattr(Shear(), method)(x, y, **shear_values)
        np.testing.assert_allclose(value, np.add(*parts), rtol=1e-14)
    nothing = total([], [])
    assert nothing.potential(x, y).shape == (2, 3)
    np.testing.assert_array_equal(nothing.deflection(x, y), np.zeros((2, 2, 3)))
    with pytest.raises(ParameterError, match="one dictionary of parameters for each profile"):
        total([SIE()], [])
