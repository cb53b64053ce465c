"""A patient withdraws: photographs, rows and caches go, and what was trained with them is written down.

What has left the hospital cannot be called back. The record says which runs those were, so that their results can be
withdrawn or trained anew without this patient.
"""

from __future__ import annotations

import shutil
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ccfexp.data.rows import Split
from client.chain import Chain
from client.ledger import UPDATE, EgressLedger
from client.prepare import publish

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from client.prepare.place import Place
    from client.prepare.store import Item, Store

WITHDRAWN, REMOVED = "withdrawn", "removed"


@dataclass(frozen=True)
class Withdrawals:
    """Who has withdrawn: a hash-chained file. It holds pseudonyms, which only the hospital's key connects to anybody.

    Attributes:
        chain: the file.
        egress: what has left this hospital.
    """

    chain: Chain
    egress: EgressLedger

    @classmethod
    def of(cls, place: Place, clock: Callable[[], datetime]) -> Withdrawals:
        """The record of a site."""
        return cls(
            Chain(place.private / "withdrawals.jsonl", clock), EgressLedger(Chain(place.work / "egress.jsonl", clock))
        )

    def subjects(self) -> frozenset[str]:
        """Pseudonyms of patients who are never prepared again. Raises LedgerError if the file was altered."""
        return frozenset(str(entry.facts["subject"]) for entry in self.chain.entries() if entry.kind == WITHDRAWN)

    def contents(self) -> frozenset[str]:
        """Keyed marks of photographs of those patients, under whatever number they are offered. Raises LedgerError."""
        entries = [entry for entry in self.chain.entries() if entry.kind == WITHDRAWN]
        return frozenset(str(content) for entry in entries for content in entry.facts.get("contents", ()))

    def withdrawn(self, subject: str, items: Sequence[Item], split: Split | None) -> dict[str, Any]:
        """Write down that a patient withdraws, before anything is deleted; what was written.

        Raises:
            LedgerError: it cannot be written, or a ledger was altered.
        """
        facts = {"subject": subject, **self._trained_with(items, split)}
        for entry in self.chain.entries():  # of photographs that were taken out before
            if entry.facts.get("subject") == subject:
                facts["runs"] = {**entry.facts["runs"], **facts["runs"]}
        facts["contents"] = sorted({item.content for item in items})
        self.chain.append(WITHDRAWN, facts)
        return facts

    def removed(self, subject: str, items: Sequence[Item], split: Split | None) -> None:
        """Write down that some photographs may not be used any more. Raises LedgerError as `withdrawn`."""
        self.chain.append(REMOVED, {"subject": subject, **self._trained_with(items, split)})

    def _trained_with(self, items: Sequence[Item], split: Split | None) -> dict[str, Any]:
        """How many photographs since when, and the runs of which an update has left since: rounds, times, epsilon.

        An update that left before the photographs were prepared knew nothing of them, nor does any of a patient who is
        held out.
        """
        since = min((item.added for item in items), default="")
        runs: dict[str, dict[str, Any]] = defaultdict(lambda: {"rounds": 0, "epsilon": None})
        for entry in self.egress.chain.entries():
            if entry.kind != UPDATE or split is not Split.TRAIN or not items or entry.time < since:
                continue
            run = runs[str(entry.facts.get("run", ""))]
            run["rounds"] += 1
            run.setdefault("first", entry.time)
            run["last"] = entry.time
            if (cost := entry.facts.get("epsilon")) is not None:
                run["epsilon"] = max(cost, run["epsilon"] or 0.0)
        return {"photographs": len(items), "since": since, "split": str(split or ""), "runs": dict(runs)}


def forget(subject: str, place: Place, store: Store, withdrawals: Withdrawals) -> dict[str, Any]:
    """Delete all that was made of a patient's photographs; what was trained with them is returned and written down.

    The record comes first, so that a crash in between leaves a patient who is barred, and the same call goes on.

    Args:
        subject: pseudonym.
        place: of the site, whose service must not run.
        store: what has been prepared.
        withdrawals: the record.

    Raises:
        LedgerError: nothing can be written down, so nothing was deleted.
        OSError: the disk refuses; the same call goes on.
    """
    items = store.items().values()
    facts = withdrawals.withdrawn(
        subject, [item for item in items if item.subject == subject], store.splits().get(subject)
    )
    publish.publish(place.manifest, [row for row in publish.rows_in(place.manifest) if row.subject_id != subject])
    store.forget(subject)
    publish.sweep(place.data, store)
    clear_cache(place)
    return facts


def clear_cache(place: Place) -> None:
    """Delete what is derived from photographs: features of all patients together, and the report."""
    if place.cache.is_dir():  # features are made anew
        shutil.rmtree(place.cache)
    for derived in (place.report, place.refused):
        derived.unlink(missing_ok=True)
