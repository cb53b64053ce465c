"""The mean of B, then an orthonormal A of the same product."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from strategies.fedsvd import FedSVD, refactored
from strategies.ffa import FFA
from tests.strategies.factors import (
    RANK,
    SHAPES,
    Plan,
    applied,
    distance,
    flat,
    letter,
    manifest_of,
    names_of,
    plans,
    round_of,
    unflat,
)


@given(plans(same_ranks=True))
@settings(max_examples=40, deadline=None)
def test_property_3_the_new_product_is_the_mean_of_the_products(plan: Plan) -> None:
    drawn = round_of(plan)

    after = FedSVD().aggregate(drawn.before, drawn.updates("B"), 1)

    assert distance(applied(after), drawn.ideal("B")) < 2e-6


@given(plans(same_scales=True))
@settings(max_examples=40, deadline=None)
def test_property_3_a_has_orthonormal_rows_and_b_falling_columns(plan: Plan) -> None:
    """With unequal ranks too: what the first components hold is the most that so many can."""
    drawn = round_of(plan)

    after = FedSVD().aggregate(drawn.before, drawn.updates("B"), 1)

    found = unflat(after.manifest, after.flat_P)
    for layer in SHAPES:
        down, up = (found[name].reshape(len(found[name]), -1) for name in names_of(layer))
        assert np.allclose(down @ down.T, np.eye(RANK), atol=2e-6)
        sizes = np.linalg.norm(up, axis=0)
        assert (np.diff(sizes) <= 1e-6 * sizes[0]).all()
        values = np.linalg.svd(applied(after)[layer] / after.scale, compute_uv=False)
        assert np.allclose(sizes, values[:RANK], rtol=1e-5, atol=1e-5 * values[0])


@given(plans())
@settings(max_examples=30, deadline=None)
def test_property_3_the_new_basis_changes_nothing_of_the_model(plan: Plan) -> None:
    """Before and after the decomposition; B alone was averaged, as in FFA."""
    drawn = round_of(plan)

    plain = FFA().aggregate(drawn.before, drawn.updates("B"), 1)

    assert distance(applied(refactored(plain)), applied(plain)) < 1e-6
    assert distance(applied(FedSVD().aggregate(drawn.before, drawn.updates("B"), 1)), applied(plain)) < 1e-6


def test_property_3_a_forward_pass_is_unchanged() -> None:
    """By torch: both factors of a convolution are applied one after the other."""
    drawn = round_of(Plan())
    image_BCHW = torch.randn(2, 2, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def forward(flat_P: np.ndarray) -> torch.Tensor:
        factors = unflat(drawn.before.manifest, flat_P)
        down, up = (torch.from_numpy(factors[name]) for name in names_of("d.convolution"))
        return torch.nn.functional.conv2d(torch.nn.functional.conv2d(image_BCHW, down, padding=1), up)

    before, after = forward(drawn.before.flat_P), forward(refactored(drawn.before).flat_P)

    assert torch.allclose(after, before, atol=1e-5)
    assert not np.allclose(drawn.before.flat_P, refactored(drawn.before).flat_P, atol=1e-2)


@pytest.mark.parametrize("layer", ["a.square", "e.both_rank", "d.convolution"])
def test_property_3_the_compact_decomposition_is_that_of_the_product(layer: str) -> None:
    drawn = round_of(Plan())
    found = unflat(drawn.before.manifest, refactored(drawn.before).flat_P)
    _, values, right = np.linalg.svd(applied(drawn.before)[layer] / drawn.before.scale, full_matrices=False)

    down, up = (found[name].reshape(len(found[name]), -1) for name in names_of(layer))

    assert np.allclose(np.abs(np.sum(down * right[:RANK], axis=1)), 1, atol=1e-5)  # up to the sign
    assert np.allclose(np.linalg.norm(up, axis=0), values[:RANK], rtol=1e-5)


def test_property_3_while_b_is_zero_a_stays_bit_for_bit() -> None:
    """Singular vectors of zero would be arbitrary; a layer at which something was learnt gets its new A."""
    drawn = round_of(Plan(zero_up=True))
    factors = drawn.factors
    factors["b.wide.lora_B.weight"] = np.ones_like(factors["b.wide.lora_B.weight"])
    state = drawn.before.with_values(flat(factors).astype(np.float64))

    found = unflat(state.manifest, refactored(state).flat_P)

    for name, value in drawn.factors.items():
        assert np.array_equal(found[name], value) == (not name.startswith("b.wide"))
    assert not np.isnan(refactored(state).flat_P).any()


def test_a_layer_narrower_than_the_rank_keeps_its_factors() -> None:
    """It has no three orthonormal rows; rows of zeros would never learn again."""
    shapes = {"n.narrow": (2, (5,)), "w.wide": (5, (6,))}
    drawn = round_of(Plan(shapes=shapes))

    after = FedSVD().aggregate(drawn.before, drawn.updates("B"), 1)

    assert distance(applied(after), drawn.ideal("B")) < 1e-6
    found = unflat(after.manifest, after.flat_P)
    assert np.array_equal(found["n.narrow.lora_A.weight"], drawn.factors["n.narrow.lora_A.weight"])
    assert not np.array_equal(found["w.wide.lora_A.weight"], drawn.factors["w.wide.lora_A.weight"])


def test_both_factors_go_down_and_only_b_comes_up() -> None:
    roles = FedSVD().roles(2)

    assert (roles.sent, roles.trained, roles.uploaded) == ("AB", "B", "B")
    assert manifest_of(round_of(Plan()).factors).only("B").names == tuple(
        name for name in sorted(round_of(Plan()).factors) if letter(name) == "B"
    )
