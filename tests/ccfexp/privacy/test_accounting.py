"""Epsilon of a history, compared with three computations that share no code with it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccfexp.errors import ConfigError
from ccfexp.privacy import accounting
from ccfexp.privacy.accounting import Spent, epsilon, epsilon_prv, epsilon_renyi, noise_for
from tests.ccfexp.privacy.reference_accounting import epsilon_below

# Opacus' accountant divides by zero where a loss has no x; the result is not used.
pytestmark = pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")
KNOWN = [
    (0.05, 1.0, 2000, 16.49),
    (0.02, 0.8, 500, 4.67),
    (0.1, 2.0, 2000, 12.56),
    (0.2, 4.0, 2000, 11.76),
]
MIXED = [Spent(0.25, 1.5, 320), Spent(0.1, 1.0, 500), Spent(1.0, 6.0, 3)]


@pytest.mark.parametrize(("rate", "noise", "steps", "known"), KNOWN)
def test_it_is_what_three_others_find(rate: float, noise: float, steps: int, known: float) -> None:
    """Never below the bound from the definition and within 1 % of it, close to Gopi et al., below Rényi."""
    history = [Spent(rate, noise, steps)]
    found = epsilon(history, 1e-5)
    below = epsilon_below(history, 1e-5)

    assert found == pytest.approx(known, abs=0.02)
    assert below <= found <= 1.01 * below
    assert found == pytest.approx(epsilon_prv(history, 1e-5), abs=0.02)  # which adds .01
    assert found < epsilon_renyi(history, 1e-5)


def test_mechanisms_of_every_kind_compose() -> None:
    """Other rates, other noise, no sampling at all."""
    found, below = epsilon(MIXED, 1e-4), epsilon_below(MIXED, 1e-4)

    assert below <= found <= 1.01 * below
    assert found < epsilon_renyi(MIXED, 1e-4)


@settings(max_examples=25, deadline=None)
@given(st.permutations([Spent(step.sampling_rate, step.noise_multiplier, 1) for step in MIXED for _ in range(3)]))
def test_the_order_does_not_matter(history: list[Spent]) -> None:
    """Nor whether steps are counted one by one."""
    together = [Spent(step.sampling_rate, step.noise_multiplier, 3) for step in MIXED]

    assert epsilon(history, 1e-5) == epsilon(together, 1e-5)


def test_one_more_step_never_costs_less() -> None:
    """Also where the grid is coarse against what a step costs."""
    costs = [epsilon([Spent(0.01, 4.0, steps)], 1e-5) for steps in range(0, 60, 3)]

    assert costs == sorted(costs)
    assert costs[0] == 0.0


def test_nothing_costs_nothing() -> None:
    """By every accountant."""
    for count in (epsilon, epsilon_renyi, epsilon_prv):
        assert count([], 1e-5) == 0.0
        assert count([Spent(0.5, 1.0, 0)], 1e-5) == 0.0


@pytest.mark.parametrize("delta", [0.0, 1.0, -1e-5, 2.0, math.nan])
def test_a_delta_that_is_none_is_refused(delta: float) -> None:
    """Also where nothing was spent."""
    with pytest.raises(ConfigError, match=f"delta={delta}"):
        epsilon([], delta)


@pytest.mark.parametrize(
    ("rate", "noise", "steps", "name"),
    [
        (0.0, 1.0, 1, "sampling_rate=0.0"),
        (1.1, 1.0, 1, "sampling_rate=1.1"),
        (math.nan, 1.0, 1, "sampling_rate=nan"),
        (0.5, 0.1, 1, "noise_multiplier=0.1"),
        (0.5, math.inf, 1, "noise_multiplier=inf"),
        (0.5, 1.0, -1, "steps=-1"),
        (0.5, 1.0, 1_000_001, "steps=1000001"),
    ],
)
def test_steps_that_cannot_be_are_refused(rate: float, noise: float, steps: int, name: str) -> None:
    """With the value and its bound."""
    with pytest.raises(ConfigError, match=f"{name} must lie in"):
        Spent(rate, noise, steps)


@pytest.mark.parametrize("history", [[Spent(1.0, 0.2, 1_000_000)], [Spent(0.5, 0.2, 10_000)] * 3])
def test_a_loss_beyond_any_figure_is_told_at_once(history: list[Spent]) -> None:
    """Instead of filling the memory with a distribution of it."""
    assert epsilon(history, 1e-5) == math.inf


def test_what_is_told_at_once_is_indeed_beyond() -> None:
    """Where the bound on the expected loss is near its limit, epsilon is computed, and is in the hundreds."""
    for rate, noise in ((1.0, 1.0), (0.05, 0.3), (0.01, 1.0)):
        steps = min(accounting.MAX_STEPS, int(accounting._BEYOND / accounting._loss(rate, noise)))
        assert 80 < epsilon([Spent(rate, noise, steps)], 1e-5) < math.inf


@pytest.mark.parametrize(("wanted", "rate", "steps"), [(8.0, 0.05, 800), (1.0, 0.2, 100), (3.0, 1.0, 1)])
def test_calibration_finds_the_least_noise(wanted: float, rate: float, steps: int) -> None:
    """Enough, and a hundredth less would not be."""
    noise = noise_for(wanted, 1e-5, rate, steps)

    assert epsilon([Spent(rate, noise, steps)], 1e-5) <= wanted
    assert epsilon([Spent(rate, 0.99 * noise, steps)], 1e-5) > wanted


def test_what_no_noise_reaches_is_refused() -> None:
    """With the remedy."""
    with pytest.raises(ConfigError, match=r"epsilon=0\.0001 at delta=1e-05 cannot be reached by steps=10000"):
        noise_for(1e-4, 1e-5, 1.0, 10_000)
