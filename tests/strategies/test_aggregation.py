"""The mean of the hospitals' adapters, against numpy, and the names of strategies."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccfexp.errors import ConfigError, RoundError
from strategies import registry
from strategies.aggregation import SiteUpdate, weighted_mean
from strategies.fedit import FedIT

if TYPE_CHECKING:
    from collections.abc import Iterator


@given(st.lists(st.floats(0.5, 1e5), min_size=1, max_size=8), st.integers(0, 2**32 - 1))
@settings(max_examples=50, deadline=None)
def test_the_mean_is_numpys_weighted_average(weights: list[float], seed: int) -> None:
    values_SP = np.random.default_rng(seed).normal(size=(len(weights), 17)).astype(np.float32)
    updates = [
        SiteUpdate(f"site-{index}", row_P, weight)
        for index, (row_P, weight) in enumerate(zip(values_SP, weights, strict=True))
    ]

    mean_P = FedIT().aggregate(values_SP[0], updates)

    expected_P = np.average(values_SP.astype(np.float64), axis=0, weights=weights)
    np.testing.assert_allclose(mean_P, expected_P, rtol=1e-6, atol=1e-12)
    assert mean_P.dtype == np.float32


def test_equal_updates_are_returned_unchanged() -> None:
    values_P = np.array([0.1, -0.0, 3e-38], np.float32)

    mean_P = weighted_mean([SiteUpdate("a", values_P, 3.0), SiteUpdate("b", values_P, 5.0)])

    np.testing.assert_array_equal(mean_P, values_P)


def test_the_mean_takes_updates_one_at_a_time() -> None:
    alive = 0
    most = 0

    class Tracked(np.ndarray):
        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    def stream() -> Iterator[SiteUpdate]:
        nonlocal alive, most
        for index in range(50):
            values_P = np.ones(10, np.float32).view(Tracked)
            alive += 1
            most = max(most, alive)
            yield SiteUpdate(f"{index:03d}", values_P, 1.0)
            del values_P

    weighted_mean(stream())

    assert most <= 3


@pytest.mark.parametrize(
    ("updates", "reason"),
    [
        ([], "updates=0"),
        ([SiteUpdate("b", np.ones(2, np.float32), 1.0), SiteUpdate("a", np.ones(2, np.float32), 1.0)], "sorted"),
        ([SiteUpdate("a", np.ones(2, np.float32), 1.0)] * 2, "once each"),
        ([SiteUpdate("a", np.ones(2, np.float32), -1.0)], "weight=-1.0"),
        ([SiteUpdate("a", np.ones(2, np.float32), math.nan)], "weight=nan"),
        ([SiteUpdate("a", np.ones(2, np.float32), 1.0), SiteUpdate("b", np.ones(3, np.float32), 1.0)], "shape="),
    ],
)
def test_what_cannot_be_averaged_is_refused(updates: list[SiteUpdate], reason: str) -> None:
    with pytest.raises(RoundError, match=reason):
        weighted_mean(updates)


def test_an_unknown_strategy_is_refused_with_the_nearest_name() -> None:
    assert registry.get("fedit").name == "fedit"
    with pytest.raises(ConfigError, match=r"federation.strategy='fedti'.*Did you mean 'fedit'"):
        registry.get("fedti")
