"""Manifests: what is read back, and everything that is refused."""

from __future__ import annotations

import csv
import hashlib
import io
import string
import tempfile
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ccfexp.data.manifest import (
    COLUMNS,
    OPTIONAL_COLUMNS,
    LandmarkSource,
    Movement,
    Role,
    Row,
    Side,
    Split,
    ended_consents,
    read_manifest,
    write_manifest,
)
from ccfexp.errors import ManifestError
from tests.ccfexp.data.manifest_rows import SIZE, image_bytes, make_row, write_site

SECRET = "subject-1"

# Text that a CSV file must quote is included.
LETTERS = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S"]), min_size=1)
TEXTS = st.builds(
    lambda left, middle, right: left + middle + right, LETTERS, st.sampled_from(["", ",", '"', " "]), LETTERS
)
ROWS = st.builds(
    make_row,
    st.text(string.ascii_letters + string.digits, min_size=1, max_size=8).map(lambda stem: f"images/{stem}.png"),
    subject_id=TEXTS,
    session=TEXTS,
    movement=st.sampled_from(Movement),
    side=st.sampled_from(Side),
    grade=st.none() | st.integers(1, 6),
    role=st.sampled_from([Role.BOTH, Role.IDENTITY]),
    split=st.just(Split.HOLDOUT),
    landmark_source=st.sampled_from(LandmarkSource),
    consent_train=st.booleans(),
    consent_generate=st.booleans(),
    consent_expires=st.none() | st.dates(),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(ROWS, min_size=1, max_size=5, unique_by=lambda row: row.path.lower()))
def test_what_is_written_is_read_back(rows: list[Row]) -> None:
    """Any rows survive the file exactly, in their order."""
    with tempfile.TemporaryDirectory() as folder:
        manifest = read_manifest(write_site(Path(folder), rows), SIZE)

        assert manifest.rows == tuple(rows)
        assert manifest.root == Path(folder).resolve()
        assert manifest.image_size == SIZE


def test_columns_are_the_contract() -> None:
    """Hospitals write these names; changing one breaks their files."""
    expected = (
        "subject_id session movement side grade role split path sha256 landmarks landmark_source "
        "consent_train consent_generate"
    )

    assert " ".join(COLUMNS) == expected
    assert " ".join(OPTIONAL_COLUMNS) == "landmarks_sha256 consent_expires"


def test_file_is_plain_csv(tmp_path: Path) -> None:
    """Grades are Roman, booleans lower case, an unknown grade is empty."""
    write_manifest(tmp_path / "m.csv", [make_row(), make_row("b.png", grade=None)])
    first, second = csv.DictReader(io.StringIO((tmp_path / "m.csv").read_text()))

    assert (first["grade"], first["consent_train"], first["consent_generate"]) == ("IV", "true", "false")
    assert second["grade"] == ""


def test_spreadsheet_file_is_read(tmp_path: Path) -> None:
    """A byte order mark, other line ends and another order of columns change nothing."""
    path = write_site(tmp_path, [make_row()])
    table = list(csv.reader(io.StringIO(path.read_text())))
    text = "\r\n".join(",".join(reversed(line)) for line in table) + "\r\n"
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())

    assert read_manifest(path, SIZE).rows == (make_row(),)


def test_row_text_does_not_identify() -> None:
    """A row in a log shows neither the patient nor the file."""
    row = make_row("folder/face.png")

    assert SECRET not in repr(row)
    assert "face" not in repr(row)
    assert row.sha256 not in repr(row)


# --- one bad row ------------------------------------------------------------------------------------------------------


def edit(column: str, text: str) -> Callable[[Path], None]:
    """Make a change of one text in the second row."""

    def change(path: Path) -> None:
        lines = list(csv.DictReader(io.StringIO(path.read_text())))
        lines[1][column] = text
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, lines[0] | lines[1])
            writer.writeheader()
            writer.writerows(lines)

    return change


def image(data: bytes | None) -> Callable[[Path], None]:
    """Make a change of the second row's image, with its hash made to fit unless it is removed."""

    def change(path: Path) -> None:
        file = path.parent / "b.png"
        if data is None:
            file.unlink()
        else:
            file.write_bytes(data)
            edit("sha256", hashlib.sha256(data).hexdigest())(path)

    return change


def landmarks(array: np.ndarray[tuple[int, ...], np.dtype[np.generic]] | bytes | None) -> Callable[[Path], None]:
    """Make a change of the second row's landmarks."""

    def change(path: Path) -> None:
        file = path.parent / "b.png.npy"
        if array is None:
            file.unlink()
        elif isinstance(array, bytes):
            file.write_bytes(array)
        else:
            np.save(file, array)

    return change


def mirrored() -> bytes:
    """Return an image that viewers show mirrored."""
    stream = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 2
    Image.new("RGB", (SIZE, SIZE)).save(stream, "JPEG", exif=exif)
    return stream.getvalue()


def archive() -> bytes:
    """Return a .npz archive."""
    stream = io.BytesIO()
    np.savez(stream, np.zeros((68, 2), np.float32))
    return stream.getvalue()


NAN = np.full((68, 2), np.nan, np.float32)
GIF = image_bytes("b", kind="GIF", mode="L")

BAD_ROWS: dict[str, tuple[Callable[[Path], None], str]] = {
    "no subject": (edit("subject_id", " "), "subject_id is empty"),
    "no session": (edit("session", ""), "session is empty"),
    "movement": (edit("movement", "smile_teth"), "movement is not a known word. Did you mean 'smile_teeth'?"),
    "side": (edit("side", "Left"), "side is not a known word. Did you mean 'left'?"),
    "grade number": (edit("grade", "4"), "grade is not a House-Brackmann grade"),
    "grade seven": (edit("grade", "VII"), "grade is not a House-Brackmann grade"),
    "role": (edit("role", "target"), "role is not a known word. Known: identity, expression, both"),
    "split": (edit("split", "test"), "split is not a known word"),
    "source": (edit("landmark_source", "ai"), "landmark_source is not a known word"),
    "consent word": (edit("consent_train", "yes"), "consent_train is neither true nor false"),
    "consent to generate": (edit("consent_generate", ""), "consent_generate is neither true nor false"),
    "no consent": (edit("consent_train", "false"), "split=train without consent_train=true"),
    "consent day": (edit("consent_expires", "31.12.2027"), "consent_expires is not a day; write YYYY-MM-DD"),
    "consent week": (edit("consent_expires", "2027-W05-1"), "consent_expires is not a day; write YYYY-MM-DD"),
    "landmark hash": (edit("landmarks_sha256", "x"), "landmarks_sha256 is not a SHA-256"),
    "landmarks altered": (edit("landmarks_sha256", "0" * 64), "landmarks differ from landmarks_sha256"),
    "absolute": (edit("path", "/etc/passwd"), "path is absolute"),
    "drive": (edit("path", "C:/face.png"), "path is absolute"),
    "escaping": (edit("path", "x/../../face.png"), "path leaves the manifest's folder"),
    "backslash": (edit("path", "..\\face.png"), "path holds a backslash"),
    "no path": (edit("path", ""), "path is empty"),
    "landmarks escaping": (edit("landmarks", "../face.npy"), "landmarks leaves the manifest's folder"),
    "no hash": (edit("sha256", "ABC"), "sha256 is not a SHA-256"),
    "altered": (edit("sha256", "0" * 64), "image differs from its sha256"),
    "missing": (image(None), "image is missing"),
    "not an image": (image(b"GIF89a nonsense"), "image is not a readable PNG or JPEG"),
    "empty file": (image(b""), "image is not a readable PNG or JPEG"),
    "other format": (image(GIF), "image is not a readable PNG or JPEG"),
    "truncated": (image(image_bytes("b")[:-30]), "image is damaged"),
    "size": (image(image_bytes("b", size=SIZE + 1)), "image is 17x17 pixels, expected 16x16"),
    "grey": (image(image_bytes("b", mode="L")), "image mode=L, expected RGB"),
    "mirrored": (image(mirrored()), "image is stored turned or mirrored"),
    "folder": (edit("path", "."), "image cannot be read"),
    "no landmarks": (landmarks(None), "landmarks file is missing"),
    "pickle": (landmarks(np.array([{}], dtype=object)), "landmarks are not a readable .npy file"),
    "landmark text": (landmarks(b"1,2"), "landmarks are not a readable .npy file"),
    "landmark archive": (landmarks(archive()), "landmarks are an archive"),
    "landmark shape": (landmarks(NAN[:5]), "landmarks are float32 [5, 2], expected float32 [68, 2]"),
    "landmark type": (landmarks(NAN.astype(float)), "landmarks are float64 [68, 2]"),
    "landmark nan": (landmarks(NAN), "landmarks hold values that are not finite"),
    "twice": (edit("path", "a.png"), "names the same image as row 2"),
    "both splits": (edit("split", "holdout"), "its subject is in both splits"),
    "no identity": (edit("subject_id", "someone"), "its subject has no image with role=identity"),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_bad_row_is_refused_by_number_and_reason(tmp_path: Path, name: str) -> None:
    """The row number and the reason are said; neither the patient nor the file is."""
    change, reason = BAD_ROWS[name]
    path = write_site(tmp_path, [make_row(), make_row("b.png", role=Role.EXPRESSION)])
    change(path)

    with pytest.raises(ManifestError) as caught:
        read_manifest(path, SIZE)

    assert any(problem.startswith(f"row 3: {reason}") for problem in caught.value.problems), caught.value.problems
    for secret in (SECRET, "someone", "passwd", "face", "a.png", "b.png", str(tmp_path)):
        assert secret not in str(caught.value)
    assert caught.value.__cause__ is None


def test_consent_that_has_ended_is_told_by_row() -> None:
    """The last day still counts."""
    rows = [make_row(consent_expires=day) for day in (None, date(2026, 3, 1), date(2026, 3, 2))]

    assert [line.partition(":")[0] for line in ended_consents(rows, date(2026, 3, 2))] == ["row 3"]


def test_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    """A link may not carry a file from elsewhere into the data set."""
    path = write_site(tmp_path / "site", [make_row()])
    outside = tmp_path / "outside.png"
    (tmp_path / "site" / "a.png").rename(outside)
    (tmp_path / "site" / "a.png").symlink_to(outside)

    with pytest.raises(ManifestError, match="row 2: image is a link that leaves"):
        read_manifest(path, SIZE)


def test_all_problems_are_listed_at_once(tmp_path: Path) -> None:
    """One reading shows everything that is wrong, in the order of the rows."""
    rows = [make_row(f"{index}.png") for index in range(5)]
    path = write_site(tmp_path, rows)
    (tmp_path / "0.png").unlink()
    edit("side", "?")(path)
    (tmp_path / "3.png").write_bytes(b"x")
    (tmp_path / "4.png.npy").unlink()

    with pytest.raises(ManifestError) as caught:
        read_manifest(path, SIZE)

    assert [problem.split(":")[0] for problem in caught.value.problems] == ["row 2", "row 3", "row 5", "row 5", "row 6"]
    assert "5 problem(s)" in str(caught.value)


def test_subject_in_both_splits_names_every_row(tmp_path: Path) -> None:
    """Whoever corrects the split needs all rows of the patient."""
    rows = [make_row("a.png"), make_row("b.png", subject_id="other"), make_row("c.png", split=Split.HOLDOUT)]

    with pytest.raises(ManifestError) as caught:
        read_manifest(write_site(tmp_path, rows), SIZE)

    assert [problem.split(",")[0] for problem in caught.value.problems] == [
        "row 2: its subject is in both splits",
        "row 4: its subject is in both splits",
    ]


# --- bad tables -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("movement,", "", "missing column: movement"),
        ("side,", "sides,", "column 4 has an unknown name. Did you mean 'side'?"),
        ("side,", "side,side,", "column 5 is a second side"),
        ("side,", "Jane Doe,", "missing column: side"),
    ],
)
def test_bad_header_is_refused(tmp_path: Path, old: str, new: str, reason: str) -> None:
    """Missing, foreign and double columns are named; foreign names are not repeated."""
    path = write_site(tmp_path, [make_row()])
    path.write_text(path.read_text().replace(old, new, 1))

    with pytest.raises(ManifestError) as caught:
        read_manifest(path, SIZE)

    assert reason in caught.value.problems
    assert "Jane" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "reason"),
    [("a,b", "has 2 fields, expected 13"), ("," * 20, "has more than 13 fields")],
)
def test_wrong_number_of_fields(tmp_path: Path, line: str, reason: str) -> None:
    """A row that is too short or too long is refused, not padded or cut."""
    path = write_site(tmp_path, [make_row()])
    path.write_text(path.read_text() + line + "\n")

    with pytest.raises(ManifestError, match=f"row 3: {reason}"):
        read_manifest(path, SIZE)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (None, "cannot be read"),
        (b"", "missing column: subject_id"),
        (b"\xff\xfe\x00", "not UTF-8"),
        ((",".join(COLUMNS) + "\n").encode(), "rows=0"),
        ((",".join(COLUMNS) + '\n"open').encode(), "not a CSV file"),
    ],
)
def test_unusable_file(tmp_path: Path, data: bytes | None, reason: str) -> None:
    """A file that is no manifest at all gives one clear error."""
    path = tmp_path / "manifest.csv"
    if data is not None:
        path.write_bytes(data)

    with pytest.raises(ManifestError, match=reason):
        read_manifest(path, SIZE)


@pytest.mark.parametrize("changes", [{"grade": 7}, {"subject_id": ""}, {"path": "../x.png"}, {"session": "1\r2"}])
def test_bad_row_is_not_written(tmp_path: Path, changes: dict[str, Any]) -> None:
    """What could not be read is not written, and the old file stays."""
    path = tmp_path / "manifest.csv"
    path.write_text("old")

    with pytest.raises(ManifestError, match="row 3: "):
        write_manifest(path, [make_row(), make_row(**({"path": "b.png"} | changes))])

    assert path.read_text() == "old"
