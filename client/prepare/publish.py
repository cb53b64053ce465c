"""The manifest of what has been prepared: who is in it, in which role and split; and nothing else in its folder.

Files are written before the record, the record before the manifest, and files that neither names are deleted last: at
any instant the manifest on the disk is whole.
"""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING

from ccfexp._io import atomic_write_text
from ccfexp.data.manifest import manifest_text
from ccfexp.data.rows import LandmarkSource, Movement, Role, Row, Side, Split, parse_row
from ccfexp.errors import ConfigError
from client.prepare.entries import Refusal
from client.prepare.split import Patient, assign_splits
from client.prepare.store import Item

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from client.prepare.settings import PrepareFile
    from client.prepare.store import Store

FOLDERS = ("images", "landmarks")
_OURS = re.compile(r"\.?([0-9a-f]{32})\.(?:png|npy)(?:\..*\.tmp)?")  # also what a crash left of a file half written


def publishable(items: Iterable[Item], rule: str) -> tuple[list[Item], list[Refusal]]:
    """Photographs of patients of whom one shows who they are; the others, with the reason.

    Args:
        items: all that is prepared.
        rule: `PrepareFile.identity`.
    """
    kept, refused = list[Item](), list[Refusal]()
    for own in _by_subject(items).values():
        if rule == "first" or any(_role(item) is not Role.EXPRESSION for item in own):
            kept += own
        else:
            reason = "its patient has no photograph at rest; add one, or set identity=first"
            refused += [Refusal(item.number, reason) for item in own]
    return kept, refused


def split_patients(items: Sequence[Item], known: Mapping[str, Split], settings: PrepareFile) -> dict[str, Split]:
    """Who is held out: those who were assigned stay, the others are spread by grade and side."""
    patients = [_patient(subject, own) for subject, own in _by_subject(items).items()]
    return assign_splits(
        [patient for patient in patients if patient.pseudonym not in known],
        {patient: known[patient.pseudonym] for patient in patients if patient.pseudonym in known},
        settings.holdout,
        settings.seed,
    )


def rows_of(items: Sequence[Item], splits: Mapping[str, Split]) -> list[Row]:
    """The rows of a manifest, sorted by patient, session and movement."""
    rows = []
    for own in _by_subject(items).values():
        alone = all(_role(item) is Role.EXPRESSION for item in own)  # then the first shows who it is
        rows += [
            _row(item, splits[item.subject], Role.BOTH if alone and item is own[0] else _role(item)) for item in own
        ]
    return rows


def publish(manifest: Path, rows: Sequence[Row]) -> bool:
    """Write the manifest if it would be another one, or delete one without rows; whether anything was done.

    Raises:
        OSError: the disk refuses; the manifest is as it was.
    """
    if not rows:
        existed = manifest.exists()
        manifest.unlink(missing_ok=True)
        return existed
    text = manifest_text(rows)
    if manifest.is_file() and manifest.read_text(encoding="utf-8") == text:
        return False
    atomic_write_text(manifest, text)
    return True


def paths_of(items: Iterable[Item]) -> set[str]:
    """The files of prepared photographs, relative to the manifest."""
    return {path for item in items for path in (item.image_path, item.landmarks_path)}


def sweep(folder: Path, store: Store) -> None:
    """Delete files that were made here and that nothing prepared names any more; no other file is touched.

    Args:
        folder: of the manifest.
        store: tells which were made here, and which are still named.
    """
    kept = {name for item in store.items().values() for name in (item.name, item.landmarks)}
    left = store.promised() - kept
    for file in _beside(folder, ()):
        match = _OURS.fullmatch(file.name)
        if match is not None and match[1] in left:
            file.unlink(missing_ok=True)
    store.settle(sorted(left))


def unnamed(folder: Path, kept: Collection[str]) -> int:
    """How many files lie among the prepared ones that nothing names."""
    return sum(1 for _ in _beside(folder, kept))


def _beside(folder: Path, kept: Collection[str]) -> Iterator[Path]:
    for name in FOLDERS:
        if (folder / name).is_dir():
            yield from (file for file in (folder / name).iterdir() if f"{name}/{file.name}" not in kept)


def rows_in(manifest: Path) -> list[Row]:
    """The rows that a manifest has now, its files unread; none where there is no manifest.

    Raises:
        ConfigError: it has rows that cannot be read.
    """
    if not manifest.exists():
        return []
    try:
        with manifest.open(encoding="utf-8-sig", newline="") as file:
            rows = [parse_row({name: text or "" for name, text in record.items()})[0] for record in _records(file)]
    except (OSError, UnicodeDecodeError, csv.Error, KeyError) as error:
        raise ConfigError(_unreadable(type(error).__name__)) from None
    if None in rows:
        raise ConfigError(_unreadable("a row that is none"))
    return [row for row in rows if row is not None]


def check_ours(manifest: Path, items: Iterable[Item]) -> None:
    """Raises ConfigError where the manifest names photographs that were not prepared here: they would be lost."""
    known = {item.image_path for item in items}
    if foreign := sum(row.path not in known for row in rows_in(manifest)):
        raise ConfigError(
            f"the manifest of the site's file has rows={foreign} that this command did not prepare; move that data "
            "set away, or name another `manifest` in the site's file"
        )


def adopt_corrections(manifest: Path, store: Store) -> int:
    """Take over landmarks that a person has corrected since; how many.

    The page that they are corrected on changes the manifest alone, at once and as a whole; the record follows here.
    """
    items = {item.image_path: item for item in store.items().values()}
    adopted = [
        replace(
            items[row.path],
            landmarks=Path(row.landmarks).stem,
            landmarks_sha256=row.landmarks_sha256,
            landmark_source=row.landmark_source,
        )
        for row in rows_in(manifest)
        if row.path in items and items[row.path].landmarks_path != row.landmarks
    ]
    store.promise([item.landmarks for item in adopted])
    store.put([item for item in adopted if item.landmark_source is LandmarkSource.MANUAL])
    return len(adopted)


def _records(file: IO[str]) -> Iterator[dict[str, str]]:
    yield from csv.DictReader(file, strict=True)


def _unreadable(what: str) -> str:
    return f"the manifest of the site's file cannot be read ({what}); mend it, or move that data set away"


def _by_subject(items: Iterable[Item]) -> dict[str, list[Item]]:
    groups: dict[str, list[Item]] = defaultdict(list)
    for item in sorted(items, key=_order):
        groups[item.subject].append(item)
    return groups


def _order(item: Item) -> tuple[str, ...]:
    # At rest first, because who has no such photograph is known by the first one.
    return (item.subject, item.session, str(item.labels.movement != Movement.REST), item.labels.movement, item.mark)


def _patient(subject: str, own: Sequence[Item]) -> Patient:
    """A patient's worst grade, and the paralysed side if it is always the same one."""
    grades = [item.labels.grade for item in own if item.labels.grade is not None]
    sides = {item.labels.side for item in own} - {Side.NONE}
    side = sides.pop() if len(sides) == 1 else Side.BILATERAL if sides else Side.NONE
    return Patient(subject, max(grades, default=None), side)


def _role(item: Item) -> Role:
    if item.labels.role is not None:
        return item.labels.role
    return Role.BOTH if item.labels.movement is Movement.REST else Role.EXPRESSION


def _row(item: Item, split: Split, role: Role) -> Row:
    labels = item.labels
    return Row(
        subject_id=item.subject,
        session=item.session,
        movement=labels.movement,
        side=labels.side,
        grade=labels.grade,
        role=role,
        split=split,
        path=item.image_path,
        sha256=item.sha256,
        landmarks=item.landmarks_path,
        landmark_source=item.landmark_source,
        consent_train=True,  # nothing is prepared without it
        consent_generate=labels.consent_generate,
        landmarks_sha256=item.landmarks_sha256,
        consent_expires=labels.consent_expires,
    )
