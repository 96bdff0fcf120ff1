"""Work shared out to child processes, which may die: what one was at when it died is given to another, a few times."""

import multiprocessing
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from threadpoolctl import threadpool_limits

from tflens.quiet import import_tensorflow_quietly

Work = Callable[[Any], Any]

MEMORY = 6.0
"""GB that a worker may hold on to, by default: it is replaced after the task with which it holds more."""

# TensorFlow's threads do not survive a fork.
_SPAWN = multiprocessing.get_context("spawn")

ATTEMPTS = 2
"""How many workers may die of a task, by default, before it is given up."""


@dataclass(frozen=True)
class Death:
    """What came of a task whose workers all died of it.

    Attributes:
        words: what they died of, the last one at least.
    """

    words: str


def run_in_workers(
    start: Callable[[], Work],
    batches: Iterable[Sequence[Any]],
    processes: int = 1,
    memory: float = MEMORY,
    attempts: int = ATTEMPTS,
) -> Iterator[tuple[Any, Any]]:
    """Pairs of task and result, in the order in which they are finished.

    Each batch has a worker of its own, a process that does its tasks one after another and ends with the last. A worker
    that dies is replaced: the task that it was at is done again by its successor, and given up after a few attempts. If
    whoever iterates stops, or is interrupted, the workers are killed; if its process is killed, they end by themselves.

    Args:
        start: called in every worker before its first task; returns what does a task. It and its results are pickled,
            and the module it comes from is imported by the workers.
        batches: of tasks; each one's in order, the first batches first. They are taken one ahead of the workers, by the
            one who iterates, so that there may be more of them than memory holds.
        processes: how many workers there are at a time, from 1.
        memory: GB; a worker that holds more after a task is replaced. Only Linux tells; elsewhere there is no limit.
        attempts: how many workers may die of a task, from 1.

    Yields:
        Every task with its result, or with a `Death`.

    Raises:
        Exception: one that a task raised; everything else is given up then.

    Example:
        >>> from contextlib import closing
        >>> with closing(run_in_workers(lambda: abs, batches=[])) as found:
        ...     list(found)
        []
    """
    crew = _Crew(start, memory * 1e9, attempts)
    source, begun, more = iter(batches), 0, True
    with ThreadPoolExecutor(processes, initializer=_leave_interrupts_to_the_main_thread) as threads:
        try:
            while True:
                while more and begun <= processes:  # one more than there are workers: none has to wait for it
                    batch = next(source, None)
                    if batch is None:
                        more = False
                        break
                    threads.submit(crew.work_through, batch)
                    begun += 1
                if not begun:
                    return
                found = crew.done.get()
                if found is _BATCH_DONE:
                    begun -= 1
                elif isinstance(found, Exception):
                    raise found
                else:
                    yield found
        finally:
            crew.stop()
            threads.shutdown(cancel_futures=True)


def threads_each(processes: int) -> int | None:
    """Threads of each of several workers that divide the machine; None, TensorFlow's own choice, for one alone.

    Example:
        >>> threads_each(1) is None
        True
        >>> threads_each(10**6)
        1
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return None if processes == 1 else max(1, cores // processes)


def start_tensorflow(threads: int | None) -> None:
    """For the start of a worker: TensorFlow with so many threads, and warnings kept for the one who started it.

    NumPy's and SciPy's linear algebra gets as many: its threads wait for each other busily, and where
    several workers have more of them than there are cores, they keep each other from working.
    """
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    import_tensorflow_quietly()
    import tensorflow as tf

    if threads is not None:
        import scipy.linalg  # noqa: F401 (a pool of threads can be limited once it is there)

        threadpool_limits(threads)
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)


class _Crew:
    """The workers that are alive; a thread looks after each of them."""

    def __init__(self, start: Callable[[], Work], most_bytes: float, attempts: int) -> None:
        self.done: SimpleQueue[Any] = SimpleQueue()
        self._start, self._most_bytes, self._attempts = start, most_bytes, attempts
        self._lock, self._workers, self._stopped = threading.Lock(), set(), False

    def work_through(self, tasks: Sequence[Any]) -> None:
        worker: _Worker | None = None
        try:
            for task in tasks:
                for attempt in range(1, self._attempts + 1):
                    try:
                        worker = worker or self._hire()
                        result, used_bytes = worker.do(task)
                        break
                    except _Died as death:
                        worker, used_bytes = self._dismiss(worker), 0
                        result = Death(f"{death} (attempt {attempt} of {self._attempts})")
                self.done.put((task, result))
                if used_bytes > self._most_bytes:
                    worker = self._dismiss(worker)
        except _Stopped:
            pass
        except Exception as error:
            self.done.put(error)
        finally:
            self._dismiss(worker)
            self.done.put(_BATCH_DONE)

    def stop(self) -> None:
        """Kills all workers; there will be no others."""
        with self._lock:
            self._stopped = True
            for worker in self._workers:
                worker.kill()

    def _hire(self) -> "_Worker":
        with self._lock:
            if self._stopped:
                raise _Stopped
            worker = _Worker(self._start)
            self._workers.add(worker)
        return worker

    def _dismiss(self, worker: "_Worker | None") -> None:
        if worker is not None:
            worker.end()
            with self._lock:
                self._workers.discard(worker)


class _Worker:
    def __init__(self, start: Callable[[], Work]) -> None:
        self._connection, theirs = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=_serve, args=(theirs, start), daemon=True)
        try:
            self._process.start()
        except OSError as error:
            self._connection.close()
            raise _Died(f"no process could be started ({error.strerror})") from None
        finally:
            theirs.close()  # so that its end is told by the end of the connection

    def do(self, task: Any) -> tuple[Any, int]:
        """The result, and the bytes that the process holds after it."""
        try:
            self._connection.send(task)
            result, error, used_bytes = self._connection.recv()
        except (EOFError, OSError):
            self._process.join()
            raise _Died(_cause(self._process.exitcode)) from None
        if error is not None:
            raise error
        return result, used_bytes

    def end(self) -> None:
        self._connection.close()
        self._process.join(_PATIENCE)
        self.kill()
        self._process.join()

    def kill(self) -> None:
        self._process.kill()


class _Died(Exception):
    pass


class _Stopped(Exception):
    pass


_BATCH_DONE = object()
_PATIENCE = 10.0  # seconds for an idle process to end by itself


class Performer:
    """What is in a worker, whoever brings it its tasks: the work, begun before the first of them."""

    def __init__(self, start: Callable[[], Work]) -> None:
        self._start, self._work = start, None

    def do(self, task: Any) -> tuple[Any, Exception | None, int]:
        """Result, or error, of a task; and the bytes that the process holds after it."""
        result = failure = None
        try:
            self._work = self._work or self._start()
            result = self._work(task)
        except Exception as error:
            error.add_note(f"in a worker:\n{traceback.format_exc()}")
            failure = error
        return result, failure, resident_bytes()


def _serve(connection: Any, start: Callable[[], Work]) -> None:
    """The life of a worker."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    performer = Performer(start)
    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        connection.send(performer.do(task))


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


def _leave_interrupts_to_the_main_thread() -> None:
    """Ctrl-C goes to every process of the terminal; workers inherit this mask from the first moment on."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


def resident_bytes() -> int:
    """Memory that this process holds; 0 where the system does not tell.

    Example:
        >>> resident_bytes() >= 0
        True
    """
    try:
        pages = Path("/proc/self/statm").read_text().split()[1]
    except OSError:
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def _cause(exit_code: int) -> str:
    if exit_code >= 0:
        return f"the process ended with exit code {exit_code}"
    name = signal.Signals(-exit_code).name
    hint = ", as the system does when memory runs out" if name == "SIGKILL" else ""
    return f"the process was ended by {name}{hint}"
