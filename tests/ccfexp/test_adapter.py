"""Adapters: they change nothing until they are trained, and only what fits is ever put into a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from ccfexp.adapter import TARGETS, AdapterConfig, Factors, lora_config, train_only, trainable_names
from ccfexp.errors import CheckpointError, ConfigError
from ccfexp.model import CCFExp
from tests.ccfexp import tiny

CONFIG = AdapterConfig(rank=2, alpha=4.0)
T_B = torch.tensor([100, 600, 900])


def _prediction(model: CCFExp) -> torch.Tensor:
    batch = tiny.batch(model)
    with torch.no_grad():
        prediction: torch.Tensor = model(tiny.noise(), T_B, model.condition(batch.identity, batch.expression))
    return prediction


def _with_adapter(config: AdapterConfig = CONFIG, seed: int = 3) -> CCFExp:
    model = tiny.model()
    model.attach_adapter(config, seed)
    return model


def _moved(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return {name: value + 0.1 * torch.randn(value.shape, generator=generator) for name, value in state.items()}


def test_attaching_changes_neither_output_nor_base() -> None:
    """B is zero; the base keeps its bits under peft's names."""
    plain = tiny.model()
    model = _with_adapter()
    weights = {name.replace(".base_layer", ""): value for name, value in model.named_parameters()}

    torch.testing.assert_close(_prediction(model), _prediction(plain))
    assert all(torch.equal(weights[name], value) for name, value in plain.named_parameters())
    assert not model.training


def test_only_lora_factors_ask_for_gradients() -> None:
    """Two per adapted layer, by peft's names, under the parts that the targets name."""
    model = _with_adapter()
    state = model.adapter_state()

    assert trainable_names(model) == state.keys()
    assert all(name.endswith(("lora_A.weight", "lora_B.weight")) for name in state)
    assert all(value.dtype == torch.float32 for value in state.values())
    assert {name.split(".")[0] for name in state} == {"unet", "conditioner"}
    assert not any(value.any() for name, value in state.items() if "lora_B" in name)
    assert all(value.any() for name, value in state.items() if "lora_A" in name)


@pytest.mark.parametrize("factors", ["A", "B", "AB"])
def test_one_factor_may_be_trained_alone(factors: Factors) -> None:
    """Every pair's chosen factor asks for gradients until the next choice; loading a state chooses nothing."""
    model = _with_adapter()
    state = model.adapter_state()
    train_only(model, "A" if factors == "B" else "B")
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter) if parameter.requires_grad else None

    train_only(model, factors)
    model.load_adapter_state(_moved(state))

    assert trainable_names(model) == {name for name in state if any(f"lora_{one}." in name for one in factors)}
    assert all(parameter.grad is None for parameter in model.parameters())
    assert model.adapter_state().keys() == state.keys()


def test_impossible_choices_of_factors() -> None:
    """No such factor, and no adapter."""
    model = _with_adapter()
    for wrong in ("C", "BA", ""):
        with pytest.raises(ConfigError, match=rf"factors='{wrong}' to train must be one of A, B, AB"):
            train_only(model, wrong)  # type: ignore[arg-type]
    assert trainable_names(model) == model.adapter_state().keys()
    with pytest.raises(ConfigError, match="factors='B' to train need an adapter, and the model has none"):
        train_only(tiny.model(), "B")


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_names_layers_of_its_own(target: str) -> None:
    """Parts do not overlap and together they are the default adapter."""
    state = _with_adapter(AdapterConfig(rank=2, targets=(target,))).adapter_state()
    others = _with_adapter(AdapterConfig(rank=2, targets=tuple(t for t in TARGETS if t != target))).adapter_state()

    assert state
    assert not state.keys() & others.keys()
    assert state.keys() | others.keys() == _with_adapter().adapter_state().keys()


def test_state_is_a_copy() -> None:
    """Training on does not move what was taken out before."""
    model = _with_adapter()
    state = model.adapter_state()
    before = {name: value.clone() for name, value in state.items()}

    model.load_adapter_state(_moved(state))

    assert all(torch.equal(state[name], before[name]) for name in before)
    assert all(not torch.equal(value, before[name]) for name, value in model.adapter_state().items())


def test_a_state_comes_back_and_matters() -> None:
    """What is put in is what is taken out, and the output is another."""
    model = _with_adapter()
    plain = _prediction(model)
    state = _moved(model.adapter_state())
    model.load_adapter_state(state)
    again = _with_adapter(seed=99)
    again.load_adapter_state(state)

    assert not torch.allclose(_prediction(model), plain, atol=1e-3)
    assert torch.equal(_prediction(again), _prediction(model))
    assert all(torch.equal(value, state[name]) for name, value in again.adapter_state().items())


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda state: state.pop(next(iter(state))), "1 tensors missing, 0 unexpected, 0 of another shape"),
        (lambda state: state.update(extra=torch.zeros(1)), "0 tensors missing, 1 unexpected, 0 of another shape"),
        (
            lambda state: state.update({next(iter(state)): torch.zeros(1)}),
            "0 tensors missing, 0 unexpected, 1 of another shape",
        ),
    ],
    ids=["missing", "unexpected", "shape"],
)
def test_an_adapter_that_does_not_fit_changes_nothing(
    spoil: Callable[[dict[str, torch.Tensor]], object], message: str
) -> None:
    """Refused as a whole, with counts and never with a silent part."""
    model = _with_adapter()
    before = model.adapter_state()
    state = _moved(before)
    spoil(state)

    with pytest.raises(CheckpointError, match=message):
        model.load_adapter_state(state)

    assert all(torch.equal(value, before[name]) for name, value in model.adapter_state().items())


def test_factors_depend_on_the_seed_alone() -> None:
    """Not on the global generator, which is left as it was."""
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    model = tiny.model()
    torch.manual_seed(1)
    model.attach_adapter(CONFIG, 3)
    assert torch.equal(torch.rand(3), expected)

    state, same, other = (m.adapter_state() for m in (model, _with_adapter(), _with_adapter(seed=4)))
    assert all(torch.equal(value, state[name]) for name, value in same.items())
    assert any(not torch.equal(value, state[name]) for name, value in other.items())


def test_a_second_adapter_is_refused() -> None:
    """One adapter on one base."""
    model = _with_adapter()

    with pytest.raises(ConfigError, match="already has an adapter"):
        model.attach_adapter(CONFIG, 0)


def test_a_target_that_matches_nothing_is_refused() -> None:
    """Nothing is left out silently."""
    with pytest.raises(ConfigError, match="target 'attention' matches no layer"):
        lora_config(nn.Sequential(nn.Linear(2, 2)), CONFIG)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rank": 0}, r"rank=0 must lie in \[1, 256\]"),
        ({"rank": 257}, r"rank=257 must lie in \[1, 256\]"),
        ({"alpha": 0.0}, "alpha=0.0 must be > 0"),
        ({"alpha": float("nan")}, "alpha=nan must be > 0"),
        ({"targets": ("atention",)}, r"targets=\('atention',\) must be some of attention, convolution, time, fusion"),
        ({"targets": ()}, r"targets=\(\) must be some of"),
    ],
)
def test_impossible_configurations(values: dict[str, Any], message: str) -> None:
    """The error names the value and what is possible."""
    with pytest.raises(ConfigError, match=message):
        AdapterConfig(**values)
