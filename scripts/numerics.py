"""Whether numbers can be trusted: precision, long chains, and many fits in one process.

python scripts/numerics.py                             # all of it; writes docs/results/PART.json for each part
python scripts/numerics.py --only many_fits --fits 30  # a part, shortened: nothing is written
"""

import argparse
import resource
import sys
import time
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from tflens.config import Input, RunConfig
from tflens.grid import PixelGrid
from tflens.measured import Record, keep_records
from tflens.quiet import import_tensorflow_quietly
from tflens.run import build_model, commit
from tflens.workers import resident_bytes

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from traces import counted_traces  # noqa: E402

SEARCH = {"starts": 6, "search_steps": 36, "survivors": 2, "polish_steps": 10}
SHORT = SEARCH | {"chains": 2, "warmup": 40, "draws": 20, "rounds": 1}
"""Of the many fits: what they find does not matter, only that they are all of a fit."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PARTS, nargs="+", default=list(PARTS), help="default: all")
    parser.add_argument("--fits", type=int, help="in one process (default: 1000); with it nothing is written")
    parser.add_argument("--draws", type=int, help="of each long chain (default: 20000); with it nothing is written")
    options = parser.parse_args()
    import_tensorflow_quietly()
    shortened = options.fits is not None or options.draws is not None
    effort = {"many_fits": options.fits or 1000, "long_chain": options.draws or 20_000}
    for name in options.only:
        records = PARTS[name](effort.get(name))
        for record in records:
            print(record, flush=True)
        if not shortened:
            about = {"command": f"python scripts/numerics.py --only {name}", "commit": commit()}
            keep_records(ROOT / f"docs/results/{name}.json", [record | about for record in records])


@cache
def demo_fit(dtype: str) -> Any:
    """The demo, with its neural source."""
    from tflens.inference.pipeline import Fitter
    from tflens.inference.settings import FitSettings

    observation, model = demo_model(dtype)
    fit = Fitter(model, FitSettings()).fit(observation)
    print(f"{dtype}: {sum(fit.seconds.values()):.0f} s, chi^2 {fit.best.chi2:.4f}", flush=True)
    return fit


def demo_model(dtype: str) -> tuple[Any, Any]:
    """Of the demo, its observation and its model."""
    from tflens.model_file import model_of, tables_of

    config = RunConfig(input=Input(file=str(ROOT / "examples/demo/lens.fits")))
    observation = config.input.read()
    return observation, model_of(tables_of(build_model(observation, config)) | {"dtype": dtype})


def precision(_: None) -> list[Record]:
    """The demo in float32 and in float64, from one seed."""
    fits = {dtype: demo_fit(dtype).posterior for dtype in ("float32", "float64")}
    single, double = (fit.data.posterior for fit in fits.values())
    return [
        *(
            {
                "id": "chains",
                "variant": dtype,
                "seed": 0,
                "value": fit.diagnostics["max_r_hat"],
                "ess": fit.diagnostics["min_ess"],
            }
            for dtype, fit in fits.items()
        ),
        *(
            {"id": "precision", "seed": 0, **agreement(name, single[name].to_numpy(), double[name].to_numpy())}
            for name in single.data_vars
            if name != "u"
        ),
    ]


def rounding(_: None) -> list[Record]:
    """How far the rounding of float32 moves the demo's posterior: its draws weighed anew by the density in float64.

    Weighed and unweighed means share their Monte Carlo error, which drops out of their difference.
    """
    import tensorflow as tf

    from tflens.model import LensTarget

    fit, (observation, model) = demo_fit("float32"), demo_model("float64")
    single = fit.target
    double = LensTarget(model, observation, single.frame, fit.settings.supersampling, fit.refine, single.modes)
    double.use(fit.mask)
    double.forgive(fit.discrepancy)
    data = fit.posterior.data.posterior
    u = data["u"].to_numpy().reshape(-1, model.dim)
    densities = [
        np.concatenate([t.value_and_gradient(tf.constant(part, t.model.dtype))[0] for part in np.array_split(u, 100)])
        for t in (single, double)
    ]
    change = densities[1].astype(float) - densities[0]
    weights = np.exp(change - change.mean())
    about = {"id": "rounding", "seed": 0, "n": len(u)}
    return [
        about | {"variant": "log posterior", "value": float(change.std())},
        *(
            about | {"variant": name} | moved(draws.to_numpy().astype(float).ravel(), weights)
            for name, draws in data.data_vars.items()
            if name != "u"
        ),
    ]


def moved(draws: np.ndarray, weights: np.ndarray) -> Record:
    """What weights do to the mean of draws, in their standard deviation, and to that."""
    mean, sigma = np.average(draws, weights=weights), draws.std()
    width = np.sqrt(np.average((draws - mean) ** 2, weights=weights))
    return {"value": float((mean - draws.mean()) / sigma), "widths": float(width / sigma)}


def agreement(name: str, a: np.ndarray, b: np.ndarray) -> Record:
    """Difference of the means of two sets of chains, in its Monte Carlo error, and the ratio of their widths."""
    from tflens.inference.convergence import az

    # A dataset, for from an array ArviZ gives an array.
    errors = (float(az.mcse(az.convert_to_dataset({"x": each.astype(float)}))["x"]) for each in (a, b))
    error = np.hypot(*errors)
    return {
        "variant": name,
        "value": float((a.mean(dtype=float) - b.mean(dtype=float)) / error),
        "sigma": float((a.mean(dtype=float) - b.mean(dtype=float)) / b.std(dtype=float)),
        "widths": float(a.std(dtype=float) / b.std(dtype=float)),
    }


def small_model() -> Any:
    """Of the mocks and of their fits: a Sersic source, and no profile with so sharp a cusp that a fit takes minutes."""
    from tflens.light import Sersic
    from tflens.mass import EPL, Shear
    from tflens.model import LensModel
    from tflens.parameters import bounded_normal

    index = bounded_normal(0.5, 2.0, 1.0, 1.0)
    priors = {"light.n_sersic": index, "source.n_sersic": index}
    return LensModel([EPL(), Shear()], [Sersic()], Sersic(), priors=priors)


def small_lens(seed: int) -> Any:
    """A mock drawn from the prior, on few pixels."""
    from tflens.inference.mocks import Survey

    y, x = np.mgrid[-2:3, -2:3]
    psf = np.exp(-(x**2 + y**2) / 2)
    survey = Survey(PixelGrid((22, 24), 0.2), psf / psf.sum(), peak_snr=(20.0, 40.0), lens_flux=(0.3, 0.5))
    return survey.draw(small_model(), seed=[seed], name=f"lens {seed}").observation


def long_chain(draws: int) -> list[Record]:
    """Long chains of float32: halves, and log posteriors computed anew."""
    import tensorflow as tf

    from tflens.inference.pipeline import Fitter
    from tflens.inference.settings import FitSettings

    began = time.monotonic()
    fit = Fitter(small_model(), replace(FitSettings(), draws=draws, rounds=1)).fit(small_lens(1))
    data = fit.posterior.data
    u, kept = data.posterior["u"].to_numpy(), data.sample_stats["lp"].to_numpy()
    print(f"{u.shape[0]} chains of {u.shape[1]}, {time.monotonic() - began:.0f} s", flush=True)
    half = draws // 2
    names = [f"u{i}" for i in range(u.shape[-1])] + ["log posterior"]
    values = [*np.moveaxis(u, -1, 0), kept]
    halves = [agreement(name, value[:, :half], value[:, half:]) for name, value in zip(names, values, strict=True)]
    last = u[:, -50:].reshape(-1, u.shape[-1])
    anew = fit.target.value_and_gradient(tf.constant(last, fit.model.dtype))[0].numpy()
    error = float(np.abs(anew - kept[:, -50:].reshape(-1)).max())
    return [
        *({"id": "drift", "seed": 0, "n": draws, **each} for each in halves),
        {"id": "drift of the value", "variant": "log posterior", "seed": 0, "n": draws, "value": error},
    ]


def many_fits(count: int) -> list[Record]:
    """Lenses of one shape, one after another, by one `Fitter`: what is traced, and memory."""
    from tflens.inference.pipeline import Fitter
    from tflens.inference.settings import FitSettings

    fitter, began = Fitter(small_model(), FitSettings(**SHORT), crop=False), time.monotonic()
    seen = []
    with counted_traces() as traced:
        for number in range(count):
            before = len(traced)
            fit = fitter.fit(small_lens(number), seed=number)
            seen.append((number + 1, resident_bytes() / 1e6, len(traced), time.monotonic() - began))
            if number < 10 or (number + 1) % 50 == 0 or len(traced) > before:
                print(
                    f"{seen[-1][0]} fits: {seen[-1][1]:.0f} MB, {len(traced)} graphs, {seen[-1][3]:.0f} s, "
                    f"theta_E {np.median(fit.posterior.draws('lens.theta_E')):.3f}, "
                    f"{fit.compiled.layer.samples} samples",
                    flush=True,
                )
    totals = [row[2] for row in seen]
    warm = min(1 + totals.index(totals[-1]), count - 1)  # the last that traced anything: all later ones share
    number, memory, graphs, seconds = np.array(seen[warm - 1 :]).T
    return [
        {
            "id": "fits",
            "variant": "memory",
            "value": float(memory[-1] - memory[0]),
            "first": float(memory[0]),
            "warm": warm,
            "slope": float(np.polyfit(number, memory, 1)[0]),
            "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            "n": count,
            "seed": 0,
            "seconds": float(seen[-1][3]),
            "settings": SHORT,
        },
        {
            "id": "fits",
            "variant": "graphs traced",
            "value": int(graphs[-1] - graphs[0]),
            "first": int(graphs[0]),
            "n": count,
            "seed": 0,
            "seconds_a_fit": float((seconds[-1] - seconds[0]) / (len(seconds) - 1)),
        },
    ]


PARTS = {"precision": precision, "rounding": rounding, "long_chain": long_chain, "many_fits": many_fits}

if __name__ == "__main__":
    main()
