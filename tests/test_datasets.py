"""Simulated galaxies: their distribution, their images, their files, and how they are observed."""

import json
from collections import Counter
from dataclasses import replace

import galsim
import numpy as np
import pytest
import tensorflow as tf
from astropy.table import Table
from scipy.stats import spearmanr

from tflens.datasets.galaxy_drawing import draw_galaxy
from tflens.datasets.galaxy_parameters import (
    DustLane,
    GalaxyParameters,
    Knots,
    Merger,
    Ring,
    Sersic,
    Spiral,
    Tail,
    simulate_parameters,
)
from tflens.datasets.half_light import half_light_radius
from tflens.datasets.morphology import LIMITS, MAJOR_AXIS_LIMIT, GaussianCopula, Morphology, cosmos_morphology
from tflens.datasets.pipeline import hst_psf, observed_galaxies, random_symmetry
from tflens.datasets.records import load_dataset, read_dataset, split_of
from tflens.datasets.simulated import make_dataset, simulate_galaxy, simulate_record
from tflens.errors import ParameterError


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
        found, shipped = json.loads(refitted.to_json()), json.loads(cosmos_morphology().to_json())
        for kind in ("single", "bulge_disk"):
            # The shipped fit took equal Sersic indices in the order of a processor, which correlations depend on.
            correlations = [each[kind].pop("correlation") for each in (found, shipped)]
            np.testing.assert_allclose(*correlations, atol=5e-3)
        assert found == shipped

    def test_equal_values_may_come_in_any_order(self):
        rng = np.random.default_rng(5)
        samples = {"n_sersic": np.round(rng.uniform(0.5, 4.0, 300)), "q": rng.uniform(size=300)}
        order = rng.permutation(300)
        one, other = (GaussianCopula.fit(each) for each in (samples, {n: v[order] for n, v in samples.items()}))
        np.testing.assert_allclose(one.correlation, other.correlation, rtol=0, atol=1e-12)

    def test_magnitude_size_and_redshift_are_drawn_together(self, shared_data):
        """The joint distribution of what a conditional prior is told, against the catalogue it was fitted to."""
        table = Table.read(shared_data / "galaxies/parametric/cosmos_parametric_600.ecsv", format="ascii.ecsv")
        table = table[table["ok"] & ~table["use_bulgefit"]]
        within = (table["sersic_hlr"] / np.sqrt(table["sersic_q"]) < MAJOR_AXIS_LIMIT) & (table["sersic_hlr"] > 0.08)
        table = table[within & (table["sersic_n"] > 0.4) & (table["sersic_n"] < 5)]
        rng = np.random.default_rng(4)
        draws = [cosmos_morphology().sample(rng) for _ in range(3000)]
        assert all("magnitude" in draw and "redshift" in draw for draw in draws)
        draws = [draw for draw in draws if "half_light_radius" in draw]
        magnitude, redshift, size = (
            np.array([draw[name] for draw in draws]) for name in ("magnitude", "redshift", "half_light_radius")
        )
        assert 0 < redshift.min() < redshift.max() < 4
        pairs = (
            (magnitude, size, table["mag_f814w"], table["sersic_hlr"]),
            (magnitude, redshift, table["mag_f814w"], table["zphot"]),
            (redshift, size, table["zphot"], table["sersic_hlr"]),
        )
        for *drawn, a, b in pairs:
            # Standard error of the catalogue's rank correlation: 1 / sqrt(350), three times.
            assert spearmanr(*drawn).statistic == pytest.approx(spearmanr(a, b).statistic, abs=0.16)

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
            ring=Ring(0.8, 0.4, 0.06),
            dust_lane=DustLane(0.5, 0.06, 0.02),
            companion=Sersic(0.05, 0.1, 1.0, 0.7, 1.0, x=0.6, y=-0.3),
        )
        other = GalaxyParameters((Sersic(1.0, 0.2, 1.0, 0.8, 0.3),), lopsidedness=0.4)
        galaxy = replace(galaxy, merger=Merger(other, 0.5, 0.4, 0.3, (Tail(0.1, 0.4, 0.3, 0.8, 0.2, 1.0, 0.2),)))
        coarse = draw_galaxy(galaxy, stamp=64, pixel_scale=0.05)
        fine = draw_galaxy(galaxy, stamp=128, pixel_scale=0.025)
        summed = fine.reshape(64, 2, 64, 2).sum(axis=(1, 3))
        assert np.abs(summed - coarse).sum() < 0.01

    def test_arms_are_no_finer_than_the_resolution(self):
        """Three samples a pixel along either axis see nearly the same image as one.

        Arms that were not damped towards the centre would be aliased there, and differ by 15 % of the light.
        """
        galaxy = GalaxyParameters((Sersic(1.0, 0.3, 1.0, 0.5, 0.2),), spiral=Spiral(4, 0.9, np.radians(12), 0.5))
        coarse = draw_galaxy(galaxy, stamp=63, pixel_scale=0.05)
        fine = draw_galaxy(galaxy, stamp=189, pixel_scale=0.05 / 3).reshape(63, 3, 63, 3).sum(axis=(1, 3))
        assert np.abs(fine - coarse).sum() < 0.02

    def test_merging_galaxies_have_their_centre_of_light_in_the_middle(self):
        parts = [GalaxyParameters((Sersic(1.0, 0.15, 0.5, q, 0.3),)) for q in (0.9, 0.5)]
        merger = Merger(parts[1], 0.4, 0.6, -0.3, ())
        image = draw_galaxy(replace(parts[0], merger=merger))
        axis = (np.arange(64) - 31.5) * 0.05
        assert np.sum(image * axis) == pytest.approx(0, abs=2e-3)
        assert np.sum(image * axis[:, None]) == pytest.approx(0, abs=2e-3)
        first, second = (draw_galaxy(part, stamp=256).astype(float) for part in parts)
        # Moved by whole pixels, so that each can be compared with its own image.
        whole = draw_galaxy(replace(parts[0], merger=replace(merger, flux_ratio=1.0, x=0.8, y=-0.4)), stamp=256)
        moved = np.roll(first, (4, -8), (0, 1)) + np.roll(second, (-4, 8), (0, 1))
        np.testing.assert_allclose(whole, moved / 2, atol=1e-4 * whole.max())

    def test_dust_lane_darkens_the_disk_along_its_major_axis(self):
        disk = GalaxyParameters((Sersic(1.0, 0.4, 1.0, 0.3, 0.0),))
        plain = draw_galaxy(disk, stamp=65).astype(float)
        dusty = draw_galaxy(replace(disk, dust_lane=DustLane(0.6, 0.06, 0.0)), stamp=65).astype(float)
        ratio = (dusty / np.maximum(plain, 1e-30))[20:45, 20:45]
        assert ratio[12, 12] / ratio[0, 12] == pytest.approx(0.4, abs=0.001)
        np.testing.assert_allclose(ratio, ratio[::-1, ::-1], rtol=1e-3)
        assert ratio[12, 0] < 0.6 * ratio[0, 0]  # along x, the major axis

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


class TestSample:
    def test_every_structure_occurs_as_often_as_the_data_card_says(self):
        galaxies = [simulate_parameters(3, index) for index in range(3000)]
        seen = Counter(
            name
            for galaxy in galaxies
            for name in ("knots", "spiral", "ring", "dust_lane", "companion", "merger")
            if getattr(galaxy, name)
        )
        assert seen["merger"] / 3000 == pytest.approx(0.06, abs=0.015)
        assert seen["companion"] / 3000 == pytest.approx(0.10, abs=0.02)
        assert min(seen[name] for name in ("knots", "spiral", "ring", "dust_lane")) > 30
        assert any(len(galaxy.merger.tails) == 2 for galaxy in galaxies if galaxy.merger)
        # Fluxes of the components are shares of the galaxy's light.
        np.testing.assert_allclose([sum(c.flux for c in galaxy.components) for galaxy in galaxies], 1, rtol=1e-9)

    def test_metadata_follows_from_parameters_and_image(self):
        records = [simulate_record(index, seed=4) for index in range(30)]
        images = np.stack([record.image for record in records])
        radius, _ = half_light_radius(images)
        values = {name: np.array([record.metadata[name] for record in records]) for name in records[0].metadata}
        np.testing.assert_allclose(values["half_light_radius"], 0.05 * radius, rtol=1e-6)
        np.testing.assert_allclose(values["magnitude"], -2.5 * np.log10(values["flux"]) + 25.94333)
        for record in records:
            parameters = simulate_parameters(4, record.index)
            assert record.metadata["redshift"] == parameters.redshift
            assert record.metadata["merger"] == (parameters.merger is not None)
        assert 0.4 <= values["n_sersic"].min() < values["n_sersic"].max() <= 5

    def test_size_does_not_depend_on_the_pixels(self):
        fine, coarse = (simulate_record(5, stamp=n, pixel_scale=6.4 / n).metadata for n in (256, 128))
        assert fine["half_light_radius"] == pytest.approx(coarse["half_light_radius"], rel=0.02)


class TestDataset:
    def test_files_do_not_depend_on_the_number_of_processes(self, tmp_path):
        one, two = (make_dataset(tmp_path / str(n), 9, seed=3, processes=n, shard_size=4, stamp=16) for n in (1, 2))
        names = sorted(path.name for path in one.glob("*.tfrecord.gz"))
        assert len(names) >= 3
        for name in (*names, "dataset.json"):
            assert (one / name).read_bytes() == (two / name).read_bytes()

    def test_what_is_read_is_what_was_drawn(self, tmp_path):
        make_dataset(tmp_path, 40, seed=3, shard_size=16, stamp=8, pixel_scale=0.2)
        seen = []
        for split in ("train", "validation", "test"):
            expected = [index for index in range(40) if split_of(index) == split]
            dataset = load_dataset(tmp_path, split)
            assert dataset.index.tolist() == expected
            seen += expected
            for i, index in enumerate(expected):
                record = simulate_record(index, seed=3, stamp=8, pixel_scale=0.2)
                np.testing.assert_array_equal(dataset.images[i], record.image)
                for name, value in record.metadata.items():
                    assert dataset.metadata[name][i] == np.float32(value)
        assert sorted(seen) == list(range(40))
        assert dataset.manifest["resolution"] == 0.06
        streamed = next(iter(read_dataset(tmp_path, "train")))
        assert {"image", "index", "flux", "half_light_radius", "redshift"} <= streamed.keys()

    def test_more_galaxies_may_be_added_but_no_others(self, tmp_path):
        make_dataset(tmp_path, 6, seed=3, shard_size=3, stamp=16)
        kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.gz")}
        done = []
        make_dataset(tmp_path, 9, seed=3, shard_size=3, stamp=16, progress=lambda *count: done.append(count))
        assert done[-1] == (9, 9)
        assert {path: path.stat().st_mtime_ns for path in kept} == kept
        with pytest.raises(ParameterError, match="another dataset"):
            make_dataset(tmp_path, 9, seed=4, shard_size=3, stamp=16)

    @pytest.mark.parametrize("name", ["count", "stamp", "pixel_scale"])
    def test_bad_numbers_are_named(self, tmp_path, name):
        with pytest.raises(ParameterError, match=f"{name} must be positive"):
            make_dataset(tmp_path, **({"count": 3} | {name: 0}))


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
