"""Files that are either whole or absent, and the hashes by which they are known.

A file is written beside its destination, flushed to the disk and renamed over it, so that a crash, a full disk or
Ctrl-C at any instant leaves the previous file or the new one, never a part.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from pathlib import Path

__all__ = ["atomic_write_bytes", "atomic_write_json", "atomic_write_text", "canonical_json", "sha256_file", "umask"]

_CHUNK_BYTES = 1 << 20


def atomic_write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write bytes to a file, wholly or not at all.

    Args:
        path: destination; its folder is made if it does not exist.
        data: the content.

    Raises:
        OSError: if the disk is full or the folder cannot be written; the destination is then unchanged.
    """
    destination = Path(path)
    destination.parent.mkdir(parents=True, exist_ok=True)
    # The same folder, because a rename is atomic only within one file system.
    handle, name = tempfile.mkstemp(dir=destination.parent, prefix=f".{destination.name}.", suffix=".tmp")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(PermissionError):  # a process that may not change rights: the owner alone has them
            temporary.chmod(0o666 & ~umask())
        temporary.replace(destination)
    except BaseException:  # also Ctrl-C: nothing half-written may stay behind
        temporary.unlink(missing_ok=True)
        raise
    _fsync_folder(destination.parent)


def atomic_write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write text as UTF-8 with its line ends unchanged, wholly or not at all (see `atomic_write_bytes`)."""
    atomic_write_bytes(path, text.encode("utf-8"))


def atomic_write_json(path: str | os.PathLike[str], obj: object) -> None:
    """Write an object as readable JSON (two-space indent, sorted keys), wholly or not at all.

    Raises:
        ValueError: if the object holds NaN or infinity, which JSON cannot express.
        TypeError: if the object holds something that JSON cannot express.
    """
    text = json.dumps(obj, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    atomic_write_text(path, text + "\n")


def canonical_json(obj: object) -> str:
    """Return the one JSON text of an object: sorted keys, no spaces, ASCII; equal objects give equal text.

    Raises:
        ValueError: if the object holds NaN or infinity.
        TypeError: if the object holds something that JSON cannot express.
    """
    return json.dumps(obj, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def sha256_file(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's bytes as 64 lower-case hexadecimal digits.

    Raises:
        OSError: if the file cannot be read.
    """
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def umask() -> int:
    """Return the process's file mode mask (it can only be read by setting it)."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _fsync_folder(folder: Path) -> None:
    """Flush the folder entry, so that the rename itself survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
