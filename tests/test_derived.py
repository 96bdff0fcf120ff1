"""Derived quantities of a fit, and its images on other grids."""

import json

import numpy as np
import pytest
from small_fit import THETA_E, small_fit

from tflens.errors import ParameterError
from tflens.grid import PixelGrid
from tflens.inference.derived import half_light_radii, source_fluxes
from tflens.inference.images import arcs_on, half_light_radius, source_on, thinned
from tflens.lens_layer import LensLayer
from tflens.light import Sersic
from tflens.light.sersic import brightness
from tflens.mass import SIE
from tflens.model import LensModel

POINTS = 20


@pytest.fixture(scope="module")
def fit():
    return small_fit().fit


@pytest.fixture(scope="module")
def derived():
    return json.loads((small_fit().folder / "summary.json").read_text())["derived"]


def test_everything_has_an_interval(derived):
    assert set(derived) == {
        "lens.einstein_radius",
        "lens.einstein_radius_convergence",
        "source.flux",
        "source.half_light_radius",
        "source.magnification",
    }
    for row in derived.values():
        bounds = [row[key] for key in ("low95", "low", "median", "high", "high95")]
        assert bounds == sorted(bounds)
        assert row["draws"] >= 50


def test_einstein_radii_are_near_that_of_the_truth(derived):
    for name in ("einstein_radius", "einstein_radius_convergence"):
        assert derived[f"lens.{name}"]["median"] == pytest.approx(THETA_E, rel=0.03)


def test_half_light_radius_of_a_sersic_source_is_its_own(fit):
    np.testing.assert_array_equal(half_light_radii(fit)["source"], fit.posterior.draws("source.R_sersic"))


def test_half_light_radius_of_an_image():
    grid = PixelGrid((161, 181), 0.025)
    x, y = grid.coordinates()
    radius = 0.3
    disc = np.exp(-1.6783 * np.hypot(x - 0.2, y + 0.1) / radius)  # n = 1, b_1 = 1.6783
    found = half_light_radius(np.stack([disc, 5 * disc, 0 * disc]), grid)
    np.testing.assert_allclose(found[:2], radius, rtol=0.01)
    assert np.isnan(found[2])


def test_magnification_of_a_small_source_behind_an_isothermal_sphere():
    # A disc of the size of a point at beta has two images: mu = 2 theta_E / beta in all.
    beta, theta_E = 0.25, 0.9
    layer = LensLayer(PixelGrid((120, 120), 0.03), [SIE()], (), [Sersic()], supersampling=6, dtype="float64")
    center = {"e1": 0.0, "e2": 0.0, "center_x": 0.0, "center_y": 0.0}
    source = {**center, "center_x": beta, "R_sersic": 0.02, "n_sersic": 0.6, "amp": 3.0}
    lensed = layer({"mass": [{"theta_E": theta_E, **center}], "source": [source]}).numpy().sum()
    values = {f"source.{name}": np.float64(value) for name, value in source.items()}
    flux = source_fluxes(LensModel(source=Sersic()), values)
    assert lensed / flux["source.flux"] == pytest.approx(2 * theta_E / beta, rel=0.01)


def test_magnification_of_the_fit_is_light_over_light(fit, derived):
    row = derived["source.magnification"]
    u, amplitudes = thinned(fit.model, fit.posterior, 64)
    images = fit.target.component_images(u, amplitudes).numpy()[:, list(fit.model.source_amplitudes)].sum((1, 2, 3))
    values = {name: value.numpy() for name, value in fit.model.physical(u).items()}
    values |= {name: amplitudes[:, i] for i, name in enumerate(fit.model.amplitude_names)}
    assert row["median"] == pytest.approx(np.median(images / source_fluxes(fit.model, values)["source.flux"]), rel=1e-5)
    assert row["low95"] / 1.2 < row["best"] < row["high95"] * 1.2


def test_source_on_the_grid_of_the_posterior_is_its_source(fit):
    mean = fit.posterior.data.predictions["source_mean"]
    x, y = (mean[f"{axis}_source"].to_numpy() for axis in "xy")
    grid = PixelGrid((len(y), len(x)), float(x[1] - x[0]), (float(x.mean()), float(y.mean())))
    images = source_on(fit.model, fit.posterior, grid, 60)
    assert images.shape == (60, len(y), len(x))
    expected = mean.to_numpy().reshape(len(y), len(x))
    assert np.abs(images.mean(0) - expected).max() < 0.1 * expected.max()


def test_source_on_any_grid_is_the_profile_there(fit):
    grid = PixelGrid((5, 7), 0.11, (0.03, -0.02))
    images = source_on(fit.model, fit.posterior, grid, 3)
    u, amplitudes = thinned(fit.model, fit.posterior, 3)
    values = {name.removeprefix("source."): v for name, v in fit.model.physical(u).items() if "source." in name}
    x, y = (axis.astype(np.float32) for axis in grid.coordinates())
    expected = brightness(x, y, **values).numpy() * amplitudes[:, fit.model.source_amplitudes[0], None, None]
    np.testing.assert_allclose(images, expected, rtol=1e-4)


def test_arcs_on_the_fits_own_grid_and_on_a_finer_one(fit):
    own, psf = fit.target.grid, fit.observation.psf
    arcs = arcs_on(fit.model, fit.posterior, own, 4, psf, supersampling=4)
    u, amplitudes = thinned(fit.model, fit.posterior, 4)
    expected = fit.target.component_images(u, amplitudes).numpy()[:, list(fit.model.source_amplitudes)].sum(1)
    assert np.abs(arcs - expected).max() < 0.03 * expected.max()
    ny, nx = own.shape
    finer = arcs_on(fit.model, fit.posterior, PixelGrid((2 * ny, 2 * nx), own.pixel_scale / 2, own.center), 4)
    np.testing.assert_allclose(finer.sum((1, 2)), arcs.sum((1, 2)), rtol=0.02)


def test_draws_are_spread_over_all_chains_and_never_more_than_there_are(fit):
    total = fit.posterior.draws("lens.theta_E").size
    u, _ = thinned(fit.model, fit.posterior, 10 * total)
    assert len(u) == total
    u, amplitudes = thinned(fit.model, fit.posterior, POINTS)
    assert u.shape == (POINTS, fit.model.dim)
    assert amplitudes.shape == (POINTS, len(fit.model.amplitude_names))
    with pytest.raises(ParameterError, match="draws must be a whole number"):
        thinned(fit.model, fit.posterior, 0)


def test_a_posterior_of_another_model_is_refused(fit):
    with pytest.raises(ParameterError, match="must be that of the model"):
        source_on(LensModel(source=Sersic()), fit.posterior, PixelGrid((5, 5), 0.1))
