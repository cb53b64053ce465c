"""An accountant of its own for tests, from the definition alone: a lower bound on epsilon, close to it.

A step releases a sum with noise N(0, s^2) in which a unit's part, of norm at most 1, is present with probability q. Its
privacy loss is log P/Q with P = (1 - q) N(0, s^2) + q N(1, s^2) and Q = N(0, s^2) where the unit is removed, and with P
and Q exchanged where it is added. The losses of composed steps add up, so their distributions are convolved; then
delta(epsilon) = E[(1 - exp(epsilon - L))+] over P. Every loss is rounded down and no tail is added, so that no figure
here can be above the true one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from ccfexp.privacy.accounting import Spent

Array = NDArray[np.floating[Any]]
_FAR = 12.0  # standard deviations of the noise beyond which nothing is counted


def epsilon_below(history: Sequence[Spent], delta: float, *, grid: float = 1e-4, span: float = 100.0) -> float:
    """A lower bound on epsilon of a history, over both directions.

    Args:
        history: steps of the mechanism.
        delta: with which epsilon may be exceeded.
        grid: to which losses are rounded down.
        span: of the sum of all losses, both ways; all of its probability must lie within.
    """
    return max(_one_way(history, delta, grid, span, removed=removed) for removed in (True, False))


def _one_way(history: Sequence[Spent], delta: float, grid: float, span: float, *, removed: bool) -> float:
    half = 1 << math.ceil(math.log2(span / grid))
    spectrum: Any = np.ones(half + 1, dtype=complex)
    for part in history:
        spectrum *= np.fft.rfft(_losses(part, grid, half, removed=removed)) ** part.steps
    mass = np.roll(np.fft.irfft(spectrum, 2 * half), half)  # index half is a loss of 0
    return _epsilon(mass[half:], np.arange(half) * grid, delta)


def _losses(part: Spent, grid: float, half: int, *, removed: bool) -> Array:
    """Probability of every loss of one step, at index loss / grid, negative ones from the end."""
    q, s = part.sampling_rate, part.noise_multiplier
    ends = _loss_at(np.array([-_FAR * s, 1 + _FAR * s]), q, s)
    lowest, highest = (ends[0], ends[1]) if removed else (-ends[1], -ends[0])
    first, last = math.floor(lowest / grid), math.ceil(highest / grid)
    edges = np.arange(first, last + 1) * grid
    x = _where(edges if removed else -edges, q, s)
    below = _mixture(x, q, s) if removed else -ndtr(x / s)  # where it is added the loss falls with x
    found = np.zeros(2 * half)
    found[np.arange(first, last) % (2 * half)] = np.diff(below)
    return found


def _loss_at(x: Array, q: float, s: float) -> Array:
    return np.asarray(np.log1p(q * np.expm1((2 * x - 1) / (2 * s**2))))


def _where(loss: Array, q: float, s: float) -> Array:
    """The x at which the loss is this; -inf below the least of all, log(1 - q)."""
    ratio = (np.exp(loss) - (1 - q)) / q
    with np.errstate(divide="ignore"):
        return np.asarray(s**2 * np.log(np.maximum(ratio, 0.0)) + 0.5)


def _mixture(x: Array, q: float, s: float) -> Array:
    return np.asarray((1 - q) * ndtr(x / s) + q * ndtr((x - 1) / s))


def _epsilon(mass: Array, losses: Array, delta: float) -> float:
    """The least epsilon at which no more than delta is left, by bisection."""
    lower, upper = 0.0, float(losses[-1])
    while upper - lower > 1e-6:
        middle = (lower + upper) / 2
        above = losses > middle
        left = float(mass[above] @ -np.expm1(middle - losses[above]))
        lower, upper = (middle, upper) if left > delta else (lower, middle)
    return lower
