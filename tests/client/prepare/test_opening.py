"""Only regular files are opened, and none is read beyond its end."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ccfexp.data.files import BadFileError
from client.prepare.opening import open_regular

NAME = "smith_john_1961"


def test_a_file_is_read_and_has_no_name(tmp_path: Path) -> None:
    file = tmp_path / NAME
    file.write_bytes(b"0123456789")

    with open_regular(file, 10) as stream:
        assert (stream.read(4), stream.read(1 << 62), stream.read()) == (b"0123", b"456789", b"")
        assert NAME not in f"{stream!r}{stream.name}"


def test_a_length_beyond_the_end_sets_no_memory_aside(tmp_path: Path) -> None:
    """Python's own reader would ask for all of it at once, and fail or swap."""
    file = tmp_path / NAME
    file.write_bytes(b"x" * 100)

    with open_regular(file, 100) as stream:
        stream.seek(1 << 40)
        assert stream.read(1 << 60) == b""


def _pipe(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda _: None, "missing"),
        (lambda path: path.mkdir(), "not a regular file"),
        (_pipe, "not a regular file"),
        (lambda path: path.touch(), "empty"),
        (lambda path: path.write_bytes(b"x" * 101), "bytes=101 exceed the limit=100"),
        (lambda path: path.symlink_to(path), "cannot be read"),
    ],
)
def test_what_is_no_such_file_is_refused_at_once(tmp_path: Path, make: object, reason: str) -> None:
    file = tmp_path / NAME
    make(file)  # type: ignore[operator]

    with pytest.raises(BadFileError, match=reason) as caught:
        open_regular(file, 100)
    assert NAME not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
