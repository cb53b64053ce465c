"""The lower bound: against exact numbers, and against mechanisms whose epsilon is known."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import pytest
from scipy.stats import binom, norm

from ccfexp.errors import ConfigError
from ccfexp.privacy.audit.bounds import SHARES, from_scores, highest, lower_bound, p_value

DRAWS = 2000
cached = lru_cache(lower_bound)


@pytest.mark.parametrize(("canaries", "published"), [(40, 2.5), (80, 3.3), (200, 4.2), (1000, 5.8)])
def test_all_right_without_delta(canaries: int, published: float) -> None:
    """P[all right] = q^m = .05, so q = .05^(1/m) and epsilon = ln(q / (1 - q))."""
    chance = 0.05 ** (1 / canaries)

    bound = lower_bound(canaries, canaries, canaries, delta=0.0)

    assert bound == pytest.approx(math.log(chance / (1 - chance)), abs=1e-5)
    assert bound == pytest.approx(published, abs=0.06)


@pytest.mark.parametrize(("guesses", "correct", "epsilon"), [(60, 50, 0.7), (20, 20, 2.0), (60, 0, 1.0), (1, 1, 0.0)])
def test_without_delta_it_is_the_binomial_tail(guesses: int, correct: int, epsilon: float) -> None:
    chance = 1 / (1 + math.exp(-epsilon))
    tail = sum(math.comb(guesses, k) * chance**k * (1 - chance) ** (guesses - k) for k in range(correct, guesses + 1))

    assert p_value(60, guesses, correct, epsilon, 0.0) == pytest.approx(tail, rel=1e-9)


def test_delta_is_added_as_the_theorem_says() -> None:
    """Written out for one case: the steepest mean fall of the tail over i steps, times 2 m delta."""
    canaries, guesses, correct, epsilon, delta = 50, 30, 26, 1.2, 1e-3
    chance = 1 / (1 + math.exp(-epsilon))

    def f(v: int) -> float:
        return float(binom.sf(v - 1, guesses, chance))

    steepest = max((f(correct - i) - f(correct)) / i for i in range(1, canaries + 1))

    found = p_value(canaries, guesses, correct, epsilon, delta)

    assert found == pytest.approx(f(correct) + 2 * canaries * delta * steepest, rel=1e-9)
    assert found > f(correct)


def test_monotone() -> None:
    """More right guesses refute more; a larger delta, more confidence and more canaries left unnamed refute less."""
    by_correct = [lower_bound(100, 60, v, 1e-5) for v in range(30, 61)]
    by_delta = [lower_bound(100, 60, 58, delta) for delta in (0.0, 1e-6, 1e-4, 1e-3, 1e-2, 0.5)]
    by_confidence = [lower_bound(100, 60, 58, 1e-5, confidence) for confidence in (0.5, 0.9, 0.95, 0.99, 0.999)]
    by_canaries = [lower_bound(m, 60, 58, 1e-4) for m in (60, 100, 1000, 10_000)]

    assert by_correct == sorted(by_correct)
    assert by_correct[0] == 0
    assert by_correct[-1] > 2
    for falling in (by_delta, by_confidence, by_canaries):
        assert falling == sorted(falling, reverse=True)
        assert falling[0] > falling[-1]


def test_the_bound_is_where_the_p_value_crosses() -> None:
    bound = lower_bound(200, 100, 95, 1e-5)

    assert p_value(200, 100, 95, bound, 1e-5) <= 0.05 < p_value(200, 100, 95, bound + 1e-4, 1e-5)


@pytest.mark.parametrize("epsilon", [0.5, 2.0])
def test_randomised_response_is_rarely_overstated(epsilon: float) -> None:
    """Every guess right with probability e^eps / (1 + e^eps): the worst that is epsilon-private."""
    rng = np.random.default_rng(11)
    correct = rng.binomial(100, 1 / (1 + math.exp(-epsilon)), DRAWS)

    bounds = np.array([cached(100, 100, int(v), 0.0) for v in correct])

    assert (bounds > epsilon).mean() <= 0.05
    assert np.median(bounds) > max(0.0, epsilon - 0.8)  # and it is no empty bound


def _gaussian_epsilon(sigma: float, delta: float) -> float:
    """Epsilon of the Gaussian mechanism of sensitivity 1 (Balle & Wang 2018, Theorem 8)."""

    def spent(epsilon: float) -> float:
        first = norm.cdf(0.5 / sigma - epsilon * sigma)
        return float(first - math.exp(epsilon) * norm.cdf(-0.5 / sigma - epsilon * sigma))

    lower, upper = 0.0, 200.0
    for _ in range(100):
        middle = (lower + upper) / 2
        lower, upper = (middle, upper) if spent(middle) > delta else (lower, middle)
    return upper


@pytest.mark.parametrize(("sigma", "at_least"), [(2.0, 0.0), (0.7, 0.7), (0.3, 3.0)])
def test_gaussian_mechanism_with_the_best_number_of_guesses(sigma: float, at_least: float) -> None:
    """The choice among numbers of guesses is paid for; with little noise the bound says much."""
    rng, delta = np.random.default_rng(12), 1e-5
    claim = _gaussian_epsilon(sigma, delta)
    coin = rng.random((100, 200)) < 0.5
    score = coin + sigma * rng.standard_normal(coin.shape)

    bounds = np.array([from_scores(*pair, delta).epsilon for pair in zip(score, coin, strict=True)])

    assert (bounds > claim).mean() <= 0.05
    assert np.median(bounds) >= at_least


def test_the_choice_is_paid_for() -> None:
    """Scores that know nothing: some number of guesses says something above 0 in at most one run of twenty."""
    rng = np.random.default_rng(13)
    bounds = [from_scores(rng.random(64), rng.random(64) < 0.5, 0.0).epsilon for _ in range(DRAWS)]

    assert np.mean(np.array(bounds) > 0) <= 0.05


def test_guesses_are_the_ends_of_the_order() -> None:
    coin = np.array([False] * 5 + [True] * 5)
    score = np.array([0, 1, 2, 9, 4, 5, 3, 7, 8, 6.0])  # 9 is wrong, 3 is in the middle and wrong

    assert (from_scores(score, coin, 0.0, shares=(0.2,)).guesses, from_scores(score, coin, 0.0).canaries) == (2, 10)
    assert from_scores(score, coin, 0.0, shares=(0.2,)).correct == 1
    assert from_scores(score, coin, 0.0, shares=(1.0,)).correct == 8


def test_highest_is_a_perfect_attack() -> None:
    coin = np.arange(128) % 2 == 0

    found = from_scores(coin.astype(float), coin, 1e-5)

    assert found.epsilon == highest(128, 1e-5)
    assert (found.guesses, found.correct) == (128, 128)
    assert highest(128, 1e-5) < lower_bound(128, 128, 128, 1e-5)  # Bonferroni
    assert len(SHARES) == 3


@pytest.mark.parametrize("counts", [(10, 11, 3), (10, 5, 6), (10, 5, -1)])
def test_impossible_counts(counts: tuple[int, int, int]) -> None:
    with pytest.raises(ConfigError, match="0 <= correct"):
        lower_bound(*counts, 1e-5)


def test_impossible_values() -> None:
    with pytest.raises(ConfigError, match="delta=1"):
        p_value(10, 5, 5, 1.0, 1.0)
    with pytest.raises(ConfigError, match="epsilon=inf"):
        p_value(10, 5, 5, math.inf, 0.0)
    with pytest.raises(ConfigError, match="confidence=1"):
        lower_bound(10, 5, 5, 0.0, 1)
    with pytest.raises(ConfigError, match="shares"):
        from_scores(np.zeros(3), np.ones(3), 0.0, shares=(0.0,))
    with pytest.raises(ConfigError, match="finite"):
        from_scores(np.array([0, np.nan]), np.ones(2), 0.0)
