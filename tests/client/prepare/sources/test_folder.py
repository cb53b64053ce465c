"""Photographs in folders whose names say what they are."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccfexp.data.files import BadFileError
from ccfexp.errors import ConfigError
from client.prepare.entries import Entry, Refusal
from client.prepare.sources.folder import FolderSource, subject_folders
from tests.client.prepare.sources.tables import facts_of, refusals_of, write_photographs


def read(folder: Path) -> list[Entry | Refusal]:
    """Read all entries."""
    return list(FolderSource(folder).entries())


@pytest.mark.parametrize(
    ("path", "facts"),
    [
        ("P01/rest.jpg", ("P01", None, "rest")),
        ("P01/smile_teeth_2.jpg", ("P01", None, "smile_teeth")),
        ("P01/Big Smile-03.JPG", ("P01", None, "Big Smile")),
        ("P01/rest (2).png", ("P01", None, "rest")),
        ("P01/ooooo.jpg", ("P01", None, "ooooo")),
        ("P01/2026-03-01/brow_raise_17.jpg", ("P01", "2026-03-01", "brow_raise")),
        ("0/10 _brow raise_17_face.jpg", ("10", None, "brow raise")),
        ("2/s11_brow raise_1_face.jpg", ("s11", None, "brow raise")),
        ("s11_brow raise_1_face.jpg", ("s11", None, "brow raise")),
        ("P7_lip_pucker_1.jpg", ("P7", None, "lip_pucker")),
        ("P01/smile_teeth_1_face.jpg", ("P01", None, "smile_teeth_1_face")),
    ],
)
def test_facts_in_a_path(path: str, facts: tuple[str, str | None, str]) -> None:
    """The number of the frame is none."""
    found = subject_folders(PurePosixPath(path))

    assert (found["subject"], found.get("session"), found["movement"]) == facts


@pytest.mark.parametrize("path", ["lip_pucker.jpg", "rest.jpg", "a/b/c/rest.jpg"])
def test_other_layouts_are_refused(path: str) -> None:
    """A file without a subject's folder would make a patient of half a movement."""
    with pytest.raises(BadFileError, match="expected subject/movement_frame or subject/session/movement_frame"):
        subject_folders(PurePosixPath(path))


@given(st.lists(st.text(st.characters(exclude_characters="/\0"), min_size=1), min_size=1, max_size=4))
def test_any_path_is_read_or_refused(parts: list[str]) -> None:
    """Whatever the folders are called."""
    path = PurePosixPath(*parts)
    if path.name in ("", ".."):
        return
    with contextlib.suppress(BadFileError):
        assert set(subject_folders(path)) <= {"subject", "session", "movement"}


def test_entries_are_numbered_in_the_order_of_the_listing(tmp_path: Path) -> None:
    """Photographs, videos and what is refused; not landmarks and notes."""
    write_photographs(
        tmp_path,
        "B/rest_1.jpg",
        "A/rest_2.jpg",
        "A/rest_10.jpg",
        "A/smile.mp4",
        "A/rest_2.pts",
        "A/notes.txt",
        "top.jpg",
    )

    found = read(tmp_path)

    assert [(entry.number, isinstance(entry, Entry)) for entry in found] == [
        (1, True), (2, True), (3, True), (4, True), (5, False),
    ]  # fmt: skip
    assert facts_of(found[:4]) == [
        {"subject": "A", "movement": "rest"},
        {"subject": "A", "movement": "rest"},
        {"subject": "A", "movement": "smile"},
        {"subject": "B", "movement": "rest"},
    ]
    assert [entry.material.kind for entry in found if isinstance(entry, Entry)] == ["photograph"] * 2 + [
        "video",
        "photograph",
    ]


@pytest.mark.parametrize("suffix", [".npy", ".pts", ".json", ".csv", ".PTS"])
def test_landmarks_lie_beside_the_photograph(tmp_path: Path, suffix: str) -> None:
    """With the same name before the suffix."""
    write_photographs(tmp_path, "A/rest_1.jpg", f"A/rest_1{suffix}", f"A/rest_1_detect{suffix}", "A/rest_2.jpg")

    first, second = read(tmp_path)

    assert isinstance(first, Entry)
    assert isinstance(second, Entry)
    assert first.material.landmarks == tmp_path / "A" / f"rest_1{suffix}"
    assert second.material.landmarks is None


def test_landmarks_that_cannot_be_told(tmp_path: Path) -> None:
    """Are not chosen from, and not left out without a word."""
    write_photographs(
        tmp_path, "A/1.jpg", "A/1.npy", "A/1.pts", "A/2.jpg", "A/2.png", "A/2.npy", "A/3.mp4", "A/3.pts", "A/4.jpg"
    )
    (tmp_path / "A" / "4.npy").symlink_to("/etc/passwd")

    told = refusals_of(read(tmp_path))

    assert told == {
        1: "has several files of landmarks beside it; keep one",
        2: "shares its name, and so its landmarks, with another photograph or video; rename one",
        3: "shares its name, and so its landmarks, with another photograph or video; rename one",
        4: "is a video with landmarks that are no .npy file; give [T, 68, 2] of its frames as .npy",
        5: "has landmarks beside it that cannot be used: the file is a link that leaves the source's folder; copy the "
        "file",
    }


def test_a_video_with_landmarks(tmp_path: Path) -> None:
    """Of its frames."""
    write_photographs(tmp_path, "A/smile_teeth.MP4", "A/smile_teeth.npy")

    (entry,) = read(tmp_path)

    assert isinstance(entry, Entry)
    assert (entry.material.kind, entry.material.landmarks) == ("video", tmp_path / "A" / "smile_teeth.npy")


def test_what_cannot_be_used_has_a_number_too(tmp_path: Path) -> None:
    """Links, pipes, DICOM files, and a link to a folder whatever it is called."""
    write_photographs(tmp_path, "A/a.dcm", "A/rest.jpg")
    os.mkfifo(tmp_path / "A" / "pipe.jpg")
    (tmp_path / "A" / "zlink.jpg").symlink_to("/etc/passwd")
    (tmp_path / "B.json").symlink_to("A")

    told = refusals_of(read(tmp_path))

    assert told[1].startswith("is a DICOM file; prepare DICOM files as a source of their own")
    assert told[2].startswith("is no regular file")
    assert told[4].startswith("is a link that leaves")
    assert told[5] == "is a link to a folder; remove it"


def test_a_class_folder_must_stand_for_one_patient(tmp_path: Path) -> None:
    """A number that begins at 1 in every patient's folder would make one patient of them all."""
    write_photographs(tmp_path, "0/10 _brow raise_1_face.jpg", "2/s11_brow raise_1_face.jpg", "10/10_frown_2_face.jpg")
    assert [facts["subject"] for facts in facts_of(read(tmp_path))] == ["10", "10", "s11"]

    write_photographs(tmp_path, "P01/1_smile_teeth_1_face.jpg", "P02/1_smile_teeth_1_face.jpg")
    write_photographs(tmp_path, "palsy/3_rest_1_face.jpg", "palsy/4_rest_1_face.jpg")
    told = refusals_of(read(tmp_path))
    assert set(told) == {4, 5, 6, 7}
    assert all("not one patient for each folder" in reason for reason in told.values())


def test_names_that_are_not_utf_8(tmp_path: Path) -> None:
    """Have a place and facts; whoever reads the facts refuses the patient's name."""
    folder = Path(os.fsdecode(bytes(tmp_path) + b"/Ren\xe9"))
    folder.mkdir()
    (folder / "rest_1.jpg").write_bytes(b"x")

    (facts,) = facts_of(read(tmp_path))

    assert facts == {"subject": "Ren\udce9", "movement": "rest"}


def test_the_same_folder_reads_the_same(tmp_path: Path) -> None:
    """In whatever order its files were made."""
    names = [f"{subject}/rest_{frame}.jpg" for subject in "ABC" for frame in range(5)]
    write_photographs(tmp_path / "one", *names)
    write_photographs(tmp_path / "two", *reversed(names))

    assert facts_of(read(tmp_path / "one")) == facts_of(read(tmp_path / "two"))


def test_no_text_form_names_a_patient(tmp_path: Path) -> None:
    """Of the source, of its entries and of its refusals."""
    folder = tmp_path / "smith_john_1961"
    write_photographs(folder, "SMITH^JOHN/rest.jpg", "smith.jpg", "a/b/c/smith.jpg")
    (folder / "smith_link.jpg").symlink_to("/etc/passwd")

    told = repr(FolderSource(folder)) + repr(read(folder))

    assert "smith" not in told.casefold()
    with pytest.raises(ConfigError) as caught:
        read(folder / "gone")
    assert "smith" not in str(caught.value)
