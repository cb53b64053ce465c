"""Tables of photographs for the tests, as CSV files and as workbooks."""

from __future__ import annotations

import csv
import io
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from openpyxl import Workbook

from client.prepare.entries import Entry, Refusal
from client.prepare.settings import Table
from client.prepare.sources.table import TableSource

HEADER = ("path", "subject", "movement", "side", "consent_train")


def write_photographs(folder: Path, *names: str) -> None:
    """Make files with the names of photographs; no source reads more of them than the name."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def csv_text(rows: Sequence[Sequence[str]], delimiter: str = ",") -> str:
    """Write rows as a spreadsheet program would."""
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter, lineterminator="\r\n").writerows(rows)
    return text.getvalue()


def write_workbook(file: Path, rows: Sequence[Sequence[object]]) -> Path:
    """Write rows as the only sheet of a workbook."""
    book = Workbook()
    assert book.active is not None
    for row in rows:
        book.active.append(list(row))
    book.save(file)
    return file


def change_archive(file: Path, change: Callable[[str, bytes], bytes]) -> None:
    """Write a workbook again, each file of it changed."""
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    changed = {name: change(name, data) for name, data in members.items()}
    assert changed != members, "the test changes nothing"
    _write_archive(file, changed)


def share_strings(file: Path) -> Path:
    """Keep the texts of a workbook apart from its sheet, as spreadsheet programs do and openpyxl does not."""
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name).decode() for name in archive.namelist()}
    texts: list[str] = []

    def take(match: re.Match[str]) -> str:
        texts.append(match[1])
        return f't="s"><v>{len(texts) - 1}</v>'

    sheet = "xl/worksheets/sheet1.xml"
    members[sheet] = re.sub(r't="inlineStr"><is>(.*?)</is>', take, members[sheet])
    members["xl/sharedStrings.xml"] = (
        '<sst xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main">'
        + "".join(f"<si>{text}</si>" for text in texts)
        + "</sst>"
    )
    kind = "application/vnd.openxmlformats-officedocument.spreadsheetml.sharedStrings+xml"
    override = f'<Override PartName="/xl/sharedStrings.xml" ContentType="{kind}" /></Types>'
    members["[Content_Types].xml"] = members["[Content_Types].xml"].replace("</Types>", override)
    assert texts
    _write_archive(file, {name: text.encode() for name, text in members.items()})
    return file


def _write_archive(file: Path, members: Mapping[str, bytes]) -> None:
    """Write the files of a workbook."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def read_table(file: Path, table: Table | None = None) -> list[Entry | Refusal]:
    """Read all entries of a table whose paths start at its folder."""
    return list(TableSource(file.parent, file, table or Table()).entries())


def read_csv(folder: Path, text: str | bytes, table: Table | None = None) -> list[Entry | Refusal]:
    """Write a CSV file and read its entries."""
    file = folder / "table.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_table(file, table)


def facts_of(found: Sequence[Entry | Refusal]) -> list[dict[str, str]]:
    """The facts of entries, none of which may be refused."""
    assert all(isinstance(entry, Entry) for entry in found), found
    return [entry.facts for entry in found if isinstance(entry, Entry)]


def refusals_of(found: Sequence[Entry | Refusal]) -> dict[int, str]:
    """The reasons by their number."""
    return {entry.number: entry.reason for entry in found if isinstance(entry, Refusal)}
