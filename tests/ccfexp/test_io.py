"""Atomic writes and hashes."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccfexp import _io

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=8,
)


def test_write_makes_folders_and_replaces(tmp_path: Path) -> None:
    """The destination's folder is made, an old file is replaced, and nothing else is left."""
    path = tmp_path / "a" / "b.bin"

    _io.atomic_write_bytes(path, b"one")
    _io.atomic_write_bytes(path, b"two")

    assert path.read_bytes() == b"two"
    assert list(path.parent.iterdir()) == [path]


def test_text_keeps_line_ends(tmp_path: Path) -> None:
    """Text is written byte for byte, so that its hash is the same on every system."""
    _io.atomic_write_text(tmp_path / "t", "ä\r\nb\n")

    assert (tmp_path / "t").read_bytes() == "ä\r\nb\n".encode()


@pytest.mark.parametrize("failing", ["os.fsync", "pathlib.Path.replace"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_interrupted_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str, error: BaseException
) -> None:
    """A full disk or Ctrl-C leaves the previous content and no temporary file."""
    path = tmp_path / "state.json"
    _io.atomic_write_text(path, "old")

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(failing, fail)
    with pytest.raises(type(error)):
        _io.atomic_write_text(path, "new")

    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_file_mode_follows_the_umask(tmp_path: Path) -> None:
    """A temporary file's private mode does not leak into the result."""
    old = os.umask(0o027)
    try:
        _io.atomic_write_bytes(tmp_path / "f", b"")
    finally:
        os.umask(old)

    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o640


@given(JSON_VALUES)
def test_canonical_json_is_one_text_per_value(value: object) -> None:
    """The text reads back as the value, and reading it back changes nothing."""
    text = _io.canonical_json(value)

    assert json.loads(text) == value
    assert _io.canonical_json(json.loads(text)) == text


def test_canonical_json_ignores_key_order() -> None:
    """Two dictionaries that are equal have one text."""
    assert _io.canonical_json({"b": 1, "a": [True, None]}) == '{"a":[true,null],"b":1}'


def test_json_refuses_nan(tmp_path: Path) -> None:
    """NaN is not JSON; nothing is written."""
    with pytest.raises(ValueError, match="not JSON compliant"):
        _io.atomic_write_json(tmp_path / "x.json", {"loss": float("nan")})

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [0, 1, (1 << 20) + 1])
def test_sha256_file(tmp_path: Path, size: int) -> None:
    """The hash is that of the whole file, whatever its size."""
    data = b"x" * size
    (tmp_path / "f").write_bytes(data)

    assert _io.sha256_file(tmp_path / "f") == hashlib.sha256(data).hexdigest()
