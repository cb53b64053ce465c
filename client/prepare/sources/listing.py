"""What lies in a folder, listed safely and always in the same order; and the check of one path that a table names.

A folder comes from outside. Nothing beyond it is read through a link, nothing but a regular file is opened, and no
name, not even one that is not UTF-8, is repeated in a reason.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import unicodedata
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from ccfexp.data.files import BadFileError
from ccfexp.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

PHOTOGRAPHS = frozenset((".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".heic", ".heif", ".avif"))
DICOM_FILES = frozenset((".dcm", ".dicom"))
VIDEOS = frozenset((".mp4", ".mov", ".avi", ".mkv", ".mpg", ".mpeg", ".m4v", ".webm", ".wmv", ".mts"))
LANDMARKS = frozenset((".npy", ".pts", ".json", ".csv"))

MAX_FILES = 1_000_000
"""Entries of a folder and all below it; a larger one is a mistake, such as the root of a disk."""

# What file managers and network drives leave behind; "@eadir" holds the thumbnails of a Synology drive.
_CLUTTER = frozenset(("thumbs.db", "desktop.ini", "@eadir", "__macosx"))
_LEAVES = "is a link that leaves the source's folder; copy the file"
_MISSING = "is missing; check its name"
_UNREADABLE = "cannot be read; give this account the right to read it"
_SYSTEM_REASONS = {
    errno.ENOENT: _MISSING,
    errno.ENOTDIR: _MISSING,
    errno.ELOOP: "is a link in a circle; copy the file",
    errno.ENAMETOOLONG: "is longer than a path can be; shorten it",
}
_DICOM_MAGIC = b"DICM"
_DICOM_PREAMBLE = 128  # bytes before the magic (DICOM PS3.10, 7.1)


@dataclass(frozen=True)
class Listed:
    """Something in a folder.

    Attributes:
        relative: its path from the folder.
        file: the regular file that it is, with links followed, below the folder; None = it cannot be used.
        reason: why not; empty where it can.
        is_folder: whether it is a folder, or a link to one, with all that it holds.
    """

    relative: PurePosixPath = field(repr=False)
    file: Path | None = field(repr=False)
    reason: str = ""
    is_folder: bool = False


def suffix_of(path: PurePosixPath | Path) -> str:
    """The lower-case suffix of a file's name, with its dot."""
    return path.suffix.lower()


def is_dicom(file: Path) -> bool:
    """Whether a regular file has the magic of a DICOM file; reads 132 bytes."""
    try:
        with file.open("rb") as stream:
            return stream.read(_DICOM_PREAMBLE + len(_DICOM_MAGIC))[_DICOM_PREAMBLE:] == _DICOM_MAGIC
    except OSError:
        return False


def resolve_folder(root: Path) -> Path:
    """Return a folder with all links followed.

    Raises:
        ConfigError: there is none, or it cannot be read.
    """
    try:
        resolved = Path(os.path.realpath(root, strict=True))
        with os.scandir(resolved):
            return resolved
    except (OSError, ValueError) as error:
        why = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else "not a path"
        raise ConfigError(f"the source's folder cannot be read ({why}); check source in the file") from None


def list_folder(root: Path, wanted: Callable[[PurePosixPath], bool]) -> list[Listed]:
    """List the files of a folder and all below it, and what of them cannot be used.

    Hidden files and what file managers leave behind are passed over. A link to a file is followed where it stays below
    the folder; a file that is reached twice is listed under its own name. A link to a folder is never followed: it
    could lead in a circle, and what it holds inside the folder is listed anyway.

    Args:
        root: the folder, as `resolve_folder` returns it.
        wanted: tells by its path from the folder whether a file counts; asked for nothing but files and links.

    Returns:
        Sorted by the bytes of the paths, so that names that are not UTF-8 have a place too.

    Raises:
        ConfigError: more than `MAX_FILES` entries.
    """
    found: list[Listed] = []
    pending = [PurePosixPath()]
    seen = 0
    while pending:
        folder = pending.pop()
        try:
            with os.scandir(root / folder) as entries:
                for entry in entries:
                    seen += 1
                    if seen > MAX_FILES:
                        raise ConfigError(
                            f"the source's folder holds more than {MAX_FILES} files; name the folder of the photographs"
                        )
                    if entry.name.startswith(".") or entry.name.casefold() in _CLUTTER:
                        continue
                    relative = folder / entry.name
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(relative)
                    elif (listed := _look(root, relative, wanted)) is not None:
                        found.append(listed)
        except OSError:
            found.append(Listed(folder, None, f"is a folder that {_UNREADABLE}", is_folder=True))
    return _without_repeats(sorted(found, key=lambda listed: os.fsencode(str(listed.relative))), root)


def check_path(root: Path, text: str) -> Path:
    """Return the file that a table names.

    Args:
        root: the folder that paths start at, as `resolve_folder` returns it.
        text: a path relative to it, with forward slashes.

    Raises:
        BadFileError: it is no path of a readable regular file below the folder, also after links are followed.
    """
    if not text.strip():
        raise BadFileError("is empty; write the file's path from the table's folder")
    if any(unicodedata.category(sign) in ("Cc", "Zl", "Zp") for sign in text):
        raise BadFileError("holds a line break or another control sign; write the path on one line")
    if "\\" in text:
        raise BadFileError("holds a backslash; write forward slashes")
    if text.startswith("/") or re.match(r"[A-Za-z]:", text):
        raise BadFileError("is absolute; write the path from the table's folder")
    if ".." in text.split("/"):
        raise BadFileError("leaves the table's folder; move the file below it")
    # One name can be stored in two forms: a Mac takes accents apart, a spreadsheet keeps them whole.
    forms = dict.fromkeys((text, unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text)))
    for form in forms:
        try:
            file = _regular(root, root / form)
        except BadFileError as error:
            reason = str(error)
            if reason != _MISSING:
                break
        else:
            return _opened(file)
    raise BadFileError(reason)


def _opened(file: Path) -> Path:
    """Check that a regular file can be opened."""
    try:
        file.open("rb").close()
    except OSError:
        raise BadFileError(_UNREADABLE) from None
    return file


def _look(root: Path, relative: PurePosixPath, wanted: Callable[[PurePosixPath], bool]) -> Listed | None:
    """Look at one entry that is no folder; None where it does not count."""
    path = root / relative
    if os.path.isdir(path):  # noqa: PTH112  # unlike Path.is_dir it raises nothing where a link leads where we may not
        inside = Path(os.path.realpath(path)).is_relative_to(root)
        return Listed(relative, None, "is a link to a folder; remove it" if inside else _LEAVES, is_folder=True)
    if not wanted(relative):
        return None
    try:
        return Listed(relative, _regular(root, path))
    except BadFileError as error:
        return Listed(relative, None, str(error))


def _regular(root: Path, path: Path) -> Path:
    """Follow links and check that a regular file below the folder is there; it is not opened."""
    try:
        mode = path.stat().st_mode  # before links are followed by hand: the system ends chains that are too long
        file = Path(os.path.realpath(path, strict=True))
    except OSError as error:
        raise BadFileError(_SYSTEM_REASONS.get(error.errno or 0, _UNREADABLE)) from None
    except ValueError:  # a sign that no file's name can hold, such as half of a surrogate pair
        raise BadFileError("holds a sign that no file's name can hold; write the file's name") from None
    if not file.is_relative_to(root):
        raise BadFileError(_LEAVES)
    if not stat.S_ISREG(mode):
        raise BadFileError("is no regular file (a folder, pipe or device); name a photograph")
    return file


def _without_repeats(found: list[Listed], root: Path) -> list[Listed]:
    """Refuse links to files that are listed themselves, and second links to one file."""
    taken: set[Path | None] = {listed.file for listed in found if listed.file == root / listed.relative}
    result = []
    for listed in found:
        is_link = listed.file is not None and listed.file != root / listed.relative
        if is_link and listed.file in taken:
            result.append(replace(listed, file=None, reason="is a link to a file that is listed already; remove it"))
        else:
            taken.add(listed.file)
            result.append(listed)
    return result
