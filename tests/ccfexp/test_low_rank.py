"""Convolutions with a low-rank update: peft's own layer is the reference."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from peft.tuners.lora.layer import Conv2d

from ccfexp.adapter import AdapterConfig
from tests.ccfexp import tiny


@pytest.mark.parametrize("side", [8, 2])  # more positions than channels, and fewer: two ways back
def test_convolutions_compute_what_peft_computes(side: int) -> None:
    """The same output and the same gradients as peft's own layer, strides and 1 x 1 kernels included."""
    model = tiny.model()
    model.attach_adapter(AdapterConfig(rank=3, alpha=5.0), 0)
    layers: list[Any] = [layer for layer in model.modules() if isinstance(layer, Conv2d)]
    assert len(layers) > 4
    generator = torch.Generator().manual_seed(0)
    for layer in layers:
        base = layer.base_layer
        with torch.no_grad():
            layer.lora_B["default"].weight.normal_(generator=generator)
        x_BCHW = torch.randn(2, base.in_channels, side, side, generator=generator)
        outs, gradients = [], []
        for forward in (layer.forward, partial(Conv2d.forward, layer)):
            x = x_BCHW.clone().requires_grad_()
            factors = [layer.lora_A["default"].weight, layer.lora_B["default"].weight]
            out = forward(x)
            outs.append(out)
            gradients.append(torch.autograd.grad(out.square().sum(), [x, *factors]))
        torch.testing.assert_close(outs[0], outs[1], rtol=1e-4, atol=1e-4)
        for ours, theirs in zip(*gradients, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-2)
