"""Products summed exactly and cut by singular values; with a residual nothing is lost at all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from strategies.flex import Flex, component_shares
from strategies.flora import FLoRA
from strategies.options import CombineOptions
from strategies.rules import RuleOptions
from strategies.stacking import view_of
from tests.strategies import collapse
from tests.strategies.factors import (
    RANK,
    SHAPES,
    Dense,
    Plan,
    Round,
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

RESIDUAL = Flex(RuleOptions(combine=CombineOptions(residual=True)))


def best(matrices: Dense, rank: int) -> tuple[Dense, float]:
    """The nearest matrices of a rank by numpy's dense decomposition, and how far they are from the given ones."""
    found, missing = {}, 0.0
    for layer, matrix in matrices.items():
        u, values, v = np.linalg.svd(matrix, full_matrices=False)
        found[layer] = u[:, :rank] * values[:rank] @ v[:rank]
        missing += float(np.square(values[rank:]).sum())
    return found, float(np.sqrt(missing))


def with_unseen(drawn: Round) -> Dense:
    """The component-wise sum, and the components that no site of the round has."""
    widest = max(site.rank for site in drawn.sites)
    if widest == RANK:
        return drawn.by_component()
    rest = {name: value[:, widest:] if letter(name) == "B" else value[widest:] for name, value in drawn.factors.items()}
    return summed([(1.0, drawn.by_component()), (1.0, dense(rest, drawn.before.scale))])


def factors_of(state_factors: dict[str, np.ndarray], layer: str) -> list[np.ndarray]:
    return [state_factors[name].reshape(len(state_factors[name]), -1) for name in names_of(layer)]


# --- the adapter ------------------------------------------------------------------------------------------------------


@given(plans())
@settings(max_examples=50, deadline=None)
def test_property_4_the_adapter_is_the_truncated_dense_decomposition(plan: Plan) -> None:
    drawn = round_of(plan)

    after = Flex().aggregate(drawn.before, drawn.updates(), 1)

    expected, missing = best(with_unseen(drawn), RANK)
    assert distance(applied(after), expected) < 1e-5
    error = np.sqrt(
        sum(float(np.square(applied(after)[layer] - with_unseen(drawn)[layer]).sum()) for layer in expected)
    )
    size = np.sqrt(sum(float(np.square(value).sum()) for value in expected.values()))
    assert error == pytest.approx(missing, abs=1e-5 * size)
    assert not after.residual


@given(plans(same_ranks=True))
@settings(max_examples=20, deadline=None)
def test_with_equal_ranks_the_sum_is_the_ideal(plan: Plan) -> None:
    drawn = round_of(plan)

    after = RESIDUAL.aggregate(drawn.before, drawn.updates(), 1)

    assert distance(applied(after), drawn.ideal()) < 1e-6


@given(plans(same_ranks=True))
@settings(max_examples=20, deadline=None)
def test_property_4_a_rank_that_is_enough_loses_nothing_and_equals_flora(plan: Plan) -> None:
    """One A for all makes the sum of rank 3 at most."""
    drawn = round_of(replace(plan, zero_up=True, moved=0))
    sites = [
        replace(site, change={name: value * (letter(name) == "B") for name, value in site.change.items()})
        for site in drawn.sites
    ]
    drawn = replace(drawn, sites=tuple(sites))

    flex, flora = (rule.aggregate(drawn.before, drawn.updates(), 1) for rule in (Flex(), FLoRA()))

    assert distance(applied(flex), drawn.ideal()) < 1e-6
    assert distance(applied(flex), applied(flora)) < 1e-6


def test_the_factors_are_sorted_and_balanced_for_every_smaller_rank() -> None:
    """A has orthonormal rows and B falling columns: a site that takes the first ones takes the best."""
    drawn = round_of(Plan())
    after = Flex().aggregate(drawn.before, drawn.updates(), 1)
    found = unflat(after.manifest, after.flat_P)
    for layer in SHAPES:
        down, up = factors_of(found, layer)
        assert np.allclose(down @ down.T, np.eye(RANK), atol=2e-6)
        assert (np.diff(np.linalg.norm(up, axis=0)) <= 1e-6).all()
        narrow, _ = best({layer: drawn.ideal()[layer]}, 2)
        assert np.allclose(after.scale * up[:, :2] @ down[:2], narrow[layer], atol=1e-5)


@given(plans(same_ranks=True))
@settings(max_examples=20, deadline=None)
def test_property_6_products_do_not_depend_on_how_a_site_splits_them(plan: Plan) -> None:
    drawn = round_of(plan)

    first, second = (RESIDUAL.aggregate(each.before, each.updates(), 1) for each in (drawn, turned(drawn)))

    assert distance(applied(second), applied(first)) < 1e-5


def test_components_are_shared_among_those_who_have_them() -> None:
    shares_KR = component_shares(list(round_of(Plan(ranks=(1, 3, 2), weights=(1.0, 2.0, 5.0))).updates()), 4)

    assert np.allclose(shares_KR, [[1 / 8, 0, 0, 0], [2 / 8, 2 / 7, 1, 0], [5 / 8, 5 / 7, 0, 0]])


# --- rank collapse ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [Flex(), RESIDUAL], ids=["cut", "residual"])
def test_property_4_the_rank_does_not_collapse(rule: Flex) -> None:
    """Components that small sites lack keep their 16 % of the energy; plain averaging leaves 1.2 % and 0.07 %."""
    assert collapse.plain_rounds(2) == pytest.approx([0.0118, 0.00074], rel=0.02)

    assert collapse.idle_rounds(rule, 4) == pytest.approx([0.16] * 4, rel=1e-5)
    assert np.allclose(collapse.taught(rule), collapse.wanted(), atol=1e-6)


# --- the residual (FedEx) ---------------------------------------------------------------------------------------------


@given(plans(moved=None))
@settings(max_examples=50, deadline=None)
def test_property_5_base_and_residual_and_adapter_are_the_whole_sum(plan: Plan) -> None:
    """W0 + residual + s B A, with W0 the same on either side."""
    drawn = round_of(plan)

    after = RESIDUAL.aggregate(drawn.before, drawn.updates(), 1)

    moved = applied(replace(drawn.before, flat_P=np.zeros_like(drawn.before.flat_P)))
    assert distance(applied(after), summed([(1.0, with_unseen(drawn)), (1.0, moved)])) < 1e-6


def test_property_5_a_site_that_was_absent_has_the_base_of_one_that_never_was() -> None:
    """What is sent is the whole residual: one site adds its growth every round, the other loads it once."""
    random = np.random.default_rng(0)
    base = {layer: random.standard_normal((m, int(np.prod(n)))) for layer, (m, n) in SHAPES.items()}
    state = round_of(Plan()).before
    always = {layer: value.copy() for layer, value in base.items()}
    last: Dense = {layer: np.zeros_like(value) for layer, value in base.items()}
    ideal: Dense = {}
    for number in range(1, 6):
        sent = unflat(state.manifest, state.flat_P)
        drawn = round_of(Plan(seed=number))
        drawn = replace(drawn, before=state, sites=tuple(replace(site, sent=sent) for site in drawn.sites))
        ideal = summed([(1.0, last), (1.0, drawn.ideal())])
        state = RESIDUAL.aggregate(state, drawn.updates(), number)
        moved = {layer: product.up_MR @ product.down_RN for layer, product in state.residual.items()}
        for layer, value in moved.items():
            always[layer] += value - last[layer]
        last = {layer: moved.get(layer, value) for layer, value in last.items()}

    once = {layer: base[layer] + last[layer] for layer in base}

    assert distance(always, once) < 1e-12
    assert distance(applied(state), ideal) < 1e-6
    assert np.linalg.norm(last["a.square"]) > 0.1


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_property_5_what_a_small_site_cannot_train_is_in_its_base(rank: int) -> None:
    drawn = round_of(Plan(moved=2))
    after = RESIDUAL.aggregate(drawn.before, drawn.updates(), 1)

    view = view_of(after, rank, keep_tail=True)

    assert distance(applied(view), applied(after)) < 1e-6
    assert dict(view.manifest.entries)["a.square.lora_A.weight"] == (rank, 6)


def test_the_residual_is_no_wider_than_the_layer_and_holds_no_rounding() -> None:
    """Identical sites of the run's rank leave nothing over, so nothing is moved, round after round."""
    drawn = round_of(Plan())
    same = replace(drawn, sites=tuple(replace(drawn.sites[0], name=site.name) for site in drawn.sites))
    assert RESIDUAL.aggregate(same.before, same.updates(), 1).residual == {}

    # Two sites that differ in one component sum to rank 4: one component is left over, and no rounding beside it.
    other = {name: value.copy() for name, value in drawn.sites[0].change.items()}
    for name, value in other.items():
        last = value[2:] if letter(name) == "A" else value[:, 2:]
        last[...] = 0
    pair = replace(drawn, sites=(drawn.sites[0], replace(drawn.sites[1], change=other)))
    assert RESIDUAL.aggregate(pair.before, pair.updates(), 1).residual["a.square"].rank == 1

    state = drawn.before
    for number in range(1, 6):
        state = RESIDUAL.aggregate(state, round_of(Plan(seed=number)).updates(), number)
    for layer, (outputs, inputs) in SHAPES.items():
        if layer in state.residual:
            assert state.residual[layer].rank <= min(outputs, int(np.prod(inputs)))


# --- zero -------------------------------------------------------------------------------------------------------------


def test_while_nothing_is_learnt_a_stays_bit_for_bit() -> None:
    drawn = round_of(Plan(zero_up=True, size=0.0))

    after = Flex().aggregate(drawn.before, drawn.updates(), 1)

    assert after.flat_P.tobytes() == drawn.before.flat_P.tobytes()
    assert after.residual == {}


@pytest.mark.parametrize("rule", [Flex(), RESIDUAL], ids=["cut", "residual"])
def test_sites_that_cancel_out_leave_nothing(rule: Flex) -> None:
    """The sum is zero although B was not; rows of A stay that sites can go on from."""
    drawn = round_of(Plan(ranks=(RANK, RANK), weights=(1.0, 1.0)))
    away = {name: value * (letter(name) == "B") for name, value in drawn.factors.items()}
    changes = [{name: factor * value for name, value in away.items()} for factor in (0.0, -2.0)]
    sites = [replace(site, change=change) for site, change in zip(drawn.sites, changes, strict=True)]
    drawn = replace(drawn, sites=tuple(sites))

    after = rule.aggregate(drawn.before, drawn.updates(), 1)

    assert max(float(np.abs(value).max()) for value in applied(after).values()) < 1e-6
    found = unflat(after.manifest, after.flat_P)
    assert all(
        value.any(axis=tuple(range(1, value.ndim))).all() for name, value in found.items() if letter(name) == "A"
    )


@pytest.mark.parametrize("rule", [Flex(), RESIDUAL], ids=["cut", "residual"])
def test_a_site_that_unlearns_all_takes_b_with_it_and_leaves_a(rule: Flex) -> None:
    """Exactly zero, although B was not before the round."""
    drawn = round_of(Plan(ranks=(RANK,)))
    change = {name: -value if letter(name) == "B" else np.zeros_like(value) for name, value in drawn.factors.items()}
    drawn = replace(drawn, sites=(replace(drawn.sites[0], change=change),))

    after = rule.aggregate(drawn.before, drawn.updates(), 1)

    for name, value in unflat(after.manifest, after.flat_P).items():
        assert np.array_equal(value, drawn.factors[name] if letter(name) == "A" else np.zeros_like(value))
