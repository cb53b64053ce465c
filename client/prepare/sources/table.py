"""Photographs that a table names: a CSV file or a workbook, one row each."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from ccfexp.data.files import BadFileError
from client.prepare.entries import FACTS, Entry, Kind, Material, Refusal
from client.prepare.facts import read_number
from client.prepare.sources.cells import Record, read_records
from client.prepare.sources.columns import count_columns, find_columns
from client.prepare.sources.listing import (
    DICOM_FILES,
    LANDMARKS,
    PHOTOGRAPHS,
    VIDEOS,
    check_path,
    is_dicom,
    resolve_folder,
    suffix_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from client.prepare.settings import Table


class TableSource:
    """A table of photographs and movements in videos.

    Every row names one photograph, or one movement of a video; `client.prepare.settings.Columns` says what else it can
    say. Rows that are wholly empty are passed over.
    """

    def __init__(self, root: Path, file: Path, settings: Table) -> None:
        """Read nothing yet.

        Args:
            root: the folder that the table's paths start at: its own.
            file: a CSV file or an .xlsx workbook.
            settings: how it is read.
        """
        self._root = root
        self._file = file
        self._settings = settings

    def __repr__(self) -> str:
        """Name no file."""
        return "TableSource()"

    def entries(self) -> Iterator[Entry | Refusal]:
        """Rows in the table's order, numbered as a spreadsheet shows them.

        Raises:
            ConfigError: the table as a whole cannot be used.
        """
        root = resolve_folder(self._root)
        columns = self._settings.columns
        header, *records = read_records(self._file, self._settings, lambda names: count_columns(names, columns))
        places = find_columns(header.cells, columns, needed=("path", "subject"))
        for record in records:
            try:
                yield _read_row(record, places, root)
            except BadFileError as error:
                known = {name: place for name, place in places.items() if name in FACTS and place < len(record.cells)}
                facts = {name: record.cells[place] for name, place in known.items()}
                yield Refusal(record.number, str(error), facts=facts or None)


def texts_of(record: Record, places: dict[str, int]) -> dict[str, str]:
    """Return the texts of a row by the key of their column.

    Raises:
        BadFileError: the row, or a cell of a column that is read, cannot be used.
    """
    if record.reason:
        raise BadFileError(record.reason)
    faults = [f"{key} {record.faults[place]}" for key, place in places.items() if place in record.faults]
    if faults:
        raise BadFileError("; ".join(faults))
    return {key: record.cells[place] for key, place in places.items()}


def _read_row(record: Record, places: dict[str, int], root: Path) -> Entry:
    """Read one row; all that is wrong with its files and times is told at once."""
    texts = texts_of(record, places)
    problems: list[str] = []
    file = _file(root, texts, "path", problems)
    landmarks = _file(root, texts, "landmarks", problems) if texts.get("landmarks") else None
    start_s, end_s = (_seconds(texts, name, problems) for name in ("start_s", "end_s"))
    if file is None:
        raise BadFileError("; ".join(problems))
    is_part = start_s is not None or end_s is not None
    kind = _kind(file, PurePosixPath(texts["path"]), is_part=is_part)
    if kind is None:
        problems.append("path is of no known type; name a photograph, a DICOM file or a video")
    elif is_part and "video" not in kind:
        problems.append("start_s and end_s belong to a video, but path is a photograph; leave them empty")
    if end_s is not None and end_s <= (start_s or 0.0):
        problems.append("end_s is not after start_s; write where the movement begins and where it ends")
    if landmarks is not None:
        known = LANDMARKS if kind is None or "video" not in kind else frozenset((".npy",))
        if suffix_of(PurePosixPath(texts["landmarks"])) not in known:
            problems.append(f"landmarks is of no known type; use {', '.join(sorted(known))}")
    if problems or kind is None:
        raise BadFileError("; ".join(problems))
    material = Material(kind=kind, file=file, landmarks=landmarks, start_s=start_s, end_s=end_s)
    return Entry(number=record.number, facts={name: texts[name] for name in FACTS if name in texts}, material=material)


def _file(root: Path, texts: dict[str, str], name: str, problems: list[str]) -> Path | None:
    """Check a path of the row."""
    try:
        return check_path(root, texts[name])
    except BadFileError as error:
        problems.append(f"{name} {error}")
        return None


def _seconds(texts: dict[str, str], name: str, problems: list[str]) -> float | None:
    """Read a time of the row; empty = none."""
    try:
        return read_number(texts[name]) if texts.get(name) else None
    except ValueError as error:
        problems.append(f"{name} {error}")
        return None


def _kind(file: Path, path: PurePosixPath, *, is_part: bool) -> Kind | None:
    """Tell from a file's name how it is read; a DICOM file often has no suffix, so its magic is looked at."""
    suffix = suffix_of(path)
    if suffix in PHOTOGRAPHS:
        return "photograph"
    if suffix in VIDEOS:
        return "video"
    if suffix in DICOM_FILES or is_dicom(file):
        return "dicom_video" if is_part else "dicom"
    return None
