"""The page's server: on 127.0.0.1 alone, without a log, for whoever has the address that it prints."""

from __future__ import annotations

import contextlib
import functools
import secrets
import signal
import socket
import threading
from typing import TYPE_CHECKING

from ccfexp.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from starlette.applications import Starlette

    from client.prepare.landmarks_page.desk import Desk

_LOOPBACK = "127.0.0.1"
_print = functools.partial(print, flush=True)
_GRACE_S = 5  # for a save that is under way when the server is told to end


def make_app(desk: Desk, token: str) -> Starlette:
    """Make the application.

    Args:
        desk: what the page works on.
        token: without which nothing is answered; at least 32 signs that an address may hold.

    Raises:
        ConfigError: Starlette is not installed.
    """
    assert len(token) >= 32
    try:
        from starlette.applications import Starlette
        from starlette.middleware import Middleware
    except ImportError:
        raise _missing("starlette") from None
    from client.prepare.landmarks_page.guard import Guard
    from client.prepare.landmarks_page.routes import ANSWERS_TO_ERRORS, Routes, static_files

    app = Starlette(
        routes=Routes(desk, static_files()).table(),
        middleware=[Middleware(Guard, token=token)],
        exception_handlers=dict(ANSWERS_TO_ERRORS),
    )
    app.router.redirect_slashes = False
    return app


def serve(
    desk: Desk,
    port: int,
    *,
    token: str | None = None,
    say: Callable[[str], None] = _print,
) -> None:
    """Serve the page until Ctrl-C or SIGTERM; a save that is under way is finished.

    Args:
        desk: what the page works on.
        port: on the loopback interface; 0 = any that is free.
        token: see `make_app`; None = a new one.
        say: gets one line, the address with the token.

    Raises:
        ConfigError: the port cannot be used, or Starlette or uvicorn is not installed.
    """
    try:
        import uvicorn
    except ImportError:
        raise _missing("uvicorn") from None
    token = secrets.token_urlsafe(32) if token is None else token
    app = make_app(desk, token)
    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="off",
        loop="asyncio",
        access_log=False,
        log_config=None,
        log_level="critical",
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_S,
    )
    with _listening(port) as listener, _ending_quietly():
        say(f"Landmarks: http://{_LOOPBACK}:{listener.getsockname()[1]}/?token={token} (Ctrl-C ends it)")
        uvicorn.Server(config).run(sockets=[listener])


@contextlib.contextmanager
def _listening(port: int) -> Iterator[socket.socket]:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # else the port rests after the last time
        try:
            listener.bind((_LOOPBACK, port))
        except (OSError, OverflowError):
            raise ConfigError(f"port={port} cannot be used on {_LOOPBACK}; give another, or 0 for any") from None
        listener.listen()  # before the address is said, so that it answers at once
        yield listener


@contextlib.contextmanager
def _ending_quietly() -> Iterator[None]:
    """Keep uvicorn, once it has ended on a signal, from ending the whole program with the same signal."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _missing(package: str) -> ConfigError:
    return ConfigError(f"{package} is not installed, which the page needs; install the extra `photos`")
