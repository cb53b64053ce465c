"""Two ways to tell patients apart: where each may be used, and that the borrowed one leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ccfexp.compute import ComputeConfig
from ccfexp.errors import ConfigError
from ccfexp.model import CCFExp
from ccfexp.privacy import engines
from ccfexp.privacy.engines import OpacusEngine, engine_of
from ccfexp.privacy.per_unit import UnitConv2d, UnitLinear, check_layers
from ccfexp.privacy.steps import AutogradEngine, Draw
from tests.ccfexp.privacy.patients import Rows, adapted, distance, mean_of, one_by_one, rows, trained

COUNT = 3
UNIT_R = torch.tensor([0, 1, 0])


@pytest.fixture(scope="module")
def examples() -> Rows:
    return rows(COUNT)


def _loss(model: CCFExp, examples: Rows) -> Callable[[], Tensor]:
    losses = examples.prepare(model)(Draw(torch.arange(COUNT), (COUNT,)))
    return lambda: losses(slice(0, COUNT)).sum()


def _by_opacus(model: CCFExp, examples: Rows, unit_R: Tensor = UNIT_R) -> list[dict[str, Tensor]]:
    weights, engine = trained(model), OpacusEngine()
    with engine.running(model):
        found = engine.gradients(list(weights.values()), unit_R, 2, _loss(model, examples))
    return [{name: part[unit] for name, part in zip(weights, found, strict=True)} for unit in range(2)]


@pytest.mark.parametrize(
    ("compute", "kind"),
    [
        (ComputeConfig(), AutogradEngine),
        (ComputeConfig(checkpointing=True), AutogradEngine),
        (ComputeConfig(unit_gradients="opacus"), OpacusEngine),
    ],
)
def test_a_machine_chooses_its_engine(compute: ComputeConfig, kind: type) -> None:
    assert type(engine_of(compute)) is kind


@pytest.mark.parametrize(
    ("compute", "message"),
    [
        (ComputeConfig(compile=True), "compute.compile=true cannot go with a private run.*set it to false"),
        (ComputeConfig(compile=True, unit_gradients="opacus"), "compute.compile=true cannot go"),
        (
            ComputeConfig(checkpointing=True, unit_gradients="opacus"),
            "checkpointing=true cannot go.*set .* to autograd",
        ),
    ],
)
def test_a_machine_that_cannot_tell_patients_apart_is_refused(compute: ComputeConfig, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        engine_of(compute)


def test_channels_that_are_last_in_memory_are_put_in_order_for_opacus(
    monkeypatch: pytest.MonkeyPatch, examples: Rows
) -> None:
    """As they are in every base. It would say nothing of it, and be wrong in every convolution."""
    model = adapted("A")
    network: Any = model.unet
    network.to(memory_format=torch.channels_last)
    double = examples.to(torch.float64)
    double = replace(double, eps_R3HW=double.eps_R3HW.contiguous(memory_format=torch.channels_last))
    found = _by_opacus(model, double)
    monkeypatch.setattr(engines, "_in_order", lambda _, inputs: inputs)
    unordered = _by_opacus(model, double)

    alone = one_by_one(model, double.prepare(model), COUNT)
    expected = {name: 2 * part for name, part in mean_of([alone[0], alone[2]]).items()}
    assert distance(found[0], expected) < 1e-11
    assert distance(unordered[0], expected) > 0.01


def test_opacus_leaves_the_model_as_it_was(examples: Rows) -> None:
    """Also after an error: the same layers in the same mode, no hook, no gradient, and the same output."""
    model = adapted("AB", torch.float32)
    before = _state(model)
    _by_opacus(model, examples)
    assert _state(model) == before
    with pytest.raises(KeyboardInterrupt), OpacusEngine().running(model):
        raise KeyboardInterrupt

    assert _state(model) == before
    check_layers(model)
    assert all(weight.grad is None for weight in trained(model).values())


def _state(model: nn.Module) -> list[object]:
    """What of every layer could be changed by hooks."""
    return [
        (type(module), module.training, vars(module).get("forward"), len(module._forward_hooks),
         len(module._backward_hooks), len(module._forward_pre_hooks))
        for module in model.modules()
    ]  # fmt: skip


def test_while_opacus_works_the_adapter_s_layers_are_plain() -> None:
    """It knows the gradients of torch's own layers alone; the network keeps its mode."""
    model = adapted("B", torch.float32)

    with OpacusEngine().running(model):
        factors = [module for name, module in model.named_modules() if name.endswith(".default")]
        assert not any(isinstance(module, UnitLinear | UnitConv2d) for module in model.modules())
        assert all(module.training for module in factors if any(True for _ in module.parameters()))
        assert not model.unet.training


def test_rows_that_opacus_has_not_seen_are_refused(examples: Rows) -> None:
    """A gradient that is another number of rows' is nobody's."""
    with pytest.raises(ConfigError, match="rows=3 with a gradient must be those of the batch, 4"):
        _by_opacus(adapted("B", torch.float32), examples, torch.tensor([0, 1, 0, 1]))


def test_opacus_with_recomputed_layers_is_an_error_and_no_wrong_number(examples: Rows) -> None:
    """Where `engine_of` has not been asked."""
    model = adapted("B", torch.float32)
    model.compute_as(ComputeConfig(checkpointing=True))

    with pytest.raises((ConfigError, ValueError)):
        _by_opacus(model, examples)
