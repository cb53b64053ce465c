"""Bootstrap intervals: coverage, subjects as units, pairing, seeds."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from ccfexp.evaluation.bootstrap import Interval, interval, paired_difference
from ccfexp.evaluation.metrics import finite_mean, spearman

if TYPE_CHECKING:
    from ccfexp.evaluation.measures import Array

SUBJECTS, CASES = 24, 6


def clustered(rng: np.random.Generator) -> tuple[Array, Array]:
    """(value, subject) [SUBJECTS * CASES] around 0: pictures of one person are much alike."""
    subject = np.repeat(np.arange(SUBJECTS), CASES)
    return rng.normal(0, 1, SUBJECTS)[subject] + rng.normal(0, 0.5, subject.size), subject.astype(float)


def coverage(by_subject: bool) -> float:
    """How often the 90 % interval of the mean of clustered cases holds the true mean, 0."""
    hits = 0
    for trial in range(200):
        rng = np.random.default_rng(trial)
        value, subject = clustered(rng)
        unit = subject if by_subject else np.arange(value.size)
        found = interval(np.mean, [value], unit, rng=rng, resamples=200, level=0.9)
        hits += found.low <= 0 <= found.high
    return hits / 200


def test_interval_covers_as_often_as_it_says() -> None:
    """200 trials of a 90 % interval; a percentile interval over 24 subjects covers slightly less than stated."""
    assert 0.82 <= coverage(by_subject=True) <= 0.96


def test_resampling_pictures_would_be_too_narrow() -> None:
    """The wrong implementation, one picture one unit, misses the truth about half of the time: the test can fail."""
    assert coverage(by_subject=False) < 0.70


def test_interval_of_the_mean_matches_theory() -> None:
    """Independent cases: the width is 2 x 1.96 standard errors."""
    rng = np.random.default_rng(0)
    value = rng.normal(5, 2, 400)

    found = interval(np.mean, [value], np.arange(400), rng=rng, resamples=2000)

    assert found.estimate == pytest.approx(value.mean())
    assert found.high - found.low == pytest.approx(2 * 1.96 * value.std() / 20, rel=0.08)
    assert found.subjects == 400


def test_pairing_removes_what_both_models_share() -> None:
    """A constant gain of 0.1 on cases that differ by far more is clear when paired and invisible when not."""
    rng = np.random.default_rng(1)
    hard, subject = clustered(rng)
    better = hard + 0.1 + rng.normal(0, 0.01, hard.size)

    paired = paired_difference(finite_mean, [better], [hard], subject, rng=rng)
    alone = interval(finite_mean, [better], subject, rng=rng)

    assert paired.excludes_zero
    assert paired.estimate == pytest.approx(0.1, abs=0.005)
    assert paired.high - paired.low < 0.05
    assert alone.high - alone.low > 0.5


def test_no_difference_is_not_clear() -> None:
    """Two equally good models are told apart in about 5 % of trials, not more."""
    clear = 0
    for trial in range(100):
        rng = np.random.default_rng(trial)
        a, subject = clustered(rng)
        b, _ = clustered(rng)
        clear += paired_difference(np.mean, [a], [b], subject, rng=rng, resamples=200).excludes_zero

    assert clear <= 14


def test_statistics_of_several_arrays_stay_aligned() -> None:
    """A correlation of resampled cases keeps each prediction with its own label."""
    truth = np.repeat([1.0, 2, 3, 4, 5, 6], 10)
    subject = np.arange(60) % 12

    found = interval(spearman, [truth * 3, truth], subject, rng=np.random.default_rng(0), resamples=50)

    assert (found.estimate, found.low, found.high) == pytest.approx((1, 1, 1))


def test_the_generator_decides_the_interval() -> None:
    """Same seed, same interval; another seed, another."""
    value, subject = clustered(np.random.default_rng(2))

    def once(seed: int) -> Interval:
        return interval(np.mean, [value], subject, rng=np.random.default_rng(seed), resamples=50)

    assert once(7) == once(7)
    assert once(7) != once(8)


def test_one_person_has_an_estimate_but_no_interval() -> None:
    """With nobody to resample, certainty would be invented."""
    found = interval(np.mean, [np.array([1.0, 3.0])], np.zeros(2), rng=np.random.default_rng(0))

    assert found.estimate == 2
    assert np.isnan([found.low, found.high]).all()
    assert not found.excludes_zero
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["low"] is None


def test_mostly_undefined_statistics_have_no_interval() -> None:
    """A correlation that is undefined in most resamples must not report the few that are defined."""
    truth = np.array([1.0, 1, 1, 1, 1, 2])
    predicted = np.arange(6.0)

    found = interval(lambda a, b: spearman(a, b) if b[0] == 2 else float("nan"), [predicted, truth],
                     np.arange(6), rng=np.random.default_rng(0), resamples=100)  # fmt: skip

    assert np.isnan(found.low)


@pytest.mark.parametrize(
    ("cases", "subjects", "options", "named"),
    [
        ([np.zeros(3), np.zeros(2)], np.zeros(3), {}, r"\[2, 3\]"),
        ([np.zeros(0)], np.zeros(0), {}, r"\[0\]"),
        ([np.zeros(3)], np.zeros(3), {"resamples": 0}, "resamples=0"),
        ([np.zeros(3)], np.zeros(3), {"level": 1.0}, "level=1.0"),
    ],
)
def test_impossible_arguments_are_refused(
    cases: list[Array], subjects: Array, options: dict[str, float], named: str
) -> None:
    """The error names the value and the bound."""
    with pytest.raises(ValueError, match=named):
        interval(np.mean, cases, subjects, rng=np.random.default_rng(0), **options)  # type: ignore[arg-type]
