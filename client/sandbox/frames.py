"""Messages over a pipe: four bytes of kind, eight of length, then the bytes. Nothing is unpickled on either side.

This file imports nothing of the project: it runs before any app code.
"""

from __future__ import annotations

import os
import select
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

SETUP, READY, REQUEST, REPLY, ERROR, DENIED = b"SETU", b"REDY", b"ASK ", b"RPLY", b"ERR ", b"DENY"
NETWORK, PROGRAM = "a network connection", "another program"
READING, WRITING = "reading a file outside the site's data folder", "writing a file outside the site's data folder"
OFFENCES = (NETWORK, PROGRAM, READING, WRITING)
"""All that a DENIED frame may say."""
_HEAD = 12
_ATOMIC = 4096  # bytes that a pipe takes without waiting once it is ready (POSIX: PIPE_BUF)


class FrameError(Exception):
    """What came is not a frame, is too long, came too late, or the other side is gone."""


def write_frame(
    descriptor: int,
    kind: bytes,
    body: bytes = b"",
    *,
    end: float | None = None,
    stopped: Callable[[], bool] | None = None,
) -> None:
    """Write a frame as a whole; ``end`` and ``stopped`` as in `read_frame`.

    Raises:
        FrameError: too late or stopped; a part may have been written.
        BrokenPipeError: the other side is gone.
    """
    data = memoryview(kind + len(body).to_bytes(8, "big") + body)
    while data:
        _wait([], [descriptor], end, stopped)
        data = data[os.write(descriptor, data[:_ATOMIC]) :]


def read_frame(
    descriptor: int, longest: int, *, end: float | None = None, stopped: Callable[[], bool] | None = None
) -> tuple[bytes, bytes]:
    """Read a frame: its kind and its bytes.

    Args:
        descriptor: where to read.
        longest: bytes that are accepted.
        end: of the monotonic clock, after which to give up.
        stopped: asked several times a second whether to give up.

    Raises:
        FrameError: closed, too long, too late or stopped.
    """
    head = _exactly(descriptor, _HEAD, end, stopped)
    kind, length = head[:4], int.from_bytes(head[4:], "big")
    if length > longest:
        raise FrameError(f"frame bytes={length} must be at most {longest}")
    return kind, _exactly(descriptor, length, end, stopped)


def _exactly(descriptor: int, length: int, end: float | None, stopped: Callable[[], bool] | None) -> bytes:
    parts: list[bytes] = []
    while length:
        _wait([descriptor], [], end, stopped)
        part = os.read(descriptor, min(length, 1 << 20))
        if not part:
            raise FrameError("the other side is gone")
        parts.append(part)
        length -= len(part)
    return b"".join(parts)


def _wait(readable: list[int], writable: list[int], end: float | None, stopped: Callable[[], bool] | None) -> None:
    """Until a descriptor is ready; also one that always is, is asked about ``end`` and ``stopped`` every time."""
    while True:
        if stopped is not None and stopped():
            raise FrameError("stopped")
        if end is not None and time.monotonic() > end:
            raise FrameError("too late")
        if any(select.select(readable, writable, [], 0.1)):
            return
