"""Layers that tell units apart: every kind by itself, and what is refused because it cannot."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from ccfexp import adapter
from ccfexp.adapter import AdapterConfig
from ccfexp.errors import ConfigError
from ccfexp.privacy.per_unit import (
    UnitConv2d,
    UnitLinear,
    Units,
    check_layers,
    convolution_gradient,
    into_units,
    trained_weights,
)
from tests.ccfexp.privacy.patients import adapted, as_peft, trained

UNIT_B = torch.tensor([2, 0, 2, 1, 0])
LAYERS = {
    "3 x 3": (nn.Conv2d(6, 4, 3, padding=1), (6, 8, 8)),
    "3 x 3 with fewer positions than channels": (nn.Conv2d(6, 16, 3, padding=1), (6, 2, 2)),
    "3 x 3 from fewer channels than the rank": (nn.Conv2d(2, 4, 3, padding=1), (2, 6, 6)),
    "stride 2": (nn.Conv2d(6, 4, 3, stride=2, padding=1), (6, 7, 7)),
    "1 x 1": (nn.Conv2d(6, 4, 1), (6, 5, 4)),
    "1 x 1 with stride 2": (nn.Conv2d(6, 4, 1, stride=2), (6, 6, 6)),
    "without bias or padding": (nn.Conv2d(6, 4, (3, 2), bias=False), (6, 5, 5)),
    "vector": (nn.Linear(6, 4), (6,)),
    "tokens": (nn.Linear(6, 4, bias=False), (3, 6)),
}


def adapted_layer(layer: nn.Module) -> nn.Module:
    """One layer with an adapter of rank 3 that says something, in double precision."""
    place = "conv1" if isinstance(layer, nn.Conv2d) else "to_q"
    block = nn.ModuleDict({"down_blocks": nn.ModuleDict({"first": nn.ModuleDict({place: copy.deepcopy(layer)})})})
    model = nn.ModuleDict({"unet": block}).double()
    target = "convolution" if place == "conv1" else "attention"
    adapter.attach(model, AdapterConfig(rank=3, alpha=5.0, targets=(target,)), 0)
    for parameter in trained(model).values():
        nn.init.normal_(parameter, generator=torch.Generator().manual_seed(parameter.numel()))
    return model


def layer_of(model: nn.Module) -> nn.Module:
    """The one of `adapted_layer`."""
    found: nn.Module = next(module for name, module in model.named_modules() if name.endswith((".conv1", ".to_q")))
    return found


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("kind", LAYERS)
def test_every_kind_of_layer_tells_units_apart(kind: str, channels_last: bool) -> None:
    """Of a layer used twice, as in two passes, and of the input too: what peft's layer gives row by row."""
    layer, shape = LAYERS[kind]
    model = adapted_layer(layer)
    x = torch.randn(5, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    if channels_last and x.ndim == 4:
        x = x.contiguous(memory_format=torch.channels_last)

    def loss(module: nn.Module, of: Tensor) -> Tensor:
        value: Tensor = module(of).square().sum() + module(of.sin()).cos().sum()
        return value

    ours, units = layer_of(model), Units(list(trained(model).values()), UNIT_B, 3)
    seen = x.clone().requires_grad_()
    with units.active():
        value = loss(ours, seen)
        (x_gradient,) = torch.autograd.grad(value, seen, retain_graph=True)
        found = units.gradients(value)

    peft = layer_of(as_peft(copy.deepcopy(model)))
    expected = [torch.zeros_like(part) for part in found]
    for row, unit in enumerate(UNIT_B.tolist()):
        alone = x[row : row + 1].clone().requires_grad_()
        own = torch.autograd.grad(loss(peft, alone), [alone, *trained(peft).values()])
        torch.testing.assert_close(x_gradient[row], own[0][0], rtol=1e-9, atol=1e-9)
        for total, part in zip(expected, own[1:], strict=True):
            total[unit] += part
    for one, other in zip(found, expected, strict=True):
        assert other.any()
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@st.composite
def _convolutions(draw: st.DrawFn) -> tuple[tuple[int, ...], ...]:
    """Sizes of a convolution whose output has a position at least."""
    kernel = draw(st.tuples(*[st.integers(1, 4)] * 2))
    padding = tuple(draw(st.integers(0, size - 1)) for size in kernel)
    image = tuple(
        draw(st.integers(size - 2 * pad if size > 2 * pad else 1, 7)) for size, pad in zip(kernel, padding, strict=True)
    )
    channels = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    stride = draw(st.sampled_from([(1, 1), (2, 2), (1, 2), (3, 1)]))
    return kernel, padding, image, channels, stride


@settings(deadline=None)
@given(_convolutions())
def test_the_gradient_of_any_convolution(sizes: tuple[tuple[int, ...], ...]) -> None:
    """Of each row, whichever of the two images is unfolded."""
    kernel, padding, image, (inputs, outputs), stride = sizes
    generator = torch.Generator().manual_seed(0)
    x, weight = (
        torch.randn(shape, dtype=torch.float64, generator=generator)
        for shape in ((3, inputs, *image), (outputs, inputs, *kernel))
    )
    weight.requires_grad_()
    gradient = torch.randn_like(functional.conv2d(x, weight, None, stride, padding))

    found = convolution_gradient(gradient, x, kernel, stride, padding)  # type: ignore[arg-type]

    for row in range(3):
        out = functional.conv2d(x[row : row + 1], weight, None, stride, padding)
        (expected,) = torch.autograd.grad(out, weight, gradient[row : row + 1])
        torch.testing.assert_close(found[row], expected, rtol=1e-9, atol=1e-9)


def test_rows_are_summed_by_unit_in_single_precision_at_least() -> None:
    """A unit without rows has zeros; 256 + 1 is not 256, as it is in the type that the rows come in."""
    rows = torch.tensor([[256.0], [3.0], [1.0]], dtype=torch.bfloat16)

    found = into_units(rows, torch.tensor([0, 2, 0]), 4)

    assert found.dtype == torch.float32
    assert found.flatten().tolist() == [257.0, 0.0, 3.0, 0.0]
    assert into_units(rows.double(), torch.tensor([0, 2, 0]), 4).dtype == torch.float64


def test_the_weight_itself_gets_no_gradient() -> None:
    """A step that forgets to clip has nothing to take."""
    for layer, shape in LAYERS.values():
        model = adapted_layer(layer)
        with Units(list(trained(model).values()), UNIT_B, 3).active():
            layer_of(model)(torch.randn(5, *shape).double()).sum().backward()

        assert all(weight.grad is None for weight in trained(model).values())


def test_nothing_is_told_apart_outside_of_such_work() -> None:
    """Nor where nothing asks for gradients: the ordinary layer computes, and its weights get the ordinary gradient."""
    for layer, shape in LAYERS.values():
        model = adapted_layer(layer)
        x = torch.randn(4, *shape).double()
        with Units(list(trained(model).values()), UNIT_B, 3).active(), torch.no_grad():
            layer_of(model)(x)  # of four rows, where five are named
        layer_of(model)(x).sum().backward()

        assert all(weight.grad is not None for weight in trained(model).values())


@pytest.mark.parametrize("kind", LAYERS)
def test_a_layer_that_sees_other_rows_is_refused(kind: str) -> None:
    """One that repeats rows, or joins them."""
    layer, shape = LAYERS[kind]
    model = adapted_layer(layer)
    x = torch.randn(5, *shape).double()

    with Units(list(trained(model).values()), UNIT_B, 3).active():
        for other in (torch.cat([x, x]), x[:4]):
            with pytest.raises(
                ConfigError, match=rf"rows={len(other)} at a trained layer must be those of the batch, 5"
            ):
                layer_of(model)(other)


def test_a_convolution_outside_of_an_adapted_layer_is_refused() -> None:
    """It would compute, and its gradient would be nobody's."""
    factor = UnitConv2d(2, 2, 1, bias=False)

    with (
        Units(list(factor.parameters()), UNIT_B, 3).active(),
        pytest.raises(ConfigError, match="cannot tell units apart"),
    ):
        factor(torch.randn(5, 2, 3, 3))


def test_a_model_without_an_adapter_is_refused() -> None:
    model = adapted()
    model.requires_grad_(False)

    with pytest.raises(ConfigError, match="trained weights=0 must be at least 1; attach an adapter first"):
        check_layers(model)


@pytest.mark.parametrize("name", ["unet.conv_in.weight", "unet.conv_norm_out.bias"])
def test_a_trained_weight_outside_of_the_adapter_is_refused(name: str) -> None:
    """Its gradient would mix patients; the error names the kind of layer."""
    model = adapted()
    check_layers(model)
    dict(model.named_parameters())[name].requires_grad_()

    kind = "Conv2d" if "weight" in name else "GroupNorm"
    with pytest.raises(ConfigError, match=f"trained layer={kind} cannot tell units apart"):
        check_layers(model)


def test_a_trained_bias_is_refused() -> None:
    """Also of a layer that the adapter uses: its stand-in would collect nothing."""
    layer: Any = UnitLinear(3, 3, bias=True)

    with pytest.raises(ConfigError, match="cannot tell units apart"):
        check_layers(layer)


def test_statistics_over_a_batch_are_refused() -> None:
    """At the start of a round and at any step: what is in evaluation mode now may be in another later."""
    model: Any = adapted()
    model.statistics = nn.BatchNorm2d(3).requires_grad_(False).eval()
    check_layers(model)
    model.train()

    for check in (check_layers, trained_weights):
        with pytest.raises(ConfigError, match="mixes patients; put the model in eval mode"):
            check(model)
