"""Checks of random numbers, each of which turns away a right generator once in a billion times."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import stats

SIGNIFICANCE = 1e-9
Numbers = npt.NDArray[np.float64]


def has_deviation(sample: Numbers, deviation: float) -> bool:
    """Normal numbers around zero with this standard deviation: the sum of squares, against chi-square's two tails."""
    squares = float(np.square(sample / deviation).sum())
    tails = stats.chi2.cdf(squares, sample.size), stats.chi2.sf(squares, sample.size)
    return bool(2 * min(tails) > SIGNIFICANCE)


def is_normal(sample: Numbers, deviation: float = 1.0) -> bool:
    """The whole distribution, by Kolmogorov and Smirnov."""
    return bool(stats.kstest(sample / deviation, "norm").pvalue > SIGNIFICANCE)


def is_uniform(sample: Numbers) -> bool:
    """The same of numbers in [0, 1)."""
    return bool((sample >= 0).all() and (sample < 1).all() and stats.kstest(sample, "uniform").pvalue > SIGNIFICANCE)


def are_independent(one: Numbers, other: Numbers) -> bool:
    """Neither the numbers nor their distances from the mean go together."""
    pairs = [(one, other), (np.abs(one - one.mean()), np.abs(other - other.mean()))]
    return all(2 * stats.norm.sf(abs(np.corrcoef(*pair)[0, 1]) * one.size**0.5) > SIGNIFICANCE for pair in pairs)


def has_rate(hits: int, trials: int, rate: float) -> bool:
    """So many hits of so many independent trials."""
    return bool(stats.binomtest(hits, trials, rate).pvalue > SIGNIFICANCE)


def are_binomial(counts: Numbers, trials: int, rate: float) -> bool:
    """Counts that spread as those of independent trials do, no more (all or none) and no less (always as many)."""
    deviation = (trials * rate * (1 - rate)) ** 0.5
    return has_deviation(counts - trials * rate, deviation)
