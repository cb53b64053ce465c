"""One HTML page about a preparation, for the clinician who looks the photographs through before anything is trained.

The page stays in the hospital: it names patients by pseudonym and shows measures of their faces. It holds no picture.
Thumbnails are the prepared files themselves, by relative path, so forgetting a patient leaves no copy of a face behind;
their rows go when the page is written again. A content security policy in the page forbids every connection.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from markupsafe import Markup

from ccfexp._io import atomic_write_text
from ccfexp.data.duplicates import MAX_DISTANCE
from ccfexp.data.rows import LandmarkSource, Movement, Side, Split
from ccfexp.evaluation.page import page_environment
from ccfexp.evaluation.quality import Flag
from ccfexp.evaluation.report_text import movement_text
from client.prepare.clinical import ClinicalMeasures
from client.prepare.entries import Refusal
from client.prepare.report_words import FLAGS, SCALES, SOURCES, cautions
from client.prepare.split import Patient

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

OPEN_BELOW = 60
"""Photographs up to which every patient's table is open from the start."""


@dataclass(frozen=True, kw_only=True)
class PreparedPhotograph:
    """One photograph that was taken.

    Attributes:
        number: of its entry.
        subject: the patient's pseudonym.
        movement, side, grade, split, landmark_source: as in the manifest.
        image: the prepared file.
        flags: hints of `ccfexp.evaluation.quality`.
        score: of the detector, in [0, 1]; None = none was asked.
        asymmetry: `ccfexp.evaluation.quality.asymmetry`, in eye distances.
        measures: of the prepared picture.
    """

    number: int
    subject: str = field(repr=False)
    movement: Movement
    side: Side
    grade: int | None
    split: Split
    landmark_source: LandmarkSource
    image: Path = field(repr=False)
    flags: tuple[Flag, ...]
    score: float | None
    asymmetry: float
    measures: ClinicalMeasures


@dataclass(frozen=True)
class Duplicate:
    """Two entries that are probably one photograph, and whose they are.

    Attributes:
        a, b: numbers of the entries.
        subject_a, subject_b: pseudonyms.
        distance: of `ccfexp.data.duplicates.Pair`; None = the very same file.
    """

    a: int
    b: int
    subject_a: str = field(repr=False)
    subject_b: str = field(repr=False)
    distance: float | None = None

    @property
    def across(self) -> bool:
        """Whether two patients are concerned: one person under two numbers, or a misfiled photograph."""
        return self.subject_a != self.subject_b


@dataclass(frozen=True, kw_only=True)
class PreparationReport:
    """Everything that the page shows.

    Attributes:
        site: name of the hospital's site.
        made: date and time of the preparation, as text.
        offered: entries of the source.
        image_size: side of the prepared pictures in pixels.
        photographs: what was taken.
        refusals: what was not, and why.
        duplicates: pairs found among all entries.
        settings: what decides the result, in words: detector, seed, share held out.
        notes: further sentences for the reader.
    """

    site: str
    made: str
    offered: int
    image_size: int
    photographs: tuple[PreparedPhotograph, ...]
    refusals: tuple[Refusal, ...]
    duplicates: tuple[Duplicate, ...]
    settings: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class PatientPart:
    """A patient's part of the page; ``anchor`` is its address within it."""

    anchor: str
    subject: str = field(repr=False)
    photographs: tuple[PreparedPhotograph, ...]

    @property
    def flagged(self) -> int:
        """Photographs with a hint."""
        return sum(bool(photograph.flags) for photograph in self.photographs)

    @property
    def split(self) -> Split:
        """The patient's split; a manifest has one for each patient."""
        return self.photographs[0].split


@dataclass(frozen=True)
class Count:
    """One line of a table of counts."""

    label: str
    patients: int
    train: int
    holdout: int

    @property
    def photographs(self) -> int:
        """In both splits."""
        return self.train + self.holdout


def write_report(path: str | os.PathLike[str], report: PreparationReport) -> None:
    """Write the page to ``path``, wholly or not at all.

    Raises:
        OSError: it cannot be written; the previous page is then unchanged.
    """
    atomic_write_text(path, render_report(report, Path(path).parent))


def render_report(report: PreparationReport, folder: Path) -> str:
    """The page as text, to be placed in ``folder``; the same report gives the same text."""
    environment = page_environment()
    environment.filters |= {"address": lambda image: _address(image, folder)}
    here = files("client.prepare") / "templates"
    script = (here / "prepare_report.js").read_text("utf-8")
    template = environment.from_string((here / "prepare_report.html.j2").read_text("utf-8"))
    taken = report.photographs
    patients = _patients(taken)
    return template.render(
        d=report,
        patients=patients,
        counts=_counts(taken),
        strata=_strata(patients),
        max_distance=MAX_DISTANCE,
        flags=[(flag, FLAGS[flag], [p.number for p in taken if flag in p.flags]) for flag in Flag],
        flag_texts=FLAGS,
        sources=SOURCES,
        scales=SCALES,
        scale_counts=Counter(photograph.measures.scale_source for photograph in taken),
        refusals=_refusals(report.refusals),
        cautions=cautions(report),
        movements=[movement for movement in Movement if any(p.movement is movement for p in taken)],
        open_all=len(taken) <= OPEN_BELOW,
        script=Markup(script),  # noqa: S704  # a file of this package
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _address(image: Path, folder: Path) -> str:
    """The prepared file as a relative address within the page."""
    return quote(Path(os.path.relpath(image, folder)).as_posix())


def _patients(taken: Iterable[PreparedPhotograph]) -> list[PatientPart]:
    """All patients by pseudonym, their photographs by movement and entry."""
    by_subject: dict[str, list[PreparedPhotograph]] = defaultdict(list)
    for photograph in taken:
        by_subject[photograph.subject].append(photograph)
    order = list(Movement)
    return [
        PatientPart(
            f"p{number}",
            subject,
            tuple(sorted(by_subject[subject], key=lambda photo: (order.index(photo.movement), photo.number))),
        )
        for number, subject in enumerate(sorted(by_subject), start=1)
    ]


def _counts(taken: tuple[PreparedPhotograph, ...]) -> list[tuple[str, str, list[Count]]]:
    """Tables of counts (title, head of the first column, lines); lines without a photograph are left out."""
    by: list[tuple[str, str, Callable[[PreparedPhotograph], Hashable], dict[Hashable, str]]] = [
        ("By movement", "Movement", lambda photo: photo.movement, {move: movement_text(move) for move in Movement}),
        ("By House-Brackmann grade", "Grade", lambda photo: photo.grade, _grades()),
        ("By side of the palsy", "Side", lambda photo: photo.side, {side: side.value for side in Side}),
        (
            "By where the points come from", "Points", lambda photo: photo.landmark_source,
            {source: SOURCES[source] for source in LandmarkSource},
        ),
    ]  # fmt: skip
    return [
        (
            title,
            head,
            [
                _count(label, [photo for photo in taken if key(photo) == value])
                for value, label in labels.items()
                if any(key(photo) == value for photo in taken)
            ],
        )
        for title, head, key, labels in by
    ]


def _grades() -> dict[Hashable, str]:
    return {**dict(enumerate(("I", "II", "III", "IV", "V", "VI"), start=1)), None: "not graded"}


def _count(label: str, photographs: list[PreparedPhotograph]) -> Count:
    splits = Counter(photograph.split for photograph in photographs)
    patients = len({photograph.subject for photograph in photographs})
    return Count(label, patients, splits[Split.TRAIN], splits[Split.HOLDOUT])


def _strata(parts: Iterable[PatientPart]) -> list[tuple[str, dict[Side, tuple[int, int]]]]:
    """Patients by their worst grade and by side: (all, held out)."""
    table: dict[Hashable, dict[Side, tuple[int, int]]] = defaultdict(dict)
    for part in parts:
        photographs = part.photographs
        patient = Patient.of(part.subject, [p.grade for p in photographs], [p.side for p in photographs])
        patients, held = table[patient.grade].get(patient.side, (0, 0))
        table[patient.grade][patient.side] = (patients + 1, held + (part.split is Split.HOLDOUT))
    return [(label, table[grade]) for grade, label in _grades().items() if grade in table]


def _refusals(refusals: Iterable[Refusal]) -> list[tuple[str, list[int]]]:
    """Entries by reason, the most frequent reason first."""
    by_reason: dict[str, list[int]] = defaultdict(list)
    for refusal in refusals:
        by_reason[refusal.reason].append(refusal.number)
    return sorted(
        ((reason, sorted(numbers)) for reason, numbers in by_reason.items()), key=lambda item: (-len(item[1]), item[1])
    )
