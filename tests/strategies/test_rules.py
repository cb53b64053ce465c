"""What holds for every rule: who counts how much, in what order, and to which bit."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccfexp.errors import RoundError
from strategies.options import ServerOptimiser
from strategies.registry import make
from strategies.rules import RuleOptions, places
from tests.strategies.cases import EVERY, EVERY_LINEAR, Case, bits, drawn_for
from tests.strategies.factors import (
    RANK,
    SHAPES,
    Plan,
    Round,
    applied,
    dense,
    distance,
    letter,
    plans,
    round_of,
    rounded,
    summed,
    unflat,
)

if TYPE_CHECKING:
    from random import Random

    from strategies.aggregation import GlobalState


def moved_before(drawn: Round) -> GlobalState:
    """The state without its adapter."""
    return replace(drawn.before, flat_P=np.zeros_like(drawn.before.flat_P))


# --- who counts how much ----------------------------------------------------------------------------------------------


@EVERY
@given(plans(same_ranks=True, moved=None, most=4))
@settings(max_examples=8, deadline=None)
def test_property_7_identical_sites_are_one_site(case: Case, plan: Plan) -> None:
    """The aggregate is what each of them has; with one site, K = 1, it is that site."""
    drawn = drawn_for(case, replace(plan, scales=(plan.scales[0],) * len(plan.scales)))
    first = drawn.sites[0]
    same = replace(drawn, sites=tuple(replace(first, name=s.name, weight=s.weight) for s in drawn.sites))
    alone = replace(drawn, sites=(first,))
    expected = summed([(1.0, first.product(case.letters)), (1.0, applied(moved_before(drawn)))])

    assert distance(applied(case.after(same)), expected) < 2e-6
    assert distance(applied(case.after(alone)), expected) < 2e-6


@EVERY
@given(plans(moved=None), st.randoms(use_true_random=False))
@settings(max_examples=8, deadline=None)
def test_property_7_the_order_of_the_sites_changes_nothing(case: Case, plan: Plan, random: Random) -> None:
    """Hospitals under other names, which sort otherwise: the same to rounding, at any ranks and alphas."""
    drawn = drawn_for(case, plan)
    order = list(range(len(drawn.sites)))
    random.shuffle(order)

    assert distance(applied(case.after(drawn.renamed(order))), applied(case.after(drawn))) < 1e-5


@EVERY
def test_property_7_the_weights_of_those_present_sum_to_one(case: Case) -> None:
    """Absent sites leave a federation of the others; only the proportions of the weights matter."""
    drawn = drawn_for(case, Plan(ranks=(RANK,) * 5))
    present = replace(drawn, sites=(drawn.sites[0], drawn.sites[3], drawn.sites[4]))
    normalised = [replace(s, weight=w) for s, w in zip(present.sites, (1 / 10, 4 / 10, 5 / 10), strict=True)]

    found, expected = case.after(present), case.after(replace(present, sites=tuple(normalised)))

    assert distance(applied(found), applied(expected)) < 1e-6
    if case.rule.name not in ("fedit", "flex"):
        assert distance(applied(found), present.ideal(case.letters)) < 1e-6


# --- linearity --------------------------------------------------------------------------------------------------------


def with_changes(drawn: Round, changes: list[dict[str, np.ndarray]]) -> Round:
    sites = [replace(site, change=rounded(change)) for site, change in zip(drawn.sites, changes, strict=True)]
    return replace(drawn, sites=tuple(sites))


@EVERY
def test_property_8_a_rule_is_linear_exactly_if_the_registry_says_so(case: Case) -> None:
    """agg(u + v) = agg(u) + agg(v), of the factors, or of the products where the rule writes them in a new basis."""
    drawn = drawn_for(case, Plan(ranks=(RANK,) * 4))
    other = drawn_for(case, Plan(ranks=(RANK,) * 4, seed=9))
    first, second = ([site.change for site in each.sites] for each in (drawn, other))
    both = [{n: u[n] + v[n] for n in u} for u, v in zip(first, second, strict=True)]
    states = [case.after(with_changes(drawn, changes)) for changes in (first, second, both)]

    factors = [unflat(drawn.before.manifest, s.flat_P.astype(np.float64) - drawn.before.flat_P) for s in states]
    products = [summed([(1.0, applied(s)), (-1.0, applied(drawn.before))]) for s in states]
    additive = [distance(w, summed([(1.0, u), (1.0, v)])) < 1e-5 for u, v, w in (factors, products)]

    assert any(additive) == case.rule.linear


@EVERY
def test_property_8_a_linear_rule_needs_to_know_no_more_than_the_sum(case: Case) -> None:
    """As under secure aggregation: every site's upload is replaced by the weighted mean of all."""
    drawn = drawn_for(case, Plan(ranks=(RANK,) * 4))
    stacks = {name: np.stack([site.change[name] for site in drawn.sites]) for name in drawn.factors}
    mean = {name: np.tensordot(drawn.shares(), stack, 1) for name, stack in stacks.items()}
    hidden = with_changes(drawn, [mean] * 4)

    alike = distance(applied(case.after(hidden)), applied(case.after(drawn))) < 1e-5

    assert alike == case.rule.linear


# --- order and refusals -----------------------------------------------------------------------------------------------


@EVERY
def test_updates_must_come_in_order_and_at_least_one(case: Case) -> None:
    drawn = drawn_for(case, Plan())
    backwards = list(drawn.updates(case.letters))[::-1]

    with pytest.raises(RoundError, match="sorted by site"):
        case.rule.aggregate(drawn.before, backwards, case.number)
    with pytest.raises(RoundError, match="updates=0"):
        case.rule.aggregate(drawn.before, [], case.number)


# --- bits -------------------------------------------------------------------------------------------------------------


@EVERY
@given(plans(moved=None))
@settings(max_examples=5, deadline=None)
def test_the_same_inputs_give_the_same_bits(case: Case, plan: Plan) -> None:
    assert bits(case.after(drawn_for(case, plan))) == bits(case.after(drawn_for(case, plan)))


@EVERY
@given(plans(moved=None))
@settings(max_examples=8, deadline=None)
def test_nothing_learnt_changes_no_model_and_gives_no_nan(case: Case, plan: Plan) -> None:
    """Zero updates, from a trained adapter or from B = 0, where A must stay as it is unless it is drawn anew."""
    drawn = round_of(replace(plan, size=0.0, zero_up=plan.zero_up or case.rule.name == "flora"))
    if case.label == "rolora 2" and plan.zero_up:
        return  # refused: see test_rolora

    after = case.after(drawn)

    assert np.isfinite(after.flat_P).all()
    assert distance(applied(after), applied(drawn.before)) < 1e-6
    if plan.zero_up and case.rule.name != "flora":
        assert after.flat_P.tobytes() == drawn.before.flat_P.tobytes()


@EVERY
def test_a_rule_changes_nothing_of_what_it_is_given(case: Case) -> None:
    drawn = drawn_for(case, Plan(moved=1))
    before = bits(drawn.before)
    updates = list(drawn.updates(case.letters))
    numbers = [update.change_P[:].tobytes() for update in updates]

    case.rule.aggregate(drawn.before, updates, case.number)

    assert bits(drawn.before) == before
    assert [update.change_P[:].tobytes() for update in updates] == numbers


@EVERY_LINEAR
def test_factors_that_a_round_does_not_average_keep_their_bits(case: Case) -> None:
    if case.rule.name == "fedsvd":
        return  # it writes both anew
    drawn = drawn_for(case, Plan(ranks=(3, 2, 1)))
    found, before = unflat(drawn.before.manifest, case.after(drawn).flat_P), drawn.factors

    for name, value in found.items():
        assert (value.tobytes() == before[name].tobytes()) == (letter(name) not in case.letters)


def test_momentum_of_the_coordinator_is_on_the_mean() -> None:
    """The options reach every averaging rule."""
    options = RuleOptions(optimiser=ServerOptimiser(kind="momentum", rate=2.0))
    for name in ("fedit", "ffa", "rolora", "fedsa"):
        drawn = round_of(Plan())
        letters = make(name).roles(1).uploaded
        plain, moved = (make(name, o).aggregate(drawn.before, drawn.updates(letters), 1) for o in (None, options))
        before = drawn.before.flat_P.astype(np.float64)
        assert np.allclose(moved.flat_P - before, 2 * (plain.flat_P - before), atol=1e-5)


@pytest.mark.parametrize("letters", ["A", "B", "AB"])
def test_places_are_where_the_factors_stand(letters: str) -> None:
    drawn = round_of(Plan())
    marked = {name: np.full(value.shape, float(letter(name) in letters)) for name, value in drawn.factors.items()}
    mask_P = np.zeros(drawn.before.manifest.parameters)
    length = 0
    for whole, part in places(drawn.before.manifest, letters):
        mask_P[whole] += 1
        assert part == slice(length, length + whole.stop - whole.start)
        length = part.stop

    assert np.array_equal(mask_P, np.concatenate([marked[name].ravel() for name in sorted(marked)]))
    assert dense(drawn.factors).keys() == SHAPES.keys()
