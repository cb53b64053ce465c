"""How much privacy a history of steps has cost.

A step includes every unit with the same probability, clips what each unit adds, and adds Gaussian noise: the Poisson-
subsampled Gaussian mechanism (Abadi et al. 2016, arXiv:1607.00133). Two data sets are neighbours if one has all of one
unit's data and the other nothing of it (add or remove one). Steps compose over rounds and runs whatever the steps
between them were, so a history is a list of (sampling rate, noise multiplier, steps) and needs no state of a library.

The figure that is told is the one of privacy loss distributions (Koskela et al. 2020, arXiv:1906.03049; Doroshenko et
al. 2022, arXiv:2207.04380), rounded towards more loss; Rényi divergences and the privacy random variable of Opacus
are there to check it.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from ccfexp.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

ACCOUNTANT: Final = "privacy loss distributions, add or remove one"
MIN_NOISE, MAX_NOISE, MAX_STEPS = 0.2, 1000.0, 1_000_000
_BEYOND = 2000.0  # expected privacy loss above which nothing is computed: gigabytes, to say "no protection"
_INTERVAL = 1e-3  # of the discretised privacy loss; a tenth of it changes epsilon by less than .002
_Groups = tuple[tuple[tuple[float, float], int], ...]


@dataclass(frozen=True)
class Spent:
    """Steps of the Poisson-subsampled Gaussian mechanism.

    Attributes:
        sampling_rate: probability with which a unit is in a step.
        noise_multiplier: standard deviation of the noise on the sum over the per-unit clipping norm.
        steps: how many.

    Raises:
        ConfigError: a value out of its bounds.
    """

    sampling_rate: float
    noise_multiplier: float
    steps: int

    def __post_init__(self) -> None:
        if not 0 < self.sampling_rate <= 1:
            raise ConfigError(f"sampling_rate={self.sampling_rate} must lie in (0, 1]; it is a probability")
        if not MIN_NOISE <= self.noise_multiplier <= MAX_NOISE:
            raise ConfigError(
                f"noise_multiplier={self.noise_multiplier} must lie in [{MIN_NOISE}, {MAX_NOISE:g}]; less noise gives "
                "no protection worth a claim"
            )
        if not 0 <= self.steps <= MAX_STEPS:
            raise ConfigError(f"steps={self.steps} must lie in [0, {MAX_STEPS}]; it counts noised steps")


def epsilon(history: Iterable[Spent], delta: float) -> float:
    """Epsilon at ``delta`` of a whole history, by privacy loss distributions; never less than the true one.

    Infinite where delta is below what the distributions resolve (about 1e-14), or epsilon would be in the thousands.

    Raises:
        ConfigError: delta is no probability strictly between 0 and 1.
    """
    return _by_loss_distribution(_grouped(history), _checked(delta))


def epsilon_renyi(history: Iterable[Spent], delta: float) -> float:
    """The same by Opacus' Rényi accountant: a looser bound, to check the other with."""
    from opacus.accountants import RDPAccountant

    groups = _grouped(history)
    if not groups:
        return 0.0
    accountant = RDPAccountant()
    accountant.history = [(noise, rate, steps) for (rate, noise), steps in groups]
    return float(accountant.get_epsilon(_checked(delta)))


def epsilon_prv(history: Iterable[Spent], delta: float) -> float:
    """The same by Opacus' privacy random variables (Gopi et al. 2021), plus its error: another check.

    Slow, and hungry for memory, where epsilon is in the hundreds.
    """
    from opacus.accountants import PRVAccountant

    groups = _grouped(history)
    if not groups:
        return 0.0  # Opacus fails on nothing
    accountant = PRVAccountant()
    accountant.history = [(noise, rate, steps) for (rate, noise), steps in groups]
    return float(accountant.get_epsilon(_checked(delta)))


@lru_cache(maxsize=256)
def noise_for(epsilon_wanted: float, delta: float, sampling_rate: float, steps: int) -> float:
    """The least noise multiplier, to a thousandth, with which so many steps cost at most so much.

    Raises:
        ConfigError: no noise multiplier in the allowed range does.
    """
    lower, upper = MIN_NOISE, 0.5

    def cost(noise: float) -> float:
        return epsilon([Spent(sampling_rate, noise, steps)], delta)

    while cost(upper) > epsilon_wanted:
        if upper >= MAX_NOISE:
            raise ConfigError(
                f"epsilon={epsilon_wanted} at delta={delta} cannot be reached by steps={steps} with "
                f"sampling_rate={sampling_rate} and noise up to {MAX_NOISE:g}; raise epsilon, or take fewer steps"
            )
        lower, upper = upper, min(2 * upper, MAX_NOISE)
    while upper - lower > 1e-3 * upper:
        middle = (lower + upper) / 2
        lower, upper = (middle, upper) if cost(middle) > epsilon_wanted else (lower, middle)
    return upper


def _checked(delta: float) -> float:
    if not 0 < delta < 1:
        raise ConfigError(f"delta={delta} must lie strictly between 0 and 1; far below 1 / patients is usual")
    return delta


def _grouped(history: Iterable[Spent]) -> _Groups:
    """Steps of the same mechanism together: what they cost does not depend on their order."""
    counts: Counter[tuple[float, float]] = Counter()
    for part in history:
        counts[part.sampling_rate, part.noise_multiplier] += part.steps
    return tuple(sorted((kind, steps) for kind, steps in counts.items() if steps))


@lru_cache(maxsize=1024)
def _by_loss_distribution(groups: _Groups, delta: float) -> float:
    import dp_accounting
    from dp_accounting.pld import PLDAccountant

    if not groups:
        return 0.0
    if sum(steps * _loss(rate, noise) for (rate, noise), steps in groups) > _BEYOND:
        return math.inf
    accountant = PLDAccountant(
        neighboring_relation=dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE,
        value_discretization_interval=_INTERVAL,
    )
    for (rate, noise), steps in groups:
        accountant.compose(dp_accounting.PoissonSampledDpEvent(rate, dp_accounting.GaussianDpEvent(noise)), steps)
    found = float(accountant.get_epsilon(delta))
    return found if math.isfinite(found) else math.inf


def _loss(rate: float, noise: float) -> float:
    """Bound on the expected privacy loss of a step: convexity of the divergence, or chi-squared where that is less."""
    return min(rate / (2 * noise**2), rate**2 * math.expm1(1 / noise**2))
