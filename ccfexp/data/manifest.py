"""The manifest: the one table that says which image is what, read with every file it names checked.

A manifest is a CSV file in UTF-8 whose columns are `ccfexp.data.rows.COLUMNS` and any of `OPTIONAL_COLUMNS`, in any
order. All that is wrong with it is reported at once, by row number as a spreadsheet shows it (the header is row 1),
never by patient or path.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ccfexp._io import atomic_write_text
from ccfexp.data.files import BadFileError, decode_image, decode_landmarks
from ccfexp.data.rows import (
    COLUMNS,
    OPTIONAL_COLUMNS,
    LandmarkSource,
    Movement,
    Role,
    Row,
    Side,
    Split,
    format_row,
    parse_row,
)
from ccfexp.errors import ManifestError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date

__all__ = [
    "COLUMNS",
    "OPTIONAL_COLUMNS",
    "LandmarkSource",
    "Manifest",
    "Movement",
    "Role",
    "Row",
    "Side",
    "Split",
    "ended_consents",
    "manifest_text",
    "read_manifest",
    "write_manifest",
]

_FIRST_ROW = 2  # the header is row 1


@dataclass(frozen=True)
class Manifest:
    """A checked manifest.

    Attributes:
        rows: in the order of the file.
        root: the folder that the rows' paths are relative to.
        image_size: width and height of every image, in pixels.
    """

    rows: tuple[Row, ...]
    root: Path = field(repr=False)
    image_size: int


def read_manifest(path: str | Path, image_size: int) -> Manifest:
    """Read a manifest and check every row and every file that it names.

    Args:
        path: the CSV file.
        image_size: width and height that every image must have, in pixels.

    Raises:
        ManifestError: listing every problem of every row at once. Refused are missing and unknown columns, values
            outside their column's words, absolute paths and paths that leave the folder, images that are missing,
            unreadable, of another size or altered, bad landmarks, an image named twice, training without consent,
            a patient in both splits, and a patient without any identity image.
    """
    root = Path(path).resolve().parent
    problems: list[tuple[int, str]] = []
    rows: dict[int, Row] = {}
    for number, texts in enumerate(_read_table(Path(path)), start=_FIRST_ROW):
        row, reasons = _parse_record(texts)
        if row is not None:
            rows[number] = row
            reasons = _check_files(row, root, image_size)
            if row.split is Split.TRAIN and not row.consent_train:
                reasons.append("split=train without consent_train=true; remove the row or ask for consent")
        problems += [(number, reason) for reason in reasons]
    problems += _check_together(rows)
    if problems:
        lines = [f"row {number}: {reason}" for number, reason in sorted(problems)]
        raise ManifestError(
            f"The manifest has {len(lines)} problem(s); the header is row 1. Correct them and try again:", lines
        )
    if not rows:
        raise ManifestError("The manifest has rows=0, at least 1 is needed.")
    return Manifest(tuple(rows.values()), root, image_size)


def ended_consents(rows: Sequence[Row], today: date) -> list[str]:
    """A line for each row whose consent has ended before ``today``; such a photograph may not be used any more."""
    return [
        f"row {number}: the consent has ended; leave the row out (python -m client.prepare does)"
        for number, row in enumerate(rows, start=_FIRST_ROW)
        if row.consent_expires is not None and row.consent_expires < today
    ]


def write_manifest(path: str | Path, rows: Sequence[Row]) -> None:
    """Write a manifest, wholly or not at all.

    Args:
        path: destination; its folder is made if needed.
        rows: written in this order.

    Raises:
        ManifestError: a row that `read_manifest` would refuse for its values; nothing is written.
        OSError: the disk is full or the folder cannot be written; the previous manifest is then unchanged.
    """
    atomic_write_text(path, manifest_text(rows))


def manifest_text(rows: Sequence[Row]) -> str:
    """The text of a manifest with these rows, in this order; raises ManifestError as `write_manifest`."""
    texts = [format_row(row) for row in rows]
    problems = [
        f"row {number}: {reason}"
        for number, text in enumerate(texts, start=_FIRST_ROW)
        for reason in parse_row(text)[1]
    ]
    if problems:
        raise ManifestError(f"The manifest would have {len(problems)} problem(s), so it is not written:", problems)
    table = io.StringIO(newline="")
    columns = (*COLUMNS, *(column for column in OPTIONAL_COLUMNS if any(text[column] for text in texts)))
    writer = csv.DictWriter(table, columns, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(texts)
    return table.getvalue()


def _read_table(path: Path) -> list[dict[str | None, str | list[str] | None]]:
    """Read the CSV file; the header must hold the known columns and no others."""
    try:
        text = path.read_bytes().decode("utf-8-sig")  # spreadsheets put a byte order mark before UTF-8
    except OSError as error:
        raise ManifestError(f"The manifest cannot be read ({error.strerror}); check that the file exists.") from error
    except UnicodeDecodeError as error:
        raise ManifestError("The manifest is not UTF-8 text; save it as 'CSV UTF-8'.") from error
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        header = list(reader.fieldnames or ())
        problems = _check_header(header)
        if problems:
            raise ManifestError("The manifest's header (row 1) is refused:", problems)
        return [dict(record) for record in reader]
    except csv.Error as error:
        raise ManifestError(f"The manifest is not a CSV file ({error}).") from error


def _check_header(header: Sequence[str]) -> list[str]:
    """Compare the header with the known columns; a foreign name is not repeated, it could be a patient's."""
    problems = [f"missing column: {column}" for column in COLUMNS if column not in header]
    known = (*COLUMNS, *OPTIONAL_COLUMNS)
    for number, name in enumerate(header, start=1):
        if name not in known:
            problems.append(f"column {number} has an unknown name.{did_you_mean(name, known)}")
        elif name in header[: number - 1]:
            problems.append(f"column {number} is a second {name}")
    return problems


def _parse_record(record: dict[str | None, str | list[str] | None]) -> tuple[Row | None, list[str]]:
    """Turn one CSV record into a row, refusing records with too few or too many fields."""
    texts = {column: text for column, text in record.items() if column is not None and isinstance(text, str)}
    expected = sum(column is not None for column in record)
    if len(texts) != expected:
        return None, [f"has {len(texts)} fields, expected {expected}"]
    if None in record:
        return None, [f"has more than {expected} fields; put values with commas in quotes"]
    return parse_row(texts)


def _check_files(row: Row, root: Path, image_size: int) -> list[str]:
    """Check the image and the landmarks of one row; the image is read once, for its hash and its pixels."""
    reasons = []
    try:
        image = _read_below(root, row.path, "image")
        if hashlib.sha256(image).hexdigest() != row.sha256:
            reasons.append("image differs from its sha256: it was altered after the manifest was made")
        decode_image(image, image_size)
    except BadFileError as error:
        reasons.append(str(error))
    try:
        landmarks = _read_below(root, row.landmarks, "landmarks file")
        if row.landmarks_sha256 and hashlib.sha256(landmarks).hexdigest() != row.landmarks_sha256:
            reasons.append("landmarks differ from landmarks_sha256: they were altered after the manifest was made")
        decode_landmarks(landmarks)
    except BadFileError as error:
        reasons.append(str(error))
    return reasons


def _read_below(root: Path, relative: str, what: str) -> bytes:
    """Read a file that must lie below root, also after links are followed."""
    try:
        file = (root / relative).resolve()
        if not file.is_relative_to(root):
            raise BadFileError(f"{what} is a link that leaves the manifest's folder; copy the file below it")
        return file.read_bytes()
    except FileNotFoundError:
        # No cause: its text holds the path, and a traceback may end in a log.
        raise BadFileError(f"{what} is missing") from None
    except (OSError, RuntimeError):  # also a name too long and links in a circle
        raise BadFileError(f"{what} cannot be read") from None


def _check_together(rows: dict[int, Row]) -> list[tuple[int, str]]:
    """Check what no row shows alone: patients in both splits or without identity image, images named twice."""
    problems: list[tuple[int, str]] = []
    first_of_path: dict[str, int] = {}
    of_subject: dict[str, list[int]] = defaultdict(list)
    for number, row in rows.items():
        of_subject[row.subject_id].append(number)
        first = first_of_path.setdefault(row.path, number)
        if first != number:
            problems.append((number, f"names the same image as row {first}; give one row an image (role=both)"))
    for numbers in of_subject.values():
        if len({rows[number].split for number in numbers}) > 1:
            problems += [
                (number, f"its subject is in both splits, here split={rows[number].split}; choose one per patient")
                for number in numbers
            ]
        if not any(rows[number].is_identity for number in numbers):
            problems += [
                (number, "its subject has no image with role=identity or role=both; add one") for number in numbers
            ]
    return problems
