"""Updates are taken in order, once each, with weights that are weights."""

from __future__ import annotations

import math
import weakref
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from ccfexp.errors import RoundError
from strategies.aggregation import GlobalState, one_by_one
from tests.strategies.factors import Plan, manifest_of, round_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from strategies.aggregation import SiteUpdate

UPDATES = list(round_of(Plan()).updates())


def test_sorted_updates_pass_unchanged() -> None:
    assert list(one_by_one(UPDATES)) == UPDATES


def test_no_update_is_no_round() -> None:
    with pytest.raises(RoundError, match=r"updates=0 to average, need at least 1"):
        list(one_by_one([]))


@pytest.mark.parametrize("order", [(1, 0, 2), (0, 2, 1), (0, 0, 1)])
def test_a_site_out_of_order_or_twice_is_refused(order: tuple[int, ...]) -> None:
    with pytest.raises(RoundError, match=r"once each, sorted by site: site='site-0\d' after 'site-0\d'"):
        list(one_by_one([UPDATES[place] for place in order]))


@pytest.mark.parametrize("weight", [0.0, -1.0, math.inf, -math.inf, math.nan])
def test_a_weight_that_is_none_is_refused(weight: float) -> None:
    with pytest.raises(RoundError, match=r"weight=.* of site 'site-01' must be finite and above 0"):
        list(one_by_one([UPDATES[0], replace(UPDATES[1], weight=weight)]))


def test_an_update_is_let_go_before_the_next_is_asked_for() -> None:
    """Otherwise a round needs memory for two."""

    def fresh() -> Iterator[SiteUpdate]:
        last: weakref.ref[SiteUpdate] | None = None
        for place in range(4):
            assert last is None or last() is None
            update = replace(UPDATES[0], site=f"site-{place}")
            last = weakref.ref(update)
            yield update
            del update

    for update in one_by_one(fresh()):
        assert update.rank
        del update


def test_values_are_kept_in_single_precision() -> None:
    factors = {"x.lora_A.weight": np.ones((1, 2)), "x.lora_B.weight": np.zeros((3, 1))}
    state = GlobalState(manifest_of(factors), np.zeros(5, np.float32), 1.0, memory={"m": np.ones(5)})

    moved = state.with_values(np.arange(5.0))

    assert moved.flat_P.dtype == np.float32
    assert moved.flat_P.tolist() == [0, 1, 2, 3, 4]
    assert moved.memory is state.memory
