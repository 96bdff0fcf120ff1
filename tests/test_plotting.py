"""Figures carry the data they claim to show, on non-square frames."""

import matplotlib as mpl
import numpy as np
import pytest
from astropy.wcs import WCS
from matplotlib.patches import Ellipse
from small_fit import THETA_E, small_fit

from tflens.critical import Curves
from tflens.errors import ParameterError
from tflens.inference.posterior import Posterior
from tflens.plotting import (
    RESIDUAL_LIMIT,
    corner_figure,
    fit_figure,
    format_interval,
    interval_decimals,
    mass_parameters,
    trace_figure,
)
from tflens.style import on_the_sky, to_pixels


@pytest.fixture(scope="module")
def fit():
    return small_fit().fit


@pytest.fixture(scope="module")
def panels(fit):
    """Axes of the fit's figure by title, without what follows a comma."""
    return {axes.get_title().split(",")[0]: axes for axes in fit_figure(fit).axes if axes.get_title()}


def shown(axes):
    (image,) = axes.images
    return image.get_array()


def test_the_frame_is_not_square(fit):
    ny, nx = fit.target.image.shape
    assert ny != nx


def test_every_panel_shows_its_array(fit, panels):
    target, best = fit.target, fit.best
    np.testing.assert_array_equal(shown(panels["model"]), best.image)
    np.testing.assert_array_equal(shown(panels["model of the arcs"]), best.lensed_source)
    np.testing.assert_array_equal(shown(panels["residual"]).filled(np.nan), best.residual)
    arcs = shown(panels["data $-$ lens light"])
    np.testing.assert_array_equal(arcs.mask, ~target.mask)
    np.testing.assert_array_equal(arcs[target.mask], (target.image - best.lens_light)[target.mask])
    data = shown(panels["data"])
    used = fit.observation.mask[target.frame]
    np.testing.assert_array_equal(data.mask, ~used)
    np.testing.assert_array_equal(data[used], target.image[used])
    source = fit.posterior.data.predictions["source_mean"].to_numpy()
    np.testing.assert_array_equal(shown(panels["source"]), source.reshape(source.shape[-2:]))


def test_bad_pixels_have_no_residual(fit, panels):
    assert (~fit.target.mask).any()
    np.testing.assert_array_equal(shown(panels["residual"]).mask, ~fit.target.mask)


def test_axes_are_arcsec_with_the_first_pixel_at_the_bottom_left(fit, panels):
    for title in ("data", "model", "residual", "data $-$ lens light", "model of the arcs"):
        (image,) = panels[title].images
        assert image.origin == "lower"
        assert tuple(image.get_extent()) == fit.target.grid.extent
        assert panels[title].get_xlabel() == "x [arcsec]"


def test_color_scales(panels):
    residual = panels["residual"].images[0]
    assert (residual.norm.vmin, residual.norm.vmax) == (-RESIDUAL_LIMIT, RESIDUAL_LIMIT)
    assert panels["data"].images[0].norm is panels["model"].images[0].norm
    assert panels["data $-$ lens light"].images[0].norm is panels["model of the arcs"].images[0].norm


def test_the_ellipse_is_the_isodensity_of_the_einstein_radius(fit, panels):
    (ellipse,) = [patch for patch in panels["data"].patches if isinstance(patch, Ellipse)]
    median = {name: np.median(fit.posterior.draws(name)) for name in ("lens.theta_E", "lens.e1", "lens.e2")}
    assert np.sqrt(ellipse.width * ellipse.height) / 2 == pytest.approx(median["lens.theta_E"], rel=1e-6)
    assert abs(median["lens.theta_E"] / THETA_E - 1) < 0.05
    # R^2 = |v|^2 / (1 - |e|^2) with v = w - e conj(w), as every profile has it.
    w = complex(*ellipse.get_patch_transform().transform([[1.0, 0.0]])[0]) - complex(*ellipse.get_center())
    e = complex(median["lens.e1"], median["lens.e2"])
    radius = abs(w - e * w.conjugate()) / np.sqrt(1 - abs(e) ** 2)
    assert radius == pytest.approx(median["lens.theta_E"], rel=1e-6)


def test_curves_take_the_place_of_the_ellipse(fit):
    line = np.array([[0.0, 1.0], [1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    figure = fit_figure(fit, (Curves([line], []), Curves([0.1 * line], [])))
    panels = {axes.get_title().split(",")[0]: axes for axes in figure.axes if axes.get_title()}
    for title, factor in (("data $-$ lens light", 1), ("model of the arcs", 1), ("source", 0.1)):
        drawn = [each.get_xydata() for each in panels[title].lines]
        assert any(each.shape == line.shape and np.array_equal(each, factor * line) for each in drawn)
    assert not any(isinstance(patch, Ellipse) for axes in panels.values() for patch in axes.patches)


def test_directions_on_the_sky_follow_the_world_coordinates():
    turned = WCS(naxis=2)
    turned.wcs.ctype, turned.wcs.crval = ["RA---TAN", "DEC--TAN"], [150.0, 20.0]
    angle = np.radians(25)
    flip = np.array([[-1.0, 0.0], [0.0, 1.0]])
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    turned.wcs.cd = flip @ rotation / 36000
    # A little to the north, and to the east, of the reference: where do they fall?
    for direction, (ra, dec) in zip(on_the_sky(turned), ((0, 1e-5), (1e-5, 0)), strict=True):
        moved = turned.wcs_world2pix([[150 + ra / np.cos(np.radians(20)), 20 + dec]], 0)[0]
        start = turned.wcs_world2pix([[150.0, 20.0]], 0)[0]
        step = (moved - start) / np.hypot(*(moved - start))
        np.testing.assert_allclose(direction, step, atol=1e-5)


def test_titles_tell_chi2_and_einstein_radius(fit):
    figure = fit_figure(fit)
    diagnostics = fit.diagnostics()
    headline = figure.get_suptitle()
    assert "small lens" in headline
    assert f"{diagnostics['chi2_arcs']:.2f}" in headline
    low, median, high = np.quantile(fit.posterior.draws("lens.theta_E"), [0.16, 0.5, 0.84])
    assert format_interval(median, low, high) in headline
    titles = [axes.get_title() for axes in figure.axes]
    assert any(f"{diagnostics['chi2']:.2f}" in title for title in titles if title.startswith("residual"))


def test_corner_shows_the_mass_and_the_truths(fit):
    names = mass_parameters(fit.posterior)
    assert set(names) == {name for name in fit.model.names if name.startswith(("lens.", "shear."))}
    figure = corner_figure(fit.posterior, truths={"lens.theta_E": THETA_E})
    n = len(names)
    assert len(figure.axes) == n * n
    i = names.index("lens.theta_E")
    diagonal = figure.axes[i * (n + 1)]
    low, median, high = np.quantile(fit.posterior.draws("lens.theta_E"), [0.16, 0.5, 0.84])
    assert format_interval(median, low, high) in diagonal.get_title()
    places = [line.get_xdata()[0] for line in diagonal.lines]
    assert places == pytest.approx([low, median, high, THETA_E])


def test_trace_shows_every_chain(fit):
    figure = trace_figure(fit.posterior)
    for axes, name in zip(figure.axes, mass_parameters(fit.posterior), strict=True):
        chains = fit.posterior.data.posterior[name].to_numpy()
        np.testing.assert_array_equal([line.get_ydata() for line in axes.lines], chains)


def test_a_posterior_without_mass_is_refused(fit):
    data = fit.posterior.data.copy()
    data.posterior = data.posterior[["sky.amp", "u"]]
    data.posterior.attrs["units"] = '{"sky.amp": ""}'
    for draw in (corner_figure, trace_figure):
        with pytest.raises(ParameterError, match=r"no parameters lens\.\* or shear\.\*"):
            draw(Posterior(data))


def test_no_figure_touches_global_state(fit):
    before = dict(mpl.rcParams)
    figures = [fit_figure(fit), corner_figure(fit.posterior), trace_figure(fit.posterior)]
    assert dict(mpl.rcParams) == before
    import matplotlib.pyplot as plt

    assert plt.get_fignums() == []
    for figure in figures:
        pixels = to_pixels(figure, dpi=30)
        assert pixels.dtype == np.uint8
        assert pixels.shape[2] == 3
        assert pixels.std() > 0


@pytest.mark.parametrize(
    ("interval", "decimals"),
    [
        ((0.9, 1.0, 1.1), 2),
        ((0.98, 1.0, 1.5), 3),
        ((-120.0, 0.0, 120.0), 0),
        ((1.0, 1.0, 1.0), 4),
        ((0.0, 0.0, 3.0), 1),
    ],
)
def test_intervals_show_two_digits_of_the_smaller_half(interval, decimals):
    assert interval_decimals(*interval) == decimals
