"""Real galaxies: stamps, noise and S/N against galaxies whose truth is known, and the COSMOS galaxies themselves."""

import shutil
from collections import Counter
from dataclasses import replace

import galsim
import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from scipy.ndimage import convolve
from scipy.signal import convolve2d

from tflens.datasets.cosmos import Catalogue, _Maker, _opened, _Settings, make_dataset, target_kernel
from tflens.datasets.records import Record, Rejected, load_dataset, summarize_dataset
from tflens.errors import ParameterError

OWN_SCALE, OWN_SIGMA = 0.03, 0.003
OWN_PSF = galsim.Convolve([galsim.Gaussian(fwhm=0.09), galsim.Pixel(OWN_SCALE)])
# The noise of the catalogue is white noise under this kernel, so that its correlation is known exactly.
SMOOTHING = np.outer([1.0, 2.0, 1.0], [1.0, 2.0, 1.0]) / 6
STAMP, SCALE, FWHM = 40, 0.05, 0.15
FLUX = 4.0


def settings(**changes):
    return replace(_Settings(STAMP, SCALE, f"gaussian:{FWHM}", (0.0, 1e9), "whitened", 1), **changes)


def maker(folder, chosen=None):
    chosen = chosen or settings()
    return _Maker(str(folder / "real_galaxy_catalog.fits"), chosen, target_kernel(chosen.psf, SCALE))


def profile(number):
    """A galaxy of S/N about 20, each of another shape."""
    rng = np.random.default_rng([4, number])
    galaxy = galsim.Sersic(n=[1.0, 1.5, 2.5][number % 3], half_light_radius=0.25, flux=FLUX)
    return galaxy.shear(q=rng.uniform(0.4, 1), beta=rng.uniform(0, np.pi) * galsim.radians)


def truth(number, psf=None):
    """The stamp without noise."""
    observed = galsim.Convolve([profile(number), psf or galsim.Gaussian(fwhm=FWHM)])
    return observed.drawImage(nx=STAMP, ny=STAMP, scale=SCALE, method="no_pixel", dtype=float).array


def write_catalogue(folder, numbers, sizes=True, files=1, mean=0.0):
    """A catalogue of simulated galaxies in GalSim's form; the numbers are their names."""
    images = [[] for _ in range(files)]
    rows = []
    for i, number in enumerate(numbers):
        ny, nx = 66 + number % 3, 71  # smaller than the stamp of 2 arcsec in y, larger in x
        white = np.random.default_rng([7, number]).normal(size=(ny, nx))
        noise = OWN_SIGMA * convolve(white, SMOOTHING, mode="wrap") / np.linalg.norm(SMOOTHING) + mean
        observed = galsim.Convolve([profile(number), OWN_PSF])
        stamp = observed.drawImage(nx=nx, ny=ny, scale=OWN_SCALE, method="no_pixel", dtype=float).array + noise
        images[i % files].append(fits.ImageHDU(stamp.astype(np.float32)))
        rows.append((number, 25.0, "F814W", 1.0, f"images_{i % files}.fits", "psf.fits", len(images[i % files])))
    for i, stamps in enumerate(images):
        fits.HDUList([fits.PrimaryHDU(), *stamps]).writeto(folder / f"images_{i}.fits")
    psf = OWN_PSF.drawImage(nx=41, ny=41, scale=OWN_SCALE, method="no_pixel", dtype=float).array
    fits.PrimaryHDU(psf).writeto(folder / "psf.fits")
    correlation = convolve2d(SMOOTHING, SMOOTHING)
    fits.PrimaryHDU(np.pad(correlation / correlation.max(), 4)).writeto(folder / "noise.fits")

    names = ("IDENT", "MAG", "BAND", "WEIGHT", "GAL_FILENAME", "PSF_FILENAME", "GAL_HDU")
    table = Table(rows=rows, names=names)
    table["PSF_HDU"] = 0
    table["PIXEL_SCALE"], table["NOISE_MEAN"], table["NOISE_VARIANCE"] = OWN_SCALE, mean, OWN_SIGMA**2
    table["NOISE_FILENAME"], table["stamp_flux"] = "noise.fits", FLUX
    table.write(folder / "real_galaxy_catalog.fits")
    if sizes:
        companion = Table({"IDENT": table["IDENT"][::-1]})  # in another order than the catalogue
        companion["mag_auto"], companion["zphot"] = 25.0, companion["IDENT"] / 100
        companion["flux_radius"] = 0.27 / OWN_SCALE
        companion.write(folder / "real_galaxy_catalog_fits.fits")
    return folder


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    return write_catalogue(tmp_path_factory.mktemp("catalogue"), range(12), files=3)


class TestStamp:
    @pytest.mark.parametrize("noise", ["whitened", "symmetrized", "correlated"])
    def test_noise_is_as_it_says(self, simulated, noise):
        make = maker(simulated, settings(noise=noise))
        residuals, correlations = [], []
        for number in range(12):
            record = make(str(number))
            residual = (record.image - truth(number)) / record.metadata["sigma"]
            residuals.append(residual)
            neighbours = [np.mean(residual[1:] * residual[:-1]), np.mean(residual[:, 1:] * residual[:, :-1])]
            correlations.append(np.mean(neighbours))
        # Correlated noise has fewer independent values: about one in ten.
        values = 12 * STAMP**2 / (1 if noise == "whitened" else 10)
        assert np.mean(np.square(residuals)) == pytest.approx(1, abs=4 * np.sqrt(2 / values))
        assert abs(np.mean(residuals)) < (0.03 if noise == "whitened" else 0.12)
        expected = record.metadata["noise_correlation"]
        if noise == "whitened":
            assert expected == 0
            assert abs(np.mean(correlations)) < 4 / np.sqrt(2 * values)
        elif noise == "correlated":
            assert expected > 0.5
            assert np.mean(correlations) == pytest.approx(expected, abs=0.04)

    def test_only_noise_is_added_to_whiten(self, simulated):
        kept, whitened = (maker(simulated, settings(noise=noise))("3") for noise in ("correlated", "whitened"))
        assert whitened.metadata["sigma"] > kept.metadata["sigma"]
        added = whitened.image - kept.image
        expected = np.sqrt(whitened.metadata["sigma"] ** 2 - kept.metadata["sigma"] ** 2)
        assert np.std(added) == pytest.approx(expected, rel=0.1)

    def test_own_psf_is_kept(self, simulated):
        make = maker(simulated, settings(psf="own", noise="correlated"))
        records = [make(str(number)) for number in range(12)]
        residuals = [
            (record.image - truth(number, OWN_PSF)) / record.metadata["sigma"] for number, record in enumerate(records)
        ]
        # Interpolation between pixels smooths the noise a little, which sigma does not know.
        assert 0.92 < np.mean(np.square(residuals)) < 1
        psf = OWN_PSF.drawImage(nx=25, ny=25, scale=SCALE, method="no_pixel", dtype=float).array
        np.testing.assert_allclose(records[0].psf, psf / psf.sum(), atol=3e-3 * psf.max() / psf.sum())

    def test_mean_of_the_noise_is_taken_off(self, simulated, tmp_path):
        write_catalogue(tmp_path, range(3), mean=5 * OWN_SIGMA)
        for number in range(3):
            np.testing.assert_allclose(
                maker(tmp_path)(str(number)).image, maker(simulated)(str(number)).image, atol=2e-6
            )

    def test_a_galaxy_depends_on_its_name_alone(self, simulated, tmp_path):
        write_catalogue(tmp_path, [7, 3, 9])
        for number in (3, 9):
            here, there = maker(tmp_path)(str(number)), maker(simulated)(str(number))
            np.testing.assert_array_equal(here.image, there.image)
            assert here.metadata == there.metadata
        another = maker(simulated, settings(seed=2))("3")
        assert not np.array_equal(another.image, maker(simulated)("3").image)

    def test_metadata_is_that_of_the_catalogue(self, simulated):
        record = maker(simulated)("7")
        assert record.index == 7
        assert record.metadata["redshift"] == pytest.approx(0.07)
        assert record.metadata["magnitude"] == 25.0
        assert record.metadata["half_light_radius"] == record.metadata["flux_radius"] == pytest.approx(0.27)
        assert record.metadata["flux"] == pytest.approx(10 ** (-0.4 * (25.0 - 25.94333)))

    def test_what_the_catalogue_does_not_know_is_nan(self, tmp_path):
        write_catalogue(tmp_path, [1], sizes=False)
        metadata = maker(tmp_path)("1").metadata
        assert np.isnan([metadata[name] for name in ("redshift", "flux_radius", "half_light_radius")]).all()


@pytest.mark.parametrize("sizes", [True, False])
def test_signal_to_noise_is_unbiased(sizes, tmp_path):
    count = 60
    write_catalogue(tmp_path, range(count), sizes=sizes)
    make = maker(tmp_path)
    errors, powers = [], []
    for number in range(count):
        metadata = make(str(number)).metadata
        powers.append(np.sum((truth(number) / metadata["sigma"]) ** 2))
        errors.append(metadata["snr"] ** 2 - powers[-1])
    assert 15**2 < np.mean(powers) < 25**2
    standard_error = np.std(errors) / np.sqrt(count)
    assert standard_error < 0.03 * np.mean(powers)
    assert abs(np.mean(errors)) < 3 * standard_error


class TestSelection:
    def test_snr_decides_and_is_told(self, simulated):
        snr = maker(simulated)("5").metadata["snr"]
        assert maker(simulated, settings(snr=(snr + 1, 99.0)))("5") == Rejected(f"S/N below {snr + 1:g}")
        assert maker(simulated, settings(snr=(0.0, snr - 1)))("5") == Rejected(f"S/N above {snr - 1:g}")
        assert isinstance(maker(simulated, settings(snr=(snr - 1, snr + 1)))("5"), Record)

    def test_a_target_psf_that_cannot_be_had_is_refused(self, simulated):
        sharp = settings(psf="gaussian:0.03", pixel_scale=0.03)
        assert maker(simulated, sharp)("5") == Rejected("the target PSF is sharper than its own")

    def test_bad_galaxies_are_named_and_the_others_kept(self, tmp_path):
        write_catalogue(tmp_path, range(6))
        with fits.open(tmp_path / "images_0.fits", mode="update") as file:
            file[2].data[5, 5] = np.nan
        with fits.open(tmp_path / "real_galaxy_catalog.fits", mode="update") as file:
            file[1].data["GAL_HDU"][3] = 99
            file[1].data["NOISE_VARIANCE"][4] = 0
        _opened.cache_clear()
        out = make_dataset(tmp_path, tmp_path / "out", stamp=STAMP, snr=(0, 1e9))
        summary = summarize_dataset(out)
        assert summary.rejected == {
            "cannot be read (IndexError)": ["3"],
            "has pixels that are not finite": ["1"],
            "its noise variance is not positive": ["4"],
        }
        assert sum(summary.kept.values()) == 3

    def test_files_are_closed_again(self, tmp_path):
        write_catalogue(tmp_path, range(12), files=12)
        make = maker(tmp_path)
        opened = []
        for number in range(12):
            make(str(number))
            opened.append(len(_opened(make.file).real.loaded_files))
        assert max(opened) <= 6

    def test_galaxies_of_one_file_come_together(self, simulated):
        assert Catalogue.open(simulated).keys == ("0", "3", "6", "9", "1", "4", "7", "10", "2", "5", "8", "11")


class TestDataset:
    def test_processes_do_not_matter(self, simulated, tmp_path):
        for processes in (1, 2):
            make_dataset(simulated, tmp_path / str(processes), stamp=STAMP, shard_size=5, processes=processes)
        one, two = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("1", "2"))
        assert one == two
        assert len(one) > 3

    def test_manifest_says_what_was_done_and_guards_it(self, simulated, tmp_path):
        out = make_dataset(simulated, tmp_path, stamp=STAMP, shares=(1.0, 0.0, 0.0))
        manifest = load_dataset(out, "train").manifest
        assert (manifest["exclusion"], manifest["noise"], manifest["snr"]) == ("none", "whitened", [15.0, 50.0])
        np.testing.assert_allclose(manifest["psf"], target_kernel("gaussian:0.15", SCALE))
        for change in ({"snr": (10, 50)}, {"psf": "gaussian:0.12"}, {"noise": "correlated"}, {"stamp": STAMP + 2}):
            with pytest.raises(ParameterError, match=f"another dataset: .*its {next(iter(change))} is"):
                make_dataset(simulated, tmp_path, **({"stamp": STAMP, "shares": (1.0, 0.0, 0.0)} | change))

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"stamp": 4}, "stamp must be at least 8"),
            ({"pixel_scale": 0.0}, "pixel_scale must be positive"),
            ({"snr": (50, 15)}, "snr must be two increasing numbers"),
            ({"noise": "white"}, "noise must be one of whitened, symmetrized, correlated, got 'white'"),
            ({"psf": "gaussian"}, "psf must be gaussian:FWHM"),
            ({"psf": "gaussian:-1"}, "psf must be gaussian:FWHM"),
            ({"psf": "moffat:0.1"}, "psf must be gaussian:FWHM"),
            ({"exclusion": "all"}, "exclusion must be auto or one of"),
            ({"exclusion": "marginal"}, "does not have what the quality cuts need"),
        ],
    )
    def test_settings_are_checked(self, simulated, tmp_path, change, message):
        with pytest.raises(ParameterError, match=message):
            make_dataset(simulated, tmp_path, **change)
        assert not (tmp_path / "dataset.json").exists()

    def test_what_is_no_catalogue_is_named(self, simulated, tmp_path):
        with pytest.raises(ParameterError, match=r"there is no catalogue .*galsim_download_cosmos"):
            Catalogue.open(tmp_path / "real_galaxy_catalog.fits")
        with pytest.raises(ParameterError, match=r"should hold one real_galaxy_catalog.*found none"):
            Catalogue.open(tmp_path)
        with pytest.raises(ParameterError, match="not a catalogue of real galaxies"):
            Catalogue.open(simulated / "psf.fits")


class TestPsf:
    def test_gaussian_has_the_width_it_says(self):
        kernel = target_kernel("gaussian:0.2", 0.04)
        x = (np.arange(len(kernel)) - len(kernel) // 2) * 0.04
        sigma = np.sqrt(np.sum(kernel * x**2))
        assert sigma * 2.3548 == pytest.approx(0.2, rel=1e-3)

    def test_hst_is_that_of_the_pipeline(self):
        from tflens.datasets.pipeline import hst_psf

        np.testing.assert_array_equal(target_kernel("hst", 0.05), hst_psf(0.05, 25))
        assert target_kernel("own", 0.05) is None


class TestCosmos:
    def test_strictest_cuts_the_catalogue_has_columns_for(self, shared_data, tmp_path):
        parametric = shared_data / "galaxies/parametric"
        name = "real_galaxy_catalog_23.5_example"
        with pytest.raises(ParameterError, match=r"image files that are not beside it: .*real_galaxy_images.fits"):
            Catalogue.open(parametric / f"{name}.fits")
        for file in (f"{name}.fits", f"{name}_fits.fits", f"{name}_selection.fits", "real_galaxy_PSF_images.fits"):
            shutil.copy(parametric / file, tmp_path)
        shutil.copy(shared_data / "galaxies/cosmos_f814w/acs_I_unrot_sci_20_cf.fits", tmp_path)
        (tmp_path / "real_galaxy_images.fits").touch()  # opened with the first galaxy only
        found = {level: Catalogue.open(tmp_path, level) for level in ("auto", "none", "bad_fits")}
        assert {level: len(catalogue.keys) for level, catalogue in found.items()} == {
            "auto": 96,
            "none": 100,
            "bad_fits": 100,
        }
        assert found["auto"].exclusion == "marginal"
        (tmp_path / f"{name}_selection.fits").unlink()
        assert Catalogue.open(tmp_path).exclusion == "bad_fits"

        opened = _opened(str(found["auto"].file))
        row = opened.rows["100027"]
        metadata = opened.metadata(row)
        assert metadata["half_light_radius"] == pytest.approx(0.39359054)
        assert metadata["flux"] == pytest.approx(114.396, rel=0.15)  # that of the Sersic fit, of its own magnitude

    def test_stamps_agree_with_those_made_elsewhere(self, shared_data):
        folder = shared_data / "galaxies/cosmos_f814w"
        known = np.load(folder / "stamps64_0p05_gauss0p15.npz")
        catalogue = Catalogue.open(folder)
        make = maker(folder, settings(stamp=64, noise="correlated"))
        for key in catalogue.keys[:16:2]:  # the largest; around the others is noise that each drew for itself
            record = make(key)
            other = known["images"][list(known["ident"].astype(str)).index(key)]
            centre = np.s_[22:42, 22:42]
            np.testing.assert_allclose(record.image[centre], other[centre], atol=0.15 * record.metadata["sigma"])

    def test_default_dataset_of_real_galaxies(self, shared_data, tmp_path):
        out = make_dataset(shared_data / "galaxies/cosmos_f814w", tmp_path, shares=(1.0, 0.0, 0.0))
        summary = summarize_dataset(out)
        assert set(summary.rejected) == {"S/N below 15", "S/N above 50"}
        dataset = load_dataset(out, "train")
        assert dataset.images.shape[1:] == (64, 64)
        assert Counter(dataset.metadata["snr"].astype(int) // 15).keys() <= {1, 2, 3}
        rim = np.concatenate([dataset.images[:, :6].ravel(), dataset.images[:, -6:].ravel()])
        sigma = np.repeat(dataset.metadata["sigma"], 6 * 64)
        assert np.std(rim / np.concatenate([sigma, sigma])) == pytest.approx(1, abs=0.03)
        bright = dataset.metadata["snr"] > 25
        ratio = dataset.images[bright, 12:52, 12:52].sum((1, 2)) / dataset.metadata["flux"][bright]
        assert np.median(ratio) == pytest.approx(1, abs=0.1)
