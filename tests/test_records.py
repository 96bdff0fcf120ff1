"""Datasets on disk: what is written is read, whatever the number of processes and however often the run was killed."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from tflens.datasets.records import (
    Record,
    Rejected,
    load_dataset,
    read_dataset,
    split_of,
    summarize_dataset,
    write_dataset,
)
from tflens.errors import ParameterError

MANIFEST = {"seed": 1, "pixel_scale": 0.05}
KEYS = range(60)


def make(key):
    """A galaxy of noise; every eleventh is rejected. At the top of the module, for worker processes."""
    number = int(key)
    if number % 11 == 5:
        return Rejected("too faint") if number % 2 else None
    image = np.random.default_rng(number).normal(size=(6, 6)).astype(np.float32)
    return Record(image, number, {"flux": float(image.sum()), "redshift": float("nan")})


def make_or_die(key):
    if key == 7:
        os._exit(1)
    return make(key)


def make_wrongly(key):
    raise ZeroDivisionError(f"galaxy {key}")


def files(directory):
    return {path.name: path.read_bytes() for path in Path(directory).iterdir()}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("dataset"), MANIFEST, KEYS, make, shard_size=16)


class TestSplit:
    def test_shares_are_met(self):
        splits = [split_of(key) for key in range(20_000)]
        for split, share in (("train", 0.9), ("validation", 0.05), ("test", 0.05)):
            error = np.sqrt(share * (1 - share) / len(splits))
            assert splits.count(split) / len(splits) == pytest.approx(share, abs=4 * error)

    def test_shares_can_be_chosen(self):
        assert {split_of(key, (0.0, 0.0, 1.0)) for key in range(50)} == {"test"}
        assert {split_of(key, (0.0, 1.0, 0.0)) for key in range(50)} == {"validation"}

    def test_a_name_and_a_number_are_one_key(self):
        assert all(split_of(key) == split_of(str(key)) for key in range(100))


class TestReading:
    def test_every_galaxy_is_read_once_in_its_split(self, written):
        kept = [key for key in KEYS if isinstance(make(key), Record)]
        found = []
        for split in ("train", "validation", "test"):
            if not summarize_dataset(written).kept[split]:
                continue
            dataset = load_dataset(written, split)
            assert {split_of(int(index)) for index in dataset.index} == {split}
            for i, index in enumerate(dataset.index):
                record = make(index)
                np.testing.assert_array_equal(dataset.images[i], record.image)
                assert dataset.metadata["flux"][i] == np.float32(record.metadata["flux"])
            assert np.all(np.isnan(dataset.metadata["redshift"]))
            assert dataset.manifest == MANIFEST
            assert dataset.psfs is None
            found += dataset.index.tolist()
        assert sorted(found) == kept

    def test_the_stream_holds_what_is_loaded(self, written):
        loaded = load_dataset(written, "train")
        stream = read_dataset(written, "train", interleave=3)
        assert stream.element_spec["image"].shape == (6, 6)
        galaxies = {int(galaxy["index"]): galaxy for galaxy in stream.as_numpy_iterator()}
        assert sorted(galaxies) == sorted(loaded.index.tolist())
        for index, image, flux in zip(loaded.index, loaded.images, loaded.metadata["flux"], strict=True):
            np.testing.assert_array_equal(galaxies[int(index)]["image"], image)
            assert galaxies[int(index)]["flux"] == flux

    def test_a_psf_for_each_galaxy(self, tmp_path):
        def with_psf(key):
            return Record(np.ones((4, 4), np.float32), key, {}, psf=np.full((3, 5), key, np.float32))

        write_dataset(tmp_path, MANIFEST, range(8), with_psf, shares=(1.0, 0.0, 0.0))
        np.testing.assert_array_equal(
            load_dataset(tmp_path, "train").psfs, np.arange(8)[:, None, None] * np.ones((3, 5))
        )
        assert next(iter(read_dataset(tmp_path, "train")))["psf"].shape == (3, 5)

    def test_summary_counts_and_names_the_rejected(self, written):
        summary = summarize_dataset(written)
        assert summary.rejected == {"too faint": [5, 27, 49], "rejected": [16, 38]}
        assert summary.count == summary.done == 60
        assert sum(summary.kept.values()) == 55
        assert summary.manifest == MANIFEST

    @pytest.mark.parametrize("read", [load_dataset, read_dataset])
    def test_what_is_not_there_is_named(self, read, written, tmp_path):
        with pytest.raises(ParameterError, match=r"no dataset in .*dataset.json is missing\); make one with"):
            read(tmp_path, "train")
        with pytest.raises(ParameterError, match="split must be one of train, validation, test, got 'training'"):
            read(written, "training")
        (tmp_path / "dataset.json").write_text("{")
        with pytest.raises(ParameterError, match="not that of a dataset"):
            read(tmp_path, "train")

    @pytest.mark.parametrize("read", [load_dataset, read_dataset])
    @pytest.mark.parametrize("damage", ["flip a bit", "cut", "remove"])
    def test_a_damaged_file_is_named_and_can_be_made_again(self, read, damage, tmp_path):
        write_dataset(tmp_path, MANIFEST, range(40), make, shard_size=20)
        whole = files(tmp_path)
        path = tmp_path / "train-00001.tfrecord.gz"
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 4
        if damage == "flip a bit":
            path.write_bytes(content)
        elif damage == "cut":
            path.write_bytes(content[: len(content) // 2])
        else:
            path.unlink()
        with pytest.raises(ParameterError, match=r"train-00001.tfrecord.gz is (missing|damaged); remove it if"):
            read(tmp_path, "train")
        path.unlink(missing_ok=True)
        write_dataset(tmp_path, MANIFEST, range(40), make, shard_size=20)
        assert files(tmp_path) == whole


class TestWriting:
    def test_processes_do_not_matter(self, written, tmp_path):
        write_dataset(tmp_path, MANIFEST, KEYS, make, shard_size=16, processes=2)
        assert files(tmp_path) == files(written)

    def test_one_block_fills_one_file_of_a_split(self, written):
        names = set(files(written))
        assert {f"train-{block:05d}.tfrecord.gz" for block in range(4)} | {"dataset.json"} <= names
        assert not [name for name in names if name.startswith(".") or "-00004" in name]

    def test_keys_may_be_appended(self, written, tmp_path):
        write_dataset(tmp_path, MANIFEST, range(40), make, shard_size=16)
        some = files(tmp_path)
        write_dataset(tmp_path, MANIFEST, KEYS, make, shard_size=16)
        assert files(tmp_path) == files(written)
        assert some["train-00001.tfrecord.gz"] == files(written)["train-00001.tfrecord.gz"]

    def test_a_finished_dataset_is_not_made_again(self, written):
        calls = []
        write_dataset(written, MANIFEST, KEYS, calls.append, shard_size=16)
        assert calls == []

    def test_progress_counts_galaxies(self, tmp_path):
        seen = []
        write_dataset(tmp_path, MANIFEST, range(12), make, shard_size=5, progress=lambda *counts: seen.append(counts))
        assert seen[-1] == (12, 11)
        assert [done for done, _ in seen] == sorted(done for done, _ in seen)
        assert set(range(1, 13)) == {done for done, _ in seen}

    @pytest.mark.parametrize(
        ("change", "difference"),
        [
            ({"manifest": {"seed": 2, "pixel_scale": 0.05}}, "its seed is 1, not 2"),
            ({"manifest": {"seed": 1}}, "its pixel_scale is 0.05, not nothing"),
            ({"keys": range(1, 61)}, "its keys 0 to 15 are others"),
            ({"keys": range(59)}, "it has 60 keys, not 59"),
            ({"shard_size": 8}, "its shard_size is 16, not 8"),
            ({"shares": (0.8, 0.1, 0.1)}, r"its shares is \[0.9, 0.05, 0.05\], not"),
        ],
    )
    def test_another_dataset_is_refused(self, written, change, difference):
        before = files(written)
        call = {"manifest": MANIFEST, "keys": KEYS, "make": make, "shard_size": 16} | change
        with pytest.raises(ParameterError, match=f"holds another dataset: {difference}"):
            write_dataset(written, **call)
        assert files(written) == before

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"processes": 0}, "processes must be at least 1, got 0"),
            ({"shard_size": 0}, "shard_size must be at least 1, got 0"),
            ({"shares": (0.9, 0.2, 0.1)}, "must sum to 1"),
            ({"keys": [1, 2, "2"]}, "the key 2 comes twice"),
            ({"keys": []}, "no keys"),
            ({"manifest": {"psf": {1, 2}}}, "JSON"),
            ({"manifest": {"psf": float("nan")}}, "JSON"),
        ],
    )
    def test_settings_are_checked(self, change, message, tmp_path):
        with pytest.raises(ParameterError, match=message):
            write_dataset(tmp_path, **({"manifest": MANIFEST, "keys": KEYS, "make": make} | change))

    @pytest.mark.parametrize(
        ("second", "message"),
        [
            (Record(np.zeros((5, 5), np.float32), 1, {"flux": 1.0}), r"differs in form .* its image is \[4, 4\]"),
            (Record(np.zeros((4, 4), np.float32), 1, {}), r"differs in form .* its metadata is \[\"flux\"\], not \[\]"),
            (
                Record(np.full((4, 4), np.nan, np.float32), 1, {"flux": 1.0}),
                "image of 1 has pixels that are not finite",
            ),
        ],
    )
    def test_records_are_of_one_form(self, second, message, tmp_path):
        records = [Record(np.zeros((4, 4), np.float32), 0, {"flux": 1.0}), second]
        with pytest.raises(ParameterError, match=message):
            write_dataset(tmp_path, MANIFEST, range(2), records.__getitem__)

    @pytest.mark.parametrize("processes", [1, 2])
    def test_an_error_of_the_maker_is_not_hidden(self, processes, tmp_path):
        with pytest.raises(ZeroDivisionError, match="galaxy 0"):
            write_dataset(tmp_path, MANIFEST, KEYS, make_wrongly, processes=processes)

    def test_a_worker_that_dies_is_told(self, tmp_path):
        with pytest.raises(ParameterError, match=r"worker process was killed.*fewer processes than 2"):
            write_dataset(tmp_path, MANIFEST, KEYS, make_or_die, processes=2)
        with pytest.raises(ParameterError, match=r"unfinished [(]0 of 60 done"):
            load_dataset(tmp_path, "train")

    def test_one_writer_at_a_time(self, tmp_path):
        def meddle(key):
            write_dataset(tmp_path, MANIFEST, KEYS, make)

        with pytest.raises(ParameterError, match="another process is writing to"):
            write_dataset(tmp_path, MANIFEST, KEYS, meddle)


KILLED = """
    import os, signal, sys
    sys.path.insert(0, {tests!r})
    import tflens.datasets.records as records
    from test_records import KEYS, MANIFEST, make

    count = 0

    def die(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    if {moment!r} == "in a block":
        make_galaxy = lambda key: die() if key == 37 else make(key)
    else:
        make_galaxy = make
    if {moment!r} == "between blocks":
        progress = lambda done, kept: die() if done == 33 else None
    else:
        progress = lambda done, kept: None
    if {moment!r} == "between the files of a block":
        write = records._write_shard
        records._write_shard = lambda path, r: die() if path.name == "test-00002.tfrecord.gz" else write(path, r)
    if {moment!r} == "in a file":
        import tensorflow as tf
        records._serialize = lambda record, f=records._serialize: die() if record.index == 40 else f(record)
    records.write_dataset({directory!r}, MANIFEST, KEYS, make_galaxy, shard_size=16, progress=progress)
"""


@pytest.mark.parametrize(
    "moment",
    [
        "in a file",
        pytest.param("in a block", marks=pytest.mark.slow),
        pytest.param("between blocks", marks=pytest.mark.slow),
        pytest.param("between the files of a block", marks=pytest.mark.slow),
    ],
)
def test_a_killed_run_goes_on_to_the_same_bytes(moment, written, tmp_path):
    code = textwrap.dedent(KILLED.format(tests=str(Path(__file__).parent), moment=moment, directory=str(tmp_path)))
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert killed.returncode == -9, killed.stderr
    assert summarize_dataset(tmp_path).done == 32
    with pytest.raises(ParameterError, match=r"unfinished [(]32 of 60 done"):
        load_dataset(tmp_path, "train")
    if moment == "in a file":
        assert [name for name in files(tmp_path) if name.startswith(".")]

    made = []
    write_dataset(tmp_path, MANIFEST, KEYS, lambda key: made.append(key) or make(key), shard_size=16)
    assert made == list(range(32, 60))
    assert files(tmp_path) == files(written)


def test_the_ledger_is_readable(written):
    content = json.loads((written / "dataset.json").read_text())
    assert content["manifest"] == MANIFEST
    assert content["form"] == {"image": [6, 6], "psf": None, "metadata": ["flux", "redshift"]}
