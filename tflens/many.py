"""Many fits, in processes that may die: finished ones are kept, bad input is reported and skipped."""

import hashlib
import os
import shutil
import traceback
import uuid
import warnings
from array import array
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tflens.catalogue import Entry
from tflens.config import Input, RunConfig
from tflens.disk import locked, make_writable, storage_cause, telling_of_full_disks
from tflens.errors import ParameterError, StorageError, TflensError
from tflens.files import move_whole, remove_leftovers, write_atomically
from tflens.outcomes import PARQUET, SUMMARY, Outcome, Outcomes, read_summary, row_of
from tflens.run import Job, execute, make_fitter, prepare
from tflens.workers import ATTEMPTS, MEMORY, Death, run_in_workers, start_tensorflow, threads_each

if TYPE_CHECKING:
    from tflens.inference.pipeline import Fitter
    from tflens.observation import Observation

LENSES_PER_WORKER = 100
"""How many lenses of one shape are fitted by one process, before another takes over."""

CENTER_STEP = 0.02
"""Lenses share a default model if their centres, in x and y, round to the same multiple of this, arcsec. So its prior
lies at most a fifth of the standard deviation of the mass's centre, 0.05 arcsec, from where a lens alone would have it,
which moves a centre that is known to 0.01 arcsec by 0.04 of that."""


LENSES_AT_A_TIME = 1000
"""So many lenses, or two batches for every worker, are looked at to find those that share, before the next ones."""


class Engine(Protocol):
    """Who runs the tasks: as `tflens.workers.run_in_workers`, which see."""

    def __call__(
        self,
        start: Callable[[], Callable[[Any], Any]],
        batches: Iterator[Sequence[Any]],
        processes: int,
        memory: float,
        attempts: int,
    ) -> Iterator[tuple[Any, Any]]: ...


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
    attempts: int = ATTEMPTS,
    threads: int | None = None,
    parquet: bool = False,
    start: Callable[[int | None], Callable[[Job], object]] = LensFits,
    engine: Engine = run_in_workers,
) -> Outcomes:
    """Fits every lens of a catalogue, and writes `folder/NAME/` for each and `folder/summary.csv` for all.

    Lenses are fitted in worker processes, which give their memory back when they end: one for each lens, or for up to
    `LENSES_PER_WORKER` lenses that share what is compiled. Those that share have images of one shape, pixel scale and
    PSF, and one model: that of `tables`, or the default model where their centres agree (see `CENTER_STEP`). They are
    fitted over the whole image, and with pixels sampled more coarsely than a lens by itself: see
    `tflens.inference.pipeline.Fitter`. The `config.json` of each tells, and repeats, how it was fitted.

    A lens's folder appears when its fit is complete, so that a call that was killed loses the lenses in work at most;
    those that are there are not fitted again. The table is written anew after every lens, its rows in the order of the
    catalogue; one of more than a hundred rows, as often as that takes a twentieth of the time, and at the end. A worker
    that dies is replaced; the lens it was at is tried again, `attempts` times in all.

    The memory that this takes does not grow with the catalogue, but for some ten bytes a lens: see
    `tflens.outcomes.Outcomes`.

    Scripts that call this keep what they do under `if __name__ == "__main__"`, for child processes import them.

    Args:
        entries: from `tflens.catalogue.read_catalogue`.
        folder: for the results; made if missing. With an engine of several machines, one that all of them have.
        source: of every lens, "neural" or "sersic".
        settings: arguments of `FitSettings`.
        tell: called with each outcome as soon as there is one: kept lenses first.
        tables: of a model of one's own, as `RunConfig` takes them, instead of `source`.
        processes: lenses fitted at a time.
        share: whether lenses may share what is compiled.
        memory: GB that a process may hold after a lens, or it is replaced.
        attempts: how many workers may die of a lens before it is given up.
        threads: of TensorFlow in every worker; None divides this machine's among them.
        parquet: whether to write the table as `folder/summary.parquet` as well.
        start: called in each process with the number of threads; returns what fits a lens.
        engine: who runs the workers: `tflens.workers.run_in_workers`, in child processes of this one, or
            `tflens.ray_workers.run_on_ray`.

    Returns:
        The outcomes, in the order of the catalogue.

    Raises:
        ParameterError: the folder is written to by another call, or holds fits of other input, model or settings, or
            one that is damaged; nothing has been done then.
        StorageError: the folder cannot be written to, or the disk is full: finished lenses are kept.
        KeyboardInterrupt: as it came. No process is left, and finished lenses are kept.
    """
    folder = folder.resolve()  # for workers that are elsewhere
    make_writable(folder)
    kept_words = "Finished lenses are kept."
    with locked(folder), telling_of_full_disks(folder, kept_words):
        _remove_leftovers(folder)
        outcomes = Outcomes(folder, len(entries), parquet)

        def configure(entry: Entry) -> RunConfig:
            return RunConfig(entry.input.absolute(), source, dict(settings or {}), tables=tables)

        new = array("q")
        for index, entry in enumerate(entries):
            if (kept := _kept(folder / entry.name, configure(entry))) is None:
                new.append(index)
            else:
                outcomes.settle(index, kept)
        outcomes.write_tables()
        for kept in outcomes:
            tell(kept)

        def settle(index: int, outcome: Outcome) -> None:
            outcomes.settle(index, outcome)
            outcomes.write_tables_in_time()
            tell(outcome)

        def refuse(lens: _Lens, words: str) -> None:
            settle(lens.index, Outcome(lens.name, "refused", words))

        lenses = (_Lens(index, entries[index].name, configure(entries[index])) for index in new)
        batches = _batches(lenses, processes, share, refuse)
        work = partial(_Fits, folder, partial(start, threads_each(processes) if threads is None else threads))
        try:
            with closing(engine(work, batches, processes, memory, attempts)) as found:
                for lens, outcome in found:
                    if isinstance(outcome, Death):
                        outcome = Outcome(lens.name, "failed", outcome.words)
                    elif outcome is None:
                        outcome = Outcome(lens.name, "fitted", *_results(folder / lens.name))
                    settle(lens.index, outcome)
        finally:
            _remove_leftovers(folder)  # of workers that died or were killed
            outcomes.write_tables()
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
        report = self._folder / f"{lens.name}.error.txt"
        try:
            self._fit(prepare(lens.config, work, note=_unheard))
            _put(work, place)
        except StorageError:  # of all lenses: none can be kept any more
            shutil.rmtree(work, ignore_errors=True)
            raise
        except TflensError as error:
            shutil.rmtree(work, ignore_errors=True)
            return Outcome(lens.name, "refused", str(error))
        except Exception as error:  # one lens must not end the night of all others
            shutil.rmtree(work, ignore_errors=True)
            if storage_cause(error) is not None:
                raise
            write_atomically(report, lambda path: path.write_text(traceback.format_exc()))
            return Outcome(lens.name, "failed", f"{type(error).__name__}: {error} (see {report.name})")
        report.unlink(missing_ok=True)
        return None


def _in_work(folder: Path, name: str) -> Path:
    """A folder that nobody else has: the worker before may be cut off, though not dead, and still write to its own."""
    return folder / f".{name}.{uuid.uuid4().hex[:8]}{_IN_WORK}"


def _put(work: Path, place: Path) -> None:
    """Makes a complete folder that of the lens, unless another worker was faster: then there is a complete one."""
    try:
        move_whole(work, place)
    except OSError:
        if not place.exists():
            raise
        shutil.rmtree(work, ignore_errors=True)


_IN_WORK = ".in-work"


def _remove_leftovers(folder: Path) -> None:
    """Of workers that were killed, and of those that write the tables."""
    with os.scandir(folder) as found:
        stale = [entry.path for entry in found if entry.name.startswith(".") and entry.name.endswith(_IN_WORK)]
    for place in stale:
        shutil.rmtree(place, ignore_errors=True)
    remove_leftovers(folder, (SUMMARY, PARQUET, "*.error.txt"))


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


def _batches(
    lenses: Iterator[_Lens], processes: int, share: bool, refuse: Callable[[_Lens, str], None]
) -> Iterator[list[_Lens]]:
    """What each worker fits: lenses that share, evenly for all processes, or one lens by itself.

    The files of some lenses are read, to find those that share, while workers are at those before them.
    """
    while some := list(islice(lenses, max(LENSES_AT_A_TIME, 2 * LENSES_PER_WORKER * processes))):
        likenesses = {}
        for lens in some:
            try:
                likenesses[lens] = _likeness(lens.config)
            except TflensError as error:
                refuse(lens, str(error))
        yield from _alike(likenesses, processes, share)


def _alike(likenesses: Mapping[_Lens, Hashable], processes: int, share: bool) -> Iterator[list[_Lens]]:
    alike: dict[Hashable, list[_Lens]] = {}
    for lens, likeness in likenesses.items():
        alike.setdefault(likeness if share else lens, []).append(lens)
    for likeness, lenses in alike.items():
        if len(lenses) == 1:
            yield lenses
            continue
        center = likeness[-1]
        shared = {} if center is None else {"center": list(center)}
        lenses = [replace(lens, config=replace(lens.config, shared=shared)) for lens in lenses]
        size = min(LENSES_PER_WORKER, max(2, -(-len(lenses) // processes)))
        yield from (lenses[first : first + size] for first in range(0, len(lenses), size))


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
            f"{place}: holds a fit with a different {', '.join(differing)}. Choose another output folder, or remove it."
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

    try:
        summary = read_summary(place)
        words = verdict([Finding(**found) for found in summary["check"]])
        row_of(Outcome(place.name, "kept", words, summary))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ParameterError(
            f"{place / 'summary.json'}: cannot be read as the summary of a fit ({type(error).__name__}: {error}). "
            f"Remove {place}, and the lens is fitted again."
        ) from None
    return words, summary
