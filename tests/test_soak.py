"""Jobs that are killed, or whose disk fills up: in short what `make soak` does."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ROOT / "scripts"
sys.path.insert(0, str(SCRIPTS))

from soak import differing  # noqa: E402
from soak_disks import SIZES, NoDiskError, fill, refuse, small_disk  # noqa: E402
from soak_jobs import JOBS, make_inputs  # noqa: E402

from tflens.disk import locked, make_writable  # noqa: E402
from tflens.errors import ParameterError, StorageError  # noqa: E402

# Keras 3 turns its variables into arrays, when it saves them, in a way that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


@pytest.mark.parametrize("jobs", [["data simulate", "fit"], ["train", "fit-many"]])
def test_killed_jobs_end_as_undisturbed_ones(jobs):
    command = [sys.executable, str(SCRIPTS / "soak.py"), "--kills", "2", "--jobs", *jobs, "--no-disks"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [f"{job}: 2 kills, 0 differences" for job in jobs] == done.stdout.splitlines()


@pytest.mark.slow
def test_kills_by_the_dozen():
    command = [sys.executable, str(SCRIPTS / "soak.py"), "--kills", "13", "--seed", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1500)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("13 kills, 0 differences") == 4


def test_differences_are_found():
    wanted = {"a": b"1", "b": b"2"}
    assert differing(wanted, dict(wanted)) == []
    assert differing(wanted, {"a": b"3", "c": b""}) == ["b is lost", "c is too much", "a differs"]


def test_a_half_written_lens_is_found(tmp_path):
    (tmp_path / "lens-000000").mkdir()
    with pytest.raises(AssertionError, match="not complete"):
        JOBS["fit-many"].check(tmp_path)


@pytest.fixture
def inputs(tmp_path):
    try:
        with small_disk(tmp_path / "probe", 100):
            pass
    except NoDiskError as error:
        pytest.skip(f"a small disk cannot be made here: {error}")
    return make_inputs(tmp_path / "inputs")


@pytest.mark.parametrize("name", SIZES)
class TestDisk:
    def test_that_fills_up_keeps_what_is_finished(self, inputs, name, tmp_path):
        (tmp_path / "undisturbed").mkdir()
        JOBS[name].work(tmp_path / "undisturbed", inputs)
        assert fill(name, tmp_path / "disk", inputs, JOBS[name].content(tmp_path / "undisturbed")) == []

    def test_that_is_read_only_is_refused_at_once(self, inputs, name, tmp_path):
        assert refuse(name, tmp_path / "disk", inputs) == []


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="the output folder must be writable, but"):
        make_writable(tmp_path / "file/out")


@pytest.mark.parametrize("name", ["data simulate", "fit-many"])
def test_a_folder_has_one_writer(tmp_path, name):
    inputs, out = make_inputs(tmp_path / "inputs"), tmp_path / "out"
    out.mkdir()
    with locked(out), pytest.raises(ParameterError, match="another process is writing to it"):
        JOBS[name].work(out, inputs)
    assert list(out.iterdir()) == []
