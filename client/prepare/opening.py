"""A file of a hospital is opened: a regular one, no larger than it may be, without its name."""

from __future__ import annotations

import io
import os
import stat
from typing import TYPE_CHECKING

from ccfexp.data.files import BadFileError

if TYPE_CHECKING:
    from pathlib import Path


class ClampedReader(io.BufferedReader):
    """A file that reads no further than its end, and tells no name.

    Python sets memory aside for as many bytes as are asked for, and a reader asks for as many as a header claims.

    Attributes:
        size: of the file in bytes, when it was opened.
    """

    def __init__(self, raw: io.FileIO, size: int) -> None:
        super().__init__(raw)
        self.size = size

    def read(self, size: int | None = -1, /) -> bytes:
        """Up to ``size`` bytes; all that is left where it is negative or None."""
        left = max(0, self.size - self.tell())
        return super().read(left if size is None or size < 0 else min(size, left))


def open_regular(file: Path, max_bytes: int) -> ClampedReader:
    """Open a file for reading; the caller closes it.

    Args:
        file: where it is.
        max_bytes: that it may have (`Limits.bytes`, of a video ten times as many).

    Raises:
        BadFileError: missing, not a regular file, not to be read, empty or too large.
    """
    try:
        # Without O_NONBLOCK a named pipe would wait for somebody to write. By its number the file has no name that
        # a reader could put into a message.
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise BadFileError("file is missing") from None
    except (OSError, ValueError):  # no right to read it; a name with a zero byte
        raise BadFileError("file cannot be read; check its permissions") from None
    status = os.fstat(descriptor)
    reason = None
    if not stat.S_ISREG(status.st_mode):
        reason = "not a regular file; copy the file itself to the folder"
    elif status.st_size == 0:
        reason = "file is empty"
    elif status.st_size > max_bytes:
        reason = f"file bytes={status.st_size} exceed the limit={max_bytes}; raise limits.bytes"
    if reason is not None:
        os.close(descriptor)
        raise BadFileError(reason)
    return ClampedReader(io.FileIO(descriptor), status.st_size)
