"""The readers under a few hundred kinds of damage, the same at each call; `make fuzz` does a million and more."""

import json
import random
import time

import pytest
from fuzz_mutations import mutated
from fuzz_targets import TARGETS

from tflens.config import RunConfig

ROUNDS = {"fits": 300, "config": 1000, "model": 200}


@pytest.mark.parametrize("name", ["fits", "model"])  # that of a configuration is not there
def test_a_good_file_is_accepted(name):
    assert all(TARGETS[name](content) for content in TARGETS[name].seeds())


@pytest.mark.parametrize("name", TARGETS)
def test_damage_is_refused_or_read(name):
    target = TARGETS[name]
    files = target.seeds()
    refused = 0
    for number in range(ROUNDS[name]):
        rng = random.Random(number)
        content = mutated(rng.choice(files), rng, target.binary, files)
        start = time.monotonic()
        try:
            refused += not target(content)
        except Exception as error:
            raise AssertionError(f"damage {number} of {name} was not refused in words: {error!r}") from error
        assert time.monotonic() - start < 30, f"damage {number} of {name} takes long"
    assert refused > ROUNDS[name] / 10  # the damage is such that a reader notices


def test_a_good_configuration_is_accepted(tmp_path):
    for content in TARGETS["config"].seeds():
        (tmp_path / "config.json").write_bytes(content)
        assert json.dumps(RunConfig.load(tmp_path / "config.json").as_dict()).encode() == content


def test_damage_is_the_same_at_each_call():
    files = TARGETS["fits"].seeds()
    twice = [[mutated(files[0], random.Random(number), True, files) for number in range(20)] for _ in range(2)]
    assert twice[0] == twice[1]
    assert len({*twice[0], files[0]}) > 15
