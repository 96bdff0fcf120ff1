"""Simulated galaxies: their distribution, their images, their files, and how they are observed."""

import json

import galsim
import numpy as np
import pytest
import tensorflow as tf
from astropy.table import Table

from tflens.datasets.morphology import LIMITS, MAJOR_AXIS_LIMIT, GaussianCopula, Morphology, cosmos_morphology
from tflens.datasets.pipeline import Convolution, hst_psf, observed_galaxies, random_symmetry
from tflens.datasets.simulated import (
    GalaxyParameters,
    Knots,
    Sersic,
    Spiral,
    draw_galaxy,
    load_dataset,
    make_dataset,
    simulate_galaxy,
    simulate_parameters,
    split_of,
)
from tflens.errors import ParameterError
from tflens.galaxies.metrics import half_light_radius


@pytest.fixture(scope="module")
def galaxies():
    return np.stack([simulate_galaxy(5, index, stamp=32, pixel_scale=0.1) for index in range(24)])


class TestMorphology:
    def test_copula_keeps_marginals_and_correlation(self):
        rng = np.random.default_rng(1)
        x = rng.normal(size=4000)
        data = {"skewed": np.exp(x), "bounded": 1 / (1 + np.exp(x + rng.normal(size=4000)))}
        copula = GaussianCopula.fit(data)
        draws = [copula.sample(rng) for _ in range(4000)]
        for name, values in data.items():
            drawn = np.array([draw[name] for draw in draws])
            levels = np.linspace(0.05, 0.95, 7)
            # Standard error of an extreme quantile of 4,000 draws: about 2 % of the spread, twice (fit and draw).
            np.testing.assert_allclose(
                np.quantile(drawn, levels), np.quantile(values, levels), atol=0.1 * np.std(values)
            )
        assert copula.correlation[0, 1] == pytest.approx(-np.sqrt(0.5), abs=0.03)

    def test_json_round_trip(self):
        shipped = cosmos_morphology()
        again = Morphology.from_json(shipped.to_json())
        assert again.to_json() == shipped.to_json()
        assert again.sample(np.random.default_rng(5)) == shipped.sample(np.random.default_rng(5))

    def test_draws_stay_within_limits(self):
        rng = np.random.default_rng(2)
        draws = [cosmos_morphology().sample(rng) for _ in range(500)]
        for draw in draws:
            for name, value in draw.items():
                low, high = LIMITS.get(name, (-np.inf, np.inf))
                assert low <= value <= high, name
            prefix = "disk_" if "disk_q" in draw else ""
            assert draw[f"{prefix}half_light_radius"] / np.sqrt(draw[f"{prefix}q"]) <= MAJOR_AXIS_LIMIT
        share = np.mean(["bulge_fraction" in draw for draw in draws])
        assert share == pytest.approx(cosmos_morphology().bulge_disk_fraction, abs=0.08)

    def test_shipped_distribution_is_the_fit_to_the_catalogue(self, shared_data):
        table = Table.read(shared_data / "galaxies/parametric/cosmos_parametric_600.ecsv", format="ascii.ecsv")
        table = table[table["ok"]]
        refitted = Morphology.fit({name: table[name].data for name in table.colnames})
        assert json.loads(refitted.to_json()) == json.loads(cosmos_morphology().to_json())

    def test_missing_column_is_named(self):
        with pytest.raises(ParameterError, match="sersic_hlr"):
            Morphology.fit({"use_bulgefit": np.zeros(3)})


class TestDrawing:
    @pytest.mark.parametrize("n_sersic", [0.5, 1.0, 4.0])
    def test_half_light_radius(self, n_sersic):
        """A round profile with a tenth of its size as resolution has the radius that it was given."""
        galaxy = GalaxyParameters((Sersic(1.0, 0.5, n_sersic, 1.0, 0.0),))
        image = draw_galaxy(galaxy, stamp=256, pixel_scale=0.05, resolution=0.05)
        radius, _ = half_light_radius(image[None])
        # Up to 3 % of the light of n = 4 lies outside 6.4 arcsec, which the unit sum of the stamp does not know of.
        assert radius[0] * 0.05 == pytest.approx(0.5, rel=0.01 if n_sersic < 2 else 0.07)

    def test_orientation_and_axis_ratio(self):
        """Second moments of an elongated Gaussian: the major axis lies at the angle, counter-clockwise from +x."""
        angle, q = np.radians(30), 0.5
        image = draw_galaxy(GalaxyParameters((Sersic(1.0, 0.3, 0.5, q, angle),)), stamp=128, pixel_scale=0.05)
        axis = (np.arange(128) - 63.5) * 0.05
        xx = np.sum(image * axis**2)
        yy = np.sum(image * axis[:, None] ** 2)
        xy = np.sum(image * axis * axis[:, None])
        sigma = galsim.Gaussian(half_light_radius=0.3).sigma
        blur = galsim.Gaussian(fwhm=0.06).sigma ** 2 + 0.05**2 / 12
        assert 0.5 * np.arctan2(2 * xy, xx - yy) == pytest.approx(angle, abs=2e-3)
        assert xx + yy == pytest.approx(sigma**2 * (q + 1 / q) + 2 * blur, rel=0.01)

    def test_knots_lie_on_the_disk_and_keep_its_flux(self):
        disk = Sersic(1.0, 0.3, 1.0, 0.3, 0.4)
        image = draw_galaxy(GalaxyParameters((disk,), knots=Knots(0.9, 3000, 0.05, seed=3)))
        smooth = draw_galaxy(GalaxyParameters((disk,)))
        axis = (np.arange(64) - 31.5) * 0.05

        def angle(image):
            xx, yy = np.sum(image * axis**2), np.sum(image * axis[:, None] ** 2)
            return 0.5 * np.arctan2(2 * np.sum(image * axis * axis[:, None]), xx - yy)

        assert angle(image) == pytest.approx(angle(smooth), abs=0.05)

    def test_same_galaxy_at_twice_the_resolution(self):
        galaxy = GalaxyParameters(
            (Sersic(0.2, 0.1, 4.0, 0.8, 0.3), Sersic(0.8, 0.4, 1.0, 0.6, 0.2)),
            knots=Knots(0.3, 20, 0.08, seed=4),
            spiral=Spiral(2, 0.6, 0.4, 1.0),
            lopsidedness=0.3,
            companion=Sersic(0.05, 0.1, 1.0, 0.7, 1.0, x=0.6, y=-0.3),
        )
        coarse = draw_galaxy(galaxy, stamp=64, pixel_scale=0.05)
        fine = draw_galaxy(galaxy, stamp=128, pixel_scale=0.025)
        summed = fine.reshape(64, 2, 64, 2).sum(axis=(1, 3))
        assert np.abs(summed - coarse).sum() < 0.01

    def test_symmetric_galaxy_is_centred_on_the_stamp(self):
        image = draw_galaxy(GalaxyParameters((Sersic(1.0, 0.3, 1.0, 0.6, 0.5),)))
        np.testing.assert_allclose(image, image[::-1, ::-1], atol=1e-6 * image.max())

    def test_every_draw_is_positive_finite_and_of_unit_sum(self):
        images = np.stack([simulate_galaxy(11, index) for index in range(40)])
        assert np.isfinite(images).all()
        assert images.min() >= 0
        np.testing.assert_allclose(images.sum(axis=(1, 2)), 1, rtol=1e-5)

    @pytest.mark.parametrize("name", ["stamp", "pixel_scale", "resolution"])
    def test_bad_options_are_named(self, name):
        with pytest.raises(ParameterError, match=f"{name} must be positive"):
            draw_galaxy(simulate_parameters(1, 0), **{name: 0})


class TestDataset:
    def test_files_do_not_depend_on_the_number_of_processes(self, tmp_path):
        one = make_dataset(tmp_path / "one", 9, seed=3, processes=1, shard_size=4, stamp=16)
        two = make_dataset(tmp_path / "two", 9, seed=3, processes=2, shard_size=4, stamp=16)
        names = sorted(path.name for path in one.glob("*.npz"))
        assert names == ["galaxies-0000.npz", "galaxies-0001.npz", "galaxies-0002.npz"]
        for name in names:
            with np.load(one / name) as a, np.load(two / name) as b:
                np.testing.assert_array_equal(a["images"], b["images"])
        with np.load(one / names[1]) as shard:
            np.testing.assert_array_equal(shard["images"][2], simulate_galaxy(3, 6, stamp=16))

    def test_goes_on_where_it_stopped(self, tmp_path):
        make_dataset(tmp_path, 6, seed=3, shard_size=3, stamp=16)
        first, second = sorted(tmp_path.glob("*.npz"))
        kept = first.stat().st_mtime_ns
        second.unlink()
        done = []
        make_dataset(tmp_path, 6, seed=3, shard_size=3, stamp=16, progress=done.append)
        assert first.stat().st_mtime_ns == kept
        assert second.exists()
        assert done[-1] == 6
        with pytest.raises(ParameterError, match="another dataset"):
            make_dataset(tmp_path, 6, seed=4, shard_size=3, stamp=16)

    def test_splits_are_disjoint_complete_and_independent_of_order(self, tmp_path):
        splits = [split_of(index) for index in range(4000)]
        assert splits == [split_of(index) for index in reversed(range(4000))][::-1]
        shares = {name: splits.count(name) / 4000 for name in ("train", "validation", "test")}
        assert shares["train"] == pytest.approx(0.9, abs=0.02)
        assert shares["validation"] == pytest.approx(0.05, abs=0.015)
        assert sum(shares.values()) == 1
        make_dataset(tmp_path, 40, shard_size=16, stamp=8)
        loaded = {split: load_dataset(tmp_path, split) for split in ("train", "validation", "test")}
        assert {name: len(images) for name, images in loaded.items()} == {
            name: splits[:40].count(name) for name in loaded
        }

    def test_errors(self, tmp_path):
        with pytest.raises(ParameterError, match="run scripts/make_dataset"):
            load_dataset(tmp_path, "train")
        with pytest.raises(ParameterError, match="split must be one of"):
            load_dataset(tmp_path, "training")
        with pytest.raises(ParameterError, match="processes must be at least 1"):
            make_dataset(tmp_path, 3, processes=0)


class TestPipeline:
    def test_signal_to_noise(self, galaxies):
        batches = list(observed_galaxies(galaxies, hst_psf(0.1, 11), batch_size=10, seed=1, snr_range=(15.0, 50.0)))
        signal, image, sigma = (np.concatenate([b[key] for b in batches]) for key in ("signal", "image", "sigma"))
        snr = np.sqrt(np.sum((signal / sigma[:, None, None]) ** 2, axis=(1, 2)))
        assert snr.min() >= 15 * (1 - 1e-5)
        assert snr.max() <= 50 * (1 + 1e-5)
        assert np.ptp(np.log(snr)) > 0.5
        noise = (image - signal) / sigma[:, None, None]
        assert noise.mean() == pytest.approx(0, abs=5 / np.sqrt(noise.size))
        assert noise.std() == pytest.approx(1, abs=5 / np.sqrt(2 * noise.size))
        assert (image < 0).any()  # negative pixels are data

    def test_noise_is_fresh_each_epoch_and_repeatable(self, galaxies):
        def images(epoch, seed=1, augment=False):
            data = observed_galaxies(galaxies, hst_psf(0.1, 11), seed=seed, epoch=epoch, augment=augment)
            return next(iter(data))["image"].numpy()

        np.testing.assert_array_equal(images(0), images(0))
        np.testing.assert_array_equal(images(3, augment=True), images(3, augment=True))
        for other in (images(1), images(0, seed=2)):
            assert not np.any(other == images(0))

    def test_batches_have_different_noise(self, galaxies):
        same = np.repeat(galaxies[:1], 4, axis=0)
        batches = list(observed_galaxies(same, hst_psf(0.1, 11), batch_size=2, augment=False, snr_range=(20.0, 20.0)))
        assert not np.any(batches[0]["image"].numpy() == batches[1]["image"].numpy())

    def test_eight_symmetries_all_occur(self):
        image = tf.reshape(tf.range(9.0), [1, 3, 3])
        images = random_symmetry(tf.tile(image, [400, 1, 1]), tf.constant([1, 2])).numpy()
        seen = {tuple(stamp.ravel()) for stamp in images}
        turns = [np.rot90(flip, k) for flip in (image[0].numpy(), image[0].numpy().T) for k in range(4)]
        assert seen == {tuple(turn.ravel()) for turn in turns}

    def test_convolution_against_direct_sum_on_a_non_square_image(self):
        rng = np.random.default_rng(1)
        image = rng.normal(size=(2, 9, 7)).astype(np.float32)
        kernel = rng.normal(size=(5, 3)).astype(np.float32)  # neither square nor symmetric
        expected = np.zeros((2, 9, 7))
        padded = np.pad(image, ((0, 0), (2, 2), (1, 1)))
        for dy in range(5):
            for dx in range(3):
                expected += kernel[dy, dx] * padded[:, 4 - dy : 13 - dy, 2 - dx : 9 - dx]
        np.testing.assert_allclose(Convolution(kernel, (9, 7))(image), expected, atol=2e-6)

    def test_psf_is_like_hst(self):
        kernel = hst_psf(pixel_scale=0.01, size=125)
        assert kernel.sum() == pytest.approx(1, abs=1e-5)
        np.testing.assert_allclose(kernel, kernel[::-1], atol=1e-6 * kernel.max())
        row = kernel[62]
        fwhm = np.sum(row > row.max() / 2) * 0.01
        assert fwhm == pytest.approx(1.0 * 814e-9 / 2.4 * 206265, abs=0.015)  # about lambda / D

    def test_errors(self, galaxies):
        with pytest.raises(ParameterError, match="size must be odd"):
            hst_psf(size=24)
        with pytest.raises(ParameterError, match="snr_range"):
            observed_galaxies(galaxies, hst_psf(0.1, 11), snr_range=(50.0, 15.0))
        with pytest.raises(ParameterError, match="square stamps"):
            observed_galaxies(galaxies[:, :20], hst_psf(0.1, 11))
        with pytest.raises(ParameterError, match=r"\[odd, odd\]"):
            Convolution(np.ones((4, 5)), (8, 8))
