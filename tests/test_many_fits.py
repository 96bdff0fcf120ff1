"""Real fits, one after another in one process: memory stays what it is, and nothing is traced anew."""

import os
from pathlib import Path

import numpy as np
import pytest
from small_fit import SETTINGS, observation

from tflens.inference.pipeline import Fitter, default_model
from tflens.inference.settings import FitSettings
from tflens.light import Sersic
from tflens.mass import EPL
from tflens.observation import Observation

FITS = int(os.environ.get("TFLENS_MANY_FITS", "1000"))
WARM = 20  # fits after which the map of finely sampled pixels suits all of them


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
def test_take_no_more_memory_and_no_other_traces(monkeypatch):
    base, called = observation(), []
    deflection = EPL.deflection
    monkeypatch.setattr(EPL, "deflection", lambda *args, **kw: (called.append(0), deflection(*args, **kw))[1])
    fitter = Fitter(default_model((0.0, 0.0), Sersic()), FitSettings(**SETTINGS), crop=False)
    memory, traces = [], []
    for seed in range(FITS):
        image = base.image + np.random.default_rng(seed).normal(0, 0.003, base.image.shape)
        fitter.fit(Observation(image, base.noise, base.psf, 0.1, mask=base.mask), seed=seed)
        memory.append(resident() / 1e6)
        traces.append(len(called))
    assert traces[0] > 0
    each = np.diff(traces[WARM:])
    # What is called eagerly is so for every fit alike; a trace would stand out.
    assert each.max() == np.median(each)
    assert memory[-1] - memory[WARM] < 100
