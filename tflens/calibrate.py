"""Many fits of mocks, in processes that may die: finished ones are kept, and a mock without a fit is a failure."""

import hashlib
import json
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tflens.errors import ParameterError
from tflens.files import write_atomically
from tflens.workers import MEMORY, Death, run_in_workers, start_tensorflow

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tflens.inference.pipeline import Fitter

Result = dict[str, Any]

MOCKS_PER_WORKER = 100
"""How many mocks are fitted by one process, before another takes over."""

SETTINGS = {"starts": 32, "survivors": 4, "draws": 200}
"""Of the fits, as arguments of `tflens.inference.settings.FitSettings`."""

_DIGITS = 7  # of the numbers in a kept file


@dataclass(frozen=True)
class Sources:
    """The galaxies that are lensed.

    Attributes:
        kind: "simulated", "real", or "prior": draws of a galaxy model's own prior.
        identity: what tells these galaxies from others, in plain values.
        pixel_scale: of the stamps, arcsec; None without stamps.
        stamps: `[N, n, n]`; None for draws of a prior.
    """

    kind: Literal["simulated", "real", "prior"]
    identity: Mapping[str, Any]
    pixel_scale: float | None = None
    stamps: "NDArray | None" = field(default=None, compare=False)


@dataclass(frozen=True)
class Plan:
    """What determines the mocks of a calibration, all but their number, and their fits.

    Args:
        sources: of `prior_sources`, `simulated_sources` or `real_sources`.
        source: what mocks are fitted with, one of `tflens.inference.mock_lenses.SOURCES`.
        seed: of the mocks.
        galaxies: the galaxy model of the fits, and of mocks that are draws of its prior.
        shot_by: the code that draws the images, "tflens" or "lenstronomy".
        settings: arguments of `FitSettings`.
    """

    sources: Sources
    source: str = "flow"
    seed: int = 1
    galaxies: str = "galaxies"
    shot_by: Literal["tflens", "lenstronomy"] = "tflens"
    settings: Mapping[str, Any] = field(default_factory=lambda: dict(SETTINGS))

    @property
    def label(self) -> str:
        """For names of files."""
        shot = "" if self.shot_by == "tflens" else f"-{self.shot_by}"
        return f"{self.sources.kind}{shot}-{self.source}-{self.seed}"

    @property
    def variant(self) -> str:
        """In words."""
        from tflens.inference.gain import NAMES

        return f"{self.mocks}, fitted with {NAMES[self.source]}"

    @property
    def mocks(self) -> str:
        """In words, what the mocks are."""
        return f"{self.sources.kind} sources" + ("" if self.shot_by == "tflens" else f" shot by {self.shot_by}")

    def made_with(self) -> dict[str, Any]:
        """All that a result depends on but its index, in plain values: equal for results that belong together.

        The commit is not part of it, but the model with its weights and the settings are.
        """
        from tflens.inference.discrepancy import MODES, STAYS
        from tflens.inference.mock_lenses import fitted_source, lens_model
        from tflens.inference.settings import FitSettings
        from tflens.run import describe_galaxies, describe_model

        model = describe_model(lens_model(fitted_source(self.source, self.galaxies)))
        galaxies = describe_galaxies(self.galaxies) if self.sources.kind == "prior" else None
        mocks = {"sources": {"kind": self.sources.kind, **self.sources.identity}, "galaxies": galaxies}
        # "exact": those of earlier versions, sampled 8 x 8, had too little light in the pixel of the cusp.
        mocks |= {"shot_by": self.shot_by, "seed": self.seed, "cusps": "exact"}
        # Fewer patterns of a field beside the source, or such as all stay where they were found, as earlier versions
        # forgave, leave another posterior.
        settings = asdict(FitSettings(**self.settings)) | {"patterns": MODES, "staying": STAYS}
        return json.loads(json.dumps({"model": model, "settings": settings, "mocks": mocks}))


@dataclass(frozen=True, eq=False)
class Task:
    """A mock for a worker: its number, and the stamp of its source if it has one."""

    index: int
    stamp: "NDArray | None"


class MockFits:
    """What a worker does with its mocks, which share what is compiled.

    Args:
        plan: of the calibration.
        threads: of TensorFlow; None leaves them to it.
    """

    def __init__(self, plan: Plan, threads: int | None = None) -> None:
        start_tensorflow(threads)
        self._plan, self._fitter = plan, None

    def __call__(self, task: Task) -> Result:
        """Draws the mock, fits it, and compares."""
        from tflens.inference.calibration import compare, draw_mock
        from tflens.light import Pixelated

        plan = self._plan
        shoot = None
        if plan.shot_by == "lenstronomy":
            from tflens.inference.lenstronomy_mocks import shoot
        source = Pixelated(plan.sources.pixel_scale) if task.stamp is not None else self._prior()
        mock = draw_mock(source, task.stamp, plan.seed, task.index, shoot)
        fitter, self._fitter = self._fitter or self._make_fitter(), None
        result = compare(mock, fitter.fit(mock.observation, seed=task.index))
        self._fitter = fitter  # not after an error, which may have left it half changed
        return result

    def _prior(self) -> Any:
        from tflens.galaxies import NeuralSource

        return NeuralSource(self._plan.galaxies)

    def _make_fitter(self) -> "Fitter":
        from tflens.inference.mock_lenses import fitted_source, lens_model
        from tflens.inference.pipeline import Fitter
        from tflens.inference.settings import FitSettings

        model = lens_model(fitted_source(self._plan.source, self._plan.galaxies))
        return Fitter(model, FitSettings(**self._plan.settings), crop=False)


def prior_sources() -> Sources:
    """Draws of the prior of the plan's galaxy model: whether a fit is consistent with itself."""
    return Sources("prior", {})


def simulated_sources(data: Path) -> Sources:
    """The galaxies of a dataset's test split, which no network was trained on.

    Raises:
        ParameterError: there is no such dataset, or it is damaged or empty.
    """
    from tflens.datasets.records import load_dataset

    found = load_dataset(data, "test")
    identity = {"dataset": found.manifest, "galaxies": len(found.images)}
    return Sources("simulated", identity, float(found.manifest["pixel_scale"]), found.images)


def real_sources(path: Path) -> Sources:
    """The galaxies of a file of stamps that can be lensed, see `tflens.galaxies.real_sources.lensable`.

    Raises:
        ParameterError: the file holds no such stamps, or none is good enough.
    """
    from tflens.galaxies.real_sources import LEAST_SNR, lensable
    from tflens.galaxies.real_stamps import load_real_stamps

    stamps = load_real_stamps(path)
    galaxies = lensable(stamps)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    identity = {"sha256": digest, "least_snr": LEAST_SNR, "galaxies": len(galaxies)}
    return Sources("real", identity, stamps.pixel_scale, galaxies)


def fit_mocks(
    plan: Plan,
    n: int,
    folder: Path,
    tell: Callable[[Result, bool], None] = lambda result, kept: None,
    *,
    processes: int = 1,
    memory: float = MEMORY,
    share: bool = True,
    start: Callable[[Plan, int | None], Callable[[Task], Result]] = MockFits,
) -> list[Result]:
    """Draws and fits the mocks 0 to n - 1 of a plan, and keeps a file for each that is finished.

    Mocks are fitted in child processes, `MOCKS_PER_WORKER` by one, by a single thread each if there are several. Files
    are whole or not there, so that a call that was killed loses the mocks in work at most; the same call, also with a
    larger n, goes on. A process that dies is replaced, and its mock tried once more. A mock whose processes died, or
    whose fit raised an error, has no fit: that counts as a failure, and is tried again by the next call.

    A mock depends on the plan's seed and its own index alone, and so does its fit, though it shares what is compiled
    with those that the same process has fitted before it: for any number of processes from 2 it is the same; one alone
    has all threads, whose sums are rounded in another order. With `share=False` each mock has a process and a `Fitter`
    of its own, which costs its compilation.

    Scripts that call this keep what they do under `if __name__ == "__main__"`, for child processes import them.

    Args:
        plan: of the calibration.
        n: number of mocks.
        folder: for the results; made if missing.
        tell: called with each result as soon as there is one, and whether it was kept from an earlier call.
        processes: mocks fitted at a time.
        memory: GB that a process may hold after a mock, or it is replaced.
        share: whether mocks share what is compiled.
        start: called in each process with the plan (without its stamps) and the number of threads; returns what fits
            a mock.

    Returns:
        The results, in the order of the mocks: of `tflens.inference.calibration.compare`, with `index`, `made_with` and
        `commit`; or with `no_fit`, the reason, instead of a fit.

    Raises:
        ParameterError: the folder holds a result of another plan, or lenstronomy is to draw and not installed; nothing
            has been done then.
        KeyboardInterrupt: as it came. No process is left, and finished mocks are kept.
    """
    from tflens.inference.calibration import chosen_stamp, mock_name
    from tflens.run import commit

    if plan.shot_by == "lenstronomy":
        from tflens.inference.lenstronomy_mocks import require_lenstronomy

        require_lenstronomy()
    folder.mkdir(parents=True, exist_ok=True)
    made_with = plan.made_with()
    results: list[Result | None] = [_kept(result_file(folder, plan, index), made_with) for index in range(n)]
    for result in filter(None, results):
        tell(result, True)
    stamps = plan.sources.stamps
    tasks = [
        Task(index, None if stamps is None else chosen_stamp(stamps, plan.seed, index))
        for index, result in enumerate(results)
        if result is None
    ]
    bare = replace(plan, sources=replace(plan.sources, stamps=None))
    threads = None if processes == 1 else 1
    about = {"made_with": made_with, "commit": commit()}
    work = partial(_Work, folder, bare, about, partial(start, bare, threads))
    with closing(run_in_workers(work, _batches(tasks, processes, share), processes, memory)) as found:
        for task, outcome in found:
            if isinstance(outcome, Death):
                outcome = outcome.words
            if outcome is None:
                result = _kept(result_file(folder, plan, task.index), made_with)
            else:
                result = {"name": mock_name(plan.seed, task.index), "index": task.index, "no_fit": outcome, **about}
            results[task.index] = result
            tell(result, False)
    return results


def result_file(folder: Path, plan: Plan, index: int) -> Path:
    """Where the result of a mock is kept."""
    return folder / f"{plan.label}-{index:04d}.json"


def same_mocks(plan: Plan, n: int, folder: Path) -> dict[str, list[Result]]:
    """For each source with which all of these n mocks have been fitted into a folder, the results."""
    from tflens.inference.mock_lenses import SOURCES

    found = {}
    for source in SOURCES:
        files = [result_file(folder, replace(plan, source=source), index) for index in range(n)]
        if not all(file.exists() for file in files):
            continue
        results = [json.loads(file.read_text()) for file in files]
        mocks = plan.made_with()["mocks"]
        if all(result["made_with"]["mocks"] == mocks for result in results):
            found[source] = results
    return found


def keep(path: Path, results: Sequence[Result]) -> None:
    """Writes results of one plan to a file of JSON lines, from which `resume` goes on elsewhere.

    The first line has what they share, `made_with`; then each mock has one, its numbers with seven digits.
    """
    lines = [{"made_with": results[0]["made_with"]}]
    lines += [_rounded({key: value for key, value in result.items() if key != "made_with"}) for result in results]
    text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda temporary: temporary.write_text(text))


def resume(path: Path, plan: Plan, folder: Path) -> int:
    """Puts the mocks that have a fit in a file of `keep` into a folder, where `fit_mocks` finds them.

    Results that are in the folder already stay as they are.

    Returns:
        How many were put there.

    Raises:
        ParameterError: the file cannot be read, is none of `keep`, or is of another plan.
    """
    try:
        head, *results = [json.loads(line) for line in path.read_text().splitlines()]
        made_with = head["made_with"]
        indices = [int(result["index"]) for result in results]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ParameterError(
            f"{path} cannot be read as kept results of tflens calibrate ({type(error).__name__}: {error})"
        ) from None
    _check(path, made_with, plan.made_with())
    folder.mkdir(parents=True, exist_ok=True)
    put = 0
    for index, result in zip(indices, results, strict=True):
        file = result_file(folder, plan, index)
        if "no_fit" not in result and not file.exists():
            _write(file, {**result, "made_with": made_with})
            put += 1
    return put


class _Work:
    """A worker's task: a file with the mock's result, or words on why there is none."""

    def __init__(self, folder: Path, plan: Plan, about: Mapping[str, Any], start: Callable[[], Any]) -> None:
        self._folder, self._plan, self._about, self._fit = folder, plan, about, start()

    def __call__(self, task: Task) -> str | None:
        file = result_file(self._folder, self._plan, task.index)
        if file.exists():  # a worker died of something else, after its fit
            return None
        report = file.with_suffix(".error.txt")
        try:
            result = self._fit(task)
        except Exception as error:  # which counts as a failure of the fit
            write_atomically(report, lambda path: path.write_text(traceback.format_exc()))
            return f"{type(error).__name__}: {error} (see {report.name})"
        _write(file, {**result, "index": task.index, **self._about})
        report.unlink(missing_ok=True)
        return None


def _batches(tasks: Sequence[Task], processes: int, share: bool) -> list[Sequence[Task]]:
    """What each worker fits: in turns, so that a calibration that is stopped has the first mocks."""
    if not share:
        return [[task] for task in tasks]
    workers = min(len(tasks), max(processes, -(-len(tasks) // MOCKS_PER_WORKER)))
    return [tasks[first::workers] for first in range(workers)]


def _kept(file: Path, made_with: Mapping[str, Any]) -> Result | None:
    if not file.exists():
        return None
    found = json.loads(file.read_text())
    _check(file, found.get("made_with", {}), made_with)
    return found


def _check(file: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    differing = [name for name, value in wanted.items() if found.get(name) != value]
    if differing:
        raise ParameterError(
            f"{file} is of other fits: what they were made with differs in {', '.join(differing)}. It can only be gone "
            "on with by the same galaxy model, settings and mocks; else take another folder, or remove the file."
        )


def _write(file: Path, result: Result) -> None:
    write_atomically(file, lambda temporary: temporary.write_text(json.dumps(result, indent=1) + "\n"))


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}")
    if isinstance(value, dict):
        return {name: _rounded(each) for name, each in value.items()}
    return [_rounded(each) for each in value] if isinstance(value, list) else value
