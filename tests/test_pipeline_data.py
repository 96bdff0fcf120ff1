"""Galaxies on their way into a network: a function of (seed, epoch, batch), with symmetries, and noise of its own."""

import numpy as np
import pytest
import tensorflow as tf
from tiny_galaxies import SIDE, blobs

from tflens.datasets.pipeline import hst_psf, noisy_galaxies, observed_galaxies
from tflens.errors import ParameterError
from tflens.galaxies.condition import Condition
from tflens.psf import PSF

KERNEL = hst_psf(0.2, 5)
GALAXIES = blobs(30)
INDEX = np.arange(30)


def everything(data):
    batches = list(data)
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


class TestSimulated:
    def test_signal_is_the_turned_truth_through_the_psf(self):
        data = everything(observed_galaxies(GALAXIES, KERNEL, batch_size=7, seed=1, extra={"index": INDEX}))
        assert sorted(data["index"]) == INDEX.tolist()
        convolve = PSF(KERNEL, (SIDE, SIDE)).convolve
        for signal, index in zip(data["signal"], data["index"], strict=True):
            turns = [np.rot90(flip, k) for flip in (GALAXIES[index], GALAXIES[index].T) for k in range(4)]
            assert min(np.abs(convolve(turn.copy()) - signal).max() for turn in turns) < 1e-6

    def test_without_psf_the_signal_is_the_truth(self):
        data = everything(observed_galaxies(GALAXIES, None, augment=False))
        np.testing.assert_array_equal(data["signal"], GALAXIES)

    def test_wide_range_of_signal_to_noise(self):
        """Log-uniform: half of it below the geometric mean of the ends."""
        many = np.tile(GALAXIES, (40, 1, 1))
        data = everything(observed_galaxies(many, None, snr_range=(15.0, 500.0), batch_size=400))
        snr = np.sqrt(np.sum((data["signal"] / data["sigma"][:, None, None]) ** 2, axis=(1, 2)))
        assert 15 * (1 - 1e-5) < snr.min() < 17
        assert 450 < snr.max() < 500 * (1 + 1e-5)
        assert np.mean(snr < np.sqrt(15 * 500)) == pytest.approx(0.5, abs=5 * 0.5 / np.sqrt(1200))

    @pytest.mark.parametrize("change", [{"epoch": 1}, {"seed": 3}])
    def test_function_of_seed_epoch_and_batch(self, change):
        settings = {"batch_size": 8, "seed": 2, "epoch": 0, "extra": {"index": INDEX}}
        first, again, other = (
            everything(observed_galaxies(GALAXIES, KERNEL, **{**settings, **changed})) for changed in ({}, {}, change)
        )
        for name, values in first.items():
            np.testing.assert_array_equal(values, again[name])
            assert np.any(values != other[name])

    def test_truth_is_the_same_in_every_epoch(self):
        first, other = (everything(observed_galaxies(GALAXIES, KERNEL, epoch=epoch, augment=False)) for epoch in (0, 1))
        np.testing.assert_array_equal(first["signal"], other["signal"])
        assert not np.any(first["image"] == other["image"])


class TestReal:
    SIGMA = np.linspace(0.1, 0.2, 30).astype(np.float32)

    def test_symmetries_only(self):
        """Nothing is added: the pixels of a stamp are those of the galaxy, in another order."""
        data = everything(noisy_galaxies(GALAXIES, self.SIGMA, batch_size=7, seed=1, extra={"index": INDEX}))
        assert sorted(data) == ["image", "index", "sigma"]
        np.testing.assert_array_equal(data["sigma"], self.SIGMA[data["index"]])
        np.testing.assert_array_equal(
            np.sort(data["image"].reshape(30, -1)), np.sort(GALAXIES[data["index"]].reshape(30, -1))
        )
        assert np.any(data["image"] != GALAXIES[data["index"]])

    def test_non_square_stamps_as_they_are(self):
        data = everything(noisy_galaxies(GALAXIES[:, :10], self.SIGMA, augment=False))
        np.testing.assert_array_equal(data["image"], GALAXIES[:, :10])

    def test_number_of_batches_is_known(self):
        assert len(noisy_galaxies(GALAXIES, self.SIGMA, batch_size=7)) == 5

    def test_errors(self):
        with pytest.raises(ParameterError, match=r"sigma must be positive, got 0\.0"):
            noisy_galaxies(GALAXIES, 0 * self.SIGMA)
        with pytest.raises(ParameterError, match="noisy_galaxies: sigma must be of all 30 galaxies, got 29"):
            noisy_galaxies(GALAXIES, self.SIGMA[1:])
        with pytest.raises(ParameterError, match="noisy_galaxies: only square stamps"):
            noisy_galaxies(GALAXIES[:, :10], self.SIGMA)
        with pytest.raises(ParameterError, match="observed_galaxies: index must be of all 30 galaxies, got 3"):
            observed_galaxies(GALAXIES, None, extra={"index": INDEX[:3]})


class TestCondition:
    def test_vector(self):
        condition = Condition(("redshift",), ("flux", "size"), {"label": 3})
        properties = {"redshift": [0.5, 1.0], "flux": [1.0, np.e], "size": [np.e, 1.0], "label": [0.0, 2.0]}
        assert condition.dim == 6
        np.testing.assert_allclose(condition(properties), [[0.5, 0, 1, 1, 0, 0], [1, 1, 0, 0, 0, 1]], atol=1e-7)
        assert Condition(**condition.as_dict()) == condition

    @pytest.mark.parametrize(
        ("properties", "message"),
        [
            ({"size": [1.0]}, "no property 'flux'; they have size"),
            ({"flux": [np.nan]}, "flux must be known of every galaxy"),
            ({"flux": [0.0]}, r"flux must be positive for a logarithm, got 0\.0"),
        ],
    )
    def test_errors(self, properties, message):
        with pytest.raises(ParameterError, match=message):
            Condition(logarithmic=("flux",))(properties)

    def test_classes_are_whole_numbers(self):
        for label in (3, -1, 0.5):
            with pytest.raises(ParameterError, match="label must be a whole number from 0 to 2"):
                Condition(classes={"label": 3})({"label": [label]})

    def test_nothing_named(self):
        with pytest.raises(ParameterError, match="must name a property, got none"):
            Condition()


def test_batches_keep_their_types():
    batch = next(iter(observed_galaxies(GALAXIES, KERNEL)))
    assert {value.dtype for value in batch.values()} == {tf.float32}
