"""Photographs that a CSV file names."""

from __future__ import annotations

import contextlib
import os
import tempfile
import warnings
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccfexp.errors import ConfigError
from client.prepare.entries import Entry, Refusal
from client.prepare.settings import Columns, Table
from client.prepare.sources import cells
from client.prepare.sources.table import TableSource
from tests.client.prepare.sources.tables import (
    HEADER,
    csv_text,
    facts_of,
    read_csv,
    read_table,
    refusals_of,
    write_photographs,
)

ROW = ("a.jpg", "7", "rest", "left", "true")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with photographs and a video."""
    write_photographs(tmp_path, "a.jpg", "b.JPG", "sub/c.png", "film.mp4", "a.pts", "film.npy")
    return tmp_path


def test_a_row_is_a_photograph(folder: Path) -> None:
    """With its facts as they are written, and its file below the folder."""
    (entry,) = read_csv(folder, csv_text([HEADER, (" a.jpg ", " 7 ", "Rest", "L", "yes")]))

    assert isinstance(entry, Entry)
    assert entry.number == 2
    assert entry.facts == {"subject": "7", "movement": "Rest", "side": "L", "consent_train": "yes"}
    assert (entry.material.kind, entry.material.file, entry.material.landmarks) == (
        "photograph",
        folder / "a.jpg",
        None,
    )


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_delimiters_and_byte_order_marks(folder: Path, delimiter: str, mark: bytes) -> None:
    """Found from the header alone, whatever stands below."""
    rows = [HEADER, ("a.jpg", "7;7,7\t7|7", "rest", "left", "true")]

    facts = facts_of(read_csv(folder, mark + csv_text(rows, delimiter).encode()))

    assert facts[0]["subject"] == "7;7,7\t7|7"


def test_the_delimiter_is_that_of_the_columns_that_are_looked_for(folder: Path) -> None:
    """Not the one that is most frequent in a strange name of another column."""
    text = '"name, first, second, third, fourth";path;subject\r\nx;a.jpg;7\r\n'
    assert facts_of(read_csv(folder, text)) == [{"subject": "7"}]
    text = "name, first, second, third, fourth;path;subject\r\nx;a.jpg;7\r\n"
    assert facts_of(read_csv(folder, text)) == [{"subject": "7"}]


def test_a_delimiter_that_is_set_is_used(folder: Path) -> None:
    """And no other."""
    with pytest.raises(
        ConfigError, match=r"table.columns.path: the table has no column of the name that is the default, path"
    ):
        read_csv(folder, csv_text([HEADER, ROW]), Table(delimiter=";"))


def test_an_encoding_is_used_only_as_set(folder: Path) -> None:
    """Nothing is guessed: one wrong letter makes another patient."""
    data = csv_text([HEADER, ("a.jpg", "Müller", "rest", "left", "true")])

    assert facts_of(read_csv(folder, data.encode("cp1252"), Table(encoding="cp1252")))[0]["subject"] == "Müller"
    assert facts_of(read_csv(folder, data.encode("utf-16"), Table(encoding="utf-16")))[0]["subject"] == "Müller"
    with pytest.raises(ConfigError, match="not UTF-8 text; save it as 'CSV UTF-8', or write its encoding"):
        read_csv(folder, data.encode("cp1252"))
    with pytest.raises(ConfigError, match=r"not text in table\.encoding='ascii'"):
        read_csv(folder, data.encode(), Table(encoding="ascii"))
    with pytest.raises(ConfigError, match="NUL signs, so it is in another encoding"):
        read_csv(folder, csv_text([HEADER, ROW]).encode("utf-16-le"))
    for unknown in ("nonsense", "hex", "rot13"):
        with pytest.raises(ConfigError, match=f"table.encoding='{unknown}' is not known"):
            read_csv(folder, data, Table(encoding=unknown))


def test_columns_are_called_as_the_hospital_calls_them(folder: Path) -> None:
    """Capitals and spaces around do not count; a column that nobody asks for is not read."""
    columns = Columns(path="File", subject="Patient No", side="Seite")
    text = csv_text([(" FILE", "patient no ", "SEITE", "Movement", "Remark"), ("a.jpg", "7", "links", "rest", "x")])

    assert facts_of(read_csv(folder, text, Table(columns=columns))) == [
        {"subject": "7", "side": "links", "movement": "rest"}
    ]


def test_a_missing_column_is_named_by_our_key(folder: Path) -> None:
    """And by the hospital's own name for it; a similar column by its place, since its name could be a patient's."""
    text = csv_text([("path", "Patient SMITH"), ("a.jpg", "7")])

    with pytest.raises(ConfigError) as caught:
        read_csv(folder, text, Table(columns=Columns(subject="Patient")))

    assert str(caught.value) == (
        "table.columns.subject: the table has no column of the name that is given there (column 2 has a similar name); "
        "write its name as table.columns.subject"
    )


def test_a_column_of_two_keys_or_two_columns_of_one(folder: Path) -> None:
    """Which is meant cannot be told."""
    with pytest.raises(ConfigError, match="columns 2 and 3 of the table are called so"):
        read_csv(folder, csv_text([("path", "subject", "SUBJECT "), ("a.jpg", "7", "8")]))
    with pytest.raises(ConfigError, match=r"table\.columns\.subject and table\.columns\.session name the same column"):
        read_csv(
            folder, csv_text([("path", "ID"), ("a.jpg", "7")]), Table(columns=Columns(subject="ID", session="id "))
        )


def test_a_name_that_one_key_claims_is_no_others_default(folder: Path) -> None:
    """A hospital whose column of patients is called session has no column of sessions."""
    text = csv_text([("path", "session"), ("a.jpg", "7")])

    assert facts_of(read_csv(folder, text, Table(columns=Columns(subject="session")))) == [{"subject": "7"}]


def test_rows_are_numbered_as_a_spreadsheet_numbers_them(folder: Path) -> None:
    """A cell of two lines is one row, an empty row is one too."""
    text = 'path,subject,movement\r\n,,\r\n\r\na.jpg,"7\r\n8",rest\r\nb.JPG,9,rest\r\n'

    found = read_csv(folder, text)

    assert [entry.number for entry in found] == [4, 5]
    assert facts_of(found)[0]["subject"] == "7\r\n8"


def test_ragged_rows_are_refused(folder: Path) -> None:
    """Which cell is missing cannot be told; empty cells at the end are no cells."""
    text = "path,subject,movement\na.jpg,7\na.jpg,7,rest,SMITH\na.jpg,7,rest,,\n"

    found = read_csv(folder, text)

    assert refusals_of(found) == {
        2: "has 2 cells, the header has 3; put texts with delimiters in quotes",
        3: "has 4 cells, the header has 3; put texts with delimiters in quotes",
    }
    assert found[2].number == 4
    assert isinstance(found[2], Entry)


@pytest.mark.parametrize(
    "text", ['path,subject\na.jpg,"7\nb.JPG,8\n', 'path,subject\na.jpg,"7"8\n', 'path,subject\n"' + "x" * 200_000]
)
def test_a_quotation_mark_that_is_not_closed(folder: Path, text: str) -> None:
    """Makes one cell of all that follows, so nothing is taken."""
    with pytest.raises(ConfigError, match="row 2 of the table, or one after it, cannot be read"):
        read_csv(folder, text)


def test_a_cell_that_is_too_long_refuses_its_row(folder: Path) -> None:
    """In a column that is read."""
    text = csv_text([("path", "subject", "remark"), ("a.jpg", "7" * 40_000, ""), ("b.JPG", "7", "x" * 40_000)])

    assert refusals_of(read_csv(folder, text)) == {2: "subject is longer than 32767 signs; shorten it"}


def test_paths_are_checked(folder: Path) -> None:
    """Each with its column; the table's other rows go on."""
    (folder / "out.jpg").symlink_to("/etc/passwd")
    os.mkfifo(folder / "pipe.jpg")
    rows = [
        ("path", "landmarks", "subject"),
        ("../a.jpg", "", "7"),
        ("/etc/passwd", "", "7"),
        ("out.jpg", "", "7"),
        ("pipe.jpg", "", "7"),
        ("gone.jpg", "gone.pts", "7"),
        ("a.jpg", "a.pts", "7"),
        ("b.JPG", "a.jpg", "7"),
        ("a.pts", "", "7"),
    ]

    found = read_csv(folder, csv_text(rows))

    told = refusals_of(found)
    assert told[2] == "path leaves the table's folder; move the file below it"
    assert told[3] == "path is absolute; write the path from the table's folder"
    assert told[4] == "path is a link that leaves the source's folder; copy the file"
    assert told[5].startswith("path is no regular file")
    assert told[6] == "path is missing; check its name; landmarks is missing; check its name"
    assert told[8] == "landmarks is of no known type; use .csv, .json, .npy, .pts"
    assert told[9] == "path is of no known type; name a photograph, a DICOM file or a video"
    (entry,) = (entry for entry in found if isinstance(entry, Entry))
    assert (entry.number, entry.material.landmarks) == (7, folder / "a.pts")


def test_movements_of_a_video(folder: Path) -> None:
    """Each part is an entry of its own."""
    rows = [
        ("path", "landmarks", "subject", "start_s", "end_s"),
        ("film.mp4", "film.npy", "7", "0", "2.5"),
        ("film.mp4", "", "7", "2.5", ""),
        ("film.mp4", "", "7", "3", "2"),
        ("film.mp4", "", "7", "-1", "x"),
        ("film.mp4", "a.pts", "7", "", ""),
        ("a.jpg", "", "7", "1", "2"),
        ("film.mp4", "", "7", "0.0", "2.50"),
        ("film.mp4", "", "7", "", "0"),
        ("film.mp4", "", "7", "", "2.5"),
    ]

    found = read_csv(folder, csv_text(rows))

    parts = [(e.number, e.material.kind, e.material.start_s, e.material.end_s) for e in found if isinstance(e, Entry)]
    assert parts == [(2, "video", 0.0, 2.5), (3, "video", 2.5, None), (8, "video", 0.0, 2.5), (10, "video", None, 2.5)]
    told = refusals_of(found)
    assert told[4] == told[9] == "end_s is not after start_s; write where the movement begins and where it ends"
    assert told[5].count("is not a number of at least 0") == 2
    assert told[6] == "landmarks is of no known type; use .npy"
    assert told[7].startswith("start_s and end_s belong to a video")


def test_dicom_files_are_told_by_name_or_magic(folder: Path) -> None:
    """One often has no suffix."""
    (folder / "IM0001").write_bytes(bytes(128) + b"DICM")
    write_photographs(folder, "x.dcm")
    rows = [("path", "subject", "end_s"), ("IM0001", "7", ""), ("x.dcm", "7", ""), ("IM0001", "7", "2")]

    found = read_csv(folder, csv_text(rows))

    assert [e.material.kind for e in found if isinstance(e, Entry)] == ["dicom", "dicom", "dicom_video"]


def test_a_row_whose_photograph_is_gone_still_says_who_does_not_agree(folder: Path) -> None:
    """A consent that is taken back counts although the file is deleted."""
    rows = [("path", "subject", "consent_train"), ("gone.jpg", "7", "false"), ("../a.jpg", "8", "")]

    found = read_csv(folder, csv_text(rows))

    assert [entry.facts for entry in found if isinstance(entry, Refusal)] == [
        {"subject": "7", "consent_train": "false"},
        {"subject": "8", "consent_train": ""},
    ]
    assert not any("7" in repr(entry) or "false" in repr(entry) for entry in found)


def test_what_is_no_table(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is told without its name."""
    for text, reason in (
        (b"", "the table is empty"),
        (b"\n\n ,\n", "the table is empty"),
        (b"\npath,subject\na.jpg,7\n", "the table's first row is empty"),
        (bytes.fromhex("d0cf11e0a1b11ae1") + b"x", "old or a locked workbook"),
        (",".join(["path", "subject", *(f"c{n}" for n in range(255))]).encode(), "more than 256 columns"),
        (b"path,subject\n" + b"a.jpg,7\n" * 100_000, "more than 100000 rows"),
    ):
        with pytest.raises(ConfigError, match=reason):
            read_csv(folder, text)
    monkeypatch.setattr(cells, "MAX_BYTES", 10)
    with pytest.raises(ConfigError, match="more than 10 bytes"):
        read_csv(folder, "path,subject")
    os.mkfifo(folder / "smith.csv")
    for name, reason in (("smith.csv", "no regular file"), ("smith2.csv", "No such file"), (".", "no regular file")):
        with pytest.raises(ConfigError, match=reason) as caught:
            read_table(folder / name)
        assert "smith" not in str(caught.value)


def test_a_header_that_several_delimiters_fit(folder: Path) -> None:
    """Is asked back."""
    with pytest.raises(ConfigError, match=r"write which as table\.delimiter"):
        read_csv(folder, "a,b;c\n1,2;3\n")


def test_the_source_names_no_file(folder: Path) -> None:
    """Not even where an error shows its arguments."""
    assert repr(TableSource(folder, folder / "smith.csv", Table())) == "TableSource()"


@given(
    st.binary(max_size=200) | st.text(max_size=120).map(str.encode),
    st.sampled_from([None, "cp1252", "utf-16", "utf-7"]),
)
def test_any_bytes_are_a_table_or_refused(data: bytes, encoding: str | None) -> None:
    """Nothing crashes, and no warning gets out."""
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings(), contextlib.suppress(ConfigError):
        warnings.simplefilter("error")
        read_csv(Path(name), data, Table(encoding=encoding))


@given(
    st.lists(st.lists(st.text(st.characters(codec="utf-8"), max_size=12), min_size=5, max_size=5), max_size=4),
    st.sampled_from(",;\t|"),
)
def test_any_cells_are_rows_or_refused(rows: list[list[str]], delimiter: str) -> None:
    """And no reason holds what stands in a cell."""
    planted = [[f"SMITH{cell}" for cell in row] for row in rows]
    with tempfile.TemporaryDirectory() as name:
        try:
            told = repr(read_csv(Path(name), csv_text([HEADER, *planted], delimiter)))
        except ConfigError as error:
            told = str(error)
    assert "SMITH" not in told


def test_a_manifest_is_a_table_too(folder: Path) -> None:
    """Its column of patients has a name of its own; one that is called subject comes first."""
    header = ("path", "subject_id", *HEADER[2:])
    assert facts_of(read_csv(folder, csv_text([header, ROW])))[0]["subject"] == "7"
    both = read_csv(folder, csv_text([("subject_id", *HEADER), ("9", *ROW)]))
    assert facts_of(both)[0]["subject"] == "7"
