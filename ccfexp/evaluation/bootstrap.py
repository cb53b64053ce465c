"""Percentile bootstrap intervals that resample people, not pictures.

Several pictures of one person are not independent: they share a face, a palsy, a light.  Resampling pictures would
treat them as if they were and give intervals that are too narrow, so whole subjects are drawn with replacement
(Davison and Hinkley 1997, section 3.8).  Differences between two models are taken on the same cases in the same
resamples, so what makes a case hard for both cancels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    Statistic = Callable[..., float]


@dataclass(frozen=True)
class Interval:
    """An estimate and its percentile interval.

    ``low`` and ``high`` are NaN where there are fewer than two subjects or where more than half of the resamples
    had no value, because no honest interval can then be given.
    """

    estimate: float
    low: float
    high: float
    level: float
    subjects: int
    resamples: int

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of zero: for a difference, whether it is clear."""
        return bool(self.low > 0 or self.high < 0)

    def to_json(self) -> dict[str, float | int | None]:
        """Plain values; None where a number is not finite, which JSON cannot write."""
        numbers = {"estimate": self.estimate, "low": self.low, "high": self.high}
        return {
            **{name: value if np.isfinite(value) else None for name, value in numbers.items()},
            "level": self.level,
            "subjects": self.subjects,
            "resamples": self.resamples,
        }


def interval(
    statistic: Statistic,
    cases: Sequence[NDArray[Any]],
    subject_N: NDArray[Any],
    *,
    rng: np.random.Generator,
    resamples: int = 1000,
    level: float = 0.95,
) -> Interval:
    """Interval of ``statistic(*cases)``, any function of arrays [N] with one entry a case.

    ``subject_N`` says whose each case is.  The same ``rng`` state gives the same interval.  Raises ValueError for
    arrays of unequal length, no cases, or an impossible level or number of resamples.
    """
    _check(cases, subject_N, resamples, level)
    estimate = float(statistic(*cases))
    replicates = [float(statistic(*(a[i] for a in cases))) for i in _resampled(subject_N, rng, resamples)]
    return _percentile(estimate, replicates, subject_N, level)


def paired_difference(
    statistic: Statistic,
    first: Sequence[NDArray[Any]],
    second: Sequence[NDArray[Any]],
    subject_N: NDArray[Any],
    *,
    rng: np.random.Generator,
    resamples: int = 1000,
    level: float = 0.95,
) -> Interval:
    """Interval of ``statistic(*first) - statistic(*second)`` of two models on the same cases; else as interval."""
    _check([*first, *second], subject_N, resamples, level)

    def difference(*both: NDArray[Any]) -> float:
        return float(statistic(*both[: len(first)])) - float(statistic(*both[len(first) :]))

    return interval(difference, [*first, *second], subject_N, rng=rng, resamples=resamples, level=level)


def _resampled(subject_N: NDArray[Any], rng: np.random.Generator, resamples: int) -> Iterator[NDArray[np.int64]]:
    """Case indices of each resample: as many subjects as there are, drawn with replacement, all their cases."""
    _, label_N = np.unique(subject_N, return_inverse=True)
    cases_of = [np.flatnonzero(label_N == s) for s in range(int(label_N.max()) + 1)]
    if len(cases_of) < 2:
        return
    for _ in range(resamples):
        drawn = rng.integers(0, len(cases_of), len(cases_of))
        yield np.concatenate([cases_of[s] for s in drawn])


def _percentile(estimate: float, replicates: list[float], subject_N: NDArray[Any], level: float) -> Interval:
    values = np.asarray(replicates, np.float64)
    values = values[np.isfinite(values)]
    low = high = float("nan")
    if values.size and 2 * values.size > len(replicates):
        low, high = (float(v) for v in np.quantile(values, [(1 - level) / 2, (1 + level) / 2]))
    return Interval(estimate, low, high, level, len(np.unique(subject_N)), len(replicates))


def _check(cases: Sequence[NDArray[Any]], subject_N: NDArray[Any], resamples: int, level: float) -> None:
    lengths = {len(a) for a in (*cases, subject_N)}
    if len(lengths) != 1 or not cases or 0 in lengths:
        raise ValueError(f"Expected arrays of one equal length >= 1 with one entry a case, got {sorted(lengths)}.")
    if resamples < 1:
        raise ValueError(f"Expected resamples={resamples} >= 1; 1000 is usual.")
    if not 0 < level < 1:
        raise ValueError(f"Expected 0 < level={level} < 1; 0.95 is usual.")
