"""Gradients told apart are those of patients who are alone: torch and peft, one row at a time, are the reference."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from ccfexp.adapter import Factors
from ccfexp.compute import ComputeConfig
from ccfexp.model import CCFExp
from ccfexp.parallel import shares
from ccfexp.privacy.engines import OpacusEngine
from ccfexp.privacy.per_unit import Units
from ccfexp.privacy.steps import AutogradEngine, Draw, Engine, Losses
from tests.ccfexp.privacy.patients import (
    Rows,
    adapted,
    distance,
    gradients,
    mean_of,
    norm,
    one_by_one,
    plan,
    rows,
    trained,
)

SIZES = (1, 3, 2, 1)  # rows of each patient
COUNT = sum(SIZES)
DRAW = Draw(torch.arange(COUNT), SIZES)
Gradient = dict[str, Tensor]
engines = pytest.mark.parametrize("engine", [AutogradEngine, OpacusEngine])


@pytest.fixture(scope="module")
def examples() -> Rows:
    return rows(COUNT)


@pytest.fixture(scope="module")
def alone(examples: Rows) -> list[Gradient]:
    """Of each row, both factors, in double precision."""
    model = adapted()
    found = one_by_one(model, examples.to(torch.float64).prepare(model), COUNT)
    assert all(part.any() for gradient in found for part in gradient.values())
    return found


def of_factors(gradient: Gradient, factors: Factors) -> Gradient:
    return {name: part for name, part in gradient.items() if any(f"lora_{factor}." in name for factor in factors)}


def of_patients(alone: list[Gradient]) -> list[Gradient]:
    """The mean over each patient's rows."""
    edges = [sum(SIZES[:index]) for index in range(len(SIZES) + 1)]
    return [mean_of(alone[first:last]) for first, last in pairwise(edges)]


def told_apart(model: CCFExp, engine: Engine, examples: Rows, unit_R: Tensor) -> list[Gradient]:
    """What an engine makes of the sum over all rows."""
    weights = trained(model)
    losses = examples.prepare(model)(Draw(torch.arange(COUNT), (COUNT,)))
    units = int(unit_R.max()) + 1
    with engine.running(model):
        found = engine.gradients(list(weights.values()), unit_R, units, lambda: losses(slice(0, COUNT)).sum())
    assert all(weight.grad is None for weight in weights.values())  # nothing that nobody has clipped
    return [{name: part[unit] for name, part in zip(weights, found, strict=True)} for unit in range(units)]


@engines
@pytest.mark.parametrize("factors", ["AB", "A", "B"])
def test_an_engine_finds_the_sum_of_each_patient_s_rows(
    engine: type[Engine], factors: Factors, examples: Rows, alone: list[Gradient]
) -> None:
    """In whatever order the rows come, of both factors and of one, through both passes of the loss."""
    unit_R = torch.tensor([1, 3, 1, 0, 2, 1, 2])

    found = told_apart(adapted(factors), engine(), examples.to(torch.float64), unit_R)

    assert len(found) == 4
    for unit, gradient in enumerate(found):
        own = [alone[row] for row in range(COUNT) if unit_R[row] == unit]
        expected = {name: len(own) * part for name, part in of_factors(mean_of(own), factors).items()}
        assert distance(gradient, expected) < 1e-11
        assert max(distance({"": gradient[name]}, {"": expected[name]}) for name in expected) < 1e-7


@pytest.mark.parametrize(
    ("engine", "factors", "rows_at_once", "threads", "checkpointing", "dtype"),
    [
        (AutogradEngine, "AB", 64, 1, False, torch.float32),
        (AutogradEngine, "AB", 1, 1, False, torch.float64),
        (AutogradEngine, "A", 3, 1, True, torch.float32),
        (AutogradEngine, "B", 2, 1, False, torch.float64),  # fewer than the rows of one patient
        (AutogradEngine, "AB", 4, 2, True, torch.float64),
        (AutogradEngine, "B", 64, 2, False, torch.float32),
        (OpacusEngine, "AB", 64, 1, False, torch.float32),
        (OpacusEngine, "B", 2, 1, False, torch.float64),
        (OpacusEngine, "AB", 4, 2, False, torch.float64),
    ],
)
def test_a_step_is_the_mean_over_patients_of_the_mean_over_rows(
    engine: type[Engine], factors: Factors, rows_at_once: int, threads: int, checkpointing: bool,
    dtype: torch.dtype, examples: Rows, alone: list[Gradient],
) -> None:  # fmt: skip
    """Without clip and noise, however many rows are in memory, on one thread and two, recomputed or kept."""
    model = adapted(factors, dtype)
    model.compute_as(ComputeConfig(checkpointing=checkpointing))
    private = plan(rows_at_once, engine())

    with shares(threads) as pool, private.running(model):
        outcome = private.backward(model, DRAW, examples.to(dtype).prepare(model), pool)

    expected = of_factors(mean_of(of_patients(alone)), factors)
    assert distance(gradients(model), expected) < (1e-7 if dtype is torch.float64 else 1e-5)
    assert outcome.left_out == 0


def test_recomputed_layers_know_their_units_in_any_thread(examples: Rows, alone: list[Gradient]) -> None:
    """As on a GPU, whose way back is another thread's work, where nothing says that units are told apart."""
    model = adapted()
    model.compute_as(ComputeConfig(checkpointing=True))
    weights, unit_R = trained(model), DRAW.unit_R
    units = Units(list(weights.values()), unit_R, len(SIZES))
    with units.active():
        loss = examples.to(torch.float64).prepare(model)(DRAW)(slice(0, COUNT)).sum()

    with ThreadPoolExecutor(1) as another:
        found = another.submit(units.gradients, loss).result()

    for unit, size in enumerate(SIZES):
        gradient = {name: part[unit] / size for name, part in zip(weights, found, strict=True)}
        assert distance(gradient, of_patients(alone)[unit]) < 1e-11


def test_each_patient_is_clipped_alone_over_the_whole_adapter(examples: Rows, alone: list[Gradient]) -> None:
    """By the norm of all tensors together of the mean over rows: some are shortened, and some are not."""
    model, patients = adapted(), of_patients(alone)
    norms = sorted(norm(patient) for patient in patients)
    bound = (norms[1] + norms[2]) / 2

    with shares(1) as pool:
        plan(3, clipping_norm=bound).backward(model, DRAW, examples.to(torch.float64).prepare(model), pool)

    shortened = [
        {name: min(1.0, bound / norm(patient)) * part for name, part in patient.items()} for patient in patients
    ]
    assert distance(gradients(model), mean_of(shortened)) < 2e-6  # a clip is a millionth below its bound
    assert distance(gradients(model), mean_of(patients)) > 0.01


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_shipped_base_tells_patients_apart() -> None:
    """At its own size, whose channels come last in memory, in single precision."""
    base = partial(CCFExp.from_base, "phantom-base")
    examples, alike, model = (
        rows(COUNT, base()),
        adapted("AB", torch.float32, base()),
        adapted("AB", torch.float32, base()),
    )
    alone = one_by_one(alike, examples.prepare(alike), COUNT)
    private = plan(3)

    with shares(2) as pool, private.running(model):
        private.backward(model, DRAW, examples.prepare(model), pool)

    assert distance(gradients(model), mean_of(of_patients(alone))) < 1e-5


@engines
def test_a_step_without_patients_is_noise_alone(engine: type[Engine]) -> None:
    """No example is made and no network is asked."""
    model = adapted("B", torch.float32)
    private = plan(engine=engine())

    with shares(1) as pool, private.running(model):
        outcome = private.backward(model, Draw(torch.arange(0), ()), _nobody_asks, pool)

    assert outcome == (0.0, 0)
    assert all(not part.any() for part in gradients(model).values())


def _nobody_asks(_: Draw) -> Losses:
    raise AssertionError
