"""What a hospital's data set may still spend of its privacy, and the one place where a round is paid for.

    work/privacy-<data set>-<unit>.jsonl    hash-chained (`client.chain`), its entries as in `client.spending`

A round's cost is on the disk before its first gradient and is never given back: a round that is repeated, fails or is
never answered has been counted. Costs compose over all rounds, runs and methods. The file stays at the hospital; its
patients stand in it as salted hashes, so that the same patients under another name are found.
"""

from __future__ import annotations

import fcntl
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from ccfexp.errors import ConfigError, LedgerError, PolicyError
from ccfexp.privacy.accounting import ACCOUNTANT, epsilon
from ccfexp.privacy.plan import Unit
from client.chain import Chain, Draft, Entry, utc_now
from client.spending import OPENED, PATIENTS, RESERVED, Book, Cost, Reserved, by_run, charged

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from datetime import datetime
    from pathlib import Path

__all__ = ["Budget", "Cost", "Receipt", "check_delta"]

_REMEDY = "nothing private is trained until it is restored from a backup and the cause is known"


@dataclass(frozen=True)
class Receipt:
    """What a round was admitted for: its cost is on the disk.

    Attributes:
        epsilon_run: of all rounds of this run in this ledger, this one included, at ``delta``.
        epsilon_total: of all rounds in this ledger, at ``delta_total``.
        delta: of the run's plan.
        delta_total: of the site.
        steps: that were paid for.
        data_set, unit: of the ledger.
        reservation: hash of the ledger's entry.
    """

    epsilon_run: float
    epsilon_total: float
    delta: float
    delta_total: float
    steps: int
    data_set: str
    unit: str
    reservation: str

    @property
    def witness(self) -> dict[str, Any]:
        """What the egress ledger says of it, so that this one cannot be replaced alone: see `Budget.confirm`."""
        return {"data_set": self.data_set, "unit": self.unit, "reservation": self.reservation}


@dataclass(frozen=True)
class Budget:
    """The privacy ledger of one site, data set and unit. Several processes may reserve from it; each waits its turn.

    Attributes:
        chain: its file.
        site: public name of the site.
        data_set: the hospital's own name of the patients' data.
        unit: whose presence is hidden.
    """

    chain: Chain
    site: str
    data_set: str
    unit: str

    @classmethod
    def of(
        cls, folder: Path, site: str, data_set: str, unit: str, *, clock: Callable[[], datetime] = utc_now
    ) -> Budget:
        """The ledger in a site's work folder; nothing is made or read yet."""
        return cls(Chain(folder / f"privacy-{data_set}-{unit}.jsonl", clock), site, data_set, unit)

    @classmethod
    def all_of(cls, folder: Path, site: str) -> list[Budget]:
        """Every ledger in a site's work folder; also one of which nothing but the head is left."""
        found = {path.name.removesuffix(".head") for path in folder.glob("privacy-*.jsonl*")}
        pairs = [(name, unit) for name in sorted(found) for unit in get_args(Unit) if name.endswith(f"-{unit}.jsonl")]
        return [
            cls.of(folder, site, name.removeprefix("privacy-").removesuffix(f"-{unit}.jsonl"), unit)
            for name, unit in pairs
        ]

    def reserve(
        self,
        cost: Cost,
        subjects: Collection[str],
        *,
        max_epsilon: float | None,
        delta: float | None,
        egress: int = 0,
    ) -> Receipt:
        """Charge a round before it is trained. When this returns, its cost is on the disk.

        Args:
            cost: of the round.
            subjects: pseudonyms of all training patients of the manifest.
            max_epsilon: what everything in this ledger may cost together; None: it is counted without a limit.
            delta: at which that is counted; None: the plan's own.
            egress: entries of the egress ledger by now; from then on it cannot have fewer.

        Raises:
            PolicyError: the round would cost too much, or delta is too large for so few patients; nothing is written.
            LedgerError: the ledger was altered, is not these patients', or cannot be written.
        """
        total_delta = cost.plan.delta if delta is None else delta
        for value in (total_delta, cost.plan.delta):
            check_delta(value, len(subjects))

        def decide(entries: Sequence[Entry]) -> list[Draft]:
            book = self._read(entries)
            before = [self._opening(subjects)] if book is None else self._newcomers(book, subjects)
            facts = charged(cost, book.rounds if book else (), max_epsilon, total_delta)
            return [*before, (RESERVED, facts | {"egress": egress})]

        with self._alone():
            self._refuse_other_names(subjects)
            entry = self.chain.append_decided(decide)[-1]
        epsilons = entry.facts["epsilon_run"], entry.facts["epsilon_total"]
        return Receipt(*epsilons, cost.plan.delta, total_delta, cost.steps, self.data_set, self.unit, entry.hash)

    def history(self) -> list[Reserved]:
        """Every round that was ever charged, in order. Raises LedgerError if the ledger cannot be trusted."""
        book = self._read(self.chain.entries())
        return list(book.rounds) if book else []

    def check(self, subjects: Collection[str], egress: Callable[[], Sequence[Entry]]) -> None:
        """Whether it is whole, these patients', and holds all that has left. Raises LedgerError if not."""
        self.confirm(egress)
        self._refuse_other_names(subjects)
        book = self._read(self.chain.entries())
        if book is not None:
            self._newcomers(book, subjects)

    def confirm(self, egress: Callable[[], Sequence[Entry]]) -> None:
        """Compare with the egress ledger: each of the two notes how far the other has come, under whatever name.

        Args:
            egress: reads it; asked after this ledger was read, so that what is written meanwhile is no lack.

        Raises:
            LedgerError: one of the two was deleted, or replaced by an older one.
        """
        seen = max((int(entry.facts.get("egress", 0)) for entry in self.chain.entries()), default=0)
        others = egress()
        if len(others) < seen:
            raise LedgerError(
                f"egress ledger entries={len(others)} must be at least {seen}, as {self.chain.path.name} has seen: it "
                f"was removed or replaced by an older one; {_REMEDY}"
            )
        noted: dict[str, list[object]] = {self.data_set: []}
        for entry in others:
            if entry.facts.get("unit") == self.unit:
                noted.setdefault(str(entry.facts.get("data_set")), []).append(entry.facts.get("reservation"))
        for data_set, reservations in noted.items():
            chain = Budget.of(self.chain.path.parent, self.site, data_set, self.unit).chain
            known = {entry.hash for entry in chain.entries()}
            if missing := sum(reservation not in known for reservation in reservations):
                raise LedgerError(
                    f"{chain.path.name} lacks rounds={missing} of the {len(reservations)} that the egress ledger tells "
                    f"of: it was removed or replaced by an older one; {_REMEDY}"
                )

    def summary(self, *, max_epsilon: float | None, delta: float | None) -> dict[str, Any]:
        """Spending by run and altogether, as JSON can express it. Raises LedgerError as `history`."""
        rounds = self.history()
        if delta is None:
            delta = min((item.delta for item in rounds), default=None)
        total = epsilon([item.spent for item in rounds], delta) if rounds and delta else 0.0
        return {
            "site": self.site,
            "data_set": self.data_set,
            "unit": self.unit,
            "accountant": ACCOUNTANT,
            "rounds": len(rounds),
            "steps": sum(item.spent.steps for item in rounds),
            "delta": delta,
            "epsilon": total,
            "max_epsilon": max_epsilon,
            "remaining": None if max_epsilon is None else max(0.0, max_epsilon - total),
            "runs": by_run(rounds),
        }

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One reservation at a time in all ledgers of a folder: two names for the same patients must not both begin."""
        path = self.chain.path.with_name("privacy.lock")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = path.open("w")
        except OSError as error:
            raise LedgerError(
                f"{path.name} cannot be written ({error.strerror}); mend the rights of the work folder: nothing "
                "private is trained without a record"
            ) from error
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _opening(self, subjects: Collection[str]) -> Draft:
        book = Book.opening(subjects)
        own = {"site": self.site, "data_set": self.data_set, "unit": self.unit}
        return OPENED, own | {"salt": book.salt, "patients": sorted(book.marks)}

    def _newcomers(self, book: Book, subjects: Collection[str]) -> list[Draft]:
        """An entry for patients who are new, if any. Raises LedgerError if all are."""
        marks = book.marks_of(subjects)
        if marks and book.marks and not marks & book.marks:
            raise LedgerError(
                f"data_set={self.data_set} has a ledger of patients={len(book.marks)}, of whom the manifest must have "
                "some and has 0: another data set needs another name; give it in the site file"
            )
        new = sorted(marks - book.marks)
        return [(PATIENTS, {"patients": new})] if new else []

    def _refuse_other_names(self, subjects: Collection[str]) -> None:
        """A new name is no new budget. Raises LedgerError if patients have spent under another one."""
        for other in Budget.all_of(self.chain.path.parent, self.site):
            if other.unit != self.unit or other.data_set == self.data_set:
                continue
            book = other._read(other.chain.entries())  # noqa: SLF001 (of the same class)
            if book is not None and (known := len(book.marks_of(subjects) & book.marks)):
                raise LedgerError(
                    f"patients={known} of this manifest have spent under data_set={other.data_set}, and none may be "
                    f"under two names, the other being {self.data_set}: what is spent stays; use that name"
                )

    def _read(self, entries: Sequence[Entry]) -> Book | None:
        """What stands in the ledger, None if nothing does. Raises LedgerError if it is another's."""
        if not entries:
            return None
        first = entries[0].facts
        found = [first.get(name) for name in ("site", "data_set", "unit")]
        if entries[0].kind == OPENED and found != [self.site, self.data_set, self.unit]:
            raise LedgerError(
                f"{self.chain.path.name} is the ledger of site={found[0]}, data_set={found[1]}, unit={found[2]}, not "
                f"of {self.site}, {self.data_set}, {self.unit}; put it back under its own name"
            )
        try:
            return Book.of(entries)
        except (ConfigError, KeyError, TypeError, ValueError) as error:
            raise LedgerError(
                f"{self.chain.path.name} has an entry that this release cannot read; {_REMEDY}"
            ) from error


def check_delta(delta: float, patients: int) -> None:
    """Raises PolicyError unless delta is below 1 / patients: at that, giving one patient away would be allowed."""
    if patients < 1:
        raise PolicyError("training patients=0 must be at least 1; name some in the manifest")
    if not 0 < delta * patients < 1:
        raise PolicyError(
            f"delta={delta:g} must be above 0 and below 1 / patients={1 / patients:g}; choose a smaller delta"
        )
