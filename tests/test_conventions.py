"""Every conversion of a convention: by the definitions of both sides, and that it can be undone."""

import numpy as np
import pytest
import tensorflow as tf

from tflens import conventions
from tflens.light import Sersic
from tflens.mass import Multipole, Shear

RNG = np.random.default_rng(0)
E1, E2 = RNG.uniform(-0.4, 0.4, (2, 50))


def test_ellipticity_is_that_of_the_axes():
    q, phi = conventions.axis_ratio_and_angle(E1, E2)
    # On the ellipse R = 1 the major axis is 1 / sqrt q long, at the angle phi; R^2 = |w - e conj w|^2 / (1 - |e|^2).
    e = E1 + 1j * E2
    for length, turn in ((1 / np.sqrt(q), 0.0), (np.sqrt(q), np.pi / 2)):
        w = length * np.exp(1j * (phi + turn))
        np.testing.assert_allclose(np.abs(w - e * np.conj(w)) ** 2 / (1 - np.abs(e) ** 2), 1, rtol=1e-12)
    np.testing.assert_allclose(conventions.ellipticity(q, phi), (E1, E2), atol=1e-15)


@pytest.mark.parametrize(("phi", "angle"), [(0.0, 90.0), (90.0, 0.0), (45.0, -45.0), (135.0, 45.0), (-90.0, 0.0)])
def test_position_angles_count_from_y_counterclockwise(phi, angle):
    assert conventions.position_angle(np.radians(phi)) == pytest.approx(angle, abs=1e-12)
    turned = conventions.angle_from_x(angle) - np.radians(phi)
    assert np.sin(turned) == pytest.approx(0, abs=1e-12)  # up to half a turn


def test_position_angles_are_in_their_interval():
    angles = conventions.position_angle(RNG.uniform(-10, 10, 1000))
    assert angles.min() > -90
    assert angles.max() <= 90


def test_a_shear_stretches_along_its_angle():
    gamma, phi = conventions.strength_and_angle(E1, E2)
    for i in range(5):
        x, y = np.cos(phi[i]), np.sin(phi[i])
        alpha = Shear().deflection(
            tf.constant([[x]], tf.float64), tf.constant([[y]], tf.float64), gamma1=E1[i], gamma2=E2[i]
        )
        np.testing.assert_allclose([float(a[0, 0]) for a in alpha], [gamma[i] * x, gamma[i] * y], atol=1e-12)
    np.testing.assert_allclose(conventions.shear_components(gamma, phi), (E1, E2), atol=1e-15)


@pytest.mark.parametrize("m", [1, 3, 4])
def test_a_multipole_peaks_at_its_angle(m):
    a_m, phi_m = conventions.amplitude_and_angle(0.02, -0.03, m)
    x, y = (tf.constant([[value]], tf.float64) for value in (np.cos(phi_m), np.sin(phi_m)))
    kappa = Multipole(m).convergence(x, y, a_cos=0.02, a_sin=-0.03, center_x=0.0, center_y=0.0)
    assert float(kappa[0, 0]) == pytest.approx(a_m / 2, rel=1e-12)
    np.testing.assert_allclose(conventions.multipole_components(a_m, phi_m, m), (0.02, -0.03), atol=1e-15)


@pytest.mark.parametrize("n", [0.5, 1.0, 4.0, 8.0])
def test_a_rounded_sersic_profile_is_the_same_profile(n):
    amp, radius = conventions.rounded_sersic(3.0, 0.6, n)
    r = np.geomspace(0.05, 5, 20)
    b = 1.9992 * n - 0.3271
    theirs = amp * np.exp(-b * ((r / radius) ** (1 / n) - 1))
    place = {"e1": 0.0, "e2": 0.0, "center_x": 0.0, "center_y": 0.0}
    x, n_sersic = tf.constant(r[None]), tf.constant(n, tf.float64)
    ours = 3.0 * Sersic().brightness(x, tf.zeros([1, 1], tf.float64), R_sersic=0.6, n_sersic=n_sersic, **place)
    np.testing.assert_allclose(ours.numpy()[0], theirs, rtol=1e-4 if n == 0.5 else 3e-5)  # ours is softened at 1e-4
    np.testing.assert_allclose(conventions.exact_sersic(amp, radius, n), (3.0, 0.6), rtol=1e-14)
