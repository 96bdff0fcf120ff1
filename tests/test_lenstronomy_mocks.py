"""Mocks that lenstronomy draws: the same lenses as ours, by another code."""

import sys

import numpy as np
import pytest

from tflens.errors import ParameterError
from tflens.galaxies import NeuralSource
from tflens.grid import PixelGrid
from tflens.inference.lenstronomy_mocks import shoot
from tflens.inference.mock_lenses import lens_model
from tflens.inference.mocks import Survey, gaussian_psf
from tflens.light import Exponential, Pixelated, Sersic
from tflens.mass import EPL, SIE, TNFW, Shear
from tflens.model import LensModel
from tflens.psf_error import PSFError


def lopsided(shape: tuple[int, int] = (23, 30)) -> np.ndarray:
    """A galaxy without any symmetry, off the middle of a stamp that is not square: nothing mirrored looks the same."""
    y, x = np.indices(shape) - np.array([8.0, 17.0])[:, None, None]
    return np.exp(-(x**2 + 2 * y**2 + x * y) / 20) + 0.5 * np.exp(-((x - 4) ** 2 + (y - 6) ** 2) / 3)


def skewed_psf() -> np.ndarray:
    kernel = np.outer([1.0, 3.0, 1.0], [1.0, 3.0, 6.0, 2.0, 1.0])
    return kernel / kernel.sum()


SURVEYS = {
    "round PSF": Survey(PixelGrid((26, 31), 0.2), gaussian_psf(0.3, 0.2)),
    "skewed PSF, off the middle": Survey(PixelGrid((31, 26), 0.2, (0.1, -0.07)), skewed_psf()),
}


def sersic_model() -> LensModel:
    """With an exponential source: in the cusp of a large index the softening of ours shows (0.3 % of the arcs)."""
    usual = lens_model(Sersic())
    return LensModel(usual.lens, usual.lens_light, usual.sources, priors=usual.priors | {"source.n_sersic": 1.0})


MODELS = {
    "pixels": (lambda: lens_model(Pixelated(0.06)), lopsided(), 1e-9),
    "neural": (lambda: lens_model(NeuralSource(interpolation="bilinear")), None, 1e-9),
    "neural, smooth": (lambda: lens_model(NeuralSource()), None, 0.03),
    "bicubic": (lambda: lens_model(Pixelated(0.06, "bicubic")), lopsided(), 0.03),
    "Sersic": (sersic_model, None, 2e-3),
}


@pytest.mark.parametrize("survey", SURVEYS.values(), ids=SURVEYS)
@pytest.mark.parametrize(("make", "stamp", "tolerance"), MODELS.values(), ids=MODELS)
def test_both_codes_draw_the_same(survey, make, stamp, tolerance):
    """Bilinear pixels to rounding, others to what finer bilinear ones make of them, Sersic profiles to 1/100 of the
    noise: the cusp of the lens's is integrated by us and sampled by them."""
    for index in range(2):
        ours, theirs = (survey.draw(make(), stamp, [4, index], shoot=code) for code in (None, shoot))
        assert theirs.parameters == ours.parameters
        assert np.abs(theirs.arcs - ours.arcs).max() < tolerance * ours.observation.noise.min()
        difference = (theirs.observation.image - ours.observation.image) / ours.observation.noise
        assert np.abs(difference).max() < max(tolerance, 0.01)


def test_a_singular_isothermal_ellipsoid_is_carried_over():
    survey = SURVEYS["round PSF"]
    model = LensModel([SIE(max_ellipticity=0.4), Shear()], [Sersic()], Pixelated(0.06))
    ours, theirs = (survey.draw(model, lopsided(), 1, shoot=code) for code in (None, shoot))
    # Limited by the 1e-10 core that lenstronomy gives its isothermal ellipsoid.
    np.testing.assert_allclose(theirs.arcs, ours.arcs, atol=1e-5 * ours.arcs.max())


def test_a_wrong_convention_would_be_seen():
    survey, model = SURVEYS["round PSF"], lens_model(Pixelated(0.06))
    ours = survey.draw(model, lopsided(), [4, 0])

    def mirrored(survey, model, parameters, images):
        return shoot(survey, model, parameters | {"lens.e2": -parameters["lens.e2"]}, images)

    wrong = survey.draw(model, lopsided(), [4, 0], shoot=mirrored)
    assert np.abs(wrong.arcs - ours.arcs).max() > ours.observation.noise.min()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (LensModel([TNFW()], [Sersic()], Sersic()), "know EPL, SIE, SIS, Shear, not TNFW"),
        (LensModel([EPL()], [Exponential()], Sersic()), "know Sersic, .*, not Exponential"),
        (LensModel([EPL()], [Sersic()], Sersic(), psf_error=PSFError()), "without psf_error"),
    ],
    ids=["mass", "light", "PSF error"],
)
def test_what_is_not_carried_over_is_refused(model, message):
    with pytest.raises(ParameterError, match=message):
        SURVEYS["round PSF"].draw(model, shoot=shoot)


def test_without_lenstronomy_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "lenstronomy", None)
    with pytest.raises(ParameterError, match="not installed: pip install lenstronomy"):
        SURVEYS["round PSF"].draw(lens_model(Sersic()), shoot=shoot)
