"""The rows of a table as text, whether it is a CSV file or a workbook."""

from __future__ import annotations

import csv
import io
import os
import stat
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ccfexp.errors import ConfigError
from client.prepare.sources.workbook import Row, read_workbook

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from client.prepare.settings import Table

MAX_BYTES = 50_000_000
"""Of a table's file."""
MAX_ROWS = 100_000
MAX_COLUMNS = 256
MAX_CELL = 32_767
"""Signs of one cell: what a spreadsheet program stores at most."""

_DELIMITERS = (",", ";", "\t", "|")
_ZIP = b"PK\x03\x04"
_OLD_OFFICE = bytes.fromhex("d0cf11e0a1b11ae1")  # an .xls file, or an .xlsx file under a password


@dataclass(frozen=True)
class Record:
    """One row of a table.

    Attributes:
        number: as a spreadsheet shows it; the header is row 1.
        cells: their texts without spaces around, one for each column of the header.
        faults: of single cells, by column from 0: why the text of that cell cannot be known.
        reason: why the whole row cannot be used; empty where it can.
    """

    number: int
    cells: tuple[str, ...] = field(repr=False)
    faults: dict[int, str] = field(default_factory=dict)
    reason: str = ""


def read_records(file: Path, table: Table, fitting: Callable[[Sequence[str]], int]) -> list[Record]:
    """Read a table's header and rows; rows that are wholly empty are passed over.

    Args:
        file: a CSV file or an .xlsx workbook; its first bytes tell which.
        table: how it is read.
        fitting: how many of the columns that are looked for a header has; chooses the delimiter of a CSV file.

    Returns:
        The header first.

    Raises:
        ConfigError: the file is missing, too large, or no such table; in words without its name or its content.
    """
    data = _read_bytes(file)
    if data.startswith(_OLD_OFFICE):
        raise ConfigError(
            "the table is an old or a locked workbook; save it as .xlsx without a password, or as CSV UTF-8"
        )
    if data.startswith(_ZIP):
        rows: Iterable[Row] = read_workbook(data, table.sheet, MAX_ROWS, MAX_COLUMNS)
    else:
        rows = _read_csv(_decode(data, table.encoding), table.delimiter, fitting)
    records: list[Record] = []
    for number, cells, faults in rows:
        if not any(cells) and not faults:
            continue
        if number > MAX_ROWS:
            raise ConfigError(f"the table has more than {MAX_ROWS} rows; divide it")
        records.append(_record(number, cells, faults, len(records[0].cells) if records else None))
    if not records:
        raise ConfigError("the table is empty; write a header and a row for each photograph")
    if len(records[0].cells) > MAX_COLUMNS:
        raise ConfigError(f"the table has more than {MAX_COLUMNS} columns; remove those that are not needed")
    if records[0].number != 1:
        raise ConfigError("the table's first row is empty; the header must be row 1")
    return records


def _record(number: int, cells: list[str], faults: dict[int, str], width: int | None) -> Record:
    """Bring a row to the header's width; the header itself (width None) ends with its last name."""
    while cells and not cells[-1] and (width is None or len(cells) > width):
        cells.pop()
    if width is not None and len(cells) != width:
        # Which cell is missing cannot be told: all texts could stand one column off.
        return Record(
            number, (), reason=f"has {len(cells)} cells, the header has {width}; put texts with delimiters in quotes"
        )
    too_long = {
        column: f"is longer than {MAX_CELL} signs; shorten it"
        for column, text in enumerate(cells)
        if len(text) > MAX_CELL
    }
    return Record(number, tuple(cells), faults | too_long)


def _read_bytes(file: Path) -> bytes:
    """Read a regular file that is not too large."""
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            raise ConfigError("the table is no regular file; name a CSV file or an .xlsx workbook")
        with file.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else "unknown"
        raise ConfigError(f"the table cannot be read ({why}); check its name in the file") from None
    if len(data) > MAX_BYTES:
        raise ConfigError(f"the table has more than {MAX_BYTES} bytes; divide it, or save it as CSV UTF-8")
    return data


def _decode(data: bytes, encoding: str | None) -> str:
    """Decode a CSV file; nothing about its encoding is guessed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some codecs warn with the text that they read
            text = data.decode(encoding or "utf-8-sig")
    except LookupError:
        raise ConfigError(f"table.encoding={encoding!r} is not known; usual are utf-8, cp1252, utf-16") from None
    except ValueError:  # also UnicodeDecodeError, whose text holds the bytes
        if encoding is None:
            raise ConfigError(
                "the table is not UTF-8 text; save it as 'CSV UTF-8', or write its encoding as table.encoding"
            ) from None
        raise ConfigError(f"the table is not text in table.encoding={encoding!r}; check it") from None
    text = text.removeprefix("\ufeff")
    if "\0" in text:
        raise ConfigError("the table holds NUL signs, so it is in another encoding; save it as 'CSV UTF-8'")
    return text


def _read_csv(text: str, delimiter: str | None, fitting: Callable[[Sequence[str]], int]) -> Iterator[Row]:
    """Parse a CSV file into records, numbered from 1; one may span lines of the file, as it does in a spreadsheet."""
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter or _detect(text, fitting), strict=True)
    number = 0
    try:
        for number, cells in enumerate(rows, start=1):
            yield number, [cell.strip() for cell in cells], {}
    except csv.Error:
        raise ConfigError(
            f"row {number + 1} of the table, or one after it, cannot be read: a quotation mark is not closed or stands "
            "inside a text, or a cell is far too long; correct it"
        ) from None


def _detect(text: str, fitting: Callable[[Sequence[str]], int]) -> str:
    """Find the delimiter from the header alone: the one that gives the most of the columns that are looked for."""
    scores: dict[str, tuple[int, int]] = {}
    for delimiter in _DELIMITERS:
        try:
            header = next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True), [])
        except csv.Error:
            continue
        scores[delimiter] = (fitting(header), len(header))
    best = [delimiter for delimiter, score in scores.items() if score == max(scores.values())]
    if len(best) > 1 and max(scores.values())[1] > 1:
        raise ConfigError("the header of the table can be read with several delimiters; write which as table.delimiter")
    return best[0] if best else ","
