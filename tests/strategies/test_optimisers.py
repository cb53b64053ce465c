"""The coordinator's step against the published recurrences, number by number."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies.fedit import FedIT
from strategies.optimisers import server_step
from strategies.options import ServerOptimiser
from strategies.rolora import RoLoRA
from strategies.rules import RuleOptions
from tests.strategies.factors import Plan, Wide, letter, round_of, unflat

NUMBERS = st.lists(st.floats(-10, 10), min_size=1, max_size=6)


def steps(options: ServerOptimiser, changes: list[float]) -> list[float]:
    memory: dict[str, Wide] = {}
    taken = []
    for change in changes:
        step_P, memory = server_step(np.array([change]), "B", options, memory)
        taken.append(float(step_P[0]))
    return taken


@given(NUMBERS)
@settings(max_examples=30, deadline=None)
def test_plain_adds_the_mean_change(changes: list[float]) -> None:
    assert steps(ServerOptimiser(), changes) == changes


@given(NUMBERS, st.floats(0.1, 2), st.floats(0, 0.99))
@settings(max_examples=40, deadline=None)
def test_momentum_is_the_published_recurrence(changes: list[float], rate: float, kept: float) -> None:
    """FedAvgM: v = beta v + mean change; x = x + rate v."""
    expected, velocity = [], 0.0
    for change in changes:
        velocity = kept * velocity + change
        expected.append(rate * velocity)

    found = steps(ServerOptimiser(kind="momentum", rate=rate, momentum=kept), changes)

    assert found == pytest.approx(expected, rel=1e-12, abs=1e-12)


@given(NUMBERS, st.floats(1e-4, 0.1), st.floats(0, 0.99), st.floats(0, 0.999), st.floats(1e-4, 0.1))
@settings(max_examples=40, deadline=None)
def test_adam_is_the_published_recurrence(
    changes: list[float], rate: float, kept: float, second: float, floor: float
) -> None:
    """FedAdam, algorithm 2: no correction of the first steps, and tau outside of the root."""
    expected, mean, square = [], 0.0, 0.0
    for change in changes:
        mean = kept * mean + (1 - kept) * change
        square = second * square + (1 - second) * change * change
        expected.append(rate * mean / (math.sqrt(square) + floor))

    options = ServerOptimiser(kind="adam", rate=rate, momentum=kept, second=second, floor=floor)

    assert steps(options, changes) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_a_rule_moves_by_the_step_and_keeps_the_memory() -> None:
    drawn = round_of(Plan())
    rule = FedIT(RuleOptions(optimiser=ServerOptimiser(kind="momentum", rate=0.5, momentum=0.8)))
    once = rule.aggregate(drawn.before, drawn.updates(), 1)

    twice = rule.aggregate(once, drawn.updates(), 2)

    plain = FedIT().aggregate(drawn.before, drawn.updates(), 1)
    change = plain.flat_P.astype(np.float64) - drawn.before.flat_P
    assert np.allclose(once.flat_P, drawn.before.flat_P + 0.5 * change, atol=1e-6)
    assert np.allclose(twice.flat_P, once.flat_P + 0.5 * 1.8 * change, atol=1e-6)
    assert drawn.before.memory == {}


def test_moments_of_a_and_b_do_not_mix() -> None:
    """RoLoRA alternates: a moment of B must be continued two rounds later, and never be taken for one of A."""
    options = ServerOptimiser(kind="momentum", rate=1.0, momentum=0.5)
    state = round_of(Plan()).before
    memory: dict[str, Wide] = {}
    for number in range(1, 6):
        trained = RoLoRA().roles(number).uploaded
        drawn = round_of(Plan(seed=number))
        mean = {
            name: np.tensordot(drawn.shares(), np.stack([site.change[name] for site in drawn.sites]), 1)
            for name in drawn.factors
            if letter(name) == trained
        }
        memory |= {name: 0.5 * memory.get(name, np.zeros_like(value)) + value for name, value in mean.items()}
        before = unflat(state.manifest, state.flat_P)

        state = RoLoRA(RuleOptions(optimiser=options)).aggregate(state, drawn.updates(trained), number)

        for name, value in unflat(state.manifest, state.flat_P).items():
            expected = before[name] + (memory[name] if name in mean else 0.0)
            assert np.allclose(value, expected, atol=1e-6)


@pytest.mark.parametrize("options", [ServerOptimiser(kind="momentum"), ServerOptimiser(kind="adam", rate=0.01)])
def test_no_change_is_no_step_and_no_nan(options: ServerOptimiser) -> None:
    step_P, memory = server_step(np.zeros(4), "AB", options, {})

    assert not step_P.any()
    assert all(np.isfinite(value).all() for value in memory.values())
