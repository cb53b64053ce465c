"""The factors in turn, B first: one mean per round, and it is the mean of the products."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccfexp.errors import RoundError
from strategies.rolora import RoLoRA
from tests.strategies.factors import Plan, applied, dense, distance, letter, plans, round_of, unflat


@given(plans(same_ranks=True, zero_up=False), st.sampled_from([1, 2]))
@settings(max_examples=60, deadline=None)
def test_property_2_mean_factor_times_frozen_factor_is_the_mean_product(plan: Plan, number: int) -> None:
    drawn = round_of(plan)
    trained = "B" if number == 1 else "A"

    after = RoLoRA().aggregate(drawn.before, drawn.updates(trained), number)

    assert distance(applied(after), drawn.ideal(trained)) < 2e-6


@given(plans(zero_up=False), st.sampled_from([1, 2]))
@settings(max_examples=40, deadline=None)
def test_with_unequal_ranks_the_mean_is_exact_component_by_component(plan: Plan, number: int) -> None:
    drawn = round_of(plan)
    trained = "B" if number == 1 else "A"

    after = RoLoRA().aggregate(drawn.before, drawn.updates(trained), number)

    widest = max(plan.ranks)
    found = unflat(after.manifest, after.flat_P)
    parts = {name: value[:, :widest] if letter(name) == "B" else value[:widest] for name, value in found.items()}
    assert distance(dense(parts, after.scale), drawn.by_component(trained)) < 2e-6


def test_property_2_the_frozen_factor_keeps_its_bits() -> None:
    state = round_of(Plan(zero_up=True)).before
    for number in range(1, 7):
        trained = RoLoRA().roles(number).uploaded
        after = RoLoRA().aggregate(state, round_of(Plan(seed=number)).updates(trained), number)
        before = unflat(state.manifest, state.flat_P)
        for name, value in unflat(after.manifest, after.flat_P).items():
            assert (value.tobytes() == before[name].tobytes()) == (letter(name) != trained)
        state = after


def test_property_10_b_comes_first() -> None:
    """After round 1 something is learnt and A is as it was drawn; then the factors alternate."""
    assert [RoLoRA().roles(number).trained for number in range(1, 6)] == ["B", "A", "B", "A", "B"]
    assert all(RoLoRA().roles(number).sent == "AB" for number in range(1, 6))
    drawn = round_of(Plan(zero_up=True))
    assert not any(value.any() for value in applied(drawn.before).values())

    after = RoLoRA().aggregate(drawn.before, drawn.updates("B"), 1)

    assert all(np.linalg.norm(value) > 0.1 for value in applied(after).values())
    found, before = unflat(after.manifest, after.flat_P), drawn.factors
    assert all(np.array_equal(found[name], before[name]) for name in found if letter(name) == "A")


def test_property_10_to_start_with_a_is_refused() -> None:
    drawn = round_of(Plan(zero_up=True))

    with pytest.raises(RoundError, match="round 2 trains A while B is zero, so nothing is learnt; train B first"):
        RoLoRA().aggregate(drawn.before, drawn.updates("A"), 2)
