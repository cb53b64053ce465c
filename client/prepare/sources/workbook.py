"""The rows of one sheet of an .xlsx workbook, as text.

A workbook is a ZIP archive of XML files that comes from outside: before openpyxl opens it, its unpacked size is
measured by unpacking it, and XML that declares entities is refused.
"""

from __future__ import annotations

import io
import math
import warnings
import zipfile
import zlib
from datetime import date, datetime, time, timedelta
from typing import Any
from xml.parsers import expat

from ccfexp.errors import ConfigError

MAX_UNPACKED = 100_000_000
"""Bytes of all files of a workbook together, unpacked."""
MAX_MEMBERS = 2_000
"""Files of a workbook."""

_CHUNK = 1 << 20
_XML = (".xml", ".rels", ".vml")
_DIRECTORY_ENTRY = b"PK\x01\x02"
_TOO_LARGE = (
    f"the workbook unpacks to more than {MAX_UNPACKED} bytes or {MAX_MEMBERS} files; save the sheet as CSV UTF-8"
)
_DAMAGED = "the table is a damaged or unusual workbook; save it again as .xlsx, or as CSV UTF-8"
_SHEET_ROWS = 1 << 20  # of any sheet; many are empty but for their format
_WHOLE = 1e15  # below it a float holds every whole number exactly, and a spreadsheet shows all its digits
_MIDNIGHT = time(0)

Row = tuple[int, list[str], dict[int, str]]
"""A row's number, its texts, and the faults of single cells by column from 0."""


class _RefusedError(Exception):
    """Something in the XML that is not taken; the text is the reason."""


def read_workbook(data: bytes, sheet: str | None, max_rows: int, max_columns: int) -> list[Row]:
    """Read the rows of a sheet that are not empty, as a spreadsheet numbers them.

    Args:
        data: the bytes of an .xlsx file.
        sheet: its name; None = the first that is not hidden.
        max_rows: reading ends with the first row beyond, so that the caller sees that there are too many.
        max_columns: of the header, in the same way. What stands beyond the header belongs to no column.

    Raises:
        ConfigError: no such sheet, merged cells, a workbook that is damaged or would grow too large.
    """
    merged = _check_archive(data)
    try:
        from openpyxl.reader.excel import ExcelReader
    except ImportError:
        raise ConfigError(
            "reading a workbook needs openpyxl; install the extra `photos`, or save it as CSV UTF-8"
        ) from None

    try:
        # openpyxl warns with names of sheets and values of cells.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sheets = []
            for data_only in (True, False):
                reader = ExcelReader(io.BytesIO(data), read_only=True, data_only=data_only, keep_links=False)
                reader.read()
                sheets.append(_choose(reader, sheet))
            (values, member), (formulas, _) = sheets
            first = merged[member]
            rows = [] if first else _read_rows(values, formulas, max_rows, max_columns)
    except ConfigError:
        raise
    except Exception:  # noqa: BLE001  # openpyxl raises errors of any type on bad files, with values in their texts
        raise ConfigError(_DAMAGED) from None
    if first:
        raise ConfigError(
            f"the sheet has merged cells, the first in row {first}: what they say of the rows below cannot be told; "
            "unmerge them and write the value into every row"
        )
    return rows


def _check_archive(data: bytes) -> dict[str, int]:
    """Unpack every file of a workbook once, without keeping it.

    Returns:
        The first row with merged cells, by file; 0 = none. Merged cells of the header's row alone are no harm.

    Raises:
        ConfigError: too many files, too many bytes, entities, or a damaged archive.
    """
    # Counted before they are listed: a list of a million files alone fills the memory.
    if data.count(_DIRECTORY_ENTRY) > MAX_MEMBERS:
        raise ConfigError(_TOO_LARGE)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(member.file_size for member in archive.infolist()) > MAX_UNPACKED:
                raise ConfigError(_TOO_LARGE)
            merged = {}
            allowance = MAX_UNPACKED
            for member in archive.infolist():
                watch = _XmlWatch(is_xml=member.filename.lower().endswith(_XML))
                allowance -= _unpack(archive, member, watch, allowance)
                merged[member.filename] = watch.first_merged()
            return merged
    except _RefusedError:
        raise ConfigError("the workbook declares XML entities; no spreadsheet program does, so save it again") from None
    except (zipfile.BadZipFile, zlib.error, expat.ExpatError, EOFError, OSError, RuntimeError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(_DAMAGED) from None


def _unpack(archive: zipfile.ZipFile, member: zipfile.ZipInfo, watch: _XmlWatch, allowance: int) -> int:
    """Unpack one file in parts and show them to the watch; returns its true size, never above the allowance."""
    # Other ways of packing are not of the format, and one of them takes gigabytes to unpack a byte.
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ConfigError(_DAMAGED)
    size = 0
    with archive.open(member) as stream:
        while chunk := stream.read(_CHUNK):
            size += len(chunk)
            if size > allowance:
                raise ConfigError(_TOO_LARGE)
            watch.feed(chunk)
    return size


class _XmlWatch:
    """Looks through one file of a workbook for entities and merged cells, whatever its encoding."""

    def __init__(self, *, is_xml: bool) -> None:
        self._is_xml = is_xml
        self._parser: expat.XMLParserType | None = expat.ParserCreate()
        self._parser.StartDoctypeDeclHandler = self._refuse
        self._parser.StartElementHandler = self._element
        self._merged: list[int] = []

    def feed(self, chunk: bytes) -> None:
        """Parse a part of the file; a picture is not XML and stops at once."""
        if self._parser is not None:
            try:
                self._parser.Parse(chunk, False)
            except expat.ExpatError:
                if self._is_xml:
                    raise
                self._parser = None

    def first_merged(self) -> int:
        """Return the first row below the header that merged cells touch, 0 = none."""
        return min(self._merged, default=0)

    def _refuse(self, *_: object) -> None:
        raise _RefusedError

    def _element(self, name: str, attributes: dict[str, str]) -> None:
        if name.rpartition(":")[2] == "mergeCell":
            corners = attributes.get("ref", "").split(":")
            rows = ["".join(sign for sign in corner if sign.isdecimal()) for corner in corners]
            if len(rows) == 2 and all(0 < len(row) <= 7 for row in rows) and int(rows[1]) > 1:
                self._merged.append(max(int(rows[0]), 2))


def _choose(reader: Any, name: str | None) -> tuple[Any, str]:  # noqa: ANN401  # openpyxl has no types
    """Return a sheet and the file of the archive that it is in."""
    members = {sheet.name: relation.target for sheet, relation in reader.parser.find_sheets()}
    for sheet in reader.wb.worksheets:
        if sheet.title == name or (name is None and sheet.sheet_state == "visible"):
            sheet.reset_dimensions()  # what the file says of its size may be wrong
            return sheet, members[sheet.title]
    if name is None:
        raise ConfigError("the workbook has no visible sheet; write which to read as table.sheet")
    raise ConfigError(f"table.sheet={name!r} is no sheet of the workbook; check its name")


def _read_rows(values: Any, formulas: Any, max_rows: int, max_columns: int) -> list[Row]:  # noqa: ANN401
    """Read what cells show, and what stands in them, side by side: a formula without a stored result looks empty."""
    names = [_text(cell.value) for cell in next(values.iter_rows(min_col=1, max_col=max_columns + 1, max_row=1), ())]
    while names and not names[-1]:
        names.pop()
    bounds = {"min_row": 1, "max_row": _SHEET_ROWS, "min_col": 1, "max_col": len(names) or 1}
    rows: list[Row] = []
    both = zip(values.iter_rows(**bounds), formulas.iter_rows(**bounds), strict=True)
    for number, (shown, written) in enumerate(both, start=1):
        texts, faults = [], {}
        for column, (cell, source) in enumerate(zip(shown, written, strict=True)):
            texts.append("" if cell.data_type == "e" else _text(cell.value))
            if cell.data_type == "e":
                faults[column] = "is an error of the spreadsheet; correct it"
            elif cell.value is None and source.data_type == "f":
                faults[column] = "is a formula without a stored result; open the workbook, save it, or write the value"
        if faults or any(texts):
            rows.append((number, texts, faults))
            if number > max_rows:
                break
    return rows


def _text(value: object) -> str:
    """Write a cell's value as a person would who fills in a CSV file."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and math.isfinite(value) and value.is_integer() and abs(value) < _WHOLE:
        return str(int(value))
    if isinstance(value, datetime) and value.time() == _MIDNIGHT:
        return value.date().isoformat()
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return str(value.total_seconds())
    return str(value).strip()
