"""The whole way: list, look, prepare what is new, publish. Interrupted at any instant, the same command goes on."""

from __future__ import annotations

import csv
import hashlib
import io
import secrets
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from typing import TYPE_CHECKING

from ccfexp._io import atomic_write_bytes, canonical_json
from ccfexp.data.rows import LandmarkSource, Row
from client.chain import utc_now
from client.payment import local_today
from client.prepare import publish
from client.prepare.books import Books
from client.prepare.crew import Failed
from client.prepare.entries import Refusal
from client.prepare.intake import AGAINST, Candidate, Declined, Known, Look, candidates, each_once, known, look
from client.prepare.portrait import Job, Portrait, Recipe, corrected_points, portray
from client.prepare.settings import PrepareFile
from client.prepare.store import Item, Labels
from client.prepare.withdrawal import clear_cache
from configs import to_dict

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from client.prepare.crew import Crew
    from client.prepare.entries import Source
    from client.prepare.sources.labels import LabelBook

_TOGETHER = 16  # photographs that are written down at once
_RELEASE = 1  # of what is done to a photograph; with another one all are prepared anew


@dataclass(frozen=True)
class Surroundings:
    """What a preparation takes from outside: the time, the day, random names, and who hears how far it is."""

    clock: Callable[[], datetime] = utc_now
    today: Callable[[], date] = local_today
    name: Callable[[], str] = lambda: secrets.token_hex(16)
    progress: Callable[[str, int, int], None] = lambda *_: None  # step, done, of how many


@dataclass(frozen=True)
class Outcome:
    """How a preparation ended.

    Attributes:
        offered: entries of the source.
        prepared: photographs that were prepared now.
        kept: that were prepared before and are offered again.
        removed: that were prepared before and may not be used any more.
        absent: that were prepared before and are not offered now; they stay.
        refusals: entries that are not in the manifest, by number, each with its reason.
        rows: of the manifest, in its order.
        changed: whether the manifest is another one now.
    """

    offered: int
    prepared: int
    kept: int
    removed: int
    absent: int
    refusals: tuple[Refusal, ...]
    rows: tuple[Row, ...] = field(repr=False)
    changed: bool


@dataclass
class Preparation:
    """One run of the command for one source.

    Attributes:
        books: the hospital's private books, open.
        settings: the hospital's.
        recipe: how a photograph is prepared.
        around: the world.
    """

    books: Books
    settings: PrepareFile
    recipe: Recipe
    around: Surroundings = field(default_factory=Surroundings)
    _refusals: list[Refusal] = field(default_factory=list)

    def run(self, source: Source, labels: LabelBook | None, crew: Crew) -> Outcome:
        """Prepare what a source offers, and publish all that is prepared.

        Raises:
            ConfigError: the source as a whole cannot be used, or weights are missing.
            LedgerError: the record of withdrawals was altered.
            OSError: the disk refuses; the manifest is as it was.
        """
        found, declined = list[Candidate](), list[Declined]()
        barred = self.books.withdrawals.subjects()
        offers = candidates(source, self.settings, labels, self.books.pseudonyms, barred, self.around.today())
        for offer in offers:
            if isinstance(offer, Refusal):
                self._refusals.append(offer)
            else:
                (found if isinstance(offer, Candidate) else declined).append(offer)  # type: ignore[arg-type]
        offered = len(self._refusals) + len(found) + len(declined)
        before = self.books.store.items()
        of_declined = self._contents(crew, declined)
        against = {content for content, each in of_declined if each.against} | self.books.withdrawals.contents()
        taken = list[Known]()
        for answer in each_once(self._known(crew, found)):
            if isinstance(answer, Known) and self._content(answer.content.photograph) in against:
                answer = Declined(Refusal(answer.candidate.number, AGAINST), answer.candidate.material)  # noqa: PLW2901
            (taken if isinstance(answer, Known) else declined).append(answer)  # type: ignore[arg-type]
        self._refusals += [each.refusal for each in declined]
        jobs = self._compared(taken, before)
        contents = against | {content for content, _ in of_declined}
        subjects = barred | {each.against for each in declined if each.against}
        removed = self._remove(before, {each.mark for each in taken}, contents, subjects)
        prepared = self._portrayed(crew, jobs, before)
        rows, changed = self._published()
        offered_marks = {each.mark for each in taken}
        absent = sum(mark not in offered_marks for mark in self.books.store.items())
        refusals = tuple(sorted(self._refusals, key=lambda refusal: (refusal.number, refusal.reason)))
        kept = len(offered_marks & before.keys() - {job.mark for job in jobs})
        return Outcome(offered, prepared, kept, removed, absent, refusals, tuple(rows), changed)

    def _known(self, crew: Crew, found: Sequence[Candidate]) -> Iterator[Known]:
        """Read the files of candidates; one that cannot be read is refused."""
        looks = [Look(candidate.material, self.settings.limits) for candidate in found]
        for done, (candidate, (_, answer)) in enumerate(zip(found, crew.each(look, looks), strict=True), start=1):
            self.around.progress("files read", done, len(found))
            if isinstance(answer, Failed):
                self._refusals.append(Refusal(candidate.number, answer.reason))
            else:
                yield known(candidate, answer, self.books.pseudonyms)

    def _contents(self, crew: Crew, declined: Sequence[Declined]) -> list[tuple[str, Declined]]:
        """Marks of what stands in photographs that may not be used, of those that are there."""
        there = [(each, replace(each.material, landmarks=None)) for each in declined if each.material is not None]
        answers = crew.each(look, [Look(material, self.settings.limits) for _, material in there])
        return [
            (self._content(answer.photograph), each)
            for (each, _), (_, answer) in zip(there, answers, strict=True)
            if not isinstance(answer, Failed)
        ]

    def _content(self, sha256: str) -> str:
        return self.books.pseudonyms.mark("content", sha256)

    # --- what is new --------------------------------------------------------------------------------------------------

    def _compared(self, taken: Sequence[Known], before: Mapping[str, Item]) -> list[_Work]:
        """Write down what the source says now of photographs that are prepared; what is left to do with the others."""
        relabelled, works = list[Item](), list[_Work]()
        for each in taken:
            recipe, item = self._recipe(each), before.get(each.mark)
            about = self._about(each)
            if item is None or item.recipe != recipe:
                works.append(_Work(self._job(each, item), recipe, self._content(each.content.photograph), about))
            if item is not None and about.on(item) != item:
                relabelled.append(about.on(item))
        self.books.store.put(relabelled)
        return works

    def _recipe(self, each: Known) -> str:
        """All that the result depends on beside the photograph; numbers of processes and limits change nothing."""
        facts = each.candidate.facts
        depends = {
            "release": _RELEASE,
            "size": self.recipe.image_size,
            "faces": to_dict(replace(self.recipe.faces, weights=None, detector="supplied", landmarks="supplied")),
            "found by": [self.recipe.faces.detector, self.recipe.faces.landmarks, *self.recipe.weights],
            "landmarks": each.content.landmarks,
            # What flags say depends on these.
            "facts": [facts.mm_per_pixel, facts.movement, facts.side, facts.grade],
        }
        return hashlib.sha256(canonical_json(depends).encode()).hexdigest()

    def _job(self, each: Known, item: Item | None) -> Job:
        facts, by_hand = each.candidate.facts, item is not None and item.landmark_source is LandmarkSource.MANUAL
        return Job(
            each.mark,
            self.recipe,
            each.candidate.material,
            facts.movement,
            facts.side,
            facts.grade,
            facts.mm_per_pixel,
            corrected_points(self.books.place.data / item.landmarks_path, item.figures) if item and by_hand else None,
        )

    def _about(self, each: Known) -> _About:
        facts, subject = each.candidate.facts, each.candidate.subject
        labels = Labels(
            movement=facts.movement,
            side=facts.side,
            grade=facts.grade,
            role=facts.role,
            consent_generate=facts.consent_generate,
            consent_expires=facts.consent_expires,
        )
        session = self.books.store.session(subject, self.books.pseudonyms.mark("session", subject, facts.session))
        return _About(labels, subject, session, each.candidate.number)

    # --- what is done -------------------------------------------------------------------------------------------------

    def _portrayed(self, crew: Crew, works: Sequence[_Work], before: Mapping[str, Item]) -> int:
        """Prepare photographs and write them down, a few at a time; how many."""
        batch, prepared = list[Item](), 0
        answers = crew.each(portray, [work.job for work in works])
        for done, (work, (_, answer)) in enumerate(zip(works, answers, strict=True), start=1):
            self.around.progress("photographs prepared", done, len(works))
            if isinstance(answer, Failed):
                self._refusals.append(Refusal(work.about.number, answer.reason))
                self.books.store.remove([work.mark])  # what was prepared of it is not what the source says now
            else:
                batch.append(self._written(work, answer, before.get(work.mark)))
                prepared += 1
            if len(batch) >= _TOGETHER or done == len(works):
                self.books.store.put(batch)
                batch = []
        return prepared

    def _written(self, work: _Work, made: Portrait, item: Item | None) -> Item:
        """The item of a photograph whose two files are on the disk."""
        new = Item(
            mark=work.mark,
            recipe=work.recipe,
            name=self.around.name(),
            content=work.content,
            subject=work.about.subject,
            session=work.about.session,
            labels=work.about.labels,
            sha256=hashlib.sha256(made.image).hexdigest(),
            landmarks=self.around.name(),
            landmarks_sha256=hashlib.sha256(made.landmarks).hexdigest(),
            landmark_source=made.landmark_source,
            image_size=self.recipe.image_size,
            figures=made.figures,
            crop=made.crop,
            number=work.about.number,
            added=self.around.clock().isoformat(timespec="milliseconds") if item is None else item.added,
        )
        self.books.store.promise([new.name, new.landmarks])
        atomic_write_bytes(self.books.place.data / new.image_path, made.image)
        atomic_write_bytes(self.books.place.data / new.landmarks_path, made.landmarks)
        return new

    def _remove(
        self, before: Mapping[str, Item], taken: set[str], contents: Collection[str], subjects: Collection[str]
    ) -> int:
        """Take out what may not be used any more, and all features that training has kept; how many.

        That is what is declined now, what its source does not offer any more of a patient who does not agree, and what
        a consent has ended for. What was trained with them is written down by patient.
        """
        today = self.around.today()
        gone = [
            item
            for item in before.values()
            if item.mark not in taken
            and (item.content in contents or item.subject in subjects or _ended(item.labels, today))
        ]
        of_subject: dict[str, list[Item]] = defaultdict(list)
        for item in gone:
            of_subject[item.subject].append(item)
        for subject, items in of_subject.items():
            self.books.withdrawals.removed(subject, items, self.books.store.splits().get(subject))
        self.books.store.remove([item.mark for item in gone])
        for subject in of_subject.keys() & self.books.withdrawals.subjects():  # a withdrawal that was cut off
            self.books.store.forget(subject)
        if gone:
            clear_cache(self.books.place)
        return len(gone)

    def _published(self) -> tuple[list[Row], bool]:
        """Write the manifest of all that is prepared, then delete the files that nothing names."""
        items = list(self.books.store.items().values())
        other = [item for item in items if item.image_size != self.recipe.image_size]
        self._refusals += [Refusal(item.number, _other_size(item, self.recipe.image_size)) for item in other]
        shown, refused = publish.publishable(
            [item for item in items if item.image_size == self.recipe.image_size], self.settings.identity
        )
        self._refusals += refused
        splits = publish.split_patients(shown, self.books.store.splits(), self.settings)
        self.books.store.assign(splits)
        rows = publish.rows_of(shown, {**splits, **self.books.store.splits()})
        changed = publish.publish(self.books.place.manifest, rows)
        publish.sweep(self.books.place.data, self.books.store)
        return rows, changed


@dataclass(frozen=True)
class _About:
    """What the source says of a photograph."""

    labels: Labels
    subject: str
    session: str
    number: int

    def on(self, item: Item) -> Item:
        """The item with it."""
        return replace(item, labels=self.labels, subject=self.subject, session=self.session, number=self.number)


@dataclass(frozen=True)
class _Work:
    """A photograph to prepare, and what goes into its item."""

    job: Job
    recipe: str
    content: str
    about: _About

    @property
    def mark(self) -> str:
        """What it is known by."""
        return self.job.mark


def _ended(labels: Labels, today: date) -> bool:
    return labels.consent_expires is not None and labels.consent_expires < today


def _other_size(item: Item, size: int) -> str:
    return (
        f"was prepared at image_size={item.image_size} from a source that is not given now, the data set has {size}; "
        "prepare that source again"
    )


def numbered(refusals: Iterable[Refusal]) -> str:
    """A table of refusals as CSV: number of the entry, reason."""
    table = io.StringIO(newline="")
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(("entry", "reason"))
    writer.writerows((refusal.number, refusal.reason) for refusal in refusals)
    return table.getvalue()
