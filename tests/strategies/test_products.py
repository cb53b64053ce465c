"""Thin products against the matrices that they stand for, and the singular values of those by numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ccfexp.errors import WireError
from strategies.packing import AdapterManifest
from strategies.products import Bank, Product, decomposed, layers_of, residual_entries, significant, stacked
from tests.strategies.factors import SHAPES, Plan, Wide, dense, flat, manifest_of, round_of

SIZES = st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 12))  # outputs, inputs, rank


def product_of(outputs: int, inputs: int, rank: int, seed: int = 0) -> Product:
    random = np.random.default_rng(seed)
    return Product(random.standard_normal((outputs, rank)), random.standard_normal((rank, inputs)))


def whole(product: Product) -> Wide:
    matrix: Wide = product.up_MR @ product.down_RN
    return matrix


def close(found: Wide, expected: Wide) -> bool:
    return bool(np.allclose(found, expected, rtol=0, atol=1e-12 * max(1.0, float(np.abs(expected).max()))))


# --- layers -----------------------------------------------------------------------------------------------------------


def test_every_layer_is_found_whatever_its_shape() -> None:
    drawn = round_of(Plan())
    products = {layer.name: layer.product(drawn.before.flat_P, 2.0) for layer in layers_of(drawn.before.manifest)}

    expected = dense(drawn.factors, 2.0)
    assert list(products) == sorted(SHAPES)
    assert all(close(whole(products[name]), expected[name]) for name in SHAPES)


def test_a_convolutions_factors_are_the_convolution_of_their_product() -> None:
    """The flattening is checked by torch, which knows nothing of it: a k x k layer to r maps, then a 1 x 1 layer."""
    drawn = round_of(Plan())
    layer = next(layer for layer in layers_of(drawn.before.manifest) if layer.name == "d.convolution")
    down, up = (torch.from_numpy(drawn.factors[f"{layer.name}.lora_{letter}.weight"]) for letter in "AB")
    image_BCHW = torch.randn(2, 2, 7, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    kernel = torch.from_numpy(whole(layer.product(drawn.before.flat_P))).reshape(5, 2, 3, 3)

    in_turn = torch.nn.functional.conv2d(torch.nn.functional.conv2d(image_BCHW, down, padding=1), up)
    assert torch.allclose(torch.nn.functional.conv2d(image_BCHW, kernel, padding=1), in_turn, atol=1e-12)


def test_what_is_written_is_read_again() -> None:
    drawn = round_of(Plan())
    for layer in layers_of(drawn.before.manifest):
        flat_P = np.full(drawn.before.manifest.parameters, np.nan)
        narrow = product_of(layer.outputs, layer.inputs, 2)

        layer.write(flat_P, narrow, 4.0)

        assert close(whole(layer.product(flat_P, 4.0)), whole(narrow))
        assert np.isnan(flat_P).sum() == flat_P.size - layer.rank * (layer.outputs + layer.inputs)
        assert not layer.product(flat_P).up_MR[:, 2:].any()


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ((("x.lora_A.weight", (2, 3)),), r"factors of x=\['A'\], expected A and B"),
        ((("x.lora_A.weight", (2, 3)), ("x.lora_B.weight", (4, 3))), r"shape of B of x=\(4, 3\)"),
        ((("x.lora_A.weight", (2, 3)), ("x.lora_B.weight", (2,))), r"shape of B of x=\(2,\)"),
        ((("x.lora_A.weight", (2, 3, 3, 3)), ("x.lora_B.weight", (4, 2, 3, 3))), r"expected \(outputs, 2\)"),
    ],
)
def test_factors_that_make_no_product_are_refused(
    entries: tuple[tuple[str, tuple[int, ...]], ...], message: str
) -> None:
    with pytest.raises(WireError, match=message):
        layers_of(AdapterManifest(entries))


def test_a_residual_beside_the_factors_is_no_layer() -> None:
    entries = (
        ("x.lora_A.residual.weight", (5, 3)),
        ("x.lora_A.weight", (2, 3)),
        ("x.lora_B.residual.weight", (4, 5)),
        ("x.lora_B.weight", (4, 2)),
    )
    (layer,) = layers_of(AdapterManifest(entries))

    assert (layer.rank, layer.down, layer.up) == (2, slice(15, 21), slice(41, 49))


# --- singular values --------------------------------------------------------------------------------------------------


@given(SIZES, st.integers(0, 99))
@settings(max_examples=80, deadline=None)
def test_the_compact_decomposition_is_that_of_the_whole_matrix(sizes: tuple[int, int, int], seed: int) -> None:
    product = product_of(*sizes, seed)

    found = decomposed(product)

    expected_S = np.linalg.svd(whole(product), compute_uv=False)
    assert close(whole(found), whole(product))
    assert found.rank == min(sizes)
    assert np.allclose(np.linalg.norm(found.up_MR, axis=0), expected_S[: found.rank], atol=1e-12 * expected_S[0])
    assert close(found.down_RN @ found.down_RN.T, np.eye(found.rank))


@given(SIZES, st.integers(0, 99), st.integers(1, 12))
@settings(max_examples=60, deadline=None)
def test_the_first_components_are_the_best_of_their_rank(sizes: tuple[int, int, int], seed: int, rank: int) -> None:
    """Eckart and Young: what is missing is the root of the sum of the squares of the other singular values."""
    product = product_of(*sizes, seed)
    values_S = np.linalg.svd(whole(product), compute_uv=False)

    found = decomposed(product)

    missing = np.linalg.norm(whole(product) - whole(found.first(rank)))
    assert missing == pytest.approx(np.sqrt(np.square(values_S[rank:]).sum()), abs=1e-12 * values_S[0])
    assert close(whole(found.first(rank)) + whole(found.after(rank)), whole(product))


def test_a_decomposition_is_the_same_for_every_way_to_write_the_matrix() -> None:
    """Signs too: the factors are what sites train on, and rounding must not turn them over from round to round."""
    product = product_of(7, 6, 3)
    turned = np.linalg.qr(np.random.default_rng(1).standard_normal((3, 3)))[0]
    other = Product(product.up_MR @ turned, turned.T @ product.down_RN)

    first, second = decomposed(product), decomposed(other)

    assert close(first.up_MR, second.up_MR)
    assert close(first.down_RN, second.down_RN)
    largest = np.take_along_axis(first.down_RN, np.abs(first.down_RN).argmax(1)[:, None], 1)
    assert (largest > 0).all()


def test_zero_decomposes_to_zero() -> None:
    found = decomposed(Product(np.zeros((4, 2)), product_of(4, 5, 2).down_RN))

    assert not found.up_MR.any()
    assert np.isfinite(found.down_RN).all()


def test_significant_components_are_those_above_rounding() -> None:
    """As numpy judges the rank of the whole matrix."""
    three = stacked([product_of(9, 7, 3), product_of(9, 7, 3)])  # the same twice

    assert decomposed(three).rank == 6
    assert significant(decomposed(three)) == np.linalg.matrix_rank(whole(three)) == 3
    assert significant(decomposed(product_of(9, 7, 5))) == 5
    assert significant(Product(np.zeros((9, 2)), np.ones((2, 7)))) == 0


# --- sums -------------------------------------------------------------------------------------------------------------


@given(
    st.integers(1, 9),
    st.integers(1, 9),
    st.lists(st.integers(1, 5), min_size=1, max_size=30),
    st.booleans(),
)
@settings(max_examples=80, deadline=None)
def test_a_bank_is_the_sum_in_no_more_room_than_twice_the_layer_and_one_update(
    outputs: int, inputs: int, ranks: list[int], begun: bool
) -> None:
    start = product_of(outputs, inputs, 2, seed=99)
    bank = Bank(start if begun else None)
    expected = whole(start) if begun else np.zeros((outputs, inputs))
    for seed, rank in enumerate(ranks):
        more = product_of(outputs, inputs, rank, seed)
        bank.add(more)
        expected = expected + whole(more)
        width = sum(part.rank for part in bank._parts)
        held = width * (outputs + inputs) + (0 if bank._matrix_MN is None else bank._matrix_MN.size)
        assert width <= 2 * min(outputs, inputs) + rank
        assert held <= 2 * outputs * inputs + rank * (outputs + inputs)

    best = bank.decomposed()
    assert close(whole(bank.total()), expected)
    assert bank.total().rank <= min(outputs, inputs)
    assert close(whole(best), expected)
    assert np.allclose(
        np.linalg.norm(best.up_MR, axis=0),
        np.linalg.svd(expected, compute_uv=False)[: best.rank],
        atol=1e-11 * np.abs(expected).max(),
    )
    assert close(best.down_RN @ best.down_RN.T, np.eye(best.rank))


def test_stacked_products_are_their_sum() -> None:
    parts = [product_of(5, 4, rank, rank) for rank in (1, 3, 2)]

    assert close(whole(stacked(parts)), sum((whole(part) for part in parts), np.zeros((5, 4))))
    assert stacked(parts).rank == 6


def test_a_residual_travels_in_the_shapes_of_its_layer() -> None:
    drawn = round_of(Plan(moved=2))

    tensors = residual_entries(drawn.before.residual, drawn.before.manifest)

    assert tensors["d.convolution.lora_A.residual.weight"].shape == (2, 2, 3, 3)
    assert tensors["d.convolution.lora_B.residual.weight"].shape == (5, 2, 1, 1)
    factors = {name.replace(".residual", ""): value.astype(np.float64) for name, value in tensors.items()}
    expected = {name: whole(product) for name, product in drawn.before.residual.items()}
    assert all(np.allclose(dense(factors)[name], expected[name], atol=1e-6) for name in SHAPES)
    assert layers_of(manifest_of(factors))
    assert flat(factors).dtype == np.float32
