"""The evaluation of a whole model, its records, tables and figures, and the fits of real stamps. Tiny networks."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage
from tiny_galaxies import DIM, SIDE, blobs, disturb, make_decoder, make_encoder
from typer.testing import CliRunner

from tflens.cli_evaluate import evaluate_app, g_table, l_table
from tflens.datasets.pipeline import hst_psf
from tflens.datasets.records import Dataset, Record, write_dataset
from tflens.errors import ParameterError
from tflens.galaxies.evaluation import EvaluationSettings, evaluate_galaxy_model, held_out_figures
from tflens.galaxies.flow import InverseAutoregressiveFlow
from tflens.galaxies.pictures import draw_evaluation
from tflens.galaxies.real_stamps import (
    RealStamps,
    Whitening,
    border_noise,
    fit_real_stamps,
    load_real_stamps,
    noise_correlation,
)
from tflens.galaxies.source import GalaxyModel
from tflens.galaxies.targets import ANCHORS, FIRST_TRY, NAMES, target_of, verdict
from tflens.measured import keep_records

# Keras 3 turns its variables into arrays, when it saves them, in a way that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

SMALL = EvaluationSettings(
    galaxies=24, optimised=3, prior_draws=2, latent_seeds=2, iwae_galaxies=3, iwae_samples=4, bands=((15.0, 50.0),)
)


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(3)
    flow = InverseAutoregressiveFlow(DIM, stages=1, hidden=(8,))
    flow.build()
    return GalaxyModel(disturb(make_encoder()), disturb(make_decoder(), size=1.0), disturb(flow), pixel_scale=0.2)


def dataset(count, seed):
    return Dataset(blobs(count, seed), np.arange(count), {}, {"pixel_scale": 0.2})


@pytest.fixture(scope="module")
def small_mixtures():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tflens.galaxies.candidates.MIXTURES", (2, 3))
        yield


@pytest.fixture(scope="module")
def evaluation(model, small_mixtures):
    return evaluate_galaxy_model(model, dataset(40, 1), dataset(30, 2), "tiny", SMALL, psf=hst_psf(0.2, 5))


class TestEvaluation:
    def test_every_figure_is_there_beside_its_null_and_aims(self, evaluation):
        records = evaluation.records
        assert {r["id"] for r in records} == set(NAMES)
        assert all(np.isfinite([r["value"], r["null"], *r["spread"]]).all() for r in records)
        assert all(r["spread"][0] <= r["spread"][1] and r["n"] > 0 and r["variant"] == "tiny" for r in records)
        priors = ["N(0, I)", "diagonal Gaussian", "full Gaussian", "mixture of 2", "mixture of 3", "flow"]
        assert [r["prior"] for r in records if r["id"] == "L1"] == priors
        aimed = [r for r in records if r["verdict"] is not None]
        assert {r["id"] for r in aimed} == set(NAMES)
        assert all(r.get("prior", "flow") == "flow" and r["reach"] is not None for r in aimed)
        json.dumps(records)

    def test_the_truth_is_the_null(self, evaluation):
        by_id = {r["id"]: r for r in evaluation.records if r.get("method") == "mean of q"}
        assert by_id["G1"]["null"] == pytest.approx(1, abs=0.05)
        assert (by_id["G2"]["null"], by_id["G3"]["null"], by_id["G4"]["null"]) == (0, 1, 0)
        assert by_id["G1"]["value"] > by_id["G1"]["null"]  # an untrained model

    def test_optimisation_finds_what_an_untrained_encoder_does_not(self, evaluation):
        chi2 = {r["method"]: r["value"] for r in evaluation.records if r["id"] == "G1"}
        assert chi2["u optimised"] < chi2["mean of q"]

    def test_an_untrained_model_is_told_from_galaxies(self, evaluation):
        for id in ("G5", "G7"):
            record = next(r for r in evaluation.records if r["id"] == id)
            assert record["value"] > record["null"]
            assert record["verdict"] == "short"

    def test_is_repeatable(self, model, evaluation, small_mixtures):
        again = evaluate_galaxy_model(model, dataset(40, 1), dataset(30, 2), "tiny", SMALL, psf=hst_psf(0.2, 5))
        for a, b in zip(evaluation.records, again.records, strict=True):
            assert a["value"] == pytest.approx(b["value"], rel=1e-4), a["id"]

    def test_figures_are_drawn(self, evaluation, tmp_path):
        paths = draw_evaluation(evaluation, tmp_path)
        names = {"sharpness", "latents", "reconstructions_15-50", "prior_15-50", "morphology_15-50"}
        assert {path.stem for path in paths} == names
        assert all(path.stat().st_size > 5000 for path in paths)

    def test_tables_have_a_row_for_each(self, evaluation):
        table = g_table(evaluation.records, "tiny")
        assert table.row_count == sum(r["id"].startswith("G") for r in evaluation.records)
        assert l_table(evaluation.records, "tiny").row_count == 6 + 4  # priors; null, reach, beat, elsewhere

    def test_quick_figures_agree_with_the_whole(self, model, evaluation):
        quick = held_out_figures(model, dataset(24, 2), optimised=0, psf=hst_psf(0.2, 5))
        for id in ("G1", "G2", "G3", "G4"):
            record = next(r for r in evaluation.records if r["id"] == id)
            assert quick[id] == pytest.approx(record["value"], rel=0.05)
        assert quick["active_units"] <= DIM

    def test_refuses_what_it_cannot_measure(self, model):
        good = dataset(30, 1)
        real = Dataset(good.images, good.index, {"sigma": np.ones(30, np.float32)}, {})
        with pytest.raises(ParameterError, match="test must be simulated galaxies"):
            evaluate_galaxy_model(model, good, real, "tiny", SMALL)
        with pytest.raises(ParameterError, match="train must be at least 20 galaxies of 16 x 16"):
            evaluate_galaxy_model(model, dataset(5, 1), good, "tiny", SMALL)


class TestTargets:
    def test_every_figure_has_one_and_they_nest(self):
        for id in NAMES:
            for snr in (15, 100):
                target = target_of(id, snr)
                ends = [end for end in (target.beat.low, target.beat.high) if end is not None]
                assert all(target.reach.holds(end) for end in ends)
        assert set(ANCHORS) | set(FIRST_TRY) <= set(NAMES)

    def test_verdicts(self):
        assert verdict(target_of("G1"), 1.02) == "reach"
        assert verdict(target_of("G8"), 0.95, 1.05) == "beat"
        assert verdict(target_of("G8"), 0.95, 1.3) == "short"
        assert verdict(target_of("L4"), 3.5) == "beat"
        assert verdict(target_of("L4"), float("nan")) == "short"
        assert verdict(None, 1.0) is None


class TestRecords:
    def test_other_variants_stay(self, tmp_path):
        file = tmp_path / "results" / "galaxies.json"
        keep_records(file, [{"id": "G1", "variant": "a", "value": 1}, {"id": "L1", "variant": "a", "value": 2}])
        keep_records(file, [{"id": "G1", "variant": "b", "value": 3}])
        keep_records(file, [{"id": "G1", "variant": "a", "value": 4}])
        found = {(r["id"], r["variant"]): r["value"] for r in json.loads(file.read_text())}
        assert found == {("L1", "a"): 2, ("G1", "b"): 3, ("G1", "a"): 4}

    def test_a_file_of_something_else_is_not_overwritten(self, tmp_path):
        file = tmp_path / "notes.json"
        file.write_text('{"a": 1}')
        with pytest.raises(ParameterError, match=r"notes\.json: must hold a list of records"):
            keep_records(file, [{"id": "G1", "variant": "a"}])
        assert file.read_text() == '{"a": 1}'


def correlated_noise(count, shape, width=1.2, seed=1):
    """White noise smoothed with a Gaussian, of unit variance, and its correlation at a separation of (dy, dx)."""
    ny, nx = shape
    margin = 12
    noise = np.random.default_rng(seed).normal(size=(count, ny + 2 * margin, nx + 2 * margin))
    smooth = ndimage.gaussian_filter(noise, (0, width, width))[:, margin:-margin, margin:-margin]
    return smooth * 2 * np.sqrt(np.pi) * width


class TestWhitening:
    shape, width = (14, 18), 1.2

    def exact(self, reach=6):
        d = np.arange(-reach, reach + 1)
        return np.exp(-(d[:, None] ** 2 + d[None, :] ** 2) / (4 * self.width**2))

    def test_noise_and_its_correlation_are_measured(self):
        noise = correlated_noise(300, (72, 64), self.width)
        np.testing.assert_allclose(border_noise(3 * noise).mean(), 3, rtol=0.03)
        found = noise_correlation(noise)
        np.testing.assert_array_equal(found, found[::-1, ::-1])
        # The noise of a single stamp is found more precisely once its correlation is known.
        plain, aware = border_noise(noise[:60]), border_noise(noise[:60], correlation=self.exact())
        assert aware.mean() == pytest.approx(1, abs=0.02)
        assert aware.std() < 0.8 * plain.std()
        np.testing.assert_allclose(found, self.exact(), atol=0.03)

    def test_galaxies_in_the_middle_are_not_noise(self):
        noise = correlated_noise(300, (72, 64), self.width)
        noise[:, 16:52, 14:48] += 50
        np.testing.assert_allclose(noise_correlation(noise), self.exact(), atol=0.03)

    def test_whitened_noise_is_white(self):
        noise = correlated_noise(4000, self.shape, self.width, seed=2)
        whitening = Whitening(self.exact(), self.shape)
        white = whitening(noise).numpy()
        assert white.shape == (4000, whitening.modes)
        assert whitening.modes < noise[0].size
        assert np.mean(white**2) == pytest.approx(1, abs=0.02)
        covariance = white.T @ white / len(white)
        np.testing.assert_allclose(covariance, np.eye(whitening.modes), atol=6 / np.sqrt(4000))

    def test_unwhitened_sum_would_mislead(self):
        """The plain chi^2 of smooth noise scatters more than that of as many independent pixels."""
        noise = correlated_noise(4000, self.shape, self.width, seed=2)
        whitening = Whitening(self.exact(), self.shape)
        white = np.mean(whitening(noise).numpy() ** 2, axis=1)
        assert white.std() == pytest.approx(np.sqrt(2 / whitening.modes), rel=0.05)
        assert np.mean(noise**2, axis=(1, 2)).std() > 1.3 * white.std()

    def test_halves_are_the_whole(self):
        """The eigenvectors by symmetry, for an even number of pixels, are as complete as those without."""
        correlation = self.exact(3)
        for shape in ((4, 5), (5, 5)):
            y, x = (index.ravel() for index in np.indices(shape))
            separation = (y[:, None] - y) ** 2 + (x[:, None] - x) ** 2
            near = (np.abs(y[:, None] - y) <= 3) & (np.abs(x[:, None] - x) <= 3)
            covariance = np.where(near, np.exp(-separation / (4 * self.width**2)), 0)
            whitening = Whitening(correlation, shape, floor=0.2)
            product = whitening.matrix @ covariance @ whitening.matrix.T
            np.testing.assert_allclose(product, np.eye(whitening.modes), atol=1e-10)
            assert whitening.modes == np.sum(np.linalg.eigvalsh(covariance) > 0.2 * np.linalg.eigvalsh(covariance)[-1])


class TestRealStamps:
    @pytest.fixture
    def stamps(self, model):
        """Galaxies that the model can draw, of various fluxes, shifted, blurred and with smooth noise."""
        count = 24
        u = 0.5 * tf.random.stateless_normal([count, DIM], [5, 5])
        images = model.generate(u).numpy() * np.linspace(5, 20, count)[:, None, None]
        images = ndimage.gaussian_filter(images, (0, 1.0, 1.0), mode="constant")
        images = ndimage.shift(images, (0, 0.4, -0.3), order=3)
        noise = 0.1 * correlated_noise(count, (SIDE, SIDE), 0.8)
        psf_fwhm = float(np.hypot(0.2 * 2.3548, 0.06))
        return RealStamps(images + noise, np.arange(count), np.zeros(count), np.zeros(count), 0.2, psf_fwhm)

    def test_what_the_model_can_draw_is_fitted_to_the_noise(self, model, stamps):
        fits = fit_real_stamps(model, stamps, steps=150, starts=1)
        assert fits.modes < SIDE**2
        assert 0.6 < np.median(fits.chi2) < 1.1  # wings in the frames of stamps this small pass for noise
        assert np.median(fits.chi2_encoder) > np.median(fits.chi2)  # of an encoder that was never trained
        assert np.median(fits.sigma) == pytest.approx(0.1, rel=0.2)

    def test_stamps_of_another_kind_are_refused(self, model, stamps):
        other = RealStamps(stamps.images[:, :12], *[np.zeros(24)] * 3, pixel_scale=0.2, psf_fwhm=0.3)
        with pytest.raises(ParameterError, match="the model draws 16 x 16 pixels"):
            fit_real_stamps(model, other)
        sharp = RealStamps(stamps.images, *[np.zeros(24)] * 3, pixel_scale=0.2, psf_fwhm=0.05)
        with pytest.raises(ParameterError, match="must be wider"):
            fit_real_stamps(model, sharp)

    def test_files_are_checked(self, tmp_path, shared_data):
        with pytest.raises(ParameterError, match="cannot be read"):
            load_real_stamps(tmp_path / "none.npz")
        np.savez(tmp_path / "bare.npz", images=np.zeros((1, 4, 4)))
        with pytest.raises(ParameterError, match="lacks ident, mag, snr, pixel_scale, psf_fwhm"):
            load_real_stamps(tmp_path / "bare.npz")
        stamps = load_real_stamps(shared_data / "galaxies/cosmos_f814w/stamps64_0p05_gauss0p15.npz")
        assert stamps.images.shape == (75, 64, 64)
        assert (stamps.pixel_scale, stamps.psf_fwhm) == (0.05, 0.15)


class TestCommandLine:
    @pytest.mark.parametrize("as_json", [pytest.param(False, marks=pytest.mark.slow), True])
    def test_measures_several_models_into_one_file(self, as_json, model, small_mixtures, tmp_path, monkeypatch):
        monkeypatch.setattr("tflens.galaxies.evaluation.c2st", lambda target, sample, seed: 0.5)  # for its time
        model.save(tmp_path / "tiny" / "1")
        images = blobs(60, 4)
        write_dataset(
            tmp_path / "data",
            {"pixel_scale": 0.2},
            range(60),
            lambda key: Record(images[key], key),
            shares=(0.5, 0.0, 0.5),
        )
        options = ["--data", tmp_path / "data", "--out", tmp_path / "out", "--galaxies", 20, "--optimised", 0]
        options += ["--latent-seeds", 1, "--iwae-galaxies", 0, "--processes", 1]
        options += ["--json"] if as_json else []
        models = [str(tmp_path / "tiny"), "--variant", f"again={tmp_path / 'tiny' / '1'}"]
        result = CliRunner().invoke(evaluate_app, ["galaxies", *models, *map(str, options)])
        assert result.exit_code == 0, result.output
        records = json.loads((tmp_path / "out" / "galaxies.json").read_text())
        assert {r["variant"] for r in records} == {"tiny/1", "again"}
        keys = {"id", "variant", "value", "spread", "null", "n", "seed", "reach", "beat", "command", "commit"}
        assert all(keys <= set(r) for r in records)
        asked = "--galaxies 20 --seed 0 --optimised 0 --latent-seeds 1 --iwae-galaxies 0"
        assert {r["command"].partition(" --data ")[2].partition(" ")[2] for r in records} == {asked}
        if as_json:
            assert json.loads(result.stdout) == {"records": records, "file": str(tmp_path / "out/galaxies.json")}
        else:
            assert "sliced W1" in result.stdout
        assert (tmp_path / "out" / "again" / "sharpness.png").exists()

    def test_needs_something_to_measure_on(self, tmp_path):
        result = CliRunner().invoke(evaluate_app, ["galaxies", "--out", str(tmp_path)])
        assert result.exit_code == 2
        assert "give --data, --real, or both" in result.output
