"""Files that other programs' lines go to at a hospital."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_LARGEST = 10 << 20  # bytes; then the file starts anew


def open_log(path: Path) -> IO[bytes]:
    """Open a log to append to, or anew once it has become too large; unbuffered."""
    path.parent.mkdir(parents=True, exist_ok=True)
    too_large = path.is_file() and path.stat().st_size > _LARGEST
    return path.open("wb" if too_large else "ab", buffering=0)
