"""`serve`: a run opened and its pages given on this machine until it is stopped."""

import secrets
import socket
from collections.abc import Callable
from pathlib import Path

import uvicorn

from profiler.config import ModelChoice
from profiler.errors import ProfilerError
from profiler.run import open as open_run
from profiler.serve.app import app_of
from profiler.serve.live import LiveSite

LOOPBACK = "127.0.0.1"


def serve(run: Path, choice: ModelChoice, port: int = 0, ready: Callable[[str], None] = lambda _address: None) -> None:
    """Give the pages of a run to browsers of this machine; returns when it is stopped by a signal.

    Args:
        port: 0 takes any that is free.
        ready: called with the address, which holds a secret word, once it is listened at.

    Raises:
        RunError: no finished run.
        ProfilerError: the port cannot be used.
    """
    with open_run(run) as opened, _listening(port) as listening:
        word = secrets.token_urlsafe(16)
        config = uvicorn.Config(
            app_of(LiveSite(opened, choice), word), log_level="critical", access_log=False, lifespan="off"
        )
        ready(f"http://{LOOPBACK}:{listening.getsockname()[1]}/{word}/")
        uvicorn.Server(config).run(sockets=[listening])


def _listening(port: int) -> socket.socket:
    """A socket of this machine alone.

    Raises:
        ProfilerError: another program has the port.
    """
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((LOOPBACK, port))
    except (OSError, OverflowError) as error:
        made.close()
        raise ProfilerError(f"--port {port} cannot be used ({error}): choose another, or leave it out") from None
    made.listen()
    return made
