"""An append-only file whose every line holds the hash of the line before it, so that no line can be changed unnoticed.

    work/egress.jsonl        one JSON object a line, written and flushed to the disk before what it tells of may happen
    work/egress.jsonl.head   number and hash of the last line, replaced after it: lines cut off the end are missed

A crash between the two leaves one line more than the head knows, which is accepted, and told to the head before another
line follows. A line that a crash left half
written is cut off by the next writer, and only then: whoever wrote it had not been allowed to go on.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from ccfexp._io import atomic_write_json, canonical_json
from ccfexp.errors import LedgerError

if TYPE_CHECKING:
    from collections.abc import Iterator

_FIRST = "0" * 64
Draft = tuple[str, Mapping[str, Any]]  # kind and facts of an entry to be
_KEYS = {"number", "time", "kind", "facts", "previous", "hash"}


def utc_now() -> datetime:
    """The time that entries carry."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class Entry:
    """One line: its number from 1, when, what kind, and the facts."""

    number: int
    time: str
    kind: str
    facts: Mapping[str, Any]
    hash: str


@dataclass(frozen=True)
class Chain:
    """A hash-chained file. Several processes may append to it; each waits for its turn.

    Attributes:
        path: the file; made with its folder at the first entry, readable by its owner alone.
        clock: what time it is.
    """

    path: Path
    clock: Callable[[], datetime] = utc_now

    def append(self, kind: str, facts: Mapping[str, Any]) -> Entry:
        """Add an entry; when this returns, it is on the disk.

        Raises:
            LedgerError: the file was altered, or cannot be written; nothing was added then.
        """
        return self.append_decided(lambda _: [(kind, facts)])[0]

    def append_decided(self, decide: Callable[[Sequence[Entry]], Sequence[Draft]]) -> list[Entry]:
        """Add what ``decide`` makes of the entries so far; from its first look to the last word nobody else appends.

        A crash leaves the first of several, so the one that counts comes last.

        Raises:
            LedgerError: as `append`. What ``decide`` raises; nothing is added then.
        """
        with self._locked() as file:
            entries = self._whole(file)
            added: list[Entry] = []
            for kind, facts in decide(entries):
                last = next(reversed(added or entries), None)
                added.append(self._add(file, last, kind, facts))
            return added

    def entries(self) -> list[Entry]:
        """All entries, every link checked.

        Raises:
            LedgerError: naming the first line that was altered, removed or added.
        """
        if not self.path.exists():
            if self._head_path.exists():
                raise LedgerError(f"{self.path.name} is missing but its head is there; restore it from a backup")
            return []
        with self._locked() as file:
            return self._verified(_complete(file.read()))

    @property
    def _head_path(self) -> Path:
        return self.path.with_name(self.path.name + ".head")

    @contextmanager
    def _locked(self) -> Iterator[IO[bytes]]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise self._unusable(error) from error
        with os.fdopen(descriptor, "r+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file

    def _whole(self, file: IO[bytes]) -> list[Entry]:
        """The whole, checked chain, mended after a crash: a half-written line is cut off, the head knows the last."""
        content = file.read()
        whole = _complete(content)
        entries = self._verified(whole)
        if len(content) > len(whole):
            file.truncate(len(whole))
        if self._head()[0] < len(entries):
            self._write_head(entries[-1])
        return entries

    def _add(self, file: IO[bytes], last: Entry | None, kind: str, facts: Mapping[str, Any]) -> Entry:
        number, previous = (last.number + 1, last.hash) if last else (1, _FIRST)
        time = self.clock().isoformat(timespec="milliseconds")
        body = {"number": number, "time": time, "kind": kind, "facts": dict(facts), "previous": previous}
        entry = Entry(number, time, kind, dict(facts), _hash(body))
        self._write(file, canonical_json(body | {"hash": entry.hash}) + "\n")
        self._write_head(entry)
        return entry

    def _verified(self, whole: bytes) -> list[Entry]:
        entries: list[Entry] = []
        for number, line in enumerate(whole.splitlines(), start=1):
            entries.append(self._parsed(line, number, entries[-1].hash if entries else _FIRST))
        self._check_head([entry.hash for entry in entries])
        return entries

    def _parsed(self, line: bytes, number: int, previous: str) -> Entry:
        """The entry in a line, if it is what was written there and follows the one with the hash `previous`."""
        try:
            found = json.loads(line)
            same = set(found) == _KEYS and canonical_json(found).encode() == line
            body = {name: value for name, value in found.items() if name != "hash"}
            linked = found["previous"] == previous and found["number"] == number
            if not (same and linked and isinstance(found["facts"], dict) and found["hash"] == _hash(body)):
                raise ValueError("altered")
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise LedgerError(
                f"{self.path.name} line={number} was altered, removed or added; nothing may leave until it is restored "
                "from a backup and the cause is known"
            ) from error
        return Entry(number, found["time"], found["kind"], found["facts"], found["hash"])

    def _check_head(self, hashes: list[str]) -> None:
        """The head must be the last entry, or after a crash the one before it."""
        number, digest = self._head()
        links = [_FIRST, *hashes]
        if number in (len(hashes), len(hashes) - 1) and number >= 0 and links[number] == digest:
            return
        raise LedgerError(
            f"{self.path.name} has entries={len(hashes)} but its head counts {number}: lines were removed or replaced; "
            "nothing may leave until it is restored from a backup and the cause is known"
        )

    def _head(self) -> tuple[int, str]:
        try:
            head = json.loads(self._head_path.read_text(encoding="utf-8"))
            return int(head["number"]), str(head["hash"])
        except FileNotFoundError:
            return 0, _FIRST
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise LedgerError(f"{self._head_path.name} cannot be read; restore it from a backup") from error

    def _write(self, file: IO[bytes], line: str) -> None:
        end = file.seek(0, os.SEEK_END)
        try:
            data = memoryview(line.encode())
            while data:
                data = data[file.write(data) :]
            os.fsync(file.fileno())
        except OSError as error:
            file.truncate(end)
            raise self._unusable(error) from error

    def _write_head(self, entry: Entry) -> None:
        try:
            atomic_write_json(self._head_path, {"number": entry.number, "hash": entry.hash})
        except OSError as error:  # the line is there and one ahead of its head, which counts more, never less
            raise self._unusable(error) from error

    def _unusable(self, error: OSError) -> LedgerError:
        return LedgerError(
            f"{self.path.name} cannot be written ({error.strerror}); free the disk or mend the folder's rights: "
            "nothing leaves without a record"
        )


def _hash(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical_json(body).encode()).hexdigest()


def _complete(content: bytes) -> bytes:
    """All lines that end; what a crash left after them is no line."""
    return content[: content.rfind(b"\n") + 1]
