"""What is known of a photograph, read from texts: nothing is guessed, and every problem is told at once."""

from __future__ import annotations

import math
import re
import unicodedata
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING

from ccfexp.data.rows import Movement, Role, Side
from client.prepare.movements import read_movement

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_SIDES = {
    **dict.fromkeys(("left", "l", "left side"), Side.LEFT),
    **dict.fromkeys(("right", "r", "right side"), Side.RIGHT),
    **dict.fromkeys(("none", "healthy", "normal"), Side.NONE),
    **dict.fromkeys(("bilateral", "both", "b", "both sides"), Side.BILATERAL),
}
_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_ROMAN = ("i", "ii", "iii", "iv", "v", "vi")
# "III", "3", "HB 3", "House-Brackmann grade III", "HB-III", "III/VI": how clinics write one grade of six.
_GRADE = re.compile(
    r"(?:(?:hb|house[ -]?brackmann)[ :_-]*)?(?:grade[ :_-]*)?(?P<grade>i{1,3}|iv|vi?|[1-6])(?: ?/ ?(?:vi|6))?"
)
_WHOLE = re.compile(r"(-?[0-9]+)\.0+")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]{1,3})?")
_LONGEST = 200  # signs of a word, a grade or a date; a longer text can be none of them


class BadFactsError(ValueError):
    """Facts that cannot be used.

    Attributes:
        reasons: all of them; each names the fact and never repeats what is written there.
    """

    def __init__(self, reasons: list[str]) -> None:
        """Join the reasons into one message."""
        self.reasons = tuple(reasons)
        super().__init__("; ".join(reasons))


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of a photograph, checked.

    Attributes:
        subject: the hospital's own number of the patient, in the form in which `same_subject` compares.
        session: in the same form; empty where the source knows none.
        movement: what the face was asked to do.
        side: the paralysed side, the patient's own.
        grade: House-Brackmann 1..6; None = not graded.
        role: None = not said, so that it follows from the movement.
        consent_train: always true: facts without it are refused.
        consent_generate: whether the face may be drawn.
        consent_expires: the last day of the consent; None = it does not end.
        mm_per_pixel: of the photograph, in millimetres; None = not known.
    """

    subject: str = field(repr=False)
    session: str = field(repr=False)
    movement: Movement
    side: Side
    grade: int | None
    role: Role | None
    consent_train: bool
    consent_generate: bool
    consent_expires: date | None = field(repr=False)
    mm_per_pixel: float | None


def same_subject(text: str) -> str:
    """Return the form in which numbers and names of patients are compared.

    Two spellings of one patient must meet, or a patient would be trained on and held out at once: compatible signs
    (Unicode NFKC), capitals, spaces around and runs of spaces inside do not count, and a whole number that a
    spreadsheet made a decimal ("7.0") is that number ("7").
    """
    # Caseless compatibility matching of the Unicode standard (D146); without its repetitions two folds of one text
    # could differ.
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFD", text).casefold())
    folded = unicodedata.normalize("NFKC", folded.casefold())
    words = " ".join(folded.split())
    whole = _WHOLE.fullmatch(words)
    return whole[1] if whole else words


def read_facts(facts: Mapping[str, str], words: Mapping[str, str], today: date) -> Facts:
    """Read what a source and the table of labels say of one photograph.

    Args:
        facts: texts of some of `client.prepare.entries.FACTS`; an empty text is as good as none.
        words: the hospital's own names of movements.
        today: the day on which the consent must still hold.

    Raises:
        BadFactsError: with every problem of these facts.
        ConfigError: words that contradict each other.
    """
    reasons: list[str] = []
    values: dict[str, object] = {}
    for name, reader in _READERS.items():
        try:
            values[name] = reader(facts.get(name, "").strip())
        except ValueError as error:
            reasons.append(f"{name} {error}")
    try:
        values["movement"] = read_movement(facts.get("movement", ""), words)
    except ValueError as error:
        reasons.insert(0, f"movement {error}")
    reasons += _check_together(values, today)
    if reasons:
        raise BadFactsError(reasons)
    values["consent_generate"] = values["consent_generate"] is True
    return Facts(**values)  # type: ignore[arg-type]  # each reader gives its fact's type


def agreed(facts: Mapping[str, str], today: date) -> bool:
    """Whether consent to training is given and has not ended; what cannot be read is no consent."""
    ends = meaning("consent_expires", facts.get("consent_expires", ""), {})
    is_given = meaning("consent_train", facts.get("consent_train", ""), {}) is True
    return is_given and (ends is None or (isinstance(ends, date) and ends >= today))


def meaning(name: str, text: str, words: Mapping[str, str]) -> object:
    """Return what a text of a fact means, so that two texts can be compared; a text that means nothing is itself."""
    try:
        return read_movement(text, words) if name == "movement" else _READERS[name](text.strip())
    except ValueError:
        return same_subject(text)


def _check_together(values: Mapping[str, object], today: date) -> list[str]:
    """Check consent, and what no fact shows alone."""
    reasons = []
    if values.get("consent_train", True) is not True:  # a text that cannot be read has its own reason
        reasons.append("no consent to training; leave the photograph out or ask for consent (consent_train=true)")
    expires = values.get("consent_expires")
    if isinstance(expires, date) and expires < today:
        reasons.append("consent_expires is past; leave the photograph out or ask for consent again")
    grade = values.get("grade")
    if values.get("side") is Side.NONE and isinstance(grade, int) and grade > 1:
        reasons.append("side=none and a grade above I contradict each other; correct one of them")
    return reasons


def _folded(text: str) -> str:
    """Fold a word; a text too long for one means nothing."""
    if len(text) > _LONGEST:
        raise ValueError(f"is longer than {_LONGEST} signs; check that no column is shifted")
    return same_subject(text)


def _subject(text: str) -> str:
    """Read a patient's number."""
    if not any(unicodedata.category(sign)[0] in "LNPS" for sign in same_subject(text)):
        raise ValueError("is empty or holds nothing that can be read; every photograph needs the patient's number")
    return _session(text)


def _session(text: str) -> str:
    """Read a session's name, which may be empty."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("is not text in UTF-8; rename the folder or file") from None
    return _folded(text)


def _side(text: str) -> Side:
    """Read the paralysed side."""
    folded = _folded(text)
    if not folded:
        raise ValueError(
            "is empty; write left, right or bilateral, the patient's own, or none where nothing is paralysed: it is "
            "never read from the picture"
        )
    if folded not in _SIDES:
        raise ValueError("is not a known side; write left, right, bilateral or none, the patient's own")
    return _SIDES[folded]


def _grade(text: str) -> int | None:
    """Read a House-Brackmann grade; empty = not graded."""
    folded = _folded(text)
    if not folded:
        return None
    found = _GRADE.fullmatch(folded)
    if found is None:
        raise ValueError("is not a House-Brackmann grade; write I, II, III, IV, V, VI or leave it empty")
    grade = found["grade"]
    return int(grade) if grade.isdigit() else _ROMAN.index(grade) + 1


def _role(text: str) -> Role | None:
    """Read what the photograph may serve as; empty = not said."""
    folded = _folded(text)
    if not folded:
        return None
    try:
        return Role(folded)
    except ValueError:
        raise ValueError(f"is not a known word; write {', '.join(Role)} or leave it empty") from None


def _consent(text: str) -> bool | None:
    """Read a consent; it is never guessed from another word, and empty = not given."""
    folded = _folded(text)
    if folded and folded not in _BOOLEANS:
        raise ValueError("is none of true, false, yes, no, 1, 0; write true only where consent was given")
    return _BOOLEANS.get(folded)


def _date(text: str) -> date | None:
    """Read a day; empty = none."""
    if not text:
        return None
    try:
        if _DATE.fullmatch(text):
            return date.fromisoformat(text)
    except ValueError:  # such as the 30th of February
        pass
    raise ValueError("is not a date; write year, month and day as 2030-01-31")


def _length(text: str) -> float | None:
    """Read a length above 0; empty = not known."""
    value = read_number(text) if text else None
    if value == 0:
        raise ValueError("is 0; write the millimetres that one pixel spans, or leave it empty")
    return value


def read_number(text: str) -> float:
    """Read a number of at least 0.

    Raises:
        ValueError: why it is none; never with the text.
    """
    if len(text) > _LONGEST or not _NUMBER.fullmatch(text) or not math.isfinite(float(text)):
        raise ValueError("is not a number of at least 0; write digits and a decimal point, such as 0.25")
    return float(text)


_READERS: dict[str, Callable[[str], object]] = {
    "subject": _subject,
    "session": _session,
    "side": _side,
    "grade": _grade,
    "role": _role,
    "consent_train": _consent,
    "consent_generate": _consent,
    "consent_expires": _date,
    "mm_per_pixel": _length,
}
