"""Who is held out of training: whole patients, by grade and side, the same ones at every run.

A patient who was assigned once never moves: a face that was trained on must never be judged on. Who is chosen among
the new ones depends on the seed and on the pseudonyms alone, not on the order in which they come.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass, field
from fractions import Fraction
from math import floor
from typing import TYPE_CHECKING

from ccfexp.data.rows import Side, Split
from ccfexp.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    Stratum = tuple[int | None, Side]

_PRECISION = 10**6  # 0.2 is meant as one fifth, not as the nearest binary fraction


@dataclass(frozen=True)
class Patient:
    """One patient and the stratum that they belong to.

    Attributes:
        pseudonym: the patient's, as in the manifest.
        grade: the worst House-Brackmann grade that was seen, 1 to 6; None = not graded.
        side: of the palsy.
    """

    pseudonym: str = field(repr=False)
    grade: int | None
    side: Side

    @classmethod
    def of(cls, pseudonym: str, grades: Iterable[int | None], sides: Iterable[Side]) -> Patient:
        """The patient of all their photographs: the worst grade; a palsy of either side makes a bilateral one."""
        palsied = {side for side in sides if side is not Side.NONE}
        side = Side.NONE if not palsied else palsied.pop() if len(palsied) == 1 else Side.BILATERAL
        return cls(pseudonym, max((grade for grade in grades if grade is not None), default=None), side)


@dataclass
class _Stratum:
    """How many of a stratum's patients are held out, and how many may be."""

    quota: Fraction
    fewest: int
    most: int
    patients: int
    lot: bytes
    chosen: int = 0

    def takes_all(self) -> bool:
        """Whether one more would leave nobody of this stratum to train on."""
        return self.chosen + 1 >= self.patients


def assign_splits(
    new: Sequence[Patient], existing: Mapping[Patient, Split], holdout: float, seed: int
) -> dict[str, Split]:
    """Assign every patient to training or holdout.

    The number held out is the one nearest to ``holdout`` times all patients, shared out over the strata by largest
    remainder; a stratum with a single patient to train on gives them up only where no other can serve. At least one
    patient is held out if any share is and there are two, and at least one is trained on. What was assigned before
    counts, and may make these aims impossible to meet; it is left as it is.

    Args:
        new: patients without a split, in any order.
        existing: patients of earlier runs, with their present grade and side. Who is in both keeps the old split.
        holdout: share of patients in [0, 1).
        seed: of the choice among the new.

    Returns:
        The split of every pseudonym, new and existing.

    Raises:
        ConfigError: the share is outside [0, 1), or two patients have one pseudonym.
    """
    if not 0 <= holdout < 1:
        raise ConfigError(f"holdout={holdout} must lie in [0, 1); 0.2 is a good choice")
    splits = {patient.pseudonym: split for patient, split in existing.items()}
    unplaced = [patient for patient in new if patient.pseudonym not in splits]
    if len(splits) != len(existing) or len({patient.pseudonym for patient in unplaced}) != len(unplaced):
        raise ConfigError("two patients have one pseudonym; give each patient once, with the worst grade")

    members: dict[Stratum, list[Patient]] = defaultdict(list)
    for patient in sorted(unplaced, key=lambda patient: _lot(seed, patient.pseudonym)):
        members[patient.grade, patient.side].append(patient)
    counts = _counts(members, existing, Fraction(holdout).limit_denominator(_PRECISION), seed)
    for stratum, patients in members.items():
        for place, patient in enumerate(patients):
            splits[patient.pseudonym] = Split.HOLDOUT if place < counts[stratum] else Split.TRAIN
    return splits


def _counts(
    members: Mapping[Stratum, list[Patient]], existing: Mapping[Patient, Split], share: Fraction, seed: int
) -> dict[Stratum, int]:
    """How many of the new patients of each stratum are held out."""
    strata: dict[Stratum, _Stratum] = {}
    for key in {*members, *((patient.grade, patient.side) for patient in existing)}:
        before = [split for patient, split in existing.items() if (patient.grade, patient.side) == key]
        held, fresh = before.count(Split.HOLDOUT), len(members.get(key, ()))
        total = len(before) + fresh
        strata[key] = _Stratum(share * total, held, held + fresh, total, _lot(seed, repr(key)))
    people = sum(stratum.patients for stratum in strata.values())
    aim = floor(share * people + Fraction(1, 2))
    aim = min(max(aim, 1), people - 1) if share > 0 and people > 1 else 0
    _share_out(list(strata.values()), aim)
    return {key: stratum.chosen - stratum.fewest for key, stratum in strata.items()}


def _share_out(strata: list[_Stratum], aim: int) -> None:
    """Set how many of each stratum are held out, ``aim`` in all where the bounds allow it."""
    for stratum in strata:
        stratum.chosen = min(max(floor(stratum.quota), stratum.fewest), stratum.most)
    missing = aim - sum(stratum.chosen for stratum in strata)
    for _ in range(missing):
        free = [stratum for stratum in strata if stratum.chosen < stratum.most]
        if not free:
            return
        # Nobody goes a whole patient beyond their quota before all have reached it.
        within = [stratum for stratum in free if stratum.chosen <= stratum.quota] or free
        best = min(within, key=lambda stratum: (stratum.takes_all(), stratum.chosen - stratum.quota, stratum.lot))
        best.chosen += 1
    for _ in range(-missing):  # patients held out earlier are more than their share: others make up for it
        free = [stratum for stratum in strata if stratum.chosen > stratum.fewest]
        if not free:
            return
        worst = max(free, key=lambda stratum: (stratum.chosen - stratum.quota, stratum.lot))
        worst.chosen -= 1


def _lot(seed: int, name: str) -> bytes:
    """A number drawn for a name; the same whatever else is drawn."""
    return hashlib.sha256(f"{seed}\0{name}".encode()).digest()
