"""From right guesses to a lower bound on epsilon (Steinke, Nasr & Jagielski 2023, arXiv:2305.08846).

Each of m canaries is in the training by a fair coin of its own. An attacker sees what training released, names r of
them "in" or "out", and abstains from the rest. If training is (epsilon, delta)-private for adding or removing one, then
at least v of the r guesses are right with probability at most (Theorem 5.2)

    f(v) + 2 m delta max_{i = 1..m} (f(v - i) - f(v)) / i,    f(v) = P[Binomial(r, 1 / (1 + exp(-epsilon))) >= v].

An epsilon for which this is below 1 - confidence is refuted, and every smaller one with it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from scipy.stats import binom

from ccfexp.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

CONFIDENCE: Final = 0.95
SHARES: Final = (0.25, 0.5, 1.0)  # of the canaries that are guessed; fixed before anything is trained
_WIDEST, _PRECISION = 64.0, 1e-6


@dataclass(frozen=True)
class Bound:
    """A lower bound on epsilon and the guesses behind it.

    Attributes:
        epsilon: smaller values are refuted; 0 refutes nothing.
        guesses: canaries that were named.
        correct: of those, named rightly.
        canaries: all of them.
        delta: at which epsilon is meant.
        confidence: probability with which the bound is not above the true epsilon, over everything that was tried.
    """

    epsilon: float
    guesses: int
    correct: int
    canaries: int
    delta: float
    confidence: float


def p_value(canaries: int, guesses: int, correct: int, epsilon: float, delta: float) -> float:
    """A bound on the probability of so many right guesses, or more, if training is (epsilon, delta)-private.

    Raises:
        ConfigError: counts that are not 0 <= correct <= guesses <= canaries, or no epsilon or delta.
    """
    _check(canaries, guesses, correct, delta)
    if not 0 <= epsilon < math.inf:
        raise ConfigError(f"epsilon={epsilon} must be finite and at least 0; give the claim to be tested")
    chance = 1 / (1 + math.exp(-epsilon))
    tail = float(binom.sf(correct - 1, guesses, chance))
    below = np.cumsum(binom.pmf(np.arange(correct - 1, -1, -1), guesses, chance))  # f(v - i) - f(v) for i = 1..v
    steepest = float((below / np.arange(1, correct + 1)).max()) if correct else 0.0
    return min(1.0, tail + 2 * canaries * delta * steepest)


def lower_bound(canaries: int, guesses: int, correct: int, delta: float, confidence: float = CONFIDENCE) -> float:
    """The largest epsilon, to a millionth, that so many right guesses refute; 0 if none.

    Raises:
        ConfigError: impossible counts, delta or confidence.
    """
    _check(canaries, guesses, correct, delta)
    if not 0 < confidence < 1:
        raise ConfigError(f"confidence={confidence} must lie strictly between 0 and 1; 0.95 is usual")

    def refuted(epsilon: float) -> bool:
        return p_value(canaries, guesses, correct, epsilon, delta) <= 1 - confidence

    if not refuted(0.0):
        return 0.0
    lower, upper = 0.0, _WIDEST
    while upper - lower > _PRECISION:
        middle = (lower + upper) / 2
        lower, upper = (middle, upper) if refuted(middle) else (lower, middle)
    return lower


def from_scores(
    score_M: NDArray[Any],
    in_M: NDArray[Any],
    delta: float,
    *,
    confidence: float = CONFIDENCE,
    shares: tuple[float, ...] = SHARES,
) -> Bound:
    """The best bound of a few numbers of guesses that were fixed in advance.

    The highest scores are named "in" and as many of the lowest "out". Each number of guesses is tested at
    1 - (1 - confidence) / (how many are tried), so that the best of them may be told (Bonferroni).

    Args:
        score_M: one score a canary, higher for "in"; made without looking at the coins.
        in_M: the coins.
        delta: at which epsilon is meant.
        confidence: of the whole.
        shares: of the canaries that are guessed.

    Raises:
        ConfigError: scores that are no numbers, not one a coin, or a share out of (0, 1].
    """
    score, coin = np.asarray(score_M, np.float64), np.asarray(in_M, bool)
    if score.shape != coin.shape or score.ndim != 1 or not len(score) or not np.isfinite(score).all():
        raise ConfigError(f"scores of shape={score.shape} must be finite, one for each of {coin.shape} coins")
    if not shares or not all(0 < share <= 1 for share in shares):
        raise ConfigError(f"shares={shares} must lie in (0, 1], at least one; 1 guesses every canary")
    ordered = coin[np.argsort(score, kind="stable")]
    each = 1 - (1 - confidence) / len(shares)
    bounds = []
    for share in shares:
        low, high = _sides(share, len(score))
        correct = int((~ordered[:low]).sum() + ordered[len(score) - high :].sum())
        epsilon = lower_bound(len(score), low + high, correct, delta, each)
        bounds.append(Bound(epsilon, low + high, correct, len(score), delta, confidence))
    return max(bounds, key=lambda bound: bound.epsilon)


def highest(canaries: int, delta: float, confidence: float = CONFIDENCE, shares: tuple[float, ...] = SHARES) -> float:
    """The bound if every guess were right: a claim above it cannot be refuted by so many canaries."""
    each = 1 - (1 - confidence) / len(shares)
    counts = {sum(_sides(share, canaries)) for share in shares}
    return max(lower_bound(canaries, count, count, delta, each) for count in counts)


def _sides(share: float, canaries: int) -> tuple[int, int]:
    """How many are named "out" and how many "in": as many, and with an odd number of canaries one more "in"."""
    guesses = min(canaries, max(1, round(share * canaries)))
    return guesses // 2, guesses - guesses // 2


def _check(canaries: int, guesses: int, correct: int, delta: float) -> None:
    if not 0 <= correct <= guesses <= canaries:
        raise ConfigError(
            f"correct={correct}, guesses={guesses}, canaries={canaries} must be whole numbers with 0 <= correct <= "
            "guesses <= canaries"
        )
    if not 0 <= delta < 1:
        raise ConfigError(f"delta={delta} must lie in [0, 1); it is that of the claim")
