"""Work shared out to the actors of a Ray cluster, which may die: as `tflens.workers` does it on one machine."""

import os
import socket
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tflens.errors import ParameterError, TflensError
from tflens.workers import ATTEMPTS, MEMORY, Death, Performer, Work

PATIENCE = 300.0
"""Seconds that a cluster may be without a node for a worker, before its work is given up."""


def run_on_ray(
    start: Callable[[], Work],
    batches: Iterable[Sequence[Any]],
    processes: int = 1,
    memory: float = MEMORY,
    attempts: int = ATTEMPTS,
    *,
    cpus: int = 1,
    address: str | None = None,
) -> Iterator[tuple[Any, Any]]:
    """Pairs of task and result, in the order in which they are finished: as `tflens.workers.run_in_workers`.

    Each batch has an actor of its own, which does its tasks one after another and ends with the last, so that what it
    has compiled for the first one serves them all. An actor that dies, with its node or by itself, is replaced, on any
    node: the task that it was at is done again, and given up after a few attempts. One on a node that is cut off may go
    on with its task for a while: what tasks write must bear that.

    Args:
        start: called in every actor before its first task; returns what does a task. The module it comes from is
            imported there: what the driver has, the nodes need to have as well.
        batches: of tasks, taken one ahead of the actors.
        processes: how many actors there are at a time; those for which no node has room wait for one.
        memory: GB; an actor that holds more after a task is replaced.
        attempts: how many actors may die of a task.
        cpus: that an actor takes of its node.
        address: as for `connected`.

    Yields:
        Every task with its result, or with a `Death`.

    Raises:
        ParameterError: Ray is not installed, or there is no such cluster.
        TflensError: no node has had as many CPUs for some minutes.
        Exception: one that a task raised; everything else is given up then.
    """
    with connected(address, processes * cpus):
        import ray

        crew = _Crew(start, cpus, memory * 1e9, attempts)
        source = iter(batches)
        ahead = next(source, None)
        last_seen = time.monotonic()
        try:
            while True:
                while ahead is not None and len(crew.at_work) < processes:
                    crew.begin(ahead)
                    ahead = next(source, None)  # while the actors are at work
                if not crew.at_work:
                    return
                finished, _ = ray.wait(list(crew.at_work), num_returns=1, timeout=_LOOK_EVERY)
                for call in finished:
                    if (done := crew.take(call)) is not None:
                        yield done
                if finished or ray.cluster_resources().get("CPU", 0) >= cpus:
                    last_seen = time.monotonic()
                elif time.monotonic() - last_seen > PATIENCE:
                    raise TflensError(
                        f"the Ray cluster has had no node with {cpus} CPUs for {PATIENCE:.0f} s. What is finished is "
                        "kept; mend the cluster, and give the same command again"
                    )
        finally:
            crew.stop()


@contextmanager
def connected(address: str | None = None, cpus: int | None = None) -> Iterator[int]:
    """The CPUs of a Ray cluster, which one is connected to meanwhile; of the one that one is connected to already.

    Args:
        address: of the cluster, `HOST:6379` say, or "auto" for one that this machine is part of; None starts one on
            this machine.
        cpus: of the one on this machine; None counts them.

    Raises:
        ParameterError: Ray is not installed, or there is no cluster at the address.
    """
    # For what Ray starts on this machine: neither reports of its use, nor warnings of its future.
    for name in ("RAY_USAGE_STATS_ENABLED", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"):
        os.environ.setdefault(name, "0")
    try:
        import ray
    except ImportError:
        raise ParameterError("the engine ray needs Ray, which is not installed: pip install 'tflens[ray]'") from None
    if ray.is_initialized():
        yield int(ray.cluster_resources().get("CPU", 0))
        return
    here = {"num_cpus": cpus, "include_dashboard": False} if address is None else {"address": address}
    _check_listening(address)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            ray.init(**here, log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise ParameterError(
                f"--address {address}: must be that of a Ray cluster, but none can be reached there ({error})"
            ) from None
    try:
        yield int(ray.cluster_resources().get("CPU", 0))
    finally:
        ray.shutdown()


class _Crew:
    """The actors that are alive: for each call that one is at, its batch."""

    def __init__(self, start: Callable[[], Work], cpus: int, most_bytes: float, attempts: int) -> None:
        import ray

        self.at_work: dict[Any, _Batch] = {}
        self._actor = ray.remote(num_cpus=cpus, max_restarts=0, max_task_retries=0)(Performer)
        self._start, self._most_bytes, self._attempts = start, most_bytes, attempts

    def begin(self, tasks: Sequence[Any]) -> None:
        if tasks:
            self._next(_Batch(tasks))

    def take(self, call: Any) -> tuple[Any, Any] | None:
        """A task and its result from a call that has ended, unless it is to be tried again; the actor goes on."""
        import ray
        from ray import exceptions

        batch, used_bytes = self.at_work.pop(call), 0.0
        try:
            result, failure, used_bytes = ray.get(call)
        except (
            exceptions.RayActorError,
            exceptions.WorkerCrashedError,
            exceptions.NodeDiedError,
            exceptions.OutOfMemoryError,
            exceptions.ObjectLostError,
        ) as death:
            self._dismiss(batch)
            words, failure = f"{_cause(death)} (attempt {batch.attempt} of {self._attempts})", None
            if batch.attempt < self._attempts:
                self._try(batch)
                return None
            result = Death(words)
        if failure is not None:
            raise failure
        task = batch.tasks.popleft()
        if used_bytes > self._most_bytes or not batch.tasks:
            self._dismiss(batch)
        if batch.tasks:
            self._next(batch)
        return task, result

    def stop(self) -> None:
        for batch in self.at_work.values():
            self._dismiss(batch)
        self.at_work.clear()

    def _next(self, batch: "_Batch") -> None:
        batch.attempt = 0
        self._try(batch)

    def _try(self, batch: "_Batch") -> None:
        batch.attempt += 1
        batch.actor = batch.actor or self._actor.remote(self._start)
        self.at_work[batch.actor.do.remote(batch.tasks[0])] = batch

    def _dismiss(self, batch: "_Batch") -> None:
        import ray

        if batch.actor is not None:
            ray.kill(batch.actor)
            batch.actor = None


class _Batch:
    def __init__(self, tasks: Sequence[Any]) -> None:
        self.tasks, self.actor, self.attempt = deque(tasks), None, 0


def _check_listening(address: str | None) -> None:
    """Tells at once what Ray itself tells after minutes.

    Raises:
        ParameterError: nobody listens there.
    """
    host, colon, port = (address or "").rpartition(":")
    if not colon or "/" in host or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise ParameterError(
            f"--address {address}: must be that of the head of a Ray cluster, but nobody answers there "
            f"({error.strerror or error}). Start one with `ray start --head`, or mend the address."
        ) from None


_LOOK_EVERY = 30.0  # seconds without news, after which one looks whether the cluster is still there


def _cause(death: Exception) -> str:
    """Ray's account of a death, without the advice that comes after it."""
    lines = [line.strip() for line in str(death).splitlines() if line.strip()]
    telling = [line for line in lines if "died" in line or "cause" in line.lower() or "killed" in line]
    return f"the worker died: {(telling or lines or [type(death).__name__])[0]}"
