"""Silence around third-party decoders: their warnings and log lines repeat what stands in a file."""

from __future__ import annotations

import logging
import os
import threading
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_STANDARD_ERROR = 2
_redirecting = threading.Lock()


@contextmanager
def silenced(*loggers: str) -> Iterator[None]:
    """No Python warning, and no line from these loggers or those below them, whatever level is set.

    Args:
        loggers: names, such as "PIL", which at level DEBUG writes every tag of a TIFF file with its value.
    """
    before = {name: logging.getLogger(name).level for name in loggers}
    try:
        for name in loggers:
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


@contextmanager
def native_silenced() -> Iterator[None]:
    """Nothing from C libraries on standard error, which libtiff writes to past Python.

    For the whole process, so what other threads write there meanwhile is lost too: only for a call that needs it. One
    thread at a time, since two that restore each other's descriptor would end standard error for good.
    """
    with _redirecting:
        try:
            kept = os.dup(_STANDARD_ERROR)
        except OSError:  # a process without standard error has nothing to silence
            yield
            return
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, _STANDARD_ERROR)
            yield
        finally:
            os.dup2(kept, _STANDARD_ERROR)
            os.close(nowhere)
            os.close(kept)
