"""Concurrent requests for one signature, computed together."""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np

from tflens.serving.models import Served
from tflens.serving.tensors_json import Arrays, RequestError


@dataclass
class _Piece:
    """At most `max_batch` rows of a request; rows None for one that cannot be joined with others."""

    inputs: Arrays
    rows: int | None
    kind: tuple
    done: asyncio.Future[Arrays] = field(repr=False)


class Batcher:
    """Runs requests on the threads of an executor, those that come within a short time in one call.

    What waits for a thread grows meanwhile, so that a busy server makes larger batches by itself. If a joined call
    fails, its requests are run one by one: none fails for another's fault.

    Args:
        served: the signature.
        executor: of the threads that compute.
        slots: one for each of these threads, shared by all batchers.
        max_batch: rows of a call; larger requests are split. 0 neither joins nor splits.
        window: seconds that the first request waits for others.
        observe: told the rows of every call.
    """

    def __init__(
        self,
        served: Served,
        executor: Executor,
        slots: asyncio.Semaphore,
        max_batch: int = 32,
        window: float = 0.002,
        observe: Callable[[int], None] = lambda rows: None,
    ) -> None:
        self._served, self._executor, self._slots = served, executor, slots
        self._joins = max_batch > 0 and served.has_batch_axis
        self._max_batch, self._window, self._observe = max_batch, window, observe
        self._waiting: deque[_Piece] = deque()
        self._full = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._draining = False

    async def submit(self, inputs: Arrays) -> Arrays:
        """The outputs for one request; what is cancelled before its turn is not computed.

        Raises:
            RequestError: its inputs have neither one nor all of its rows.
            tf.errors.OpError: the signature cannot compute it.
        """
        pieces = [self._piece(part, rows) for part, rows in self._parts(inputs)]
        self._waiting.extend(pieces)
        self._note_length()
        if not self._draining:
            self._draining = True
            self._start(self._drain())
        try:
            results = await asyncio.gather(*(piece.done for piece in pieces))
        finally:
            for piece in pieces:
                if not piece.done.cancel() and not piece.done.cancelled():
                    piece.done.exception()  # of two failures the second one is heard too, or asyncio complains
        if len(results) == 1:
            return results[0]
        return {name: np.concatenate([result[name] for result in results]) for name in results[0]}

    def _parts(self, inputs: Arrays) -> list[tuple[Arrays, int | None]]:
        """A request in parts of at most `max_batch` rows, each with its rows if it can be joined with others."""
        lengths = {value.shape[0] for value in inputs.values()} if self._joins else set()
        n = max(lengths, default=1)
        if not lengths <= {1, n}:
            raise RequestError(f"the inputs have unequal numbers of rows: {sorted(lengths)}")
        if not self._joins:
            return [(inputs, None)]
        parts = []
        for first in range(0, n, self._max_batch):
            last = min(first + self._max_batch, n)
            # One row for many, such as one image for many points, goes with every part.
            part = {name: value[first:last] if len(value) == n else value for name, value in inputs.items()}
            parts.append((part, last - first if len(lengths) == 1 else None))
        return parts

    def _note_length(self) -> None:
        if sum(piece.rows or 1 for piece in self._waiting) >= self._max_batch:
            self._full.set()
        else:
            self._full.clear()

    def _piece(self, inputs: Arrays, rows: int | None) -> _Piece:
        kind = tuple((name, value.shape[1:]) for name, value in sorted(inputs.items()))
        future: asyncio.Future[Arrays] = asyncio.get_running_loop().create_future()
        return _Piece(inputs, rows, kind, future)

    def _start(self, coroutine) -> None:
        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _drain(self) -> None:
        try:
            while self._waiting:
                if self._joins and not self._full.is_set():
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._full.wait(), self._window)
                await self._slots.acquire()
                batch = self._next()
                self._note_length()
                if batch:
                    self._start(self._compute(batch))
                else:
                    self._slots.release()
        finally:
            self._draining = False

    def _next(self) -> list[_Piece]:
        """The oldest piece with those of its kind, in order, as long as they fit."""
        batch: list[_Piece] = []
        others: list[_Piece] = []
        rows = 0
        while self._waiting:
            piece = self._waiting.popleft()
            if piece.done.done():
                continue
            joins = piece.rows is not None and batch and batch[0].rows is not None and piece.kind == batch[0].kind
            if not batch or (joins and rows + piece.rows <= self._max_batch):
                batch.append(piece)
                rows += piece.rows or self._max_batch
                if rows >= self._max_batch:
                    break
            else:
                others.append(piece)
        self._waiting.extendleft(reversed(others))
        return batch

    async def _compute(self, batch: list[_Piece]) -> None:
        try:
            if len(batch) > 1:
                joined = {name: np.concatenate([p.inputs[name] for p in batch]) for name in batch[0].inputs}
                try:
                    rows = sum(piece.rows for piece in batch)
                    outputs = await self._run(joined, rows)
                    if any(value.shape[:1] != (rows,) for value in outputs.values()):
                        raise ValueError("the first axis of the outputs is no batch axis")
                    first = 0
                    for piece in batch:
                        part = {name: value[first : first + piece.rows] for name, value in outputs.items()}
                        first += piece.rows
                        _settle(piece, part)
                    return
                except Exception:  # one of them is at fault, and will be told by itself
                    pass
            for piece in batch:
                if piece.done.done():
                    continue
                try:
                    _settle(piece, await self._run(piece.inputs, piece.rows or 1))
                except Exception as error:
                    _settle(piece, error)
        finally:
            self._slots.release()

    async def _run(self, inputs: Arrays, rows: int) -> Arrays:
        self._observe(rows)
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._served.run, inputs)


def _settle(piece: _Piece, result: Arrays | Exception) -> None:
    if piece.done.done():
        return  # nobody waits any more
    if isinstance(result, Exception):
        piece.done.set_exception(result)
    else:
        piece.done.set_result(result)
