"""A is shared, B is each site's own."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings

from strategies.fedsa import FedSA
from tests.strategies.factors import Plan, letter, plans, round_of, unflat


@given(plans(same_ranks=True))
@settings(max_examples=30, deadline=None)
def test_a_is_the_mean_of_the_sites_and_alpha_is_no_matter(plan: Plan) -> None:
    """As alpha / r belongs to B, which is not averaged."""
    drawn = round_of(plan)

    after = FedSA().aggregate(drawn.before, drawn.updates("A"), 1)

    for name, value in unflat(after.manifest, after.flat_P).items():
        if letter(name) == "A":
            expected = np.tensordot(drawn.shares(), np.stack([site.trained()[name] for site in drawn.sites]), 1)
            assert np.allclose(value, expected, rtol=1e-6, atol=1e-6)
        else:
            assert np.array_equal(value, drawn.factors[name])


def test_b_never_leaves_a_site_and_is_not_sent_to_it() -> None:
    roles = FedSA().roles(4)

    assert (roles.sent, roles.trained, roles.uploaded) == ("A", "AB", "A")
    assert FedSA.personal
