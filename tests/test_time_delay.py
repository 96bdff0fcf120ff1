"""Time delays: closed form, lenstronomy, scaling with H0, and derivatives through the image positions."""

import warnings

import numpy as np
import pytest
import tensorflow as tf
from astropy.cosmology import FlatLambdaCDM, LambdaCDM

from tflens.errors import ParameterError
from tflens.images import image_positions
from tflens.mass import SIE, Shear
from tflens.mass.total import total
from tflens.time_delay import fermat_potential, time_delay_distance, time_delays

COSMOLOGY = FlatLambdaCDM(H0=70, Om0=0.3)
# lenstronomy's megaparsec is 3.08567758e22 m, the IAU's (astropy) 3.0856775814913674e22.
MEGAPARSEC = 3.0856775814913674 / 3.08567758


def float64(*values):
    return [tf.constant(value, tf.float64) for value in values]


def sis(theta_E):
    def deflection(x, y):
        r = tf.sqrt(x**2 + y**2 + 1e-30)
        return theta_E * x / r, theta_E * y / r

    def potential(x, y):
        return theta_E * tf.sqrt(x**2 + y**2)

    return deflection, potential


def test_singular_isothermal_sphere_in_closed_form():
    """Images at beta +- theta_E differ by 2 beta theta_E in Fermat potential."""
    beta, theta_E = 0.3, 1.2
    x, y, beta_x, beta_y = float64([[beta + theta_E, beta - theta_E]], [[0.0, 0.0]], [beta], [0.0])
    delays = time_delays(fermat_potential(sis(theta_E)[1], x, y, beta_x, beta_y), 2000.0)
    days = 2000 * 3.0856775814913674e22 / 299792458 / 86400 * (np.pi / 180 / 3600) ** 2 * 2 * beta * theta_E
    np.testing.assert_allclose(delays, [[0.0, days]], rtol=1e-13)


def test_parity_with_lenstronomy():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from lenstronomy.Cosmo.lens_cosmo import LensCosmo
        from lenstronomy.LensModel.lens_model import LensModel

        sie = {"theta_E": 1.1, "e1": 0.1, "e2": -0.2, "center_x": 0.05, "center_y": -0.02}
        shear = {"gamma1": 0.05, "gamma2": -0.03}
        peer = LensModel(["SIE", "SHEAR"], cosmo=COSMOLOGY, z_lens=0.4, z_source=1.7)
        peer_distance = LensCosmo(0.4, 1.7, COSMOLOGY).ddt
        x, y = np.array([1.1, -0.8, 0.3, 0.2]), np.array([0.2, 0.4, 1.2, -0.9])
        peer_days = peer.arrival_time(x, y, [sie, shear | {"ra_0": 0, "dec_0": 0}], x_source=0.07, y_source=0.05)
    distance = time_delay_distance(0.4, 1.7, COSMOLOGY)
    np.testing.assert_allclose(distance, peer_distance, rtol=1e-12)
    lens = total([SIE(tolerance=1e-15), Shear()], [sie, shear])
    fermat = fermat_potential(lens.potential, *float64(x, y, 0.07, 0.05))
    delays = time_delays(fermat, distance).numpy()
    assert delays.min() == 0
    # The relative accuracy of differences that are smaller than their terms; lenstronomy softens its SIE by 1e-9.
    np.testing.assert_allclose(delays, (peer_days - peer_days.min()) * MEGAPARSEC, rtol=1e-8, atol=1e-8)


def test_delays_scale_inversely_with_the_hubble_constant():
    first, second = (time_delay_distance(0.5, 2.0, FlatLambdaCDM(H0=H0, Om0=0.3)) for H0 in (70, 50))
    np.testing.assert_allclose(second / first, 70 / 50, rtol=1e-12)
    fermat = tf.constant([0.1, 0.3, 0.2], tf.float64)
    np.testing.assert_allclose(time_delays(fermat, second), time_delays(fermat, first) * 70 / 50, rtol=1e-12)


def test_distance_in_a_curved_universe():
    """Against Hogg 1999 (astro-ph/9905116), eq. 19, for positive curvature density."""
    cosmology = LambdaCDM(H0=70, Om0=0.3, Ode0=0.5)
    lens, source = (cosmology.comoving_transverse_distance(z).value for z in (0.5, 2.0))
    hubble = 299792.458 / 70
    curvature = cosmology.Ok0 / hubble**2
    between = source * np.sqrt(1 + curvature * lens**2) - lens * np.sqrt(1 + curvature * source**2)
    np.testing.assert_allclose(time_delay_distance(0.5, 2.0, cosmology), lens * source / between, rtol=1e-10)


def test_delays_can_be_differentiated_through_the_images():
    """The images move with the lens, yet to first order only the Fermat potential at fixed position counts."""

    @tf.function(autograph=False)
    def delay(theta_E, beta_x, distance):
        deflection, potential = sis(theta_E)
        images = image_positions(deflection, beta_x, 0.1, (-3.0, 3.1, -2.0, 2.2), step=0.2)
        fermat = fermat_potential(potential, images.x, images.y, beta_x, 0.1)
        return time_delays(fermat, distance, images.found)

    point = float64(1.2, 0.3, 2000.0)
    with tf.GradientTape() as tape:
        tape.watch(point)
        value = delay(*point)
        longest = tf.reduce_max(value)
    gradients = tape.gradient(longest, point)
    for i, step in enumerate((1e-5, 1e-5, 1e-1)):
        up, down = list(point), list(point)
        up[i], down[i] = point[i] + step, point[i] - step
        numerical = (tf.reduce_max(delay(*up)) - tf.reduce_max(delay(*down))) / (2 * step)
        np.testing.assert_allclose(gradients[i], numerical, rtol=1e-8)
    np.testing.assert_array_equal(value[2:], 0)
    np.testing.assert_allclose(longest, 2 * np.hypot(0.3, 0.1) * 1.2 * time_delays(float64([0.0, 1.0])[0], 2000.0)[1])


def test_no_image_has_no_delay_and_no_gradient():
    fermat = tf.constant([[0.2, 0.1], [0.3, 0.4]], tf.float64)
    found = tf.constant([[False, False], [True, True]])
    with tf.GradientTape() as tape:
        tape.watch(fermat)
        delays = time_delays(fermat, [2000.0, 1000.0], found)
    np.testing.assert_array_equal(delays.numpy()[0], 0)
    gradient = tape.gradient(delays, fermat).numpy()
    np.testing.assert_array_equal(gradient[0], 0)
    assert gradient[1, 1] > 0


@pytest.mark.parametrize(("z_lens", "z_source"), [(0.5, 0.5), (0.0, 1.0), (2.0, 1.0), (0.5, float("nan"))])
def test_redshifts_must_be_in_order(z_lens, z_source):
    with pytest.raises(ParameterError, match="0 < z_lens < z_source"):
        time_delay_distance(z_lens, z_source, COSMOLOGY)
