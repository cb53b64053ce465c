"""Silence around third-party decoders: their warnings and log lines repeat what stands in a file."""

from __future__ import annotations

import logging
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


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
