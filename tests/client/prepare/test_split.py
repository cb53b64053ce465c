"""Whole patients, in the shares that were asked for, chosen by lot and never moved."""

from __future__ import annotations

from collections import Counter
from math import ceil, floor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccfexp.data.rows import Side, Split
from ccfexp.errors import ConfigError
from client.prepare.split import Patient, assign_splits

GRADES = st.sampled_from((None, 1, 2, 3, 4, 5, 6))
COHORTS = st.lists(st.tuples(GRADES, st.sampled_from(Side)), max_size=40).map(
    lambda strata: [Patient(f"P{number}", grade, side) for number, (grade, side) in enumerate(strata)]
)
SHARES = st.sampled_from((0.0, 0.01, 0.1, 0.2, 0.25, 1 / 3, 0.5, 0.9, 0.99))
SEEDS = st.integers(0, 2**32)


def held(splits: dict[str, Split]) -> int:
    return sum(split is Split.HOLDOUT for split in splits.values())


@given(COHORTS, SHARES, SEEDS)
def test_the_total_is_the_nearest_and_both_sides_have_somebody(cohort: list[Patient], share: float, seed: int) -> None:
    splits = assign_splits(cohort, {}, share, seed)
    assert splits.keys() == {patient.pseudonym for patient in cohort}
    if share == 0 or len(cohort) < 2:
        assert held(splits) == 0
    else:
        assert 1 <= held(splits) <= len(cohort) - 1
        nearest = abs(held(splits) - share * len(cohort)) <= 0.5 + 1e-9
        assert nearest or held(splits) in (1, len(cohort) - 1)


@given(COHORTS, SHARES, SEEDS)
def test_every_stratum_is_within_one_of_its_quota(cohort: list[Patient], share: float, seed: int) -> None:
    splits = assign_splits(cohort, {}, share, seed)
    total = Counter((patient.grade, patient.side) for patient in cohort)
    out = Counter((p.grade, p.side) for p in cohort if splits[p.pseudonym] is Split.HOLDOUT)
    for stratum, count in total.items():
        assert abs(out[stratum] - share * count) <= 1 + 1e-9


@given(COHORTS, SHARES, SEEDS, st.randoms())
def test_the_order_is_nothing(cohort: list[Patient], share: float, seed: int, random: object) -> None:
    shuffled = list(cohort)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert assign_splits(shuffled, {}, share, seed) == assign_splits(cohort, {}, share, seed)


@given(COHORTS, st.integers(0, 40), SHARES, SHARES, SEEDS, SEEDS)
def test_nobody_moves_when_others_come(
    cohort: list[Patient], first: int, share: float, later_share: float, seed: int, later_seed: int
) -> None:
    """Whatever the share and the seed of the later run; and the total goes as near to the aim as it then can."""
    old, fresh = cohort[:first], cohort[first:]
    before = assign_splits(old, {}, share, seed)
    after = assign_splits(fresh, {patient: before[patient.pseudonym] for patient in old}, later_share, later_seed)
    assert {name: after[name] for name in before} == before
    aim = later_share * len(cohort)
    if later_share > 0 and len(cohort) > 1:
        aim = min(max(floor(aim + 0.5), 1), len(cohort) - 1)
        reachable = min(max(aim, held(before)), held(before) + len(fresh))
        assert abs(held(after) - reachable) <= 1  # one half may be rounded either way by floating point
    else:
        assert held(after) == held(before)


def test_a_patient_who_comes_again_keeps_the_old_split() -> None:
    """Even with a worse grade by now."""
    old = {Patient("P1", 2, Side.LEFT): Split.TRAIN, Patient("P2", 2, Side.LEFT): Split.HOLDOUT}
    splits = assign_splits([Patient("P1", 5, Side.LEFT), Patient("P3", 5, Side.LEFT)], old, 0.9, 0)
    assert splits["P1"] is Split.TRAIN
    assert splits["P2"] is Split.HOLDOUT


def test_a_stratum_of_one_stays_in_training_while_others_can_serve() -> None:
    many = [Patient(f"M{number}", 4, Side.LEFT) for number in range(10)]
    lonely = [Patient(f"L{grade}", grade, Side.RIGHT) for grade in range(1, 6)]
    for seed in range(50):
        splits = assign_splits([*many, *lonely], {}, 0.2, seed)
        assert held(splits) == 3
        assert all(splits[patient.pseudonym] is Split.TRAIN for patient in lonely)


def test_strata_of_one_serve_where_there_is_nobody_else() -> None:
    lonely = [Patient(f"L{grade}", grade, Side.RIGHT) for grade in range(1, 6)]
    chosen = Counter(
        name
        for seed in range(500)
        for name, split in assign_splits(lonely, {}, 0.2, seed).items()
        if split is Split.HOLDOUT
    )
    assert chosen.total() == 500
    assert min(chosen.values()) > 60  # 100 expected, standard deviation 9


def test_every_patient_of_a_stratum_has_the_same_chance() -> None:
    """Chi-squared over seeds against equal chances, in a stratum of 9 of whom 2 or 3 are held out."""
    cohort = [Patient(f"P{number}", 3 + number % 2, Side.LEFT) for number in range(18)]
    runs = 1500
    chosen = np.zeros(18)
    for seed in range(runs):
        splits = assign_splits(cohort, {}, 0.25, seed)
        chosen += [splits[patient.pseudonym] is Split.HOLDOUT for patient in cohort]
    for stratum in (chosen[::2], chosen[1::2]):
        expected = stratum.mean()
        p = expected / runs
        assert ((stratum - expected) ** 2 / (expected * (1 - p))).sum() * 8 / 9 < 26.1  # 8 degrees, one in a thousand
    assert chosen.sum() == runs * ceil(18 * 0.25)


def test_the_seed_changes_who_and_not_how_many() -> None:
    cohort = [Patient(f"P{number}", 3, Side.LEFT) for number in range(20)]
    runs = [assign_splits(cohort, {}, 0.2, seed) for seed in range(10)]
    assert {held(splits) for splits in runs} == {4}
    assert len({frozenset(splits.items()) for splits in runs}) > 5


def test_the_worst_grade_and_both_sides_make_a_patient() -> None:
    sides = [Side.NONE, Side.LEFT, Side.LEFT]
    assert Patient.of("P", [2, None, 4], sides) == Patient("P", 4, Side.LEFT)
    assert Patient.of("P", [None], [Side.LEFT, Side.RIGHT]) == Patient("P", None, Side.BILATERAL)
    assert Patient.of("P", [1], [Side.NONE]) == Patient("P", 1, Side.NONE)


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="holdout=1"):
        assign_splits([], {}, 1, 0)
    twice = [Patient("SMITH", 1, Side.LEFT), Patient("SMITH", 2, Side.LEFT)]
    with pytest.raises(ConfigError, match="one pseudonym") as refusal:
        assign_splits(twice, {}, 0.2, 0)
    assert "SMITH" not in str(refusal.value) + repr(twice)
