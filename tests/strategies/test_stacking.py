"""What a site of any rank gets, and the product that it made of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccfexp.errors import WireError
from strategies.stacking import Views, site_products, view_of
from tests.strategies.factors import SHAPES, Plan, applied, cut, dense, distance, plans, round_of, unflat


@given(plans(moved=None), st.integers(1, 3), st.sampled_from([None, 0.25, 8 / 3]))
@settings(max_examples=40, deadline=None)
def test_a_smaller_site_gets_the_first_components(plan: Plan, rank: int, scale: float | None) -> None:
    """And B written for its alpha / r, so that its product is theirs."""
    drawn = round_of(plan)

    view = view_of(drawn.before, rank, scale)

    own = drawn.before.scale if scale is None else scale
    expected = cut(drawn.factors, rank, drawn.before.scale / own)
    found = unflat(view.manifest, view.flat_P)
    assert {name: value.shape for name, value in found.items()} == {n: v.shape for n, v in expected.items()}
    assert distance(dense(found, view.scale), dense(expected, own)) < 1e-6
    assert view.scale == own
    assert view.residual == drawn.before.residual


@given(plans(moved=None), st.integers(1, 3), st.sampled_from([None, 0.25, 8 / 3]))
@settings(max_examples=40, deadline=None)
def test_property_5_with_the_tail_in_its_base_every_site_has_the_whole_model(
    plan: Plan, rank: int, scale: float | None
) -> None:
    drawn = round_of(plan)

    view = view_of(drawn.before, rank, scale, keep_tail=True)

    assert distance(applied(view), applied(drawn.before)) < 1e-6
    tail_of = view.residual["a.square"].rank if "a.square" in view.residual else 0
    assert tail_of == plan.moved + 3 - rank


def test_the_runs_own_rank_is_the_state_itself() -> None:
    state = round_of(Plan(moved=1)).before

    assert view_of(state, 3) is state
    assert view_of(state, 3, state.scale, keep_tail=True) is state


def test_a_view_holds_the_bits_of_the_state() -> None:
    """Scaling B by alpha / r and back is rounded away: sites of any rank start from the same numbers."""
    for scale in (0.1, 1 / 3, 16 / 3, 8.0):
        drawn = round_of(Plan(scale=scale))
        view = view_of(drawn.before, 2)
        found = unflat(view.manifest, view.flat_P)
        assert all(np.array_equal(found[name], value) for name, value in cut(drawn.factors, 2).items())


@given(plans(), st.sampled_from(["A", "B", "AB"]))
@settings(max_examples=40, deadline=None)
def test_a_sites_product_is_that_of_its_trained_factors(plan: Plan, letters: str) -> None:
    """What it did not upload counts as it was sent."""
    drawn = round_of(plan)
    views: Views = {}
    for site in drawn.sites:
        product = site_products(drawn.before, site.update(letters), views)

        found = {layer: product(layer).up_MR @ product(layer).down_RN for layer in SHAPES}
        assert distance(found, site.product(letters)) < 1e-6

    assert len(views) == len({(site.rank, site.scale) for site in drawn.sites})


def test_other_factors_than_were_sent_are_refused() -> None:
    drawn = round_of(Plan())
    update = next(drawn.updates())
    for wrong in (replace(update, rank=2), next(round_of(Plan(shapes={"a.square": (6, (6,))})).updates())):
        with pytest.raises(WireError, match=r"shape of|tensors missing|tensor not agreed"):
            site_products(drawn.before, wrong, {})
    with pytest.raises(WireError, match=r"rank=4, expected 1 to 3"):
        site_products(drawn.before, replace(update, rank=4), {})


def test_a_view_leaves_the_state_as_it_was() -> None:
    drawn = round_of(Plan(moved=2))
    before = applied(drawn.before)

    view_of(drawn.before, 1, keep_tail=True)

    assert distance(applied(drawn.before), before) == 0
