"""Convolutions with a low-rank update: peft's own layer is the reference."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from peft.tuners.lora.layer import Conv2d
from torch import nn

from ccfexp import low_rank
from ccfexp.adapter import AdapterConfig, Factors, train_only
from tests.ccfexp import tiny

_CHOICES: tuple[Factors, ...] = ("AB", "A", "B")


@pytest.mark.parametrize("factors", _CHOICES)
@pytest.mark.parametrize("side", [8, 2])  # more positions than channels, and fewer: two ways back
def test_convolutions_compute_what_peft_computes(side: int, factors: Factors) -> None:
    """The same output and the same gradients as peft's own layer, strides and 1 x 1 kernels included."""
    layers, generator = _layers(factors), torch.Generator().manual_seed(0)
    for layer in layers:
        with torch.no_grad():
            layer.lora_B["default"].weight.normal_(generator=generator)
        x_BCHW = torch.randn(2, layer.base_layer.in_channels, side, side, generator=generator)
        outs, gradients = [], []
        for forward in (layer.forward, partial(Conv2d.forward, layer)):
            x = x_BCHW.clone().requires_grad_()
            asked = [parameter for parameter in layer.parameters() if parameter.requires_grad]
            assert len(asked) == len(factors)
            out = forward(x)
            outs.append(out)
            gradients.append(torch.autograd.grad(out.square().sum(), [x, *asked]))
        torch.testing.assert_close(outs[0], outs[1], rtol=1e-4, atol=1e-4)
        for ours, theirs in zip(*gradients, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("factors", _CHOICES)
def test_what_nobody_asks_for_is_not_computed(monkeypatch: pytest.MonkeyPatch, factors: Factors) -> None:
    """One factor's gradient costs nothing where the other alone is trained."""
    called: list[str] = []
    for name in ("_up_gradient", "conv2d_weight"):
        monkeypatch.setattr(low_rank, name, partial(_noted, called, name, getattr(low_rank, name)))
    for layer in _layers(factors):
        called.clear()
        layer(torch.randn(2, layer.base_layer.in_channels, 4, 4).requires_grad_()).sum().backward()

        pointwise = layer.base_layer.kernel_size == (1, 1)  # its A has a product for a gradient
        expected = {"conv2d_weight": "A" in factors and not pointwise, "_up_gradient": "B" in factors}
        assert set(called) == {name for name, wanted in expected.items() if wanted}


def test_what_nobody_asks_for_is_not_kept() -> None:
    """The gradient of A needs the layer's input, that of B what A makes of it."""
    for both, down, up in zip(*map(_layers, _CHOICES), strict=True):
        x_BCHW = torch.randn(2, both.base_layer.in_channels, 4, 4).requires_grad_()

        assert _kept(both, x_BCHW) - _kept(up, x_BCHW) == x_BCHW.numel()
        assert _kept(both, x_BCHW) - _kept(down, x_BCHW) == 3 * both(x_BCHW)[:, 0].numel()  # rank x positions


def _kept(layer: nn.Module, x_BCHW: torch.Tensor) -> int:
    """How many numbers a layer keeps for the way back."""
    sizes: list[int] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        layer(x_BCHW)
    return sum(sizes)


def _noted(called: list[str], name: str, own: Callable[..., torch.Tensor], *arguments: object) -> torch.Tensor:
    called.append(name)
    return own(*arguments)


def _layers(factors: Factors) -> list[Any]:
    """The adapted convolutions of the tiny model."""
    model = tiny.model()
    model.attach_adapter(AdapterConfig(rank=3, alpha=5.0), 0)
    train_only(model, factors)
    layers: list[Any] = [layer for layer in model.modules() if isinstance(layer, Conv2d)]
    assert len(layers) > 4
    return layers
