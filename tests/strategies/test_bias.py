"""The meter against the dense relative distance."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings

from strategies.bias import BiasMeter
from strategies.fedit import FedIT
from strategies.fedsvd import FedSVD
from strategies.ffa import FFA
from strategies.flex import Flex
from strategies.flora import FLoRA
from strategies.options import CombineOptions
from strategies.rolora import RoLoRA
from strategies.rules import RuleOptions
from tests.strategies.factors import RANK, Plan, Round, applied, distance, plans, round_of

if TYPE_CHECKING:
    from strategies.aggregation import GlobalState
    from strategies.rules import Rule

RESIDUAL = Flex(RuleOptions(combine=CombineOptions(residual=True)))
MANY_LAYERS = {f"layer{place:02d}": (8 + place % 5, (6 + place % 7,)) for place in range(30)}


def measured(rule: Rule, drawn: Round, number: int = 1, seed: int = 0) -> tuple[float, GlobalState]:
    meter = BiasMeter(drawn.before, seed)
    after = rule.aggregate(drawn.before, meter.watching(drawn.updates(rule.roles(number).uploaded)), number)
    return meter.distance(after), after


def truth(drawn: Round, after: GlobalState) -> float:
    """What the residual held before was applied before."""
    moved = {layer: product.up_MR @ product.down_RN for layer, product in drawn.before.residual.items()}
    now = {layer: value - moved.get(layer, 0.0) for layer, value in applied(after).items()}
    return distance(now, drawn.ideal())


def test_property_9_the_meter_is_the_dense_distance_within_the_error_of_sampling() -> None:
    """Eight vectors a layer: a few per cent over tens of layers, and no bias over many draws."""
    drawn = round_of(Plan(shapes=MANY_LAYERS))
    found = [measured(FedIT(), drawn, seed=seed) for seed in range(24)]
    expected = truth(drawn, found[0][1])

    assert expected > 0.05
    distances = np.array([value for value, _ in found])
    assert np.abs(distances / expected - 1).max() < 0.2
    assert distances.mean() == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("rule", [FedIT(), Flex()], ids=["fedit", "flex"])
def test_property_9_few_layers_with_a_base_that_has_moved(rule: Rule) -> None:
    drawn = round_of(Plan(moved=2))
    found = [measured(rule, drawn, seed=seed) for seed in range(60)]

    expected = truth(drawn, found[0][1])
    assert expected > 0.02
    assert np.mean([value for value, _ in found]) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize(
    ("rule", "number"),
    [(FFA(), 1), (FedSVD(), 1), (RoLoRA(), 1), (RoLoRA(), 2), (FLoRA(), 1), (RESIDUAL, 1)],
    ids=["ffa", "fedsvd", "rolora B", "rolora A", "flora", "flex with residual"],
)
@given(plans(same_ranks=True, zero_up=True, moved=None))
@settings(max_examples=15, deadline=None)
def test_property_9_an_exact_rule_measures_nothing(rule: Rule, number: int, plan: Plan) -> None:
    """FLoRA starts every round from B = 0; RoLoRA trains A only when B is no longer zero."""
    drawn = round_of(replace(plan, zero_up=isinstance(rule, FLoRA)))

    found, _ = measured(rule, drawn, number)

    assert found <= 2e-6


def test_property_9_flex_measures_nothing_where_the_rank_holds_the_sum() -> None:
    """Layers no wider than the rank are the full-rank case."""
    drawn = round_of(Plan(shapes={"x": (RANK, (9,)), "y": (12, (RANK,)), "z": (2, (2, 3, 3))}))

    assert measured(Flex(), drawn)[0] <= 1e-6
    assert measured(Flex(), round_of(Plan()))[0] > 0.05


def test_flora_at_any_ranks_measures_nothing() -> None:
    assert measured(FLoRA(), round_of(Plan(ranks=(1, 3, 2), scales=(1.0, 2.0, 0.5), zero_up=True)))[0] <= 1e-6


def test_component_wise_weights_show_as_what_they_are() -> None:
    """With unequal ranks they are not the plain sum, in which a site counts zero for what it lacks."""
    drawn = round_of(Plan(ranks=(1, 3, 3)))

    found, after = measured(RESIDUAL, drawn)

    assert found == pytest.approx(truth(drawn, after), rel=0.3)
    assert truth(drawn, after) > 0.01


def test_nothing_learnt_is_no_bias() -> None:
    """Zero over zero: a first round in which nobody moved."""
    assert measured(FedIT(), round_of(Plan(zero_up=True, size=0.0)))[0] == 0


def test_watching_passes_the_updates_on_and_changes_no_bit() -> None:
    drawn = round_of(Plan())
    updates = list(drawn.updates())

    assert list(BiasMeter(drawn.before).watching(updates)) == updates
    _, after = measured(FedIT(), drawn)
    assert after.flat_P.tobytes() == FedIT().aggregate(drawn.before, drawn.updates(), 1).flat_P.tobytes()


def test_the_same_seed_measures_the_same() -> None:
    drawn = round_of(Plan())

    assert measured(FedIT(), drawn, seed=3)[0] == measured(FedIT(), drawn, seed=3)[0]
    assert measured(FedIT(), drawn, seed=3)[0] != measured(FedIT(), drawn, seed=4)[0]
