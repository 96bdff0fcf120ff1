"""Input that cannot be right is refused by the package's own errors, in words: the cases of `bad_input`."""

import time

import numpy as np
import pytest
from bad_input import CASES, message_of

from tflens.observation import Observation


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.called}: {case.name}")
def test_it_is_refused_in_words(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where what is malicious would leave its mark
    message = message_of(case)
    assert "Traceback" not in message
    assert not list(tmp_path.iterdir())


def test_there_are_enough_cases_and_each_is_another():
    assert len(CASES) >= 60
    assert len({(case.called, case.name, case.error) for case in CASES}) == len(CASES)
    for case in CASES:
        assert case.words
        assert all(case.words)


def test_a_large_image_is_accepted_soon(tmp_path):
    shape = (2000, 2000)
    rng = np.random.default_rng(1)
    large = Observation(rng.normal(size=shape), np.ones(shape), np.ones((3, 3)) / 9, 0.05, name="large")
    large.to_fits(tmp_path / "large.fits")
    start = time.monotonic()
    read = Observation.from_fits(tmp_path / "large.fits")
    assert time.monotonic() - start < 60
    np.testing.assert_array_equal(read.image, large.image)
