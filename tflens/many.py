"""Many fits, in processes that may die: finished ones are kept, bad input is reported and skipped."""

import csv
import hashlib
import shutil
import traceback
import warnings
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tflens.catalogue import Entry
from tflens.config import Input, RunConfig
from tflens.errors import ParameterError, TflensError
from tflens.files import parse_json, write_atomically
from tflens.run import Job, execute, make_fitter, prepare
from tflens.workers import MEMORY, Death, run_in_workers, start_tensorflow, threads_each

if TYPE_CHECKING:
    from tflens.inference.pipeline import Fitter
    from tflens.observation import Observation

SUMMARY = "summary.csv"
"""The table of all lenses, in the folder of the results."""

LENSES_PER_WORKER = 25
"""How many lenses of one shape are fitted by one process, before another takes over."""

CENTER_STEP = 0.02
"""Lenses share a default model if their centres, in x and y, round to the same multiple of this, arcsec. So its prior
lies at most a fifth of the standard deviation of the mass's centre, 0.05 arcsec, from where a lens alone would have it,
which moves a centre that is known to 0.01 arcsec by 0.04 of that."""


@dataclass(frozen=True)
class Outcome:
    """What became of one lens.

    Attributes:
        name: of the lens, and of the folder with its results.
        status: "fitted" now; "kept" from an earlier call; "refused", its input cannot be right; "failed", an error of
            the fit itself, or the death of its process.
        words: the verdict on the fit, or the error.
        summary: content of the fit's `summary.json`, None without a fit.
    """

    name: str
    status: Literal["fitted", "kept", "refused", "failed"]
    words: str
    summary: Mapping[str, Any] | None = None


class LensFits:
    """What a worker does with its lenses, which are of one shape if they share: the first one's programs are kept.

    Args:
        threads: of TensorFlow; None leaves them to it.
    """

    def __init__(self, threads: int | None = None) -> None:
        start_tensorflow(threads)
        self._fitter: Fitter | None = None

    def __call__(self, job: Job) -> None:
        """Fits, and writes the results to the job's folder."""
        if job.config.shared is None:
            execute(job, tensorboard=False, note=_unheard)
            return
        fitter, self._fitter = self._fitter or make_fitter(job.observation, job.config), None
        execute(job, tensorboard=False, note=_unheard, fitter=fitter)
        self._fitter = fitter  # not after an error, which may have left it half changed


def fit_many(
    entries: Sequence[Entry],
    folder: Path,
    source: str = "neural",
    settings: Mapping[str, int] | None = None,
    tell: Callable[[Outcome], None] = lambda outcome: None,
    tables: Mapping[str, Any] | None = None,
    *,
    processes: int = 1,
    share: bool = True,
    memory: float = MEMORY,
    start: Callable[[int | None], Callable[[Job], object]] = LensFits,
) -> list[Outcome]:
    """Fits every lens of a catalogue, and writes `folder/NAME/` for each and `folder/summary.csv` for all.

    Lenses are fitted in child processes, which give their memory back when they end: one for each lens, or for up to
    `LENSES_PER_WORKER` lenses that share what is compiled. Those that share have images of one shape, pixel scale and
    PSF, and one model: that of `tables`, or the default model where their centres agree (see `CENTER_STEP`). They are
    fitted over the whole image, and with pixels sampled more coarsely than a lens by itself: see
    `tflens.inference.pipeline.Fitter`. The `config.json` of each tells, and repeats, how it was fitted.

    A lens's folder appears when its fit is complete, so that a call that was killed loses the lenses in work at most;
    those that are there are not fitted again. The table is written anew after every lens, its rows in the order of the
    catalogue. A process that dies is replaced; the lens it was at is tried once more.

    Scripts that call this keep what they do under `if __name__ == "__main__"`, for child processes import them.

    Args:
        entries: from `tflens.catalogue.read_catalogue`.
        folder: for the results; made if missing.
        source: of every lens, "neural" or "sersic".
        settings: arguments of `FitSettings`.
        tell: called with each outcome as soon as there is one: kept and refused lenses first.
        tables: of a model of one's own, as `RunConfig` takes them, instead of `source`.
        processes: lenses fitted at a time; TensorFlow's threads are divided among them.
        share: whether lenses may share what is compiled.
        memory: GB that a process may hold after a lens, or it is replaced.
        start: called in each process with the number of threads; returns what fits a lens.

    Returns:
        The outcomes, in the order of the catalogue.

    Raises:
        ParameterError: the folder cannot be written to, or holds fits of other input, model or settings, or one that is
            damaged; nothing has been done then.
        KeyboardInterrupt: as it came. No process is left, and finished lenses are kept.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ParameterError(
            f"{folder}: the output folder cannot be made ({error.strerror}). Choose another."
        ) from None
    configs = [RunConfig(entry.input, source, dict(settings or {}), tables=tables) for entry in entries]
    outcomes = [_kept(folder / entry.name, config) for entry, config in zip(entries, configs, strict=True)]

    def settle(index: int, outcome: Outcome) -> None:
        outcomes[index] = outcome
        _write(folder / SUMMARY, outcomes)
        tell(outcome)

    for outcome in filter(None, outcomes):
        tell(outcome)
    _write(folder / SUMMARY, outcomes)
    new = [_Lens(i, entries[i].name, configs[i]) for i, outcome in enumerate(outcomes) if outcome is None]
    likenesses = {}
    for lens in new:
        try:
            likenesses[lens] = _likeness(lens.config)
        except TflensError as error:
            settle(lens.index, Outcome(lens.name, "refused", str(error)))
    batches = _batches(likenesses, processes, share)
    work = partial(_Fits, folder, partial(start, threads_each(processes)))
    try:
        with closing(run_in_workers(work, batches, processes, memory)) as found:
            for lens, outcome in found:
                if isinstance(outcome, Death):
                    outcome = Outcome(lens.name, "failed", outcome.words)
                elif outcome is None:
                    outcome = Outcome(lens.name, "fitted", *_results(folder / lens.name))
                settle(lens.index, outcome)
    finally:
        for lens in new:
            shutil.rmtree(_in_work(folder, lens.name), ignore_errors=True)  # of a process that died or was killed
    return outcomes


@dataclass(frozen=True, eq=False)
class _Lens:
    """What a worker is given, with its place in the catalogue."""

    index: int
    name: str
    config: RunConfig


class _Fits:
    """A worker's task: a lens's folder of results, or the outcome without one."""

    def __init__(self, folder: Path, start: Callable[[], Callable[[Job], object]]) -> None:
        self._folder, self._fit = folder, start()

    def __call__(self, lens: _Lens) -> Outcome | None:
        place, work = self._folder / lens.name, _in_work(self._folder, lens.name)
        if place.exists():  # a worker died of something else, after its fit
            return None
        shutil.rmtree(work, ignore_errors=True)  # of a process that was killed
        report = self._folder / f"{lens.name}.error.txt"
        try:
            self._fit(prepare(lens.config, work, note=_unheard))
            work.rename(place)
        except TflensError as error:
            shutil.rmtree(work, ignore_errors=True)
            return Outcome(lens.name, "refused", str(error))
        except Exception as error:  # one lens must not end the night of all others
            shutil.rmtree(work, ignore_errors=True)
            report.write_text(traceback.format_exc())
            return Outcome(lens.name, "failed", f"{type(error).__name__}: {error} (see {report.name})")
        report.unlink(missing_ok=True)
        return None


def _in_work(folder: Path, name: str) -> Path:
    return folder / f".{name}.in-work"


def _unheard(message: str) -> None:
    """What is odd but no error stands in the results."""


def _likeness(config: RunConfig) -> Hashable:
    """Lenses for which this is equal can share what is compiled.

    Raises:
        ObservationError: the input cannot be right.
    """
    from tflens.inference.initial import find_center

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is read once more by the worker
        observation = config.input.read()
    center = None if config.tables is not None else _rounded(find_center(observation))
    return observation.grid, _digest(observation), center


def _digest(observation: "Observation") -> tuple[tuple[int, ...], str]:
    return observation.psf.shape, hashlib.sha256(observation.psf.tobytes()).hexdigest()


def _rounded(center: tuple[float, float]) -> tuple[float, ...]:
    # Adding zero makes -0.0 zero, which it equals but is not written as.
    return tuple(round(CENTER_STEP * round(x / CENTER_STEP), 6) + 0.0 for x in center)


def _batches(likenesses: Mapping[_Lens, Hashable], processes: int, share: bool) -> list[list[_Lens]]:
    """What each worker fits: lenses that share, evenly for all processes, or one lens by itself."""
    alike: dict[Hashable, list[_Lens]] = {}
    for lens, likeness in likenesses.items():
        alike.setdefault(likeness if share else lens, []).append(lens)
    batches = []
    for likeness, lenses in alike.items():
        if len(lenses) == 1:
            batches.append(lenses)
            continue
        center = likeness[-1]
        shared = {} if center is None else {"center": list(center)}
        lenses = [replace(lens, config=replace(lens.config, shared=shared)) for lens in lenses]
        size = min(LENSES_PER_WORKER, max(2, -(-len(lenses) // processes)))
        batches += [lenses[first : first + size] for first in range(0, len(lenses), size)]
    return batches


def _kept(place: Path, config: RunConfig) -> Outcome | None:
    """The outcome of an earlier call, None if there is none."""
    if not place.exists():
        return None
    earlier = RunConfig.load(place / "config.json")
    differing = [name for name, value in config.settings.items() if earlier.settings.get(name) != value]
    if earlier.source != config.source:
        differing.append("source")
    if earlier.tables != config.tables:
        differing.append("model")
    if _digests(config.input) != dict(earlier.input.sha256):
        differing.append("input")
    if differing:
        raise ParameterError(
            f"{place}: holds a fit of another {', '.join(differing)}. Choose another output folder, or remove it."
        )
    return Outcome(place.name, "kept", *_results(place))


def _digests(files: Input) -> Mapping[str, str] | None:
    try:
        return files.with_digests().sha256
    except TflensError:  # a file is not there any more
        return None


def _results(place: Path) -> tuple[str, Mapping[str, Any]]:
    """The verdict on a fit, and its `summary.json`."""
    from tflens.inference.check import Finding, verdict

    path = place / "summary.json"
    try:
        summary = parse_json(path.read_text())
        words = verdict([Finding(**found) for found in summary["check"]])
        _row(Outcome(place.name, "kept", words, summary))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ParameterError(
            f"{path}: cannot be read as the summary of a fit ({type(error).__name__}: {error}). Remove {place}, and "
            "the lens is fitted again."
        ) from None
    return words, summary


def _write(path: Path, outcomes: Iterable[Outcome | None]) -> None:
    """A row for each lens so far: what became of it, median and 68 % interval of every parameter, diagnostics."""
    rows = [_row(outcome) for outcome in outcomes if outcome is not None]
    columns = list(dict.fromkeys(name for row in rows for name in row)) or ["name", "status", "words"]
    write_atomically(path, lambda temporary: _write_rows(temporary, columns, rows))


def _write_rows(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def _row(outcome: Outcome) -> dict[str, Any]:
    row = {"name": outcome.name, "status": outcome.status, "words": outcome.words}
    if outcome.summary is None:
        return row
    for name, parameter in outcome.summary["parameters"].items():
        row |= {f"{name}_{part}": parameter[part] for part in ("median", "low", "high")}
    return row | outcome.summary["diagnostics"] | {"seconds": sum(outcome.summary["seconds"].values())}
