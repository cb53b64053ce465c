"""What has been prepared at this hospital: one SQLite file in its work folder, which no coordinator's code can read.

It holds pseudonyms, keyed marks and figures, no name and no path. What is taken out of it is overwritten: a patient who
withdraws leaves nothing behind.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, fields
from datetime import date
from typing import TYPE_CHECKING, Any, Self

from ccfexp.data.rows import LandmarkSource, Movement, Role, Side, Split
from ccfexp.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_SCHEMA = 1
_TABLES = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE images (
  mark TEXT PRIMARY KEY, recipe TEXT NOT NULL, name TEXT NOT NULL UNIQUE, content TEXT NOT NULL,
  subject TEXT NOT NULL, session TEXT NOT NULL, labels TEXT NOT NULL, sha256 TEXT NOT NULL, landmarks TEXT NOT NULL,
  landmarks_sha256 TEXT NOT NULL, landmark_source TEXT NOT NULL, image_size INTEGER NOT NULL, figures TEXT NOT NULL,
  crop BLOB NOT NULL, number INTEGER NOT NULL, added TEXT NOT NULL
);
CREATE TABLE sessions (
  subject TEXT NOT NULL, mark TEXT NOT NULL, number INTEGER NOT NULL, PRIMARY KEY (subject, mark)
);
CREATE TABLE files (name TEXT PRIMARY KEY);
CREATE TABLE splits (subject TEXT PRIMARY KEY, split TEXT NOT NULL);
"""


@dataclass(frozen=True, kw_only=True)
class Labels:
    """What is known of a photograph from its source; read anew at every preparation."""

    movement: Movement
    side: Side
    grade: int | None
    role: Role | None
    consent_generate: bool
    consent_expires: date | None

    def to_json(self) -> str:
        """As a text that `of` reads."""
        texts = {part.name: getattr(self, part.name) for part in fields(self)}
        texts["consent_expires"] = None if self.consent_expires is None else self.consent_expires.isoformat()
        return json.dumps(texts, sort_keys=True)

    @classmethod
    def of(cls, text: str) -> Labels:
        """Read the text."""
        facts = json.loads(text)
        return cls(
            movement=Movement(facts["movement"]),
            side=Side(facts["side"]),
            grade=facts["grade"],
            role=None if facts["role"] is None else Role(facts["role"]),
            consent_generate=facts["consent_generate"],
            consent_expires=None if facts["consent_expires"] is None else date.fromisoformat(facts["consent_expires"]),
        )


@dataclass(frozen=True, kw_only=True)
class Item:
    """A prepared photograph.

    Attributes:
        mark: by which the photograph is known for ever: keyed, of its content and what of it is meant.
        recipe: how it was prepared; with another one it is prepared anew.
        name: random, of the image's file without its ending.
        content: keyed mark of the file's content, of which there may be several photographs.
        subject: pseudonym.
        session: running number of the patient's, as text that sorts.
        labels: from the source.
        sha256, landmarks_sha256: of the two files.
        landmarks: random name of the landmarks' file, without its ending.
        landmark_source: where they come from.
        image_size: side in pixels.
        figures: what was measured; JSON can express it.
        crop: grey values of the face, small, by which copies are found.
        number: of its entry when it was last offered.
        added: time at which it was prepared first, UTC.
    """

    mark: str
    recipe: str
    name: str
    content: str = field(repr=False)
    subject: str
    session: str
    labels: Labels
    sha256: str
    landmarks: str
    landmarks_sha256: str
    landmark_source: LandmarkSource
    image_size: int
    figures: Mapping[str, Any] = field(repr=False)
    crop: bytes = field(repr=False)
    number: int
    added: str

    @property
    def image_path(self) -> str:
        """Relative to the manifest."""
        return f"images/{self.name}.png"

    @property
    def landmarks_path(self) -> str:
        """Relative to the manifest."""
        return f"landmarks/{self.landmarks}.npy"


_COLUMNS = tuple(column.name for column in fields(Item))


class Store:
    """The file, open. Every change is on the disk when its method returns."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    @classmethod
    @contextmanager
    def open(cls, path: Path, key: str) -> Iterator[Self]:
        """Open the file, or make it.

        Args:
            path: of the file.
            key: fingerprint of the hospital's key.

        Raises:
            ConfigError: the file is damaged, of another release, or was made with another key.
        """
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            path.touch(mode=0o600)
            with closing(sqlite3.connect(path)) as connection:
                connection.execute("PRAGMA secure_delete = ON")
                connection.execute("PRAGMA synchronous = FULL")
                store = cls(connection)
                store._prepare(key)
                yield store
        except sqlite3.OperationalError as error:
            raise ConfigError(
                f"the record of what was prepared cannot be written ({type(error).__name__}); free the disk, or mend "
                "the rights of the work folder, and give the same command again"
            ) from None
        except sqlite3.DatabaseError as error:
            # Its text may show what stands in the file.
            raise ConfigError(
                f"the record of what was prepared cannot be used ({type(error).__name__}); restore the work folder "
                "from its backup as a whole"
            ) from None

    def _prepare(self, key: str) -> None:
        version = self._connection.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            self._connection.executescript(f"BEGIN;{_TABLES}PRAGMA user_version = {_SCHEMA};COMMIT;")
            with self._connection:
                self._connection.execute("INSERT INTO facts VALUES ('key', ?)", (key,))
        elif version != _SCHEMA:
            raise ConfigError(f"the record of what was prepared has version={version}, expected {_SCHEMA}")
        if self._connection.execute("SELECT value FROM facts WHERE name = 'key'").fetchone()[0] != key:
            raise ConfigError(
                "the photographs were prepared with another key of pseudonyms than the one in the work folder; "
                "restore that one: with this key every patient would be somebody else"
            )

    def items(self) -> dict[str, Item]:
        """All prepared photographs, by mark."""
        rows = self._connection.execute(f"SELECT {', '.join(_COLUMNS)} FROM images ORDER BY mark")  # noqa: S608 (our names)
        return {row[0]: _item(row) for row in rows}

    def put(self, items: Sequence[Item]) -> None:
        """Add photographs, or replace those of the same mark; all or none."""
        texts = {
            "names": ", ".join(_COLUMNS),
            "places": ", ".join("?" * len(_COLUMNS)),
            "changes": ", ".join(f"{name} = excluded.{name}" for name in _COLUMNS),
        }
        statement = "INSERT INTO images ({names}) VALUES ({places}) ON CONFLICT (mark) DO UPDATE SET {changes}"
        with self._connection:
            self._connection.executemany(statement.format(**texts), [_row(item) for item in items])

    def remove(self, marks: Sequence[str]) -> None:
        """Take photographs out."""
        with self._connection:
            self._connection.executemany("DELETE FROM images WHERE mark = ?", [(mark,) for mark in marks])
        if marks:
            self._connection.execute("VACUUM")

    def promise(self, names: Sequence[str]) -> None:
        """Write down which files are about to be made, before they are: no others are ever deleted."""
        with self._connection:
            self._connection.executemany("INSERT OR IGNORE INTO files VALUES (?)", [(name,) for name in names])

    def promised(self) -> frozenset[str]:
        """Names of files that were made here and not deleted since, without their ending."""
        return frozenset(name for (name,) in self._connection.execute("SELECT name FROM files"))

    def settle(self, names: Sequence[str]) -> None:
        """Files that are deleted."""
        with self._connection:
            self._connection.executemany("DELETE FROM files WHERE name = ?", [(name,) for name in names])

    def session(self, subject: str, mark: str) -> str:
        """The running number of a patient's session, a new one for a new session; three digits, so that it sorts."""
        found = self._connection.execute(
            "SELECT number FROM sessions WHERE subject = ? AND mark = ?", (subject, mark)
        ).fetchone()
        if found is None:
            with self._connection:
                found = self._connection.execute(
                    "INSERT INTO sessions SELECT ?1, ?2, coalesce(max(number), 0) + 1 FROM sessions WHERE subject = ?1 "
                    "RETURNING number",
                    (subject, mark),
                ).fetchone()
        return f"{found[0]:03d}"

    def splits(self) -> dict[str, Split]:
        """Who is held out, of all patients who ever were assigned."""
        return {subject: Split(split) for subject, split in self._connection.execute("SELECT * FROM splits")}

    def assign(self, splits: Mapping[str, Split]) -> None:
        """Write down who is held out; nobody is ever moved."""
        with self._connection:
            self._connection.executemany("INSERT OR IGNORE INTO splits VALUES (?, ?)", [*splits.items()])

    def forget(self, subject: str) -> None:
        """Take all of a patient out, and overwrite it on the disk."""
        with self._connection:
            for table in ("images", "sessions", "splits"):
                self._connection.execute(f"DELETE FROM {table} WHERE subject = ?", (subject,))  # noqa: S608 (our names)
        self._connection.execute("VACUUM")


def _item(row: Sequence[Any]) -> Item:
    values = dict(zip(_COLUMNS, row, strict=True))
    values["labels"] = Labels.of(values["labels"])
    values["figures"] = json.loads(values["figures"])
    values["landmark_source"] = LandmarkSource(values["landmark_source"])
    return Item(**values)


def _row(item: Item) -> tuple[Any, ...]:
    values = {name: getattr(item, name) for name in _COLUMNS}
    values["labels"] = item.labels.to_json()
    values["figures"] = json.dumps(item.figures, sort_keys=True, allow_nan=False)
    return tuple(values.values())
