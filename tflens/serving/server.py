"""The server as a process: a socket, signals, and an end in good order."""

import signal
import socket
import threading
from pathlib import Path

import uvicorn

from tflens.errors import ParameterError
from tflens.serving.app import COMPUTING, Limits, make_app
from tflens.serving.models import Model, find_models, load_model


def load_models(folder: str | Path, all_versions: bool = False, trust: bool = False) -> list[Model]:
    """The models of a folder, the newest version of each or all of them.

    A SavedModel is a program. What `tflens export` did not write is loaded only with `trust`: give it for models from
    somebody whose programs you would run.

    Raises:
        SavedModelError: there is none, or one is not trusted or cannot be loaded.
    """
    found = find_models(folder)
    chosen = {name: sorted(versions) if all_versions else [max(versions)] for name, versions in found.items()}
    return [load_model(name, version, found[name][version], trust) for name in chosen for version in chosen[name]]


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 takes one that is free.

    Raises:
        ParameterError: host or port cannot be had.

    Example:
        >>> with listen("127.0.0.1", 0) as place:
        ...     place.getsockname()[0]
        '127.0.0.1'
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        place = socket.create_server(address[:2], family=family, backlog=1024)
    except OSError as error:
        raise ParameterError(
            f"cannot listen at {host}, port {port}: {error.strerror or error}. Choose another --host or --port."
        ) from None
    # asyncio does it only for sockets that name their protocol, and then an answer in two pieces waits 40 ms for the
    # client's system to acknowledge the first.
    place.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return place


def run(models: list[Model], place: socket.socket, limits: Limits) -> bool:
    """Serves until SIGTERM or SIGINT; requests that are in work are answered before it returns.

    Returns:
        Whether nothing is left running. TensorFlow cannot be told to stop: what took longer than the time limit has
        been answered with 504, but runs on, and keeps the process from ending by itself.

    Raises:
        KeyboardInterrupt: it was stopped by SIGINT.
    """
    server = make_server(models, limits)
    if threading.current_thread() is threading.main_thread():
        # uvicorn sends the signal on once it is done; asked to end is no failure.
        signal.signal(signal.SIGTERM, lambda number, frame: None)
    server.run(sockets=[place])
    computing = [thread for thread in threading.enumerate() if thread.name.startswith(COMPUTING)]
    for thread in computing:
        thread.join(1.0)
    return not any(thread.is_alive() for thread in computing)


def make_server(models: list[Model], limits: Limits) -> uvicorn.Server:
    """A uvicorn server of the models, to be run."""
    config = uvicorn.Config(
        make_app(models, limits),
        http="h11",
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=int(limits.timeout) + 5,
    )
    return uvicorn.Server(config)
