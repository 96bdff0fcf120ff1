"""Shared fixtures: the real data (skipped, with the reason, where it is missing) and quiet TensorFlow."""

import hashlib
import os
import signal
from pathlib import Path

import matplotlib as mpl
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

ROOT = Path(__file__).resolve().parents[1]


def keep_compiled_programs() -> None:
    """Has XLA keep what it compiles in build/, for the other processes of a run, which ask for the same programs.

    What was compiled for another processor must not be run: each kind has a folder of its own.
    """
    processor = Path("/proc/cpuinfo")
    features = [line for line in processor.read_text().splitlines() if line.startswith(("flags", "model name"))][:2]
    folder = ROOT / "build" / f"xla-{hashlib.sha256(repr(features).encode()).hexdigest()[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    flags = [os.environ.get("TF_XLA_FLAGS", ""), f"--tf_xla_persistent_cache_directory={folder}"]
    os.environ["TF_XLA_FLAGS"] = " ".join(filter(None, flags))


if Path("/proc/cpuinfo").exists():
    keep_compiled_programs()

mpl.use("Agg")

SHARED_DATA = ROOT.parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    if not SHARED_DATA.is_dir():
        pytest.skip("the shared real data (../shared/data) is not on this machine")
    return SHARED_DATA


# A shell that starts the tests in the background has them ignore interrupts, which some of them are about.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
