"""Third-party readers are silenced where they are called: what they warn of and log holds values and names."""

from __future__ import annotations

import logging
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def quiet(*loggers: str) -> Iterator[None]:
    """Let no warning and no line of these loggers (and those below them) out; all is as before afterwards.

    Not for use around a `yield`: warnings' filters belong to the whole process.
    """
    named = [logging.getLogger(name) for name in loggers]
    levels = [logger.level for logger in named]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for logger in named:
                logger.setLevel(logging.CRITICAL + 1)
            yield
        finally:
            for logger, level in zip(named, levels, strict=True):
                logger.setLevel(level)
