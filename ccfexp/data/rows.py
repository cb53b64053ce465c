"""One row of a manifest: its columns, their values, and the text they are written as."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from datetime import date
from enum import StrEnum
from typing import TYPE_CHECKING, TypeVar

from ccfexp.errors import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "COLUMNS",
    "OPTIONAL_COLUMNS",
    "LandmarkSource",
    "Movement",
    "Role",
    "Row",
    "Side",
    "Split",
    "format_row",
    "parse_row",
]


class Movement(StrEnum):
    """What the face was asked to do."""

    REST = "rest"
    BROW_RAISE = "brow_raise"
    GENTLE_EYE_CLOSURE = "gentle_eye_closure"
    TIGHT_EYE_CLOSURE = "tight_eye_closure"
    SMILE_CLOSED = "smile_closed"
    SMILE_TEETH = "smile_teeth"
    SNARL = "snarl"
    LIP_PUCKER = "lip_pucker"
    LOWER_TEETH = "lower_teeth"
    CHEEK_PUFF = "cheek_puff"
    FROWN = "frown"
    BLINK = "blink"


class Side(StrEnum):
    """The paralysed side, always the patient's own left or right."""

    LEFT = "left"
    RIGHT = "right"
    NONE = "none"
    BILATERAL = "bilateral"


class Role(StrEnum):
    """What an image may serve as: who the person is, which expression to draw, or both."""

    IDENTITY = "identity"
    EXPRESSION = "expression"
    BOTH = "both"


class Split(StrEnum):
    """Whether a patient is trained on or held out; never both."""

    TRAIN = "train"
    HOLDOUT = "holdout"


class LandmarkSource(StrEnum):
    """Where the landmarks come from."""

    PHANTOM = "phantom"
    DETECTOR = "detector"
    MANUAL = "manual"
    IMPORTED = "imported"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One image and what is known about it.

    What could identify a patient is left out of the text form, so that a row in a log gives nothing away.
    """

    subject_id: str = field(repr=False)  # pseudonym
    session: str = field(repr=False)  # sorts in the order of time
    movement: Movement
    side: Side
    grade: int | None  # House-Brackmann 1..6; None = not graded
    role: Role
    split: Split
    path: str = field(repr=False)  # image, relative to the manifest, with forward slashes
    sha256: str = field(repr=False)  # of the image file, 64 lower-case hexadecimal digits
    landmarks: str = field(repr=False)  # .npy file, relative to the manifest
    landmark_source: LandmarkSource
    consent_train: bool
    consent_generate: bool
    landmarks_sha256: str = field(default="", repr=False)  # of the landmarks file; empty = it is not checked
    consent_expires: date | None = None  # the last day of the consent; None = without end

    @property
    def is_identity(self) -> bool:
        """Whether the image may show who the person is."""
        return self.role in (Role.IDENTITY, Role.BOTH)

    @property
    def is_target(self) -> bool:
        """Whether the image may be a training target."""
        return self.role in (Role.EXPRESSION, Role.BOTH)


OPTIONAL_COLUMNS: tuple[str, ...] = ("landmarks_sha256", "consent_expires")
"""Columns that a manifest may lack; every row is then as if they were empty."""

COLUMNS: tuple[str, ...] = tuple(column.name for column in fields(Row) if column.name not in OPTIONAL_COLUMNS)
"""The columns that a manifest must have, in the order in which they are written."""

_GRADES = ("I", "II", "III", "IV", "V", "VI")
_BOOLEANS = {"true": True, "false": False}
_SHA256 = re.compile(r"[0-9a-f]{64}")

_Word = TypeVar("_Word", bound=StrEnum)


def format_row(row: Row) -> dict[str, str]:
    """Return a row as the texts of all columns, the optional ones among them."""
    texts = {column: str(getattr(row, column)) for column in (*COLUMNS, *OPTIONAL_COLUMNS)}
    texts["grade"] = "" if row.grade is None else _GRADES[row.grade - 1] if 1 <= row.grade <= len(_GRADES) else "?"
    texts["consent_train"] = str(row.consent_train).lower()
    texts["consent_generate"] = str(row.consent_generate).lower()
    texts["consent_expires"] = "" if row.consent_expires is None else row.consent_expires.isoformat()
    return texts


def parse_row(texts: Mapping[str, str]) -> tuple[Row | None, list[str]]:
    """Read one row from the texts of its columns.

    Args:
        texts: one text for each of `COLUMNS`, and for any of `OPTIONAL_COLUMNS`.

    Returns:
        The row, or None where any text is refused; and the reasons. A reason names the column but never repeats the
        text in it: in a table shifted by one column that text could be a patient's name.
    """
    problems: list[str] = []

    def read(column: str, reader: Callable[[str], object]) -> object:
        try:
            return reader(texts.get(column, "") if column in OPTIONAL_COLUMNS else texts[column])
        except ValueError as error:
            problems.append(f"{column} {error}")
            return None

    readers: dict[str, Callable[[str], object]] = {
        "subject_id": _filled,
        "session": _filled,
        "movement": _word(Movement),
        "side": _word(Side),
        "grade": _grade,
        "role": _word(Role),
        "split": _word(Split),
        "path": _relative_path,
        "sha256": _sha256,
        "landmarks": _relative_path,
        "landmark_source": _word(LandmarkSource),
        "consent_train": _boolean,
        "consent_generate": _boolean,
        "landmarks_sha256": lambda text: text and _sha256(text),
        "consent_expires": _date,
    }
    values = {column: read(column, reader) for column, reader in readers.items()}
    return (None if problems else Row(**values)), problems  # type: ignore[arg-type]  # each reader gives its column's type


def _filled(text: str) -> str:
    """Accept any printable text but an empty one."""
    if not text.strip():
        raise ValueError("is empty; fill it in")
    if not text.isprintable():
        raise ValueError("holds a line break or another sign that cannot be printed; remove it")
    return text


def _word(words: type[_Word]) -> Callable[[str], _Word]:
    """Make a reader of one of an enumeration's words."""

    def read(text: str) -> _Word:
        try:
            return words(text)
        except ValueError:
            known = ", ".join(words)
            raise ValueError(f"is not a known word.{did_you_mean(text, words)} Known: {known}") from None

    return read


def _grade(text: str) -> int | None:
    """Read a House-Brackmann grade in Roman numerals; empty = not graded."""
    if text == "":
        return None
    if text not in _GRADES:
        raise ValueError("is not a House-Brackmann grade; write I, II, III, IV, V, VI or leave it empty")
    return _GRADES.index(text) + 1


def _boolean(text: str) -> bool:
    """Read true or false; consent is never guessed from another word."""
    if text not in _BOOLEANS:
        raise ValueError("is neither true nor false")
    return _BOOLEANS[text]


def _date(text: str) -> date | None:
    """Read a day as YYYY-MM-DD; empty = none. Nothing is guessed: 03/04 is two days."""
    if text == "":
        return None
    try:
        day = date.fromisoformat(text)
    except ValueError:
        day = None
    if day is None or day.isoformat() != text:
        raise ValueError("is not a day; write YYYY-MM-DD or leave it empty")
    return day


def _sha256(text: str) -> str:
    """Accept 64 lower-case hexadecimal digits."""
    if not _SHA256.fullmatch(text):
        raise ValueError("is not a SHA-256 (64 lower-case hexadecimal digits); make it with sha256sum")
    return text


def _relative_path(text: str) -> str:
    """Accept a path that stays below the manifest's folder on every system."""
    if not text:
        raise ValueError("is empty; give a path relative to the manifest")
    if "\\" in text or not text.isprintable():
        raise ValueError("holds a backslash or a sign that cannot be printed; write forward slashes")
    if text.startswith("/") or re.match(r"[A-Za-z]:", text):
        raise ValueError("is absolute; give a path relative to the manifest")
    if ".." in text.split("/"):
        raise ValueError("leaves the manifest's folder; move the file below it")
    return text
