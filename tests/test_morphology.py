"""Measured morphology: statmorph's own values, laws, and failures that are said."""

import warnings

import numpy as np
import pytest
import statmorph

from tflens.errors import ParameterError
from tflens.galaxies import morphology
from tflens.galaxies.morphology import STATISTICS, failed_share, morphology_statistics

PSF = np.outer(*[np.array([1.0, 4, 6, 4, 1]) / 16] * 2)


def galaxy(q=0.6, radius=4.0, knot=0.0, shape=(56, 50)):
    ny, nx = shape
    y, x = np.mgrid[:ny, :nx] - np.array([ny // 2, nx // 2])[:, None, None]
    image = np.exp(-np.hypot(x, y / q) * np.sqrt(q) / radius) + knot * np.exp(-((x - 8) ** 2 + y**2) / 4)
    return image / image.sum()


@pytest.fixture(scope="module")
def observed():
    rng = np.random.default_rng(1)
    images = np.stack([galaxy(), galaxy(q=0.95), galaxy(knot=1.0), galaxy(radius=2.0)])
    sigma = np.sqrt((images**2).sum((1, 2))) / 300
    return images + sigma[:, None, None] * rng.normal(size=images.shape), sigma


@pytest.fixture(scope="module")
def measured(observed):
    return morphology_statistics(*observed, PSF)


def test_values_are_those_of_the_whole_of_statmorph(observed, measured):
    """Without its Sersic fit and multimode search, which are left out for their time."""
    image, sigma = observed[0][2], observed[1][2]
    segment = morphology._segment(image, sigma, PSF).astype(int)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = statmorph.SourceMorphology(image, segment, 1, weightmap=np.full(image.shape, sigma))
    assert whole.flag < 2
    for name, attribute in morphology._ATTRIBUTES.items():
        assert measured[name][2] == pytest.approx(float(getattr(whole, attribute)), rel=1e-12), name


def test_statistics_follow_the_shapes(measured):
    assert tuple(measured) == STATISTICS
    assert all(np.isfinite(values).all() for values in measured.values())
    ellipticity, asymmetry = measured["ellipticity"], measured["A"]
    assert ellipticity[0] == pytest.approx(0.4, abs=0.1)
    assert ellipticity[1] < 0.15
    assert asymmetry[2] > asymmetry[0] + 0.1
    for size in ("size", "r50"):
        assert measured[size][3] == pytest.approx(measured[size][0] / 2, rel=0.25)
    assert np.all(np.abs(measured["flux"] - 1) < 0.15)


def test_shape_does_not_know_unit_or_orientation(observed, measured):
    images, sigma = observed
    for name, values in morphology_statistics(1e4 * images[:1], 1e4 * sigma[:1], PSF).items():
        unit = 1e4 if name == "flux" else 1.0
        assert values[0] / unit == pytest.approx(measured[name][0], rel=1e-3, abs=1e-6), name
    turned = morphology_statistics(np.rot90(images[:1], axes=(1, 2)), sigma[:1], PSF)
    for name in set(STATISTICS) - {"A", "S"}:  # their sky is the first empty box of the stamp
        assert turned[name][0] == pytest.approx(measured[name][0], rel=0.02), name


def test_size_of_a_gaussian():
    """Adaptive moments of a Gaussian are its own: sigma, and rho4 = 2."""
    y, x = np.mgrid[-30:31, -25:26]
    image = np.exp(-(x**2 + y**2) / (2 * 4.0**2))[None]
    found = morphology_statistics(image, [1e-3], PSF)
    assert found["size"][0] == pytest.approx(4, rel=1e-3)
    assert found["rho4"][0] == pytest.approx(2, rel=1e-3)


def test_failures_are_not_numbers_and_are_counted():
    empty = np.random.default_rng(1).normal(size=(1, 40, 44)) - 5
    found = morphology_statistics(empty, [1.0], np.ones((1, 1)))
    assert set(failed_share(found).values()) == {1.0}


def test_cache_is_by_content(observed, measured, tmp_path, monkeypatch):
    images, sigma = observed[0][:1], observed[1][:1]
    first = morphology_statistics(images, sigma, PSF, cache=tmp_path)
    assert len(list(tmp_path.glob("morphology-*.npz"))) == 1

    def fail(*arguments):
        raise AssertionError("measured again")

    monkeypatch.setattr(morphology, "_measure_all", fail)
    done = []
    again = morphology_statistics(images, sigma, PSF, cache=tmp_path, progress=done.append)
    assert done == [1]
    for name in STATISTICS:
        np.testing.assert_array_equal(first[name], again[name])
    with pytest.raises(AssertionError, match="measured again"):
        morphology_statistics(images, 1.01 * sigma, PSF, cache=tmp_path)


def test_wrong_input_is_named():
    with pytest.raises(ParameterError, match=r"sigma \[N\], got \(2, 8, 9\) and \(3,\)"):
        morphology_statistics(np.ones((2, 8, 9)), np.ones(3), PSF)
    with pytest.raises(ParameterError, match="every sigma must be positive"):
        morphology_statistics(np.ones((2, 8, 9)), [1.0, 0.0], PSF)
