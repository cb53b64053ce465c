"""Photographs that a workbook names, and workbooks made to do harm."""

from __future__ import annotations

import contextlib
import io
import itertools
import sys
import tempfile
import time
import warnings
import zipfile
import zlib
from datetime import date, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openpyxl import Workbook

from ccfexp.errors import ConfigError
from client.prepare.settings import Columns, Table
from client.prepare.sources.workbook import MAX_UNPACKED
from tests.client.prepare.sources.tables import (
    change_archive,
    facts_of,
    read_csv,
    read_table,
    refusals_of,
    share_strings,
    write_photographs,
    write_workbook,
)

ROWS = [("path", "subject", "movement"), ("a.jpg", 7, "rest")]
SHEET = "xl/worksheets/sheet1.xml"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with photographs."""
    write_photographs(tmp_path, *(f"{name}.jpg" for name in "abcdefgh"))
    return tmp_path


def test_cells_are_read_as_a_person_would_write_them(folder: Path) -> None:
    """Whole numbers without a point, days as year-month-day, booleans as words."""
    file = write_workbook(
        folder / "t.xlsx",
        [
            ("path", "subject", "session", "grade", "consent_train", "consent_expires", "mm_per_pixel"),
            (
                "a.jpg",
                7.0,
                datetime(2026, 3, 1),  # noqa: DTZ001  # a spreadsheet knows no time zones
                3,
                True,
                date(2030, 1, 31),
                0.25,
            ),
            (
                "b.jpg",
                "007",
                datetime(2026, 3, 1, 14, 30),  # noqa: DTZ001
                "IV",
                False,
                None,
                1e-3,
            ),
        ],
    )

    first, second = facts_of(read_table(file))

    assert first == {
        "subject": "7",
        "session": "2026-03-01",
        "grade": "3",
        "consent_train": "true",
        "consent_expires": "2030-01-31",
        "mm_per_pixel": "0.25",
    }
    assert (second["subject"], second["session"], second["consent_train"]) == ("007", "2026-03-01T14:30:00", "false")
    assert (second["consent_expires"], second["mm_per_pixel"]) == ("", "0.001")


def test_a_workbook_and_a_csv_file_say_the_same(folder: Path) -> None:
    """Their type is told by their first bytes, whatever they are called."""
    file = write_workbook(folder / "t.xlsx", ROWS).rename(folder / "t.csv")

    found = read_table(file)

    assert found == read_table(share_strings(file)) == read_csv(folder, "path,subject,movement\na.jpg,7,rest\n")


def test_rows_keep_their_numbers(folder: Path) -> None:
    """Empty rows count; what stands beside the header belongs to no column."""
    file = write_workbook(folder / "t.xlsx", [*ROWS, (), (None, None, None), ("b.jpg", 8, "rest", "a note", "SMITH")])

    assert [entry.number for entry in read_table(file)] == [2, 5]


def test_a_formula_without_a_result_is_not_an_empty_cell(folder: Path) -> None:
    """A grade that was computed but not stored would be read as not graded."""
    file = write_workbook(
        folder / "t.xlsx",
        [
            ("path", "subject", "grade", "remark"),
            ("a.jpg", 7, "=1+2", ""),
            ("b.jpg", 8, 3, "=1+2"),
            ("c.jpg", 9, "#N/A", ""),
        ],
    )

    found = read_table(file)

    told = refusals_of(found)
    assert told.pop(2) == "grade is a formula without a stored result; open the workbook, save it, or write the value"
    assert told == {4: "grade is an error of the spreadsheet; correct it"}
    assert found[1].number == 3  # a column that nobody asks for may hold what it likes


def test_a_formula_with_a_result_is_its_result(folder: Path) -> None:
    """As the spreadsheet program stored it."""
    file = write_workbook(folder / "t.xlsx", [("path", "subject", "grade"), ("a.jpg", 7, "=1+2")])
    change_archive(file, lambda _, data: data.replace(b"<f>1+2</f><v />", b"<f>1+2</f><v>3</v>"))

    assert facts_of(read_table(file))[0]["grade"] == "3"


def test_merged_cells_are_refused(folder: Path) -> None:
    """What they say of the rows below cannot be told; in the header's row they do no harm."""
    book = Workbook()
    sheet = book.active
    assert sheet is not None
    for row in [*ROWS, ("b.jpg", 7, "rest"), ("c.jpg", None, "rest")]:
        sheet.append(row)
    sheet.merge_cells("D1:F1")
    book.save(folder / "t.xlsx")
    assert len(read_table(folder / "t.xlsx")) == 3

    sheet.merge_cells("B3:B4")
    book.save(folder / "t.xlsx")
    with pytest.raises(ConfigError, match="merged cells, the first in row 3"):
        read_table(folder / "t.xlsx")


def test_sheets(folder: Path) -> None:
    """The first that is not hidden, or the one that is named, hidden or not."""
    book = Workbook()
    hidden, shown = book.active, book.create_sheet("Patients")
    assert hidden is not None
    hidden.title, hidden.sheet_state = "SMITH", "hidden"
    for sheet, subject in ((hidden, 1), (shown, 2)):
        sheet.append(["path", "subject"])
        sheet.append(["a.jpg", subject])
    book.save(folder / "t.xlsx")

    assert facts_of(read_table(folder / "t.xlsx")) == [{"subject": "2"}]
    assert facts_of(read_table(folder / "t.xlsx", Table(sheet="SMITH"))) == [{"subject": "1"}]
    with pytest.raises(ConfigError, match=r"table\.sheet='Patient' is no sheet of the workbook") as caught:
        read_table(folder / "t.xlsx", Table(sheet="Patient"))
    assert "SMITH" not in str(caught.value)
    shown.sheet_state = "hidden"
    change_archive(
        folder / "t.xlsx",
        lambda _, data: data.replace(
            b'name="Patients" sheetId="2" state="visible"', b'name="Patients" sheetId="2" state="hidden"'
        ),
    )
    with pytest.raises(ConfigError, match="no visible sheet"):
        read_table(folder / "t.xlsx")


def test_a_wrong_size_in_the_file_hides_no_row(folder: Path) -> None:
    """Some programs write one."""
    file = write_workbook(folder / "t.xlsx", [*ROWS, ("b.jpg", 8, "rest")])
    change_archive(file, lambda _, data: data.replace(b'ref="A1:C3"', b'ref="A1:A2"'))

    assert [facts["subject"] for facts in facts_of(read_table(file))] == ["7", "8"]


def test_the_last_row_of_a_sheet_is_too_far_down(folder: Path) -> None:
    """A table of more rows than are taken is never cut short without a word."""
    file = write_workbook(folder / "t.xlsx", [*ROWS, ("b.jpg", 8, "rest")])
    change_archive(
        file,
        lambda name, data: (
            data.replace(b'r="3"', b'r="1048576"').replace(b'3" ', b'1048576" ') if name == SHEET else data
        ),
    )

    with pytest.raises(ConfigError, match="more than 100000 rows"):
        read_table(file)


# --- workbooks made to do harm ----------------------------------------------------------------------------------------


def test_a_bomb_of_zeros_is_measured_first(folder: Path) -> None:
    """Two hundred megabytes in a file of two hundred kilobytes, and nothing of it is kept."""
    file = write_workbook(folder / "t.xlsx", ROWS)
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.writestr("xl/media/image1.png", bytes(2 * MAX_UNPACKED))
    assert file.stat().st_size < 300_000

    with pytest.raises(ConfigError, match=f"unpacks to more than {MAX_UNPACKED} bytes"):
        read_table(file)


def test_a_bomb_that_declares_a_small_size(folder: Path) -> None:
    """What it declares is not what counts."""
    file = write_workbook(folder / "t.xlsx", ROWS)
    size = MAX_UNPACKED + 1000
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.writestr("xl/media/image1.png", bytes(size))
    data = file.read_bytes()
    declared = size.to_bytes(4, "little")
    assert data.count(declared) == 2  # in the file's own head, and in the directory
    file.write_bytes(data.replace(declared, (1000).to_bytes(4, "little")))

    begun = time.perf_counter()
    with pytest.raises(ConfigError, match="damaged or unusual"):
        read_table(file)
    assert time.perf_counter() - begun < 5


def test_a_bomb_of_many_files(folder: Path) -> None:
    """They are counted before they are listed."""
    file = write_workbook(folder / "t.xlsx", ROWS)
    with zipfile.ZipFile(file, "a") as archive:
        for number in range(2_001):
            archive.writestr(f"xl/{number}", b"")

    with pytest.raises(ConfigError, match="or 2000 files"):
        read_table(file)


def test_a_bomb_of_sheets_that_share_their_bytes(folder: Path) -> None:
    """Many entries of the directory for one packed text."""
    packed = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = packed.compress(b" " * 10_000_000) + packed.flush()
    file = folder / "t.xlsx"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", b" " * 10_000_000)
        first = archive.infolist()[0]
        for number in range(50):
            again = zipfile.ZipInfo(f"b{number}")
            again.compress_type, again.CRC = first.compress_type, first.CRC
            again.compress_size, again.file_size, again.header_offset = len(body), first.file_size, first.header_offset
            archive.filelist.append(again)
    file.write_bytes(buffer.getvalue())

    with pytest.raises(ConfigError, match="unpacks to more than"):
        read_table(file)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize(
    "member", [SHEET, "xl/workbook.xml", "xl/sharedStrings.xml", "[Content_Types].xml", "docProps/core.xml"]
)
def test_entities_are_refused(folder: Path, member: str, encoding: str) -> None:
    """A billion laughs, in any file of the workbook and in any encoding of it."""
    laughs = '<!DOCTYPE x [<!ENTITY a "SMITH">' + "".join(
        f'<!ENTITY {name} "{f"&{before};" * 10}">' for before, name in itertools.pairwise("abcdefghi")
    )

    def plant(name: str, data: bytes) -> bytes:
        if name != member:
            return data
        body = data.decode().partition("?>")[2] if data.startswith(b"<?xml") else data.decode()
        return f'<?xml version="1.0" encoding="{encoding}"?>{laughs}]>{body}'.encode(encoding)

    file = share_strings(write_workbook(folder / "t.xlsx", ROWS))
    change_archive(file, plant)

    begun = time.perf_counter()
    with pytest.raises(ConfigError, match="declares XML entities"):
        read_table(file)
    assert time.perf_counter() - begun < 5


def test_a_way_of_packing_that_takes_the_memory(folder: Path) -> None:
    """Only those of the format are unpacked."""
    file = write_workbook(folder / "t.xlsx", ROWS)
    with zipfile.ZipFile(file, "a", zipfile.ZIP_LZMA) as archive:
        archive.writestr("xl/media/image1.png", bytes(1000))

    with pytest.raises(ConfigError, match="damaged or unusual"):
        read_table(file)


@given(
    st.sampled_from(["", SHEET, "xl/workbook.xml", "xl/styles.xml", "xl/sharedStrings.xml"]),
    st.integers(0, 9999),
    st.integers(0, 40),
    st.binary(max_size=6),
)
@settings(max_examples=80)
def test_any_damage_is_a_refusal(member: str, place: int, removed: int, added: bytes) -> None:
    """Wherever bytes are wrong, in the archive or in a file of it; no warning and no text of the workbook gets out."""

    def damage(name: str, body: bytes) -> bytes:
        begin = place * len(body) // 10_000
        return body[:begin] + added + body[begin + removed :] if name == member else body

    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("error")
        folder = Path(name)
        write_photographs(folder, "a.jpg")
        rows = [("path", "subject", "smith_john_1961"), ("a.jpg", "SMITH^JOHN", "x")]
        file = share_strings(write_workbook(folder / "t.xlsx", rows))
        if member and (removed or added):
            with contextlib.suppress(AssertionError):  # what was put in may be what was taken out
                change_archive(file, damage)
        else:
            file.write_bytes(damage("", file.read_bytes()))
        try:
            told = repr(read_table(file))
        except ConfigError as error:
            told = str(error)
    assert "smith" not in told.casefold()


def test_openpyxls_warnings_hold_values_and_stay_inside(folder: Path) -> None:
    """A day outside its calendar makes it warn with the cell's value."""
    file = write_workbook(folder / "t.xlsx", [("path", "subject", "session"), ("a.jpg", 7, date(2026, 3, 1))])
    change_archive(
        file, lambda name, data: data.replace(b"<v>46082</v>", b"<v>19610401000</v>") if name == SHEET else data
    )

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = read_table(file)

    assert caught == []
    assert "19610401" not in repr(found)


def test_without_openpyxl_the_extra_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And CSV needs none."""
    file = write_workbook(folder / "t.xlsx", ROWS)
    monkeypatch.setitem(sys.modules, "openpyxl.reader.excel", None)

    with pytest.raises(ConfigError, match="install the extra `photos`"):
        read_table(file)
    with contextlib.suppress(ConfigError):
        read_csv(folder, "path,subject\n")


def test_a_renamed_column_of_a_workbook(folder: Path) -> None:
    """The columns are found as in a CSV file."""
    file = write_workbook(folder / "t.xlsx", [(" Bild ", "PATIENT", 1961), ("a.jpg", 7, 1)])

    assert facts_of(read_table(file, Table(columns=Columns(path="bild", subject="patient")))) == [{"subject": "7"}]
