"""What lies in a folder: always in the same order, never beyond it, and nothing opened that is no file."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccfexp.data.files import BadFileError
from ccfexp.errors import ConfigError
from client.prepare.sources import listing as module
from client.prepare.sources.listing import check_path, is_dicom, list_folder, resolve_folder

NOBODY = 65534


def everything(_: PurePosixPath) -> bool:
    """Want every file."""
    return True


def touch(path: Path) -> Path:
    """Make a file and its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    return path


def names(root: Path) -> list[str]:
    """List the usable files."""
    return [str(listed.relative) for listed in list_folder(root, everything) if listed.file is not None]


def reasons(root: Path) -> dict[str, str]:
    """List what cannot be used."""
    return {str(listed.relative): listed.reason for listed in list_folder(root, everything) if listed.file is None}


@pytest.fixture
def as_nobody() -> Iterator[Path]:
    """Give a folder, and lose the rights of root meanwhile: nothing is unreadable to root."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:  # pytest's own folders are closed to others
        folder = Path(name).resolve()
        folder.chmod(0o755)
        before = os.geteuid()
        if before == 0:
            os.chown(folder, NOBODY, NOBODY)
            os.seteuid(NOBODY)
        try:
            yield folder
        finally:
            os.seteuid(before)


def test_the_order_is_that_of_the_paths_bytes(tmp_path: Path) -> None:
    """Whatever order the disk gives."""
    for name in ("b/1.jpg", "a/2.jpg", "a-b/1.jpg", "A/1.jpg", "a/10.jpg", "é.jpg", "z.jpg"):
        touch(tmp_path / name)

    assert names(tmp_path) == ["A/1.jpg", "a-b/1.jpg", "a/10.jpg", "a/2.jpg", "b/1.jpg", "z.jpg", "é.jpg"]


def test_names_that_are_not_utf_8_have_a_place(tmp_path: Path) -> None:
    """A disk from another country is readable."""
    for name in (b"\xff.jpg", b"a.jpg", b"Ren\xe9.jpg", "é.jpg".encode()):
        Path(os.fsdecode(bytes(tmp_path) + b"/" + name)).write_bytes(b"x")

    found = list_folder(tmp_path, everything)

    assert [os.fsencode(str(listed.relative)) for listed in found] == [
        b"Ren\xe9.jpg", b"a.jpg", "é.jpg".encode(), b"\xff.jpg",
    ]  # fmt: skip
    assert all(listed.file is not None and listed.file.read_bytes() == b"x" for listed in found)


@given(st.lists(st.binary(min_size=1, max_size=8), max_size=6, unique=True))
def test_any_bytes_are_a_name(raw: list[bytes]) -> None:
    """All that a file system takes, in one order, without a name in any text form."""
    with tempfile.TemporaryDirectory() as folder:
        root = resolve_folder(Path(folder))
        good = {name for name in raw if not (b"/" in name or b"\0" in name or name.startswith(b"."))}
        for name in good:
            Path(os.fsdecode(os.fsencode(root) + b"/" + name)).write_bytes(b"x")

        found = list_folder(root, everything)

        assert [os.fsencode(str(listed.relative)) for listed in found] == sorted(good)
        assert all(repr(listed) == "Listed(reason='', is_folder=False)" for listed in found)


def test_clutter_is_passed_over(tmp_path: Path) -> None:
    """Hidden files, and what file managers leave behind."""
    for name in (
        ".hidden.jpg",
        "._a.jpg",
        ".git/a.jpg",
        "Thumbs.db",
        ".DS_Store",
        "desktop.ini",
        "@eaDir/a.jpg",
        "a.jpg",
    ):
        touch(tmp_path / name)

    assert names(tmp_path) == ["a.jpg"]
    assert reasons(tmp_path) == {}


def test_a_link_that_leaves_is_refused(tmp_path: Path) -> None:
    """A file and a folder, by an absolute link and by a relative one."""
    touch(tmp_path / "outside" / "smith.jpg")
    root = tmp_path / "root"
    root.mkdir()
    (root / "a.jpg").symlink_to(tmp_path / "outside" / "smith.jpg")
    (root / "b.jpg").symlink_to("../outside/smith.jpg")
    (root / "c").symlink_to("../outside")

    assert reasons(root) == dict.fromkeys(
        ("a.jpg", "b.jpg", "c"), "is a link that leaves the source's folder; copy the file"
    )
    assert names(root) == []


def test_links_in_circles_end(tmp_path: Path) -> None:
    """To itself, to each other, to a folder above."""
    touch(tmp_path / "x" / "a.jpg")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "p.jpg").symlink_to("q.jpg")
    (tmp_path / "q.jpg").symlink_to("p.jpg")
    (tmp_path / "x" / "up").symlink_to("..")
    (tmp_path / "gone.jpg").symlink_to("nowhere.jpg")

    assert names(tmp_path) == ["x/a.jpg"]
    assert reasons(tmp_path) == {
        **dict.fromkeys(("loop.jpg", "p.jpg", "q.jpg"), "is a link in a circle; copy the file"),
        "x/up": "is a link to a folder; remove it",
        "gone.jpg": "is missing; check its name",
    }


def test_a_chain_of_a_thousand_links_ends(tmp_path: Path) -> None:
    """Where the system gives up, so do we."""
    touch(tmp_path / "l0.jpg")
    for number in range(1, 1500):
        (tmp_path / f"l{number}.jpg").symlink_to(f"l{number - 1}.jpg")

    assert names(tmp_path) == ["l0.jpg"]
    assert set(reasons(tmp_path).values()) == {
        "is a link in a circle; copy the file",
        "is a link to a file that is listed already; remove it",
    }


def test_a_file_is_listed_once_under_its_own_name(tmp_path: Path) -> None:
    """A link inside is followed only where its file is not listed itself, as data sets of git-annex need it."""
    touch(tmp_path / "b.jpg")
    (tmp_path / "a.jpg").symlink_to("b.jpg")
    touch(tmp_path / ".git" / "object.jpg")
    (tmp_path / "c.jpg").symlink_to(".git/object.jpg")
    (tmp_path / "d.jpg").symlink_to(".git/object.jpg")

    assert names(tmp_path) == ["b.jpg", "c.jpg"]
    assert reasons(tmp_path) == dict.fromkeys(
        ("a.jpg", "d.jpg"), "is a link to a file that is listed already; remove it"
    )


@pytest.mark.timeout(20)
def test_pipes_and_sockets_are_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening a pipe would wait for ever."""
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "device.jpg").symlink_to("/dev/zero")
    monkeypatch.chdir(tmp_path)  # a socket's name is short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.jpg")

        told = reasons(tmp_path)

    assert told["pipe.jpg"] == told["socket.jpg"] == "is no regular file (a folder, pipe or device); name a photograph"
    assert "leaves" in told["device.jpg"]
    for name in ("pipe.jpg", "socket.jpg"):
        with pytest.raises(BadFileError, match="no regular file"):
            check_path(tmp_path, name)


def test_an_unreadable_folder_is_told(as_nobody: Path) -> None:
    """Or its photographs would be missing without a word."""
    touch(as_nobody / "a.jpg")
    closed = touch(as_nobody / "closed" / "b.jpg").parent
    closed.chmod(0)
    try:
        assert names(as_nobody) == ["a.jpg"]
        assert reasons(as_nobody) == {
            "closed": "is a folder that cannot be read; give this account the right to read it"
        }
        with pytest.raises(BadFileError, match="cannot be read"):
            check_path(as_nobody, "closed/b.jpg")
        with pytest.raises(ConfigError, match="Permission denied") as caught:
            resolve_folder(closed)
        assert "closed" not in str(caught.value)
    finally:
        closed.chmod(0o755)


def test_an_unreadable_file_is_told(as_nobody: Path) -> None:
    """When a table names it."""
    touch(as_nobody / "a.jpg").chmod(0)

    with pytest.raises(BadFileError, match="cannot be read; give this account"):
        check_path(as_nobody, "a.jpg")


def test_a_folder_without_end_is_a_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as the root of a disk."""
    for number in range(4):
        touch(tmp_path / f"{number}.jpg")
    monkeypatch.setattr(module, "MAX_FILES", 3)

    with pytest.raises(ConfigError, match="more than 3 files"):
        list_folder(tmp_path, everything)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    """Is named by nothing but the key."""
    with pytest.raises(ConfigError, match=r"the source's folder cannot be read \(No such file") as caught:
        resolve_folder(tmp_path / "smith")
    assert "smith" not in str(caught.value)
    with pytest.raises(ConfigError, match="not a path"):
        resolve_folder(Path("a\0b"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is empty"),
        ("  ", "is empty"),
        ("/etc/passwd", "is absolute"),
        ("C:/a.jpg", "is absolute"),
        ("c:a.jpg", "is absolute"),
        ("..", "leaves the table's folder"),
        ("../outside.jpg", "leaves the table's folder"),
        ("a/../../outside.jpg", "leaves the table's folder"),
        ("a\\b.jpg", "backslash"),
        ("\\\\server\\share", "backslash"),
        ("a\0.jpg", "control sign"),
        ("a\n.jpg", "control sign"),
        ("a\x1b[2J.jpg", "control sign"),
        ("a\u2028.jpg", "control sign"),
        ("missing.jpg", "is missing"),
        ("a.jpg/b", "is missing"),
        ("SMITH", "is no regular file"),
        (".", "is no regular file"),
        ("x" * 300, "longer than a path can be"),
        ("x/" * 5000, "longer than a path can be"),
        ("link.jpg", "leaves the source's folder"),
        ("\ud800.jpg", "no file's name can hold"),
    ],
)
def test_a_path_of_a_table(tmp_path: Path, text: str, reason: str) -> None:
    """Is refused with its reason, and without itself."""
    root = tmp_path / "root"
    touch(root / "a.jpg")
    touch(root / "SMITH" / "b.jpg")
    touch(tmp_path / "outside.jpg")
    (root / "link.jpg").symlink_to("../outside.jpg")

    with pytest.raises(BadFileError, match=reason) as caught:
        check_path(root, text)

    assert not text.strip(" .") or text not in str(caught.value)


def test_good_paths_of_a_table(tmp_path: Path) -> None:
    """Also with spaces, and with accents in the other form."""
    touch(tmp_path / "Mu\u0308ller" / "1 a.jpg")

    for text in ("Müller/1 a.jpg", "./Mu\u0308ller//1 a.jpg"):
        assert check_path(tmp_path, text).read_bytes() == b"x"


@given(st.text(st.characters(exclude_categories=())))
def test_any_text_is_a_path_or_refused(text: str) -> None:
    """Nothing crashes, nothing outside is found, nothing is repeated."""
    with tempfile.TemporaryDirectory() as folder:
        root = resolve_folder(Path(folder))
        with pytest.raises(BadFileError) as caught:
            check_path(root, text + "SMITH^JOHN")
        assert "SMITH" not in str(caught.value)


def test_dicom_is_told_by_its_magic(tmp_path: Path) -> None:
    """Not by its name."""
    (tmp_path / "a").write_bytes(bytes(128) + b"DICM")
    (tmp_path / "b.dcm").write_bytes(bytes(128) + b"DICN")
    (tmp_path / "c.dcm").write_bytes(b"DICM")

    assert [is_dicom(tmp_path / name) for name in ("a", "b.dcm", "c.dcm", "missing")] == [True, False, False, False]
