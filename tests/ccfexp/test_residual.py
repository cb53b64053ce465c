"""The base residual: the ideal dense sum, a function of the state alone, and refused whole where it does not fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from ccfexp import adapter
from ccfexp.adapter import AdapterConfig
from ccfexp.errors import CheckpointError
from ccfexp.model import CCFExp
from ccfexp.residual import split, stack, unstack
from tests.ccfexp import tiny
from tests.ccfexp.residuals import dense, layers_of, moved, with_residual

CONFIG = AdapterConfig(rank=2, alpha=3.0)
SCALE = 1.5
T_B = torch.tensor([100, 600, 900])
State = dict[str, torch.Tensor]


def _fresh() -> CCFExp:
    model = tiny.model()
    network: Any = model.unet
    network.to(memory_format=torch.channels_last)  # as a base from a file
    model.attach_adapter(CONFIG, 3)
    return model


@pytest.fixture(scope="module")
def factors() -> State:
    """Factors of the tiny model, moved."""
    return moved(_fresh().adapter_state())


@pytest.fixture(scope="module")
def state(factors: State) -> State:
    """The same with residuals."""
    return with_residual(factors)


def _prediction(model: CCFExp) -> torch.Tensor:
    batch = tiny.batch(model)
    prediction: torch.Tensor = model(tiny.noise(), T_B, model.condition(batch.identity, batch.expression))
    return prediction


def _weights(model: CCFExp) -> State:
    """Everything in the network, bit for bit."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def _equal(first: State, second: State) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_the_model_is_the_ideal_dense_sum(state: State) -> None:
    """W0 + U D + s B A in every layer of a model without any adapter."""
    model, plain = _fresh(), tiny.model()
    model.load_adapter_state(state)
    modules: dict[str, Any] = dict(plain.named_modules())
    with torch.no_grad():
        before = _prediction(plain)
        for layer in layers_of(state):
            weight = modules[layer].weight
            weight += dense(state, layer, SCALE).view(weight.shape)
        expected = _prediction(plain)

        torch.testing.assert_close(_prediction(model), expected, rtol=1e-4, atol=1e-4)
    assert (expected - before).abs().max() > 0.1
    assert len(split(state)[1]) == len(layers_of(state)) // 2 + len(layers_of(state)) % 2


class _Strided(nn.Module):
    """Layers by the names that the adapter looks for: strides, kernels and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        block = nn.Module()
        block.conv1 = nn.Conv2d(6, 8, 3, stride=2, padding=1)
        block.conv2 = nn.Conv2d(8, 4, (5, 3), stride=(1, 2), padding=(2, 0), bias=False)
        block.conv_shortcut = nn.Conv2d(4, 4, 1, stride=2)
        block.time_emb_proj = nn.Linear(4, 7)
        self.unet = nn.ModuleDict({"down_blocks": nn.ModuleList([block])})

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        block: Any = self.get_submodule("unet.down_blocks.0")
        image_BCHW: torch.Tensor = block.conv_shortcut(block.conv2(block.conv1(x_BCHW)))
        row_BO: torch.Tensor = block.time_emb_proj(image_BCHW.mean((2, 3)))
        return row_BO


def test_every_kind_of_layer() -> None:
    """Strided and oblong convolutions and a linear layer, on the way back too: the gradient is that of W0 + U D."""
    torch.manual_seed(0)
    model = _Strided()
    torch.manual_seed(0)
    changed = _Strided()
    config = AdapterConfig(rank=2, alpha=3.0, targets=("convolution", "time"))
    adapter.attach(model, config, 1)
    factors = moved(adapter.adapter_state(model))
    state = with_residual(factors, every=1)
    adapter.load_adapter_state(model, state, {})
    bases: dict[str, Any] = dict(changed.named_modules())
    with torch.no_grad():
        for layer in layers_of(state):
            residual = dense(state, layer, SCALE) - dense(factors, layer, SCALE)
            bases[layer].weight += residual.view(bases[layer].weight.shape)
    adapter.attach(changed, config, 1)
    adapter.load_adapter_state(changed, factors, {})

    x_BCHW = torch.randn(2, 6, 11, 9, generator=torch.Generator().manual_seed(1))
    outs, gradients = [], []
    for network in (model, changed):
        x = x_BCHW.clone().requires_grad_()
        outs.append(network(x))
        asked = [x, *(p for p in network.parameters() if p.requires_grad)]
        gradients.append(torch.autograd.grad(outs[-1].square().sum(), asked))

    torch.testing.assert_close(*outs, rtol=1e-4, atol=1e-5)
    assert len(gradients[0]) == 9
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_a_state_without_residual_restores_the_base_bit_for_bit(factors: State, state: State) -> None:
    """Also its order in memory; copies are kept for layers that have a residual, and for no others."""
    model, plain = _fresh(), _fresh()
    plain.load_adapter_state(factors)
    before = _weights(plain)

    model.load_adapter_state(state)
    assert model._pristine.keys() == split(state)[1].keys()
    assert not _equal(_weights(model), before)
    model.load_adapter_state(factors)

    assert not model._pristine
    assert _equal(_weights(model), before)
    strides = [[value.stride() for value in each.state_dict().values()] for each in (model, plain)]
    assert strides[0] == strides[1]
    assert model.base_sha256 == plain.base_sha256


def test_a_site_that_was_absent_has_the_same_model(factors: State, state: State) -> None:
    """What was loaded before does not matter: other residuals, on other layers, or none."""
    always, absent = _fresh(), _fresh()
    others = [with_residual(factors, seed=1, every=3), factors, with_residual(factors, seed=2, every=1)]
    for each in [*others, state]:
        always.load_adapter_state(each)
    absent.load_adapter_state(state)

    assert _equal(_weights(always), _weights(absent))
    assert always._pristine.keys() == absent._pristine.keys()


def test_the_residual_is_neither_trained_nor_sent(factors: State, state: State) -> None:
    """What leaves a site are factors; the base asks for no gradient."""
    model = _fresh()
    model.load_adapter_state(state)

    assert _equal(model.adapter_state(), factors)
    assert all("lora_" in name for name, parameter in model.named_parameters() if parameter.requires_grad)


def _rename(state: State, old: str, new: str) -> None:
    for factor in "AB":
        state[f"{new}.lora_{factor}.residual.weight"] = state.pop(f"{old}.lora_{factor}.residual.weight")


_LAYER = "unet.mid_block.resnets.0.conv1"
_DOWN, _UP = f"{_LAYER}.lora_A.residual.weight", f"{_LAYER}.lora_B.residual.weight"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda state: state.pop(_UP), "1 halves of a pair, 0 of layers without factors, 0 of another shape; use"),
        (lambda state: state.pop(_DOWN), "1 halves of a pair, 0 of layers without factors, 0 of another shape"),
        (lambda state: _rename(state, _LAYER, "unet.conv_in"), "0 halves of a pair, 1 of layers without factors, 0 of"),
        (lambda state: _rename(state, _LAYER, "nobody"), "0 halves of a pair, 1 of layers without factors, 0 of"),
        (lambda state: state.update({_UP: state[_UP][:, :-1]}), "0 of layers without factors, 1 of another shape"),
        (lambda state: state.update({_DOWN: state[_DOWN].flatten(1)}), "1 of another shape"),
        (lambda state: state.update({_UP: state[_UP][:-1]}), "1 of another shape"),
        (lambda state: state.update({_DOWN: torch.zeros(())}), "1 of another shape"),
        (
            lambda state: state.update({f"{_LAYER}.lora_A.weight": torch.zeros(3, 64, 3, 3)}),
            "0 tensors missing, 0 unexpected, 1 of another shape",
        ),
        (lambda state: state.update({"a.residual.weight": torch.zeros(1)}), "0 tensors missing, 1 unexpected"),
    ],
    ids=["no up", "no down", "not adapted", "unknown", "ranks", "flat", "height", "number", "factors", "stray"],
)
def test_a_residual_that_does_not_fit_changes_nothing(
    factors: State, state: State, spoil: Callable[[State], object], message: str
) -> None:
    """Refused as a whole, whatever else of the state fits."""
    model = _fresh()
    model.load_adapter_state(state)
    before, kept = _weights(model), model._pristine.keys() | set()
    spoilt = with_residual(moved(factors, seed=6), seed=10, every=1)
    spoilt[_DOWN], spoilt[_UP] = torch.ones(5, 64, 3, 3), torch.ones(64, 5, 1, 1)
    spoil(spoilt)

    with pytest.raises(CheckpointError, match=message):
        model.load_adapter_state(spoilt)

    assert _equal(_weights(model), before)
    assert model._pristine.keys() == kept


def test_stacked_factors_are_the_same_sum_and_come_apart_again(factors: State, state: State) -> None:
    """One pair at scale 1 where there is a residual; a layer without one is left as it is."""
    stacked, ranks = stack(state, SCALE)

    assert ranks == {layer: 2 + len(pair.down) for layer, pair in split(state)[1].items()}
    assert stacked.keys() == factors.keys()
    for layer in layers_of(state):
        scale = 1.0 if layer in ranks else SCALE
        torch.testing.assert_close(dense(stacked, layer, scale), dense(state, layer, SCALE), rtol=1e-5, atol=1e-6)
    again = unstack(stacked, ranks, 2, SCALE)
    assert again.keys() == state.keys()
    for name, value in again.items():
        torch.testing.assert_close(value, state[name], rtol=1e-6, atol=0)
        assert value.is_contiguous()
