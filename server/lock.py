"""One writer for a run's folder: a lock that the operating system drops with the process, however it ends."""

from __future__ import annotations

import contextlib
import fcntl
import time
from typing import TYPE_CHECKING

from ccfexp.errors import RoundError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_POLL_S = 0.2


@contextlib.contextmanager
def held(path: Path, wait_s: float, what: str) -> Iterator[None]:
    """Hold a lock file.

    Args:
        path: made if it is not there; stays when the lock is given back.
        wait_s: how long to wait for another process.
        what: who holds it, for the error.

    Raises:
        RoundError: another process held it all the time.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + wait_s
    with path.open("ab") as file:
        while not _taken(file.fileno()):
            if time.monotonic() >= end:
                raise RoundError(
                    f"{what} has worked in the folder of this run for wait_s={wait_s:.0f}, and only one may; "
                    "let it finish or stop it, or choose another name for the new run"
                )
            time.sleep(_POLL_S)
        yield  # closing the file gives the lock back


def is_held(path: Path) -> bool:
    """Whether a process holds a lock file now."""
    if not path.exists():
        return False
    with path.open("ab") as file:
        return not _taken(file.fileno())


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
