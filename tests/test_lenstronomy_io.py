"""lenstronomy's dictionaries: lenstronomy itself sees the same lens, and nothing is lost on the way back."""

import json
import warnings

import numpy as np
import pytest
import tensorflow as tf
from exchange_cases import LIGHT, MASS, lens, observe, pixels, random_scene

from tflens.errors import ParameterError
from tflens.grid import PixelGrid
from tflens.lenstronomy_io import from_lenstronomy, read_lenstronomy, to_lenstronomy, write_lenstronomy
from tflens.light import Gaussian, MultiGaussian, Pixelated, RegularizedPixels, Sersic, Shapelets, Uniform
from tflens.mass import DPIE, NIE, SIE, EllipticalMultipole, Shear
from tflens.model import LensModel
from tflens.psf_error import PSFError
from tflens.scene import Scene

GRID = PixelGrid((11, 14), 0.31, center=(0.07, -0.03))


def theirs():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from lenstronomy.ImSim.image_model import ImageModel
        from lenstronomy.LensModel.lens_model import LensModel as LensTheirs
        from lenstronomy.LightModel.light_model import LightModel
        from lenstronomy.Util.class_creator import create_class_instances
    return ImageModel, LensTheirs, LightModel, create_class_instances


@pytest.mark.parametrize("profile", MASS, ids=repr)
def test_lenstronomy_deflects_the_same(profile):
    _, lens_theirs, _, _ = theirs()
    scene = random_scene([profile], [], [], sky=False, seed=11)
    x, y = GRID.coordinates()
    ours = scene.model.total_mass({k: tf.constant(v, tf.float64) for k, v in scene.values.items()}).deflection(
        tf.constant(x), tf.constant(y)
    )
    found = to_lenstronomy(scene)
    x, y = np.broadcast_arrays(x, y)
    alpha = lens_theirs(found["kwargs_model"]["lens_model_list"]).alpha(
        x.ravel(), y.ravel(), found["kwargs_result"]["kwargs_lens"]
    )
    scale = np.abs(alpha).max()
    for mine, other in zip(ours, alpha, strict=True):
        # Its SIE has a core of 1e-10 arcsec, its elliptical Gaussian ten digits.
        np.testing.assert_allclose(np.broadcast_to(mine, x.shape).ravel(), other, atol=1e-8 * scale)


@pytest.mark.parametrize("profile", LIGHT, ids=repr)
def test_lenstronomy_shines_the_same(profile):
    _, _, light_model, _ = theirs()
    scene = random_scene([], [profile], [], sky=False, seed=12)
    ours = scene.image(GRID) / GRID.pixel_area
    found = to_lenstronomy(scene)
    x, y = np.broadcast_arrays(*GRID.coordinates())
    brightness = light_model(found["kwargs_model"]["lens_light_model_list"]).surface_brightness(
        x.ravel(), y.ravel(), found["kwargs_result"]["kwargs_lens_light"]
    )
    np.testing.assert_allclose(ours.ravel(), brightness, rtol=1e-6, atol=1e-9 * np.abs(brightness).max())


@pytest.mark.parametrize("make", [lens, pixels, lambda: pixels(centered=False)], ids=["Sersic", "centred", "pixels"])
def test_lenstronomy_draws_the_same_image(make):
    image_model, _, _, create = theirs()
    scene = make()
    observation = observe(scene, (40, 46))
    found = to_lenstronomy(scene, observation)
    data, psf, numerics = found["multi_band_list"][0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from lenstronomy.Data.imaging_data import ImageData
        from lenstronomy.Data.psf import PSF

        classes = create(**found["kwargs_model"])
        model = image_model(
            ImageData(**data),
            PSF(**psf),
            lens_model_class=classes[0],
            source_model_class=classes[1],
            lens_light_model_class=classes[2],
            kwargs_numerics=numerics,
        )
        image = model.image(**found["kwargs_result"])
    ours = scene.image(observation)
    # Their sky is convolved, so that it fades at the edge.
    edge = max(observation.psf.shape) // 2
    inside = (slice(edge, 40 - edge), slice(edge, 46 - edge))
    np.testing.assert_allclose(image[inside], ours[inside], rtol=2e-5, atol=1e-6)
    # Theirs are square.
    mask = found["image_likelihood_mask_list"][0]
    assert image.shape == mask.shape == data["noise_map"].shape == (46, 46)
    np.testing.assert_array_equal(data["image_data"][:40], observation.image)
    np.testing.assert_array_equal(mask[:40], observation.mask)
    assert not mask[40:].any()


@pytest.mark.parametrize("profile", MASS, ids=repr)
def test_mass_comes_back(profile):
    scene = random_scene([profile, Shear()], [], [], sky=False, seed=5)
    back = from_lenstronomy(to_lenstronomy(scene))
    assert [type(each) for each in back.model.lens] == [type(profile), Shear]
    assert back.values == pytest.approx(scene.values, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("profile", [p for p in LIGHT if "n_sersic" in p.parameter_names or "e1" in p.parameter_names])
def test_light_comes_back(profile):
    scene = random_scene([], [profile], [Sersic()], sky=False, seed=5)
    back = from_lenstronomy(to_lenstronomy(scene))
    np.testing.assert_allclose(back.image(GRID), scene.image(GRID), rtol=1e-12)
    if not isinstance(profile, MultiGaussian):  # whose common amplitude has gone into each of them
        assert {k: back.values[k] for k in scene.values} == pytest.approx(scene.values, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("make", [lens, pixels])
def test_through_a_file_and_back(make, tmp_path):
    scene = make()
    observation = observe(scene)
    write_lenstronomy(to_lenstronomy(scene, observation), tmp_path / "lens.json")
    found = read_lenstronomy(tmp_path / "lens.json")
    np.testing.assert_array_equal(found["multi_band_list"][0][0]["image_data"], observation.image)
    assert found["image_likelihood_mask_list"][0].shape == observation.image.shape
    back = from_lenstronomy(found)
    assert back.values["sky.amp"] == pytest.approx(scene.values["sky.amp"], rel=1e-12)
    np.testing.assert_allclose(back.image(observation), scene.image(observation), rtol=1e-10)


def test_a_second_trip_changes_nothing():
    first = from_lenstronomy(to_lenstronomy(pixels(), observe(pixels())))
    second = from_lenstronomy(to_lenstronomy(first, observe(pixels())))
    assert second.values == pytest.approx(first.values, rel=1e-12)
    np.testing.assert_allclose(second.images[0], first.images[0], rtol=1e-12)


@pytest.mark.parametrize("interpolation", ["quadratic", "bicubic"])
def test_smooth_pixels_become_finer_ones(interpolation):
    scene = random_scene([SIE()], [], [Pixelated(0.1, interpolation)], sky=False)
    observation = observe(scene)
    found, image = to_lenstronomy(scene, observation), scene.image(observation)
    assert found["kwargs_result"]["kwargs_source"][0]["scale"] == pytest.approx(0.025 * scene.values["source.scale"])
    np.testing.assert_allclose(from_lenstronomy(found).image(observation), image, rtol=0, atol=0.02 * image.max())


def test_two_nie_are_a_dpie_only_if_they_are_one():
    scene = random_scene([DPIE()], [], [], sky=False)
    found = to_lenstronomy(scene)
    assert found["kwargs_model"]["lens_model_list"] == ["NIE", "NIE"]
    found["kwargs_result"]["kwargs_lens"][1]["e1"] += 0.01
    assert [type(each) for each in from_lenstronomy(found).model.lens] == [NIE, NIE]


def test_what_has_no_counterpart_is_refused_in_words():
    with pytest.raises(ParameterError, match=r"no counterpart of .*EllipticalMultipole"):
        to_lenstronomy(random_scene([EllipticalMultipole(4)], [], [], sky=False))
    with pytest.raises(ParameterError, match="pixel_scale"):
        to_lenstronomy(lens())
    blurred = LensModel([SIE()], [], [Sersic()], psf_error=PSFError(), sky=False)
    values = {name: float(value) for name, value in blurred.physical(tf.zeros([blurred.dim])).items()}
    with pytest.raises(ParameterError, match="error of the PSF"):
        to_lenstronomy(Scene(blurred, {**values, "source.amp": 1.0}))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kwargs_model": {"lens_model_list": ["CURVED_ARC"]}}, "'CURVED_ARC' is not converted"),
        ({"kwargs_model": {"lens_model_list": ["SIS"], "multi_plane": True}}, "several lens planes"),
        ({"kwargs_model": {"lens_model_list": ["SIE"]}}, "SIE: missing keywords: ..e1., .e2"),
        ({"kwargs_model": {"lens_model_list": []}}, "0 profiles and kwargs_lens 1"),
        ({"kwargs_model": {"lens_model_list": ["SHEAR"]}}, "missing keywords: ..gamma1"),
    ],
)
def test_dictionaries_that_cannot_be_read_are_refused_in_words(change, words):
    good = {
        "kwargs_model": {"lens_model_list": ["SIS"]},
        "kwargs_result": {"kwargs_lens": [{"theta_E": 1.0, "center_x": 0.0, "center_y": 0.0}]},
    }
    assert from_lenstronomy(good).values["lens.theta_E"] == 1.0
    with pytest.raises(ParameterError, match=words):
        from_lenstronomy(good | change)


def test_their_other_words_are_understood():
    scene = from_lenstronomy(
        {
            "kwargs_model": {
                "lens_model_list": ["EPL_NUMBA", "SHEAR_GAMMA_PSI"],
                "lens_light_model_list": ["SERSIC", "GAUSSIAN", "UNIFORM"],
            },
            "kwargs_result": {
                "kwargs_lens": [
                    {"theta_E": 1.0, "gamma": 2.1, "e1": 0.1, "e2": 0.0},
                    {"gamma_ext": 0.1, "psi_ext": np.pi / 4},
                ],
                "kwargs_lens_light": [
                    {"amp": 1.0, "R_sersic": 1.0, "n_sersic": 4.0},
                    {"amp": 2.0, "sigma": 0.3},
                    {"amp": 0.1},
                ],
            },
        }
    )
    assert (scene.values["lens.center_x"], scene.values["light1.e1"]) == (0.0, 0.0)
    assert scene.values["shear.gamma2"] == pytest.approx(0.1)
    assert scene.values["shear.gamma1"] == pytest.approx(0.0, abs=1e-15)
    assert [type(each) for each in scene.model.lens_light] == [Sersic, Gaussian, Uniform]
    assert not scene.model.sky  # nobody says how large a pixel is


def test_a_file_that_is_none_is_refused(tmp_path):
    with pytest.raises(ParameterError, match="does not exist"):
        read_lenstronomy(tmp_path / "none.json")
    for text in ("no JSON", "[1]", json.dumps({"kwargs_model": {}})):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(ParameterError, match=r"bad\.json: must be JSON with kwargs_model"):
            read_lenstronomy(tmp_path / "bad.json")


def test_free_pixels_and_shapelets_as_sources():
    source = RegularizedPixels(pixels=6)
    model = LensModel([SIE()], [], [source, Shapelets(2)], sky=False, dtype="float64")
    u = np.random.default_rng(3).normal(size=model.dim)
    scene = Scene.at(model, u, {"source1.amp": 3.0, "source2.amp": 2.0})
    back = from_lenstronomy(to_lenstronomy(scene))
    assert [type(each) for each in back.model.sources] == [Pixelated, Shapelets]
    np.testing.assert_allclose(back.image(GRID), scene.image(GRID), rtol=1e-10)


def test_a_scene_needs_every_value_and_nothing_else():
    scene = lens()
    for change, words in (
        ({"lens.theta": 1.0}, "unknown: ..lens.theta"),
        ({"lens.theta_E": float("nan")}, "lens.theta_E must be finite"),
    ):
        with pytest.raises(ParameterError, match=words):
            Scene(scene.model, {**scene.values, **change})
    with pytest.raises(ParameterError, match=r"missing: ..sky.amp"):
        Scene(scene.model, {k: v for k, v in scene.values.items() if k != "sky.amp"})
    with pytest.raises(ParameterError, match=r"1 source.* take an image, got 0"):
        Scene(pixels().model, pixels().values)
