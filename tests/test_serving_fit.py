"""The whole fit as a signature: the posterior of a fit in Python, but data and PSF come with the request."""

import json

import numpy as np
import pytest
import tensorflow as tf
import tiny_lens
from graphs import needs_xla
from typer.testing import CliRunner

from tflens.cli import app
from tflens.errors import ParameterError
from tflens.inference.map import Optimum, polish
from tflens.inference.pipeline import Fitter
from tflens.inference.settings import FitSettings
from tflens.light import Sersic
from tflens.mass import EPL, Shear
from tflens.model import LensModel, LensTarget
from tflens.observation import Observation
from tflens.serving.export import write_saved_model
from tflens.serving.fit import _seen, _Target, fit_signatures

GRID = tiny_lens.grid()
SIDE = 5
PSF = np.pad(tiny_lens.PSF, ((1, 1), (0, 0)))  # square, and neither round nor even
LEAST = FitSettings(
    starts=2, search_steps=12, survivors=1, polish_steps=1, chains=2, warmup=40, draws=20, supersampling=1
)


def lens_model(source=None, dtype="float32"):
    # Few terms of the power law's series: what is compared here is one program with another.
    return LensModel([EPL(max_ellipticity=0.3, tolerance=1e-4), Shear()], [Sersic()], source or Sersic(), dtype=dtype)


def observed():
    image, noise = tiny_lens.observation().image, tiny_lens.observation().noise
    mask = np.ones(image.shape, bool)
    mask[3:6, 15:18] = False
    return image, noise, mask


def seen(dtype="float64", **changes):
    image, noise, mask = observed()
    given = {"image": image, "noise": noise, "psf": PSF, "mask": mask} | changes
    return _seen(**{name: tf.constant(value, None if name == "mask" else dtype) for name, value in given.items()})


@pytest.mark.parametrize("source", [tiny_lens.Blobs, pytest.param(Sersic, marks=pytest.mark.slow)])
def test_posterior_is_that_of_a_fit(source):
    """PSF, noise and mask are tensors here, and constants there."""
    model = lens_model(source(), "float64")
    image, noise, mask = observed()
    expected = LensTarget(model, Observation(image, noise, PSF, tiny_lens.PIXEL_SCALE, mask), supersampling=1)
    # What is not used may hold anything, and a PSF any sum.
    dirty = seen(image=np.where(mask, image, np.nan), noise=np.where(mask, noise, 0.0), psf=3 * PSF)
    found = _Target(model, GRID, supersampling=1, xla=False).given(dirty)
    u = tf.constant(0.3 * np.random.default_rng(0).normal(size=(3, model.dim)))
    value, gradient = expected.value_and_gradient(u)
    with tf.GradientTape() as tape:
        tape.watch(u)
        log_prob = found.log_prob(u)
    np.testing.assert_allclose(log_prob, value, rtol=1e-6)
    np.testing.assert_allclose(tape.gradient(log_prob, u), gradient, atol=1e-6 * np.abs(gradient).max())
    np.testing.assert_allclose(found.design(u), expected.design(u), atol=1e-6 * np.abs(expected.design(u)).max())
    _, tangents = expected.linearize(u[0])
    np.testing.assert_allclose(found.linearize(u[0])[1], tangents, atol=1e-6 * np.abs(tangents).max())
    amplitudes = expected.linear(u).mean
    images = expected.component_images(u, amplitudes)[0]
    np.testing.assert_allclose(found.images(u[0], amplitudes[0]), images, atol=1e-6 * np.abs(images).max())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"psf": 0 * PSF}, "psf must be of finite numbers with a positive sum"),
        ({"psf": np.where(PSF > 0.1, np.nan, PSF)}, "psf must be of finite numbers with a positive sum"),
        ({"mask": np.zeros(tiny_lens.SHAPE, bool)}, "no pixel can be used"),
        ({"noise": np.zeros(tiny_lens.SHAPE)}, "no pixel can be used"),
    ],
)
def test_data_that_cannot_be_fitted_are_refused(changes, message):
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        seen(**changes)


@pytest.mark.parametrize("side", [0, -3, 4, 2.0, True, "5"])
def test_psf_sides_that_are_refused(side):
    with pytest.raises(ParameterError, match="psf_side must be a positive odd number of pixels"):
        fit_signatures(lens_model(), GRID, side)


def test_a_model_without_a_source_is_refused():
    with pytest.raises(ParameterError, match="cannot be fitted without a source"):
        fit_signatures(LensModel(lens=[], lens_light=[Sersic()], source=None), GRID, SIDE)


@pytest.mark.parametrize("wrong", [{"sampler": "nuts"}, {"start": "network"}])
def test_settings_that_no_program_has_are_refused(wrong):
    with pytest.raises(ParameterError, match=f"FitSettings.sampler 'hmc' .* got .*{next(iter(wrong.values()))!r}"):
        fit_signatures(lens_model(), GRID, SIDE, FitSettings(**wrong))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    settings = FitSettings(starts=16, search_steps=120, survivors=3, polish_steps=16, draws=150, supersampling=1)
    signatures = fit_signatures(lens_model(), GRID, SIDE, settings)
    return write_saved_model(tmp_path_factory.mktemp("models"), "fit", 1, signatures, {"title": "A test"})


@pytest.fixture(scope="module")
def inputs():
    image, noise, mask = observed()
    psf, seed = PSF.astype(np.float32), np.array(3, np.int32)
    given = {"image": image.astype(np.float32), "noise": noise.astype(np.float32), "psf": psf, "mask": mask}
    return {name: tf.constant(value[None]) for name, value in (given | {"seed": seed}).items()}


@pytest.fixture(scope="module")
def program(folder):
    return tf.saved_model.load(str(folder))  # its weights live as long as it does


@pytest.fixture(scope="module")
def found(program, inputs):
    return {name: value.numpy()[0] for name, value in program.signatures["fit"](**inputs).items()}


@pytest.mark.slow
class TestSavedModel:
    def test_finds_the_truth(self, found):
        for name, truth in (tiny_lens.TRUTH | tiny_lens.SERSIC_SOURCE).items():
            low, middle, high = found[name.replace(".", "_")]
            assert low < middle < high
            assert abs(middle - truth) < 3 * (high - low) / 2, name
        assert found["chi2"] == pytest.approx(1, abs=0.2)
        assert found["divergences"] == found["bad_gradients"] == 0
        assert found["max_r_hat"] < 1.05
        assert found["min_ess"] > 100

    def test_best_point_is_the_bottom(self, found):
        image, noise, mask = observed()
        target = LensTarget(
            lens_model(),
            Observation(image, noise, PSF, tiny_lens.PIXEL_SCALE, mask),
            supersampling=1,
        )
        again = polish(target, Optimum(found["u"][None], found["log_prob"][None], 0), 12)
        assert again.log_prob[0] == pytest.approx(found["log_prob"], abs=0.1)
        np.testing.assert_allclose(found["image"], target.evaluate(found["u"]).image, atol=1e-4 * image.max())

    def test_agrees_with_a_fit_in_python(self, found):
        image, noise, mask = observed()
        observation = Observation(image, noise, PSF, tiny_lens.PIXEL_SCALE, mask)
        settings = FitSettings(starts=16, search_steps=120, survivors=3, draws=150, supersampling=1)
        posterior = Fitter(lens_model(), settings, crop=False).fit(observation).posterior
        for name in tiny_lens.TRUTH:
            low, middle, high = found[name.replace(".", "_")]
            draws = posterior.draws(name)
            assert abs(middle - np.median(draws)) < 0.35 * draws.std(), name
            assert 0.7 < (high - low) / np.subtract(*np.quantile(draws, [0.84, 0.16])) < 1.4, name

    def test_a_seed_repeats_it(self, program, inputs, found):
        again = program.signatures["fit"](**inputs)
        np.testing.assert_array_equal(again["draws"][0], found["draws"])
        other = program.signatures["fit"](**inputs | {"seed": tf.constant([4])})
        assert not np.array_equal(other["draws"][0], found["draws"])

    def test_without_xla(self, folder):
        least = fit_signatures(lens_model(), GRID, SIDE, LEAST)
        path = write_saved_model(folder.parents[1], "least", 1, least, {})
        one, other = (tf.saved_model.load(str(path)).signatures[each.name] for each in least)
        assert [needs_xla(each.graph.as_graph_def()) for each in (one, other)] == [True, False]


@pytest.mark.slow
def test_command_line(tmp_path):
    arguments = ["--shape", "20,24", "--pixel-scale", "0.15", "--psf-side", "5", "--source", "sersic"]
    effort = ["--starts", "2", "--survivors", "1", "--chains", "2", "--warmup", "40", "--draws", "20"]
    done = CliRunner().invoke(app, ["export", "fit", "--out", str(tmp_path), *arguments, *effort])
    assert done.exit_code == 0, done.output
    folder = tmp_path / "fit" / "1"
    assert done.stdout.strip() == str(folder)
    told = json.loads((folder / "signatures.json").read_text())
    assert set(told["signatures"]) == {"fit", "fit_without_xla"}
    assert told["signatures"]["fit"]["outputs"]["lens_theta_E"]["shape"] == [None, 3]


@pytest.mark.parametrize(
    "options",
    [
        ["--shape", "20,24", "--pixel-scale", "0.15"],
        ["--like", "a.fits", "--psf-side", "5"],
    ],
)
def test_command_line_misused(tmp_path, options):
    done = CliRunner().invoke(app, ["export", "fit", "--out", str(tmp_path), *options])
    assert done.exit_code == 2
    assert "--psf-side" in done.output
