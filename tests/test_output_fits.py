"""best.fits as astropy reads it: units, world coordinates of the frame and of the source plane, names."""

from dataclasses import replace

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from small_fit import observation, small_fit

from tflens.observation import Observation
from tflens.output import best_images

FRAME = ("MODEL", "LENS_LIGHT", "LENSED_SOURCE", "RESIDUAL")


def sky(rotation=0.3):
    """Coordinates as HST has them: east to the left of a rotated north."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = "RA---TAN", "DEC--TAN"
    wcs.wcs.crval, wcs.wcs.crpix = (150.0, 2.0), (10.3, 7.9)
    scale = 0.1 / 3600
    c, s = np.cos(rotation), np.sin(rotation)
    wcs.wcs.cd = scale * np.array([[-c, s], [s, c]])
    return wcs


@pytest.fixture(scope="module")
def with_sky(tmp_path_factory):
    plain, path = observation(), tmp_path_factory.mktemp("fits") / "best.fits"
    seen = Observation(
        plain.image,
        plain.noise,
        plain.psf,
        0.1,
        mask=plain.mask,
        wcs=sky(),
        name="J1",
        metadata={"BUNIT": "electron/s"},
    )
    best_images(replace(small_fit().fit, observation=seen)).writeto(path, checksum=True)
    return path


def test_headers_are_valid_and_units_are_units(with_sky):
    with fits.open(with_sky) as hdus:
        hdus.verify("exception")
        assert hdus[0].header["OBJECT"] == "J1"
        assert hdus[0].header["CHI2"] == pytest.approx(small_fit().fit.best.chi2)
        for name in FRAME[:3]:
            assert u.Unit(hdus[name].header["BUNIT"]) == u.electron / u.s
        assert u.Unit(hdus["RESIDUAL"].header["BUNIT"]) == u.dimensionless_unscaled
        assert u.Unit(hdus["SOURCE"].header["BUNIT"]) == u.electron / u.s / u.arcsec**2
        assert all(hdu.header["EXTNAME"] == hdu.name for hdu in hdus[1:])
    with fits.open(small_fit().folder / "best.fits") as hdus:
        assert u.Unit(hdus["MODEL"].header["BUNIT"]) == u.count / u.s


def test_the_sky_of_the_frame_is_that_of_the_image(with_sky):
    with fits.open(with_sky) as hdus:
        for name in FRAME:
            header = hdus[name].header
            wcs = WCS(header)
            here = wcs.pixel_to_world(3, 5)
            there = sky().pixel_to_world(3 + header["FRAME_X0"], 5 + header["FRAME_Y0"])
            assert here.separation(there) < 1e-6 * u.arcsec
            sides = wcs.proj_plane_pixel_scales()
            assert [side.to_value(u.arcsec) for side in sides] == pytest.approx([header["PIXSCALE"]] * 2, rel=1e-9)


@pytest.mark.parametrize(("file", "key"), [("with sky", "T"), ("without", " ")])
def test_the_frame_of_the_parameters(file, key, with_sky):
    grid = small_fit().fit.target.grid
    with fits.open(with_sky if file == "with sky" else small_fit().folder / "best.fits") as hdus:
        for name in FRAME:
            wcs = WCS(hdus[name].header, key=key)
            x, y = grid.coordinates()
            ny, nx = grid.shape
            found_x, found_y = wcs.pixel_to_world_values([0, nx - 1], [0, ny - 1])
            np.testing.assert_allclose(found_x, x[0, [0, -1]], atol=1e-9)
            np.testing.assert_allclose(found_y, y[[0, -1], 0], atol=1e-9)
            assert wcs.world_axis_units == ["arcsec", "arcsec"]


def test_the_source_plane_is_in_arcsec_and_holds_the_source(with_sky):
    fit = small_fit().fit
    with fits.open(with_sky) as hdus:
        header, image = hdus["SOURCE"].header, hdus["SOURCE"].data
    wcs = WCS(header)
    assert wcs.pixel_to_world(0, 0)[0].unit == u.arcsec
    assert not wcs.has_celestial  # positions before lensing are nowhere on the sky
    row, column = np.unravel_index(image.argmax(), image.shape)
    x, y = wcs.pixel_to_world_values(column, row)
    center = [np.median(fit.posterior.draws(f"source.center_{axis}")) for axis in "xy"]
    assert np.hypot(x - center[0], y - center[1]) < 0.1
    # Its flux is that of the source.
    flux = image.sum() * header["PIXSCALE"] ** 2
    arcs = fits.getdata(with_sky, "LENSED_SOURCE").sum()
    assert 2 < arcs / flux < 50


def test_the_images_are_those_of_the_fit(with_sky):
    fit = small_fit().fit
    with fits.open(with_sky) as hdus:
        frame = hdus["MODEL"].header
        ny, nx = hdus["MODEL"].data.shape
        data = observation().image[frame["FRAME_Y0"] :, frame["FRAME_X0"] :][:ny, :nx]
        noise = fit.target.noise
        residual = hdus["RESIDUAL"].data
        expected = np.where(np.isnan(residual), np.nan, (data - hdus["MODEL"].data) / noise)
        np.testing.assert_allclose(residual, expected, atol=1e-4)
        assert np.isnan(residual).any()
