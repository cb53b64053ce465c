"""From what a source offers to photographs that may be prepared: labelled, with consent, each once."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ccfexp.data.files import BadFileError
from client.prepare.entries import Material, Refusal
from client.prepare.facts import BadFactsError, Facts, agreed, read_facts, same_subject
from client.prepare.settings import Limits
from client.prepare.sources.choose import complete_facts

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from datetime import date
    from pathlib import Path

    from client.prepare.entries import Source
    from client.prepare.pseudonyms import Pseudonyms
    from client.prepare.settings import PrepareFile
    from client.prepare.sources.labels import LabelBook

_CHUNK = 1 << 20
AGAINST = (
    "is the same photograph as one whose patient does not agree to training or has withdrawn; find out whose it is, "
    "and delete it or ask for consent"
)
WITHDRAWN = "the patient has withdrawn at this hospital (--forget); delete the photograph"


@dataclass(frozen=True)
class Candidate:
    """A photograph whose facts are complete and whose patient agreed. ``subject`` is the pseudonym."""

    number: int
    subject: str
    facts: Facts
    material: Material


@dataclass(frozen=True)
class Declined:
    """A photograph that may not be used, or of which not enough is known; what was prepared of it must go.

    ``material`` is None where it is not there any more. ``against`` is the pseudonym of a patient who does not agree to
    training (any more), or empty.
    """

    refusal: Refusal
    material: Material | None
    against: str = ""


@dataclass(frozen=True)
class Look:
    """Files to read."""

    material: Material
    limits: Limits


@dataclass(frozen=True)
class Content:
    """What stands in the files of a photograph: SHA-256 of the photograph, and of its landmarks or empty."""

    photograph: str = field(repr=False)
    landmarks: str = field(repr=False)


@dataclass(frozen=True)
class Known:
    """A candidate whose files were read; ``mark`` is what it is known by for ever."""

    candidate: Candidate
    content: Content
    mark: str


def candidates(
    source: Source,
    settings: PrepareFile,
    labels: LabelBook | None,
    pseudonyms: Pseudonyms,
    barred: Collection[str],
    today: date,
) -> Iterator[Candidate | Declined | Refusal]:
    """What of a source may be prepared; every entry is answered, in its order.

    Args:
        source: of the entries.
        settings: the hospital's.
        labels: what the source does not say itself.
        pseudonyms: makes them.
        barred: pseudonyms of patients who have withdrawn.
        today: by which consents end.
    """
    for entry in source.entries():
        if isinstance(entry, Refusal) and entry.facts is None:
            yield entry
            continue
        whole = complete_facts(entry.facts or {}, labels, settings.consent)
        named = same_subject(whole.get("subject", ""))
        subject = pseudonyms.subject(named) if named else ""
        against = "" if agreed(whole, today) else subject
        if isinstance(entry, Refusal):
            yield Declined(entry, None, against)
        elif subject in barred:
            yield Declined(Refusal(entry.number, WITHDRAWN), entry.material, subject)
        else:
            try:
                facts = read_facts(whole, settings.words, today)
            except BadFactsError as error:
                yield Declined(Refusal(entry.number, str(error)), entry.material, against)
            else:
                yield Candidate(entry.number, subject, facts, entry.material)


def look(job: Look) -> Content:
    """Read the files of a photograph once, for their hashes.

    Raises:
        BadFileError: one is too large, or no file.
        OSError: one cannot be read.
    """
    material, limits = job.material, job.limits
    largest = limits.bytes * (10 if material.kind in ("video", "dicom_video") else 1)
    landmarks = "" if material.landmarks is None else _sha256(material.landmarks, limits.bytes, "landmarks file")
    return Content(_sha256(material.file, largest, "file"), landmarks)


def known(candidate: Candidate, content: Content, pseudonyms: Pseudonyms) -> Known:
    """A candidate with the mark by which it is known again: its content, and what of it is meant."""
    material, which = candidate.material, ""
    if material.kind == "dicom":
        which = f"frame {material.frame}"
    elif material.kind in ("video", "dicom_video"):
        which = f"{candidate.facts.movement} {material.start_s} {material.end_s}"
    return Known(candidate, content, pseudonyms.mark("photograph", content.photograph, which))


def each_once(found: Iterable[Known]) -> Iterator[Known | Declined]:
    """Photographs that are offered once, or several times with the same facts; the first of these is taken.

    One photograph of two patients, or with two grades, is refused wherever it stands: nobody knows which is right.
    """
    of_mark: dict[str, list[Known]] = {}
    for each in found:
        of_mark.setdefault(each.mark, []).append(each)
    for same in of_mark.values():
        first = same[0]
        agreed = len({(each.candidate.subject, _told(each.candidate.facts)) for each in same}) == 1
        for each in same:
            if agreed and each is first:
                yield each
                continue
            other = next(other.candidate.number for other in same if other is not each)
            reason = (
                f"is the same photograph as entry {first.candidate.number}; it is taken once"
                if agreed
                else f"is the same photograph as entry {other}, which says something else of it (patient, session, "
                "movement, side, grade or consent); correct them, neither is taken"
            )
            yield Declined(Refusal(each.candidate.number, reason), each.candidate.material)


def _sha256(path: Path, largest: int, what: str) -> str:
    if not path.is_file():  # a pipe would never end
        raise BadFileError(f"{what} is missing or no ordinary file")
    if (size := path.stat().st_size) == 0:
        raise BadFileError(f"{what} is empty; copy it again from where it comes")
    if size > largest:
        raise BadFileError(f"{what} has bytes={size}, at most {largest} are read; see limits.bytes")
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _told(facts: Facts) -> tuple[object, ...]:
    told = (facts.session, facts.movement, facts.side, facts.grade, facts.role, facts.consent_generate)
    return (*told, facts.consent_expires)
