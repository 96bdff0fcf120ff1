"""TensorFlow Serving's REST interface over loaded models.

Addresses, bodies and error bodies are those of TensorFlow Serving, so that its clients work unchanged. Nothing that a
client sends is trusted: sizes, numbers, times and queues have limits, and what is beyond is refused in words.
"""

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import orjson
import tensorflow as tf
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from tflens.errors import ParameterError
from tflens.serving.batching import Batcher
from tflens.serving.models import Model
from tflens.serving.tensors_json import RequestError, answer, parse

_log = logging.getLogger(__name__)

_ANY = ["GET", "POST", "PUT", "PATCH", "DELETE"]


COMPUTING = "tflens-serving-compute"
"""The names of threads that compute begin so."""


@dataclass(frozen=True)
class Limits:
    """What a server takes upon itself.

    Args:
        max_body: bytes of a request (413 above).
        max_rows: rows of a request to a signature with a batch axis (400 above).
        queue: requests in work or waiting (429 above).
        timeout: seconds for a request (504), and for its body to arrive (408).
        max_batch: rows that are computed in one call; 0 neither joins nor splits requests.
        window: seconds that a request waits for others to be computed with.
        workers: calls that are computed at the same time; each uses all cores that TensorFlow may use.

    Raises:
        ParameterError: a number is outside its range.
    """

    max_body: int = 16 * 2**20
    max_rows: int = 1024
    queue: int = 256
    timeout: float = 60.0
    max_batch: int = 32
    window: float = 0.002
    workers: int = 2

    def __post_init__(self) -> None:
        least = {"max_body": 1, "max_rows": 1, "queue": 1, "max_batch": 0, "window": 0, "workers": 1}
        for name, low in least.items():
            if not getattr(self, name) >= low:
                raise ParameterError(f"Limits.{name} must be {low} or more, got {getattr(self, name)!r}")
        if not 0 < self.timeout < float("inf"):
            raise ParameterError(f"Limits.timeout must be positive and finite (seconds), got {self.timeout!r}")

    @property
    def held(self) -> int:
        """Bytes of bodies that are held at the same time (429 above)."""
        return 16 * self.max_body


def make_app(models: Sequence[Model], limits: Limits | None = None) -> Starlette:
    """The ASGI application that serves models; a name without a version means the newest that is given."""
    service = _Service(models, limits or Limits())
    version = "/v1/models/{name}/versions/{version}"
    routes = [
        Route("/healthz", service.health),
        Route("/monitoring/prometheus/metrics", service.metrics),
        *(Route(f"{place}:{{verb}}", service.predict, methods=_ANY) for place in ("/v1/models/{name}", version)),
        *(Route(f"{place}/metadata", service.metadata) for place in ("/v1/models/{name}", version)),
        *(Route(place, service.status) for place in ("/v1/models/{name}", version)),
    ]
    handlers = {RequestError: _on_request_error, HTTPException: _on_http_error, Exception: _on_failure}
    return Starlette(routes=routes, exception_handlers=handlers, lifespan=service.lifespan)


class _Service:
    def __init__(self, models: Sequence[Model], limits: Limits) -> None:
        self._limits = limits
        self._models: dict[str, dict[int, Model]] = {}
        for model in sorted(models, key=lambda each: each.version):
            self._models.setdefault(model.name, {})[model.version] = model
        self._batchers: dict[tuple[str, int, str], Batcher] = {}
        self._requests, self._held = 0, 0
        self._measures = _Measures()

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        limits = self._limits
        # Bodies are read and written beside the computing, not behind it.
        self._computing = ThreadPoolExecutor(limits.workers, COMPUTING)
        self._translating = ThreadPoolExecutor(2, "json")
        slots = asyncio.Semaphore(limits.workers)
        for name, versions in self._models.items():
            for number, model in versions.items():
                for signature, served in model.signatures.items():
                    observe = self._measures.rows.labels(name, signature).observe
                    self._batchers[name, number, signature] = Batcher(
                        served, self._computing, slots, limits.max_batch, limits.window, observe
                    )
        yield
        for executor in (self._computing, self._translating):
            executor.shutdown(wait=False, cancel_futures=True)

    async def health(self, request: Request) -> Response:
        ready = {name: [str(version) for version in versions] for name, versions in self._models.items()}
        return _json({"status": "ok", "models": ready})

    async def metrics(self, request: Request) -> Response:
        return Response(generate_latest(self._measures.registry), media_type=CONTENT_TYPE_LATEST)

    async def status(self, request: Request) -> Response:
        found = self._versions(request)
        state = {"state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        return _json({"model_version_status": [{"version": str(each.version), **state} for each in found]})

    async def metadata(self, request: Request) -> Response:
        model = self._versions(request)[0]
        return _json(
            {
                "model_spec": {"name": model.name, "signature_name": "", "version": str(model.version)},
                "metadata": {"signature_def": {"signature_def": model.signature_def}},
            }
        )

    async def predict(self, request: Request) -> Response:
        if request.method != "POST":
            raise HTTPException(405, headers={"Allow": "POST"})
        name, begun, code = request.path_params["name"], time.perf_counter(), 500
        label = name if name in self._models else ""  # a stranger's words are no labels
        try:
            response = await self._predict(request)
            code = response.status_code
        except RequestError as error:
            code = error.status
            raise
        except ClientDisconnect:
            code = 499
            return Response(status_code=code)  # to nobody
        finally:
            self._measures.requests.labels(label, str(code)).inc()
            self._measures.seconds.labels(label).observe(time.perf_counter() - begun)
        return response

    async def _predict(self, request: Request) -> Response:
        verb = request.path_params["verb"]
        if verb != "predict":
            raise RequestError(f"there is no method {verb[:40]!r}; this server has :predict")
        model = self._versions(request)[0]
        specs = {name: served.inputs for name, served in model.signatures.items()}
        with self._admitted() as hold:
            body = await self._body(request, hold)
            try:
                async with asyncio.timeout(self._limits.timeout):
                    return await self._answer(model, body, specs)
            except TimeoutError:
                raise RequestError(
                    f"Timed out: the request took more than {self._limits.timeout:g} seconds", 504
                ) from None

    async def _answer(self, model: Model, body: bytes, specs: Mapping[str, Any]) -> Response:
        loop = asyncio.get_running_loop()
        asked = await loop.run_in_executor(self._translating, parse, body, specs)
        if self._limits.max_batch and model.signatures[asked.signature].has_batch_axis:
            rows = max((len(value) for value in asked.inputs.values()), default=0)
            if rows > self._limits.max_rows:
                raise RequestError(f"a request may have {self._limits.max_rows} rows at most, got {rows}")
        batcher = self._batchers[model.name, model.version, asked.signature]
        try:
            outputs = await batcher.submit(asked.inputs)
        except tf.errors.OpError as error:
            raise _as_request_error(error) from None
        written = await loop.run_in_executor(self._translating, answer, outputs, asked.by_rows)
        return Response(written, media_type="application/json")

    def _versions(self, request: Request) -> list[Model]:
        """The models of an address, the newest first."""
        name, wanted = request.path_params["name"], request.path_params.get("version")
        found = self._models.get(name, {})
        if wanted is not None:
            # No more digits than int() is willing to read.
            number = int(wanted) if re.fullmatch("[0-9]{1,18}", wanted) else None
            found = {number: found[number]} if number in found else {}
        if not found:
            which = f"Specific({name}, {wanted})" if wanted is not None else f"Latest({name})"
            known = ", ".join(sorted(self._models))
            raise RequestError(f"Servable not found for request: {which[:200]}; the models are: {known}", 404)
        return [found[number] for number in sorted(found, reverse=True)]

    @contextmanager
    def _admitted(self):
        """A place among the requests in work; gives what counts bytes that are held for it."""
        if self._requests >= self._limits.queue:
            raise RequestError(f"the queue is full: {self._limits.queue} requests are in work. Try again later.", 429)
        mine = 0

        def hold(count: int) -> None:
            nonlocal mine
            if self._held + count > self._limits.held:
                raise RequestError("the queue is full: too many bytes are in work. Try again later.", 429)
            mine += count
            self._held += count

        self._requests += 1
        self._measures.in_work.set(self._requests)
        try:
            yield hold
        finally:
            self._requests -= 1
            self._held -= mine
            self._measures.in_work.set(self._requests)

    async def _body(self, request: Request, hold: Callable[[int], None]) -> bytes:
        limit = self._limits.max_body
        chunks: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._limits.timeout):
                async for chunk in request.stream():
                    size += len(chunk)
                    if size <= limit:
                        hold(len(chunk))
                        chunks.append(chunk)
                    elif size > 4 * limit:
                        break  # who still sends does not want to hear
                    # What is a little too large is let in and dropped: a client that sends cannot read a refusal.
        except TimeoutError:
            raise RequestError(f"the body did not arrive within {self._limits.timeout:g} seconds", 408) from None
        if size > limit:
            raise RequestError(f"the body must be no larger than {limit} bytes", 413)
        return b"".join(chunks)


class _Measures:
    """What Prometheus reads; of this server alone."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        of = {"namespace": "tflens", "subsystem": "serving", "registry": self.registry}
        self.requests = Counter("requests", "Requests to predict, by HTTP status.", ["model", "code"], **of)
        self.seconds = Histogram("request_seconds", "From a request's first byte to its answer.", ["model"], **of)
        self.in_work = Gauge("in_work", "Requests in work or waiting.", **of)
        sizes = [2**i for i in range(11)]
        self.rows = Histogram("batch_rows", "Rows computed in one call.", ["model", "signature"], buckets=sizes, **of)


def _as_request_error(error: tf.errors.OpError) -> RequestError:
    words = _words(error)
    if isinstance(error, tf.errors.InvalidArgumentError | tf.errors.OutOfRangeError):
        return RequestError(words)
    if isinstance(error, tf.errors.ResourceExhaustedError):
        return RequestError(f"{words}. Try fewer rows, or later.", 503)
    _log.error("a model failed: %s", error)
    return RequestError(words, 500)


def _words(error: tf.errors.OpError) -> str:
    """What a model has to say: the last line that is not about TensorFlow's graph, whose earlier ones hold a trace."""
    lines = [line for line in (error.message or "").splitlines() if line.strip() and not line[0].isspace()]
    return lines[-1].strip()[:500] if lines else type(error).__name__


def _json(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(orjson.dumps(content), status, headers, media_type="application/json")


async def _on_request_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    retry = {"Retry-After": "1"} if error.status in (429, 503) else None
    return _json({"error": str(error).encode(errors="replace").decode()}, error.status, retry)


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    where = f"{request.method} {request.url.path}"[:200].encode(errors="replace").decode()
    return _json({"error": f"Malformed request: {where}: {error.detail}"}, error.status_code, error.headers)


async def _on_failure(request: Request, error: Exception) -> Response:
    return _json({"error": "the server failed; its log tells more"}, 500)
