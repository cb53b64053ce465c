"""One unit more or less moves the sum by no more than the clipping norm, whatever its gradient is made of."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import Tensor

from ccfexp.privacy.per_unit import clipped_sum

Gradients = list[Tensor]  # [U, ...] of each parameter
Mechanism = Callable[[Sequence[Tensor], float], tuple[list[Tensor], Tensor]]
ODD = (0.0, -0.0, 1e-45, -1e-38, 1e-30, 1.0, -1.0, 1e19, -3e38, 3.4e38, math.inf, -math.inf, math.nan)
BOUNDS = (1e-3, 1.0, 50.0)


@st.composite
def _gradients(draw: st.DrawFn) -> Gradients:
    """Of up to five units and two parameters: of any size, none, no numbers at all, and mixed."""
    units = draw(st.integers(1, 5))
    dtype, floats = draw(st.sampled_from([("f4", st.floats(width=32)), ("f8", st.floats())]))
    values = st.one_of(st.sampled_from([float(value) for value in np.array(ODD, dtype)]), floats)
    shapes = ((units, 3), (units, 1, 2))
    return [torch.from_numpy(draw(arrays.arrays(dtype, shape, elements=values))) for shape in shapes]


def norm_of(parts: Sequence[Tensor]) -> float:
    return float(torch.cat([part.flatten().double() for part in parts]).norm())


def moves_by_at_most(mechanism: Mechanism, gradients: Gradients, bound: float) -> bool:
    """Whether no unit's presence moves the sum by more than the bound; not even by rounding."""
    units, (whole, _) = torch.arange(len(gradients[0])), mechanism(gradients, bound)
    ways = []
    for unit in units:
        rest, _ = mechanism([part[units != unit] for part in gradients], bound)
        ways.append(norm_of([one.double() - other.double() for one, other in zip(whole, rest, strict=True)]))
    return all(way <= bound for way in ways)  # false where one is no number


@settings(deadline=None, max_examples=300)
@given(_gradients(), st.sampled_from(BOUNDS))
def test_one_unit_moves_the_sum_by_no_more_than_the_bound(gradients: Gradients, bound: float) -> None:
    """Huge, tiny, denormal, infinite and undefined gradients, and any mixture of them over units and parameters."""
    assert moves_by_at_most(clipped_sum, gradients, bound)


def test_one_unit_among_thousands_moves_the_sum_by_no_more_than_the_bound() -> None:
    """Where a sum in single precision is rounded by more than the clip leaves."""
    same = torch.full((4096, 512), 1.0)

    moved = clipped_sum([same], 1.0)[0][0] - clipped_sum([same[1:]], 1.0)[0][0]

    assert 0.999 < float(moved.norm()) <= 1.0


@settings(deadline=None)
@given(_gradients(), st.sampled_from(BOUNDS), st.data())
def test_a_unit_without_a_finite_gradient_is_as_if_it_were_zero(
    gradients: Gradients, bound: float, data: st.DataObject
) -> None:
    """Bit for bit, whatever else its gradient holds; it is known by its norm."""
    unit = data.draw(st.integers(0, len(gradients[0]) - 1))
    place = data.draw(st.sampled_from([(0, 0), (0, 2), (1, 1)]))
    gradients[place[0]][unit].view(-1)[place[1]] = data.draw(st.sampled_from([math.nan, math.inf, -math.inf]))
    without = [part.clone() for part in gradients]
    for part in without:
        part[unit] = 0.0

    sums, norm_U = clipped_sum(gradients, bound)
    expected, expected_norm_U = clipped_sum(without, bound)

    assert not norm_U[unit].isfinite()
    assert all(torch.equal(one, other) for one, other in zip(sums, expected, strict=True))
    assert torch.equal(norm_U[:unit].nan_to_num(), expected_norm_U[:unit].nan_to_num())
    assert all(part.isfinite().all() for part in sums)


def test_the_clip_by_hand() -> None:
    """3-4-5 over two parameters is shortened to the bound, 0.3-0.4 stays, a zero stays zero; the sum is of both."""
    gradients = [torch.tensor([[3.0], [0.3], [0.0]]), torch.tensor([[4.0], [-0.4], [0.0]])]

    (first, second), norm_U = clipped_sum(gradients, 1.0)

    assert norm_U.tolist() == pytest.approx([5.0, 0.5, 0.0])
    assert (float(first), float(second)) == pytest.approx((0.9, 0.4), abs=2e-6)
    assert first.dtype == norm_U.dtype == torch.float64


def test_nobody_adds_up_to_nothing() -> None:
    sums, norm_U = clipped_sum([torch.zeros(0, 3), torch.zeros(0, 1, 2)], 1.0)

    assert [part.tolist() for part in sums] == [[0.0] * 3, [[0.0] * 2]]
    assert len(norm_U) == 0


def _each_tensor_by_itself(gradients: Sequence[Tensor], bound: float) -> tuple[list[Tensor], Tensor]:
    return [clipped_sum([part], bound)[0][0] for part in gradients], clipped_sum(gradients, bound)[1]


def _the_sum_alone(gradients: Sequence[Tensor], bound: float) -> tuple[list[Tensor], Tensor]:
    whole = [part.double().sum(0, keepdim=True) for part in gradients]
    return clipped_sum(whole, bound)


def _the_largest_entry(gradients: Sequence[Tensor], bound: float) -> tuple[list[Tensor], Tensor]:
    peak_U = torch.stack([part.double().abs().flatten(1).amax(1) for part in gradients]).amax(0)
    factor_U = (bound / peak_U).clamp(max=1.0)
    return [torch.tensordot(factor_U, part.double(), 1) for part in gradients], peak_U


def _in_single_precision(gradients: Sequence[Tensor], bound: float) -> tuple[list[Tensor], Tensor]:
    norm_U = clipped_sum(gradients, bound)[1]
    factor_U = (bound * (1 - 1e-6) / norm_U).clamp(max=1.0).float()
    return [torch.tensordot(factor_U, part, 1) for part in gradients], norm_U


def _whoever_is_not_finite_too(gradients: Sequence[Tensor], bound: float) -> tuple[list[Tensor], Tensor]:
    norm_U = clipped_sum(gradients, bound)[1]
    factor_U = (bound / norm_U).clamp(max=1.0)
    return [torch.tensordot(factor_U, part.double(), 1) for part in gradients], norm_U


def _nobody_where_one_is_not_finite(gradients: Sequence[Tensor], bound: float) -> tuple[list[Tensor], Tensor]:
    sums, norm_U = clipped_sum(gradients, bound)
    return (sums if norm_U.isfinite().all() else [torch.zeros_like(part) for part in sums]), norm_U


HOSTILE = [
    [torch.tensor([[5.0, 0.0], [5.0, 5.0]]), torch.tensor([[5.0], [5.0]])],
    [torch.tensor([[9.0, 9.0], [-99.0, -99.0]]), torch.tensor([[9.0], [-99.0]])],
    [torch.full((2, 2), 3.3e38), torch.full((2, 1), 3.3e38)],
    [torch.tensor([[1.0, 0.0], [1.0, 0.0], [math.nan, 0.0]]), torch.ones(3, 1)],
]


@pytest.mark.parametrize(
    "mechanism",
    [
        _each_tensor_by_itself,
        _the_sum_alone,
        _the_largest_entry,
        _in_single_precision,
        _whoever_is_not_finite_too,
        _nobody_where_one_is_not_finite,
    ],
)
def test_a_wrong_clip_is_caught(mechanism: Mechanism) -> None:
    """By the check of this file, on gradients that the right one passes."""
    cases = [(gradients, bound) for gradients in HOSTILE for bound in (1e-5, 1.0)]

    assert all(moves_by_at_most(clipped_sum, *case) for case in cases)
    assert not all(moves_by_at_most(mechanism, *case) for case in cases)
