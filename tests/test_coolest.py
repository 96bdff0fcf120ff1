"""COOLEST templates: the package itself sees the same lens, and nothing is lost on the way back."""

import json
import sys

import numpy as np
import pandas
import pytest
import tensorflow as tf
from astropy.io import fits
from astropy.wcs import WCS
from exchange_cases import lens, observe, pixels, random_scene
from small_fit import small_fit

from tflens.coolest import from_coolest, observation_from_coolest, to_coolest
from tflens.errors import ParameterError
from tflens.grid import PixelGrid
from tflens.light import DeVaucouleurs, Exponential, Gaussian, Pixelated, Sersic, Shapelets, Uniform
from tflens.mass import DPIE, EPL, NFW, NIE, SIE, SIS, ConvergenceSheet, Shear
from tflens.model import LensModel
from tflens.observation import Observation
from tflens.scene import Scene

coolest_json = pytest.importorskip("coolest.template.json", reason="the optional package coolest is not installed")

GRID = PixelGrid((11, 14), 0.31, center=(0.07, -0.03))
COORDINATES = np.broadcast_arrays(*GRID.coordinates())


def load(path, check=True):
    """The template as the package reads it, with its own checks."""
    serializer = coolest_json.JSONSerializer(str(path.with_suffix("")), check_external_files=check)
    return serializer.load(skip_jsonpickle=True, verbose=False)


def in_the_package(path, kind, entity):
    """Their model of the mass or the light of one entity, or None."""
    from coolest.api.composable_models import ComposableLightModel, ComposableMassModel

    model = {"mass": ComposableMassModel, "light": ComposableLightModel}[kind]
    return model(load(path), str(path.parent), entity_selection=[entity])


def small_pixels():
    """Data pixels in which a brightness is a number of its own."""
    return observe(lens())


class TestThePackageSeesTheSame:
    @pytest.mark.parametrize("profile", [EPL(tolerance=1e-15), Shear(), ConvergenceSheet()], ids=repr)
    def test_deflection(self, profile, tmp_path):
        scene = random_scene([profile], [], [Sersic()], seed=11)
        path = tmp_path / "lens.json"
        to_coolest(scene, path, small_pixels())
        entity = 0 if isinstance(profile, EPL) else 1
        model = in_the_package(path, "mass", entity)
        total = scene.model.total_mass({k: tf.constant(v, tf.float64) for k, v in scene.values.items()})
        ours = total.deflection(*map(tf.constant, COORDINATES))
        for mine, theirs in zip(ours, model.evaluate_deflection(*COORDINATES), strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-12)

    @pytest.mark.parametrize("profile", [SIE(), NIE(), DPIE(), SIS()], ids=repr)
    def test_convergence_by_the_formulas_of_the_standard(self, profile, tmp_path):
        # The package only draws PEMD; its documentation has the others.
        scene = random_scene([profile], [], [Sersic()], seed=3)
        path = tmp_path / "lens.json"
        to_coolest(scene, path, small_pixels())
        (found,) = load(path).lensing_entities[0].mass_model
        v = {name: parameter.point_estimate.value for name, parameter in found.parameters.items()}
        # Major axis phi degrees counter-clockwise from +y.
        x, y = COORDINATES[0] - v["center_x"], COORDINATES[1] - v["center_y"]
        phi = np.radians(v["phi"])
        major, minor = -np.sin(phi) * x + np.cos(phi) * y, np.cos(phi) * x + np.sin(phi) * y
        R2 = v["q"] * major**2 + minor**2 / v["q"]
        kappa = {
            "SIE": lambda: v["theta_E"] / 2 / np.sqrt(R2),
            "NIE": lambda: v["theta_E"] / 2 / np.sqrt(R2 + v["r_core"] ** 2),
            "Chameleon": lambda: v["b"] / 2 * (1 / np.sqrt(R2 + v["s_c"] ** 2) - 1 / np.sqrt(R2 + v["s_t"] ** 2)),
        }[found.type]()
        total = scene.model.total_mass({k: tf.constant(v, tf.float64) for k, v in scene.values.items()})
        np.testing.assert_allclose(total.convergence(*map(tf.constant, COORDINATES)), kappa, rtol=1e-10)

    @pytest.mark.parametrize("profile", [Sersic(), Exponential(), DeVaucouleurs(), Shapelets(3)], ids=repr)
    def test_light(self, profile, tmp_path):
        scene = random_scene([SIE()], [profile], [Sersic()], seed=12)
        observation = small_pixels()
        path = tmp_path / "lens.json"
        to_coolest(scene, path, observation)
        model = in_the_package(path, "light", 0)
        alone = Scene(
            LensModel([], [profile], [], sky=False, dtype="float64"),
            {k: v for k, v in scene.values.items() if k.startswith("light.")},
        )
        x, y = COORDINATES
        # Theirs is the brightness times the area of a pixel of the data.
        theirs = model.evaluate_surface_brightness(x, y) / observation.pixel_scale**2 * GRID.pixel_area
        np.testing.assert_allclose(alone.image(GRID), theirs, rtol=1e-6, atol=1e-9 * np.abs(theirs).max())

    def test_pixels(self, tmp_path):
        scene = random_scene([SIE()], [], [Pixelated(0.11)], seed=2)
        observation = small_pixels()
        path = tmp_path / "lens.json"
        to_coolest(scene, path, observation)
        with fits.open(tmp_path / "lens-source.fits") as hdus:
            found = hdus[0].data
        # In the middle of each pixel the brightness is that of the pixel.
        v = scene.values
        side = 0.11 * v["source.scale"]
        grid = PixelGrid((7, 9), side, (v["source.center_x"], v["source.center_y"]))
        x, y = map(tf.constant, grid.coordinates())
        place = {name: tf.constant(v[f"source.{name}"], tf.float64) for name in ("center_x", "center_y", "scale")}
        brightness = v["source.amp"] * Pixelated(0.11).brightness(x, y, image=tf.constant(scene.images[0]), **place)
        np.testing.assert_allclose(found, brightness * observation.pixel_scale**2, rtol=1e-9)
        (template,) = load(path, check=False).lensing_entities[1].light_model
        pixels = template.parameters["pixels"]
        assert (pixels.num_pix_x, pixels.num_pix_y) == (9, 7)
        np.testing.assert_allclose(pixels.field_of_view_x, grid.extent[:2], rtol=1e-9)
        np.testing.assert_allclose(pixels.field_of_view_y, grid.extent[2:], rtol=1e-9)

    def test_the_data(self, tmp_path):
        observation = small_pixels()
        to_coolest(lens(), tmp_path / "lens.json", observation)
        template = load(tmp_path / "lens.json")
        np.testing.assert_array_equal(template.observation.pixels.get_pixels(str(tmp_path)), observation.image)
        np.testing.assert_array_equal(
            template.likelihoods[0].get_mask_pixels(str(tmp_path)), observation.mask.astype(int)
        )
        assert template.instrument.pixel_size == observation.pixel_scale
        assert template.instrument.band == "F814W"


ROUND_TRIPS = {
    "lens": lens(),
    "pixels": pixels(),
    "cores": random_scene([NIE(), DPIE(), Shear(), ConvergenceSheet()], [Sersic(), Uniform()], [Shapelets(2)], seed=3),
    "fixed": random_scene(
        [EPL(tolerance=1e-15), Shear()],
        [Sersic()],
        [Sersic()],
        priors={"lens.gamma": 2.0, "lens.e1,e2": (0.1, -0.2), "source.n_sersic": 1.0, "light.R_sersic": 0.7},
    ),
}


@pytest.mark.parametrize("name", ROUND_TRIPS)
@pytest.mark.parametrize("shape", [(41, 41), (36, 42)], ids=str)
def test_there_and_back(name, shape, tmp_path):
    scene = ROUND_TRIPS[name]
    observation = observe(scene, shape)
    written = to_coolest(scene, tmp_path / "lens.json", observation)
    assert all(path.is_file() for path in written)
    back = from_coolest(tmp_path / "lens.json")
    np.testing.assert_allclose(back.image(observation), scene.image(observation), rtol=1e-9, atol=1e-12)
    if name != "pixels":
        # A set of shapelets carries its common amplitude, an exponential is a Sersic profile of index 1.
        common = [k for k in scene.values if not (name == "cores" and ".amp" in k and k.startswith("source"))]
        assert {k: back.values[k] for k in common} == pytest.approx({k: scene.values[k] for k in common}, rel=1e-6)
    again = observation_from_coolest(tmp_path / "lens.json")
    used = np.pad(observation.mask, [((max(shape) - n) // 2,) * 2 for n in shape])
    np.testing.assert_array_equal(again.mask, used)
    np.testing.assert_array_equal(again.image[used], observation.image[observation.mask])
    np.testing.assert_array_equal(again.noise[used], observation.noise[observation.mask])
    np.testing.assert_allclose(again.psf[1:-1], observation.psf, rtol=1e-12)
    assert not again.psf[[0, -1]].any()


def test_what_was_fixed_stays_fixed(tmp_path):
    scene = ROUND_TRIPS["fixed"]
    to_coolest(scene, tmp_path / "lens.json", observe(scene))
    back = from_coolest(tmp_path / "lens.json")
    assert back.model.fixed == pytest.approx(scene.model.fixed, rel=1e-9)
    assert back.model.names == scene.model.names


def test_an_image_that_cannot_be_made_square_stays_as_it_is(tmp_path):
    observation = observe(lens(), (40, 43))
    to_coolest(lens(), tmp_path / "lens.json", observation)
    np.testing.assert_array_equal(observation_from_coolest(tmp_path / "lens.json").image, observation.image)
    template = load(tmp_path / "lens.json", check=False)
    assert (template.observation.pixels.num_pix_x, template.observation.pixels.num_pix_y) == (43, 40)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The template of a fit."""
    fit = small_fit().fit
    path = tmp_path_factory.mktemp("coolest") / "lens.json"
    to_coolest(Scene.of(fit), path, fit.observation, fit.posterior, redshifts=(0.5, 1.5))
    return path


class TestPosterior:
    def test_the_scene_of_a_fit_is_its_best_model(self):
        fit = small_fit().fit
        scene = Scene.of(fit)
        image = scene.image(fit.observation, supersampling=8)[fit.target.frame]
        np.testing.assert_allclose(image, fit.best.image, atol=0.3 * fit.target.noise.max())

    def test_statistics_are_those_of_the_draws(self, written):
        posterior = small_fit().fit.posterior
        found = load(written).lensing_entities[0].mass_model[0].parameters["theta_E"].posterior_stats
        draws = posterior.draws("lens.theta_E")
        assert found.mean == pytest.approx(draws.mean())
        expected = np.quantile(draws, [0.16, 0.5, 0.84])
        assert [found.percentile_16th, found.median, found.percentile_84th] == pytest.approx(list(expected))

    def test_every_free_parameter_has_statistics_in_order(self, written):
        parameters = load(written).lensing_entities.get_parameters()
        told = [p.posterior_stats for p in parameters if p.posterior_stats.median is not None]
        assert len(told) == len(parameters) - 1  # but the disc's Sersic index, which is fixed
        assert all(each.percentile_16th < each.median < each.percentile_84th for each in told)

    def test_angles_have_no_cut(self, written):
        content = json.loads(written.read_text())
        field = content["lensing_entities"][1]["mass_model"][0]["parameters"]
        posterior = small_fit().fit.posterior
        g1, g2 = posterior.draws("shear.gamma1"), posterior.draws("shear.gamma2")
        assert field["gamma_ext"]["posterior_stats"]["mean"] == pytest.approx(np.hypot(g1, g2).mean())
        stats, point = field["phi_ext"]["posterior_stats"], field["phi_ext"]["point_estimate"]["value"]
        angle = np.degrees(np.arctan2(g2, g1) / 2) - 90
        near = point + (angle - point + 90) % 180 - 90
        assert stats["median"] == pytest.approx(np.median(near))
        assert abs(stats["percentile_84th"] - stats["percentile_16th"]) < 180

    def test_the_package_reads_the_chain(self, written):
        from coolest.api.composable_models import ComposableMassModel

        model = ComposableMassModel(
            load(written), str(written.parent), load_posterior_samples=True, entity_selection=[0, 1]
        )
        draws = small_fit().fit.posterior.draws("lens.theta_E")
        assert len(model.post_param_list) == len(draws)
        assert model.post_param_list[7][0]["theta_E"] == pytest.approx(draws[7], rel=1e-8)
        table = pandas.read_csv(written.with_name("lens-chain.csv"))
        assert table["probability_weights"].sum() == pytest.approx(1)
        assert not table.isna().any().any()

    def test_redshifts_tell_lens_from_source(self, written):
        assert [entity.redshift for entity in load(written).lensing_entities] == [0.5, 0.5, 1.5]
        assert len(from_coolest(written).model.sources) == 1


def test_the_origin_is_the_middle_of_the_image(tmp_path):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = "RA---TAN", "DEC--TAN"
    wcs.wcs.crval, wcs.wcs.crpix = (150.0, 2.0), (21, 21)
    wcs.wcs.cdelt = -0.1 / 3600, 0.1 / 3600
    plain = small_pixels()
    observation = Observation(plain.image, plain.noise, plain.psf, 0.1, wcs=wcs)
    to_coolest(lens(), tmp_path / "lens.json", observation)
    origin = load(tmp_path / "lens.json").coordinates_origin
    assert (origin.ra, origin.dec) == ("10h00m00s", "+02d00m00s")


class TestRefusals:
    def test_profiles_without_a_counterpart(self, tmp_path):
        for scene, word in (
            (random_scene([NFW()], [], [Sersic()]), "NFW"),
            (random_scene([SIE()], [Gaussian()], [Sersic()]), "Gaussian"),
        ):
            with pytest.raises(ParameterError, match=f"COOLEST has no counterpart of {word}"):
                to_coolest(scene, tmp_path / "lens.json", small_pixels())
        assert not list(tmp_path.iterdir())

    def test_values_outside_of_the_standard(self, tmp_path):
        scene = random_scene([SIE()], [Uniform()], [Sersic()])
        dark = Scene(scene.model, {**scene.values, "light.amp": -1.0})
        with pytest.raises(ParameterError, match=r"Uniform\.A cannot be -1\.0"):
            to_coolest(dark, tmp_path / "lens.json", small_pixels())
        assert not list(tmp_path.iterdir())

    def test_existing_files_and_other_names(self, tmp_path):
        (tmp_path / "lens-psf.fits").touch()
        with pytest.raises(ParameterError, match=r"lens-psf\.fits: the file exists"):
            to_coolest(lens(), tmp_path / "lens.json", small_pixels())
        to_coolest(lens(), tmp_path / "lens.json", small_pixels(), overwrite=True)
        with pytest.raises(ParameterError, match=r"must end in \.json"):
            to_coolest(lens(), tmp_path / "lens.txt", small_pixels())

    def test_without_the_package(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "coolest.template", None)
        for name in [name for name in sys.modules if name.startswith("coolest.template.")]:
            monkeypatch.delitem(sys.modules, name)
        with pytest.raises(ParameterError, match=r"pip install tflens\[coolest\]"):
            to_coolest(lens(), tmp_path / "lens.json", small_pixels())

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda c: c.update(mode="FAN"), "not a valid COOLEST template"),
            (lambda c: c.pop("instrument"), "not a valid COOLEST template"),
            (
                lambda c: c["lensing_entities"][0]["mass_model"][0]["parameters"]["q"]["point_estimate"].update(
                    value=None
                ),
                "0-galaxy-mass-0-PEMD-q has no point estimate",
            ),
            (
                lambda c: [e.update(redshift=i * 0.5) for i, e in enumerate(c["lensing_entities"])],
                "several lens planes",
            ),
            (lambda c: [e.update(redshift=1.0 - i) for i, e in enumerate(c["lensing_entities"][:2])], "valid"),
        ],
    )
    def test_templates_that_cannot_be_read(self, change, words, tmp_path):
        path = tmp_path / "lens.json"
        to_coolest(lens(), path, small_pixels())
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))
        if words == "valid":  # an unknown redshift is no plane of its own
            assert len(from_coolest(path).model.lens) == 2
            return
        with pytest.raises(ParameterError, match=words):
            from_coolest(path)

    def test_profiles_that_are_not_converted(self, tmp_path):
        from coolest.template.classes.mass_light_model import MassModel

        path = tmp_path / "lens.json"
        to_coolest(lens(), path, small_pixels())
        template = load(path)
        template.lensing_entities[0].mass_model = MassModel("SPEMD")
        path.write_text(template.to_JSON(exclude_keys=template.exclude_keys))
        with pytest.raises(ParameterError, match="the mass profile SPEMD is not converted; PEMD, SIE"):
            from_coolest(path)

    def test_files_that_are_none(self, tmp_path):
        with pytest.raises(ParameterError, match="does not exist"):
            from_coolest(tmp_path / "none.json")
        (tmp_path / "bad.json").write_text("{")
        with pytest.raises(ParameterError, match="readable JSON"):
            from_coolest(tmp_path / "bad.json")
        to_coolest(pixels(), tmp_path / "lens.json", observe(pixels()))
        (tmp_path / "lens-source.fits").write_text("")
        with pytest.raises(ParameterError, match=r"lens-source\.fits must be a readable FITS image"):
            from_coolest(tmp_path / "lens.json")
