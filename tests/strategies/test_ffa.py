"""One A for all: the mean of B is the mean of the products, and A never moves by a bit."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings

from strategies.ffa import FFA
from tests.strategies.factors import Plan, applied, dense, distance, letter, plans, round_of, unflat


@given(plans(same_ranks=True))
@settings(max_examples=40, deadline=None)
def test_property_2_mean_factor_times_frozen_factor_is_the_mean_product(plan: Plan) -> None:
    drawn = round_of(plan)

    after = FFA().aggregate(drawn.before, drawn.updates("B"), 1)

    assert distance(applied(after), drawn.ideal("B")) < 2e-6


@given(plans())
@settings(max_examples=40, deadline=None)
def test_with_unequal_ranks_the_mean_is_exact_component_by_component(plan: Plan) -> None:
    """Columns that no site of the round has stay as they were."""
    drawn = round_of(plan)

    after = FFA().aggregate(drawn.before, drawn.updates("B"), 1)

    widest = max(plan.ranks)
    found, before = unflat(after.manifest, after.flat_P), drawn.factors
    parts = {name: value[:, :widest] if letter(name) == "B" else value[:widest] for name, value in found.items()}
    assert distance(dense(parts, after.scale), drawn.by_component("B")) < 2e-6
    assert all(np.array_equal(found[n][:, widest:], before[n][:, widest:]) for n in found if letter(n) == "B")


def test_property_2_the_frozen_factor_keeps_its_bits() -> None:
    state = round_of(Plan()).before
    for number in range(1, 5):
        after = FFA().aggregate(state, round_of(Plan(seed=number)).updates("B"), number)
        before = unflat(state.manifest, state.flat_P)
        for name, value in unflat(after.manifest, after.flat_P).items():
            assert (value.tobytes() == before[name].tobytes()) == (letter(name) == "A")
        state = after


def test_only_b_ever_travels() -> None:
    roles = FFA().roles(3)

    assert (roles.sent, roles.trained, roles.uploaded) == ("B", "B", "B")
