"""What a hospital knows of its patients, in a table: side, grade, consent, for photographs that do not say it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from itertools import islice
from typing import TYPE_CHECKING

from ccfexp.data.files import BadFileError
from ccfexp.errors import ConfigError
from client.prepare.entries import FACTS
from client.prepare.facts import meaning, same_subject
from client.prepare.sources.cells import read_records
from client.prepare.sources.columns import count_columns, find_columns
from client.prepare.sources.table import texts_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from client.prepare.settings import Table

_KEYS = ("subject", "session", "movement")
_VALUES = tuple(name for name in FACTS if name not in _KEYS)

_Key = tuple[str, str | None, object]
"""Subject, session and movement of a row, in the form in which they are compared; None = it names none."""


@dataclass(frozen=True)
class _Said:
    """A fact, and the row that says it."""

    row: int
    text: str = field(repr=False)


class LabelBook:
    """What a table of labels says, by subject, session and movement."""

    def __init__(self, rows: Mapping[_Key, Mapping[str, _Said]], words: Mapping[str, str]) -> None:
        """Keep what `read_labels` read."""
        self._rows = rows
        self._words = words

    def __repr__(self) -> str:
        """Name no patient."""
        return f"LabelBook(rows={len(self._rows)})"

    def complete(self, facts: Mapping[str, str]) -> dict[str, str]:
        """Add what is absent or empty.

        Args:
            facts: of one photograph; what it says stays.

        Returns:
            The facts with those of the table's rows for this subject, each from the row that names most. A row that
            names a session or a movement says nothing of a photograph of which it is not known. Where both say
            something of consent, a refusal wins, and the earlier end.
        """
        told: dict[str, str] = {}
        for key in self._matching(facts):
            for name, said in self._rows.get(key, {}).items():
                told.setdefault(name, said.text)
        own = {name: text for name, text in facts.items() if text.strip()}
        return {**facts, **told, **own, **{name: _stricter(name, own[name], told[name]) for name in own.keys() & told}}

    def _matching(self, facts: Mapping[str, str]) -> Iterator[_Key]:
        """Keys of the rows that hold for a photograph, those that name most first."""
        subject, session, movement = (facts.get(name, "").strip() for name in _KEYS)
        subject, session = same_subject(subject), same_subject(session)
        if not subject:
            return
        wanted = meaning("movement", movement, self._words) if movement else None
        keys = ((subject, session, wanted), (subject, session, None), (subject, None, wanted), (subject, None, None))
        # Of two rows that name equally much, `read_labels` has seen to it that they do not contradict each other.
        yield from dict.fromkeys((subject, session or None, movement) for subject, session, movement in keys)


def _stricter(name: str, own: str, told: str) -> str:
    """Of two texts of a consent the one that allows less; of another fact the photograph's own."""
    if name in ("consent_train", "consent_generate"):
        return own if meaning(name, told, {}) is True else told
    if name == "consent_expires":
        ends = [meaning(name, text, {}) for text in (own, told)]
        if all(isinstance(end, date) for end in ends):
            return min(own.strip(), told.strip())  # as YYYY-MM-DD
        return told if isinstance(ends[0], date) else own  # what is no date is refused
    return own


def read_labels(file: Path, table: Table, words: Mapping[str, str]) -> LabelBook:
    """Read a table of labels.

    Args:
        file: a CSV file or an .xlsx workbook.
        table: how it is read; the column of subjects is needed, all others need not be there.
        words: the hospital's own names of movements.

    Raises:
        ConfigError: the table cannot be used, a row of it cannot be read, or two rows that name equally much say
            different things of one photograph; the rows are named by their numbers.
    """
    header, *records = read_records(file, table, lambda names: count_columns(names, table.columns))
    places = find_columns(header.cells, table.columns, needed=("subject",))
    used = {key: place for key, place in places.items() if key in FACTS}
    rows: dict[_Key, dict[str, _Said]] = {}
    for record in records:
        try:
            texts = texts_of(record, used)
        except BadFileError as error:
            raise ConfigError(f"row {record.number} of the table of labels {error}") from None
        subject, session, movement = (same_subject(texts.get(name, "")) for name in _KEYS)
        if not subject:
            raise ConfigError(
                f"row {record.number} of the table of labels names no subject; write the patient's number"
            )
        named = meaning("movement", texts["movement"], words) if movement else None
        row = rows.setdefault((subject, session or None, named), {})
        for name in _VALUES:
            if texts.get(name):
                said = row.setdefault(name, _Said(record.number, texts[name]))
                _agree(name, said, _Said(record.number, texts[name]), words)
    _check_across(rows, words)
    return LabelBook(rows, words)


def _check_across(rows: Mapping[_Key, Mapping[str, _Said]], words: Mapping[str, str]) -> None:
    """Compare rows of a session with rows of a movement: both can hold for one photograph, and name equally much."""
    by_session: dict[tuple[str, str], dict[object, _Said]] = {}
    for (subject, session, movement), row in rows.items():
        if session is not None and movement is None:
            for name, said in row.items():
                by_session.setdefault((subject, name), {}).setdefault(meaning(name, said.text, words), said)
    for (subject, session, movement), row in rows.items():
        if session is None and movement is not None:
            for name, said in row.items():
                # Of three meanings two are not this one, so two are enough to find a contradiction.
                for other in islice(by_session.get((subject, name), {}).values(), 2):
                    _agree(name, other, said, words)


def _agree(name: str, first: _Said, second: _Said, words: Mapping[str, str]) -> None:
    """Check that two rows say the same."""
    if meaning(name, first.text, words) != meaning(name, second.text, words):
        raise ConfigError(
            f"rows {first.row} and {second.row} of the table of labels name equally much and contradict each other in "
            f"{name}; correct one of them"
        )
