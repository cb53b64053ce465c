"""What stands in a privacy ledger: who the patients are, by salted hashes, and what every round has cost.

The first entry, "opened", names site, data set and unit, and holds the salt and the marks of the patients; "patients"
holds marks of those who have come since; "reserved" is a round with its mechanism and epsilon after it.
"""

from __future__ import annotations

import hashlib
import math
import re
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ccfexp.errors import PolicyError
from ccfexp.privacy.accounting import Spent, epsilon
from ccfexp.privacy.plan import PrivacyConfig

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from client.chain import Entry

OPENED, PATIENTS, RESERVED = "opened", "patients", "reserved"
_MARK = 16  # hexadecimal digits
_MOST_PLANS = 100  # in one ledger: more would take minutes to count
_SALT = re.compile("[0-9a-f]{32}")


@dataclass(frozen=True)
class Cost:
    """A round that is asked for, as the gate has read it.

    Attributes:
        run: the coordinator's name of the run.
        round_number: from 1.
        method: name of the aggregation rule.
        config_sha256: of the run's configuration.
        plan: calibrated.
        steps: noised steps of this round.
    """

    run: str
    round_number: int
    method: str
    config_sha256: str
    plan: PrivacyConfig
    steps: int


@dataclass(frozen=True)
class Reserved:
    """A round that was charged; ``delta`` is that of its run's plan."""

    run: str
    round_number: int
    method: str
    spent: Spent
    delta: float
    time: str

    @classmethod
    def of(cls, entry: Entry) -> Reserved:
        """Read an entry. Raises TypeError, KeyError or ValueError if it is none."""
        facts = entry.facts
        rate, noise, delta = (_number(facts[name]) for name in ("sampling_rate", "noise_multiplier", "delta"))
        steps, number = facts["steps"], facts["round"]
        if type(steps) is not int or type(number) is not int or not 0 < delta < 1:
            raise ValueError("not a round")
        return cls(_text(facts["run"]), number, _text(facts["method"]), Spent(rate, noise, steps), delta, entry.time)


@dataclass(frozen=True)
class Book:
    """A ledger as it was read.

    Attributes:
        salt: of the marks.
        marks: of all patients who ever were in the manifest.
        rounds: in the order in which they were charged.
    """

    salt: str
    marks: frozenset[str]
    rounds: tuple[Reserved, ...]

    @classmethod
    def opening(cls, subjects: Iterable[str]) -> Book:
        """A new one, with a salt of its own."""
        empty = cls(secrets.token_hex(16), frozenset(), ())
        return cls(empty.salt, empty.marks_of(subjects), ())

    @classmethod
    def of(cls, entries: Sequence[Entry]) -> Book:
        """Read a ledger of at least one entry. Raises TypeError, KeyError or ValueError at what does not belong."""
        salt, marks, rounds = _text(entries[0].facts["salt"]), set[str](), list[Reserved]()
        if _SALT.fullmatch(salt) is None:
            raise ValueError("no salt")
        for entry in entries:
            if entry.kind == RESERVED and entry.number > 1:
                rounds.append(Reserved.of(entry))
            elif entry.kind == (OPENED if entry.number == 1 else PATIENTS):
                marks |= {_text(mark) for mark in entry.facts["patients"]}
            else:
                raise ValueError("of another kind")
        return cls(salt, frozenset(marks), tuple(rounds))

    def marks_of(self, subjects: Iterable[str]) -> frozenset[str]:
        """How patients are known in this ledger."""
        return frozenset(hashlib.sha256(f"{self.salt}:{name}".encode()).hexdigest()[:_MARK] for name in subjects)


def charged(cost: Cost, rounds: Sequence[Reserved], max_epsilon: float | None, delta: float) -> dict[str, Any]:
    """Facts of the entry that charges a round after others.

    Args:
        cost: of the round.
        rounds: before it, of all runs.
        max_epsilon: that all of them may cost together, or None.
        delta: at which that is counted.

    Raises:
        PolicyError: it would cost more, or more than can be told, or the run has another plan than before.
    """
    plan, spent = cost.plan, cost.plan.spent(cost.steps)
    _check_one_plan(cost.run, spent, rounds)
    of_run = epsilon([*(item.spent for item in rounds if item.run == cost.run), spent], plan.delta)
    total = epsilon([*(item.spent for item in rounds), spent], delta)
    if not (math.isfinite(of_run) and math.isfinite(total)):
        raise PolicyError(
            f"epsilon after this round at delta={min(delta, plan.delta):g} is beyond any figure, it must be finite; a "
            "run needs more noise, fewer steps or a larger delta"
        )
    if max_epsilon is not None and total > max_epsilon:
        before = epsilon([item.spent for item in rounds], delta)
        raise PolicyError(
            f"epsilon={total:.6g} after this round at delta={delta:g} must be at most policy.max_epsilon={max_epsilon}"
            f"; spent={before:.6g} never comes back, so a run needs more noise or fewer steps, or ends here"
        )
    facts = {name: getattr(spent, name) for name in ("sampling_rate", "noise_multiplier", "steps")}
    facts |= {"run": cost.run, "round": cost.round_number, "method": cost.method, "config_sha256": cost.config_sha256}
    facts |= {"clipping_norm": plan.clipping_norm, "delta": plan.delta, "delta_total": delta}
    return facts | {"epsilon_run": of_run, "epsilon_total": total}


def _check_one_plan(run: str, spent: Spent, rounds: Sequence[Reserved]) -> None:
    """A run has one plan: the promise is of plans that do not depend on what has left, and counting stays quick.

    Raises:
        PolicyError: it has another now, or the ledger has too many by now.
    """
    kind = (spent.sampling_rate, spent.noise_multiplier)
    kinds = {(item.spent.sampling_rate, item.spent.noise_multiplier): item.run for item in rounds}
    if any((item.spent.sampling_rate, item.spent.noise_multiplier) != kind for item in rounds if item.run == run):
        raise PolicyError(
            f"sampling_rate={kind[0]:g}, noise_multiplier={kind[1]:g} of this round must be those of its run's first "
            "round; another plan needs another run"
        )
    if kind not in kinds and len(kinds) >= _MOST_PLANS:
        raise PolicyError(f"plans={len(kinds) + 1} in one ledger must be at most {_MOST_PLANS}; use one that is there")


def by_run(rounds: Sequence[Reserved]) -> dict[str, dict[str, Any]]:
    """What each run has spent, counted as if it were the only one, in the order in which they began."""
    names = dict.fromkeys(item.run for item in rounds)
    return {name: _of_run([item for item in rounds if item.run == name]) for name in names}


def _of_run(rounds: Sequence[Reserved]) -> dict[str, Any]:
    delta = min(item.delta for item in rounds)
    return {
        "rounds": len(rounds),
        "steps": sum(item.spent.steps for item in rounds),
        "methods": sorted({item.method for item in rounds}),
        "delta": delta,
        "epsilon": epsilon([item.spent for item in rounds], delta),
        "first": rounds[0].time,
        "last": rounds[-1].time,
    }


def _number(value: object) -> float:
    if type(value) not in (int, float):
        raise TypeError("not a number")
    return float(value)  # type: ignore[arg-type]


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value
