"""The stack is the sum of the products, whatever the ranks: the oracle of the other rules."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from strategies.flora import FLoRA
from strategies.rules import RuleOptions
from tests.strategies.factors import (
    RANK,
    SHAPES,
    Plan,
    applied,
    dense,
    distance,
    letter,
    names_of,
    plans,
    round_of,
    summed,
    unflat,
)
from tests.strategies.gauges import turned


@given(plans(zero_up=True, moved=None))
@settings(max_examples=60, deadline=None)
def test_property_1_the_stack_is_the_ideal_sum(plan: Plan) -> None:
    """Random ranks, weights, alphas; square and other layers, convolutions, layers as wide as the rank."""
    drawn = round_of(plan)

    after = FLoRA().aggregate(drawn.before, drawn.updates(), 1)

    expected = summed([(1.0, applied(drawn.before)), (1.0, drawn.ideal())])  # B was zero: all of it was in the base
    assert distance(applied(after), expected) < 1e-6


def test_property_1_weights_belong_on_one_factor() -> None:
    """On both (a published mistake) they would be squared: the sum would be off by more than half."""
    drawn = round_of(Plan(zero_up=True))
    twice = summed(
        [(float(share) ** 2, site.product()) for share, site in zip(drawn.shares(), drawn.sites, strict=True)]
    )
    after = FLoRA().aggregate(drawn.before, drawn.updates(), 1)

    assert distance(twice, drawn.ideal()) > 0.5
    assert distance(applied(after), drawn.ideal()) < 1e-12


def test_property_1_every_site_counts_and_not_only_the_first() -> None:
    """A published baseline returned the first client's factors for everybody's."""
    drawn = round_of(Plan(zero_up=True))
    for place in range(3):
        changed = replace(drawn.sites[place], change={n: 2 * v for n, v in drawn.sites[place].change.items()})
        sites = (*drawn.sites[:place], changed, *drawn.sites[place + 1 :])
        other = replace(drawn, sites=sites)

        after = FLoRA().aggregate(drawn.before, other.updates(), 1)

        assert distance(applied(after), other.ideal()) < 1e-12
        assert distance(applied(after), drawn.ideal()) > 0.05


@given(plans(zero_up=True))
@settings(max_examples=20, deadline=None)
def test_property_6_the_stack_does_not_depend_on_how_a_site_splits_its_product(plan: Plan) -> None:
    drawn = round_of(plan)

    first, second = (FLoRA().aggregate(each.before, each.updates(), 1) for each in (drawn, turned(drawn)))

    assert distance(applied(second), applied(first)) < 1e-5


def test_the_sum_of_many_rounds_is_in_the_base() -> None:
    """No wider than the layer, however many rounds and sites there were."""
    state = round_of(Plan(zero_up=True)).before
    expected = {layer: np.zeros_like(value) for layer, value in applied(state).items()}
    for number in range(1, 6):
        # What the sites get is drawn anew each round, with B = 0: their product is that of their own factors.
        sent = unflat(state.manifest, state.flat_P)
        drawn = round_of(Plan(seed=number, zero_up=True))
        drawn = replace(drawn, before=state, sites=tuple(replace(site, sent=sent) for site in drawn.sites))
        state = FLoRA().aggregate(state, drawn.updates(), number)
        expected = summed([(1.0, expected), (1.0, drawn.ideal())])

        assert distance(applied(state), expected) < 1e-12

    for layer, (outputs, inputs) in SHAPES.items():
        assert state.residual[layer].rank <= min(outputs, int(np.prod(inputs)))


def test_the_base_stays_exact_when_the_sum_has_a_lower_rank_than_the_layer() -> None:
    """Identical sites, round after round: one direction, added up eight times."""
    drawn = round_of(Plan(zero_up=True, ranks=(1, 1, 1)))
    same = replace(drawn, sites=tuple(replace(drawn.sites[0], name=site.name) for site in drawn.sites))
    state = drawn.before
    for number in range(1, 9):
        again = replace(same, before=replace(state, flat_P=drawn.before.flat_P))
        state = FLoRA().aggregate(again.before, again.updates(), number)

    for layer, (outputs, inputs) in SHAPES.items():
        expected = 8 * dense(drawn.sites[0].trained(), 2.0)[layer]
        product = state.residual[layer]
        assert np.allclose(product.up_MR @ product.down_RN, expected, atol=1e-12 * np.abs(expected).max())
        assert product.rank <= min(outputs, int(np.prod(inputs)))


def test_every_round_starts_from_a_fresh_a_as_peft_draws_it() -> None:
    """B = 0, A uniform within 1 / sqrt(inputs); the same for the same seed and round, another for another."""
    drawn = round_of(Plan(zero_up=True))

    def fresh(seed: int, number: int) -> np.ndarray:
        after = FLoRA(RuleOptions(seed=seed)).aggregate(drawn.before, drawn.updates(), number)
        return after.flat_P

    factors = unflat(drawn.before.manifest, fresh(1, 1))
    for layer, (_, inputs) in SHAPES.items():
        down, up = (factors[name] for name in names_of(layer))
        assert not up.any()
        assert np.abs(down).max() <= 1 / np.sqrt(np.prod(inputs))
    whole = np.concatenate(
        [(np.sqrt(np.prod(value.shape[1:])) * value).ravel() for name, value in factors.items() if letter(name) == "A"]
    )
    assert whole.std() == pytest.approx(1 / np.sqrt(3), rel=0.1)
    assert np.array_equal(fresh(1, 1), fresh(1, 1))
    assert not np.array_equal(fresh(1, 1), fresh(1, 2))
    assert not np.array_equal(fresh(1, 1), fresh(2, 1))


def test_the_manifest_of_the_next_round_is_the_runs() -> None:
    drawn = round_of(Plan(zero_up=True, ranks=(1, 2, 3)))

    after = FLoRA().aggregate(drawn.before, drawn.updates(), 1)

    assert after.manifest == drawn.before.manifest
    assert after.scale == drawn.before.scale
    assert max(site.rank for site in drawn.sites) == RANK
