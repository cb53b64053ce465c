"""Both factors averaged, each by itself: simple, and not the mean of the products."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings

from strategies.fedit import FedIT
from tests.strategies.factors import (
    SHAPES,
    Plan,
    applied,
    dense,
    distance,
    names_of,
    plans,
    round_of,
    unflat,
)
from tests.strategies.gauges import turned


@given(plans(same_ranks=True, same_scales=True))
@settings(max_examples=40, deadline=None)
def test_each_factor_is_the_mean_of_the_sites(plan: Plan) -> None:
    drawn = round_of(plan)

    after = FedIT().aggregate(drawn.before, drawn.updates(), 1)

    found = unflat(after.manifest, after.flat_P)
    for name in found:
        stack = np.stack([site.trained()[name] for site in drawn.sites])
        expected = np.tensordot(drawn.shares(), stack, 1)
        assert np.allclose(found[name], expected, rtol=1e-6, atol=1e-6)


def test_alpha_over_r_counts_where_sites_differ_in_it() -> None:
    """A mean of B that forgets it (finding 2c) would be off by far."""
    drawn = round_of(Plan(scales=(0.5, 2.0, 8.0)))

    after = FedIT().aggregate(drawn.before, drawn.updates(), 1)

    found = unflat(after.manifest, after.flat_P)
    for layer in SHAPES:
        down, up = names_of(layer)
        ups = np.stack([site.scale * site.trained()[up] for site in drawn.sites])
        downs = np.stack([site.trained()[down] for site in drawn.sites])
        assert np.allclose(after.scale * found[up], np.tensordot(drawn.shares(), ups, 1), rtol=1e-6, atol=1e-6)
        assert np.allclose(found[down], np.tensordot(drawn.shares(), downs, 1), rtol=1e-6, atol=1e-6)


def test_the_product_of_means_is_not_the_mean_of_products() -> None:
    """The known price: by how much is what the bias meter is for."""
    drawn = round_of(Plan())

    after = FedIT().aggregate(drawn.before, drawn.updates(), 1)

    stacks = {name: np.stack([site.trained()[name] for site in drawn.sites]) for name in drawn.factors}
    means = {name: np.asarray(np.tensordot(drawn.shares(), stack, 1)) for name, stack in stacks.items()}
    assert distance(applied(after), dense(means, 2.0)) < 1e-6
    assert distance(applied(after), drawn.ideal()) > 0.1


def test_property_6_fedit_depends_on_how_a_site_splits_its_product() -> None:
    """It fails the gauge test that the exact rules pass: the same models at the sites, another mean."""
    drawn = round_of(Plan())
    other = turned(drawn)
    assert distance(other.ideal(), drawn.ideal()) < 1e-6

    first, second = (FedIT().aggregate(each.before, each.updates(), 1) for each in (drawn, other))

    assert distance(applied(second), applied(first)) > 0.1


def test_what_was_moved_into_the_base_stays_there() -> None:
    drawn = round_of(Plan(moved=2))

    assert FedIT().aggregate(drawn.before, drawn.updates(), 1).residual == drawn.before.residual
