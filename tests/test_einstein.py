"""Einstein radii of batches of lenses, against closed forms and quadrature."""

import numpy as np
import pytest
import tensorflow as tf
from scipy.integrate import quad

from tflens.critical import einstein_radius
from tflens.einstein import einstein_radii
from tflens.errors import ParameterError
from tflens.mass import EPL, SIE, Shear
from tflens.mass.total import total

N = 5


def drawn(seed=0, **fixed):
    rng = np.random.default_rng(seed)
    values = {
        "theta_E": rng.uniform(0.6, 1.6, N),
        "e1": rng.uniform(-0.2, 0.2, N),
        "e2": rng.uniform(-0.2, 0.2, N),
        "center_x": rng.normal(0, 0.1, N),
        "center_y": rng.normal(0, 0.1, N),
    }
    return {name: np.asarray(fixed.get(name, value), np.float64) for name, value in (values | fixed).items()}


def deflection(profiles, values):
    return total(profiles, tf.nest.map_structure(tf.constant, values)).deflection


def test_area_of_the_sie_is_that_of_theta_e_whatever_its_ellipticity():
    sie = drawn()
    radii = einstein_radii(deflection([SIE(tolerance=1e-12)], [sie]), sie["center_x"], sie["center_y"], 4.0)
    np.testing.assert_allclose(radii.by_area, sie["theta_E"], rtol=1e-6)


def test_both_are_theta_e_of_a_round_power_law_of_any_slope():
    round_ = drawn(1, e1=np.zeros(N), e2=np.zeros(N), gamma=np.linspace(1.6, 2.4, N))
    radii = einstein_radii(deflection([EPL()], [round_]), round_["center_x"], round_["center_y"], 4.0)
    for found in radii:
        np.testing.assert_allclose(found, round_["theta_E"], rtol=1e-6)


def test_mean_convergence_is_that_of_quadrature_and_shear_does_not_count():
    sie, shear = drawn(2), {"gamma1": np.full(N, 0.1), "gamma2": np.full(N, -0.05)}
    profiles = [SIE(tolerance=1e-12), Shear()]
    radii = einstein_radii(deflection(profiles, [sie, shear]), sie["center_x"], sie["center_y"], 4.0)
    for i in range(N):
        e = complex(sie["e1"][i], sie["e2"][i])

        def inverse_radius(phi, e=e):
            w = np.exp(1j * phi)
            return np.sqrt(1 - abs(e) ** 2) / abs(w - e * w.conjugate())

        # kappa = theta_E / (2 R): its mean within a circle of radius r is theta_E / r times the mean of r / R.
        mean = quad(inverse_radius, 0, 2 * np.pi, epsabs=1e-12)[0] / (2 * np.pi)
        assert radii.by_convergence[i] == pytest.approx(sie["theta_E"][i] * mean, rel=1e-6)


def test_as_the_curve_of_one_lens():
    epl, shear = drawn(3, gamma=np.linspace(1.8, 2.2, N)), {"gamma1": np.full(N, 0.06), "gamma2": np.full(N, 0.04)}
    profiles = [EPL(max_ellipticity=0.3), Shear()]
    radii = einstein_radii(deflection(profiles, [epl, shear]), epl["center_x"], epl["center_y"], 5.0)
    one = deflection(profiles, [{name: value[0] for name, value in each.items()} for each in (epl, shear)])
    expected = float(einstein_radius(one, (-2.51, 2.5, -2.52, 2.5), step=0.08))
    assert radii.by_area[0] == pytest.approx(expected, rel=1e-5)


def test_a_lens_that_is_too_weak_or_too_far_out_has_none():
    weak = drawn(4, theta_E=[1e-5, 1.0, 9.0, 1.0, 1.0])
    radii = einstein_radii(deflection([SIE()], [weak]), weak["center_x"], weak["center_y"], 4.0)
    for found in radii:
        assert np.isnan(found).tolist() == [True, False, True, False, False]


@pytest.mark.parametrize(("reach", "rays"), [(0.0, 64), (float("inf"), 64), (2.0, 3)])
def test_what_cannot_be_searched_is_refused(reach, rays):
    sie = drawn()
    with pytest.raises(ParameterError, match=r"reach|rays"):
        einstein_radii(deflection([SIE()], [sie]), sie["center_x"], sie["center_y"], reach, rays=rays)
