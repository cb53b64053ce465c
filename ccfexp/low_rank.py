"""A convolution with a low-rank update, computed with less than peft's own layer needs.

Peft computes W * x and (alpha / r) B (A * x) one beside the other, on the way back too. A convolution of a few channels
is slow on a CPU, and the update, its scaled copy and the sum are written one after the other. Where one factor alone is
trained, what only the other's gradient needs is neither kept nor computed. In work that tells units apart
(`ccfexp.privacy.per_unit`) the factors' gradients go to stand-ins, unit by unit, and the rest is the same.
"""

from typing import Any, NamedTuple

import torch
from peft.tuners.lora.layer import Conv2d as ConvolutionFactors
from torch import Tensor
from torch.nn import functional
from torch.nn.grad import conv2d_input, conv2d_weight

from ccfexp.frozen import is_pointwise
from ccfexp.privacy.per_unit import (
    active_units,
    convolution_gradient,
    in_one_type,
    into_units,
    product_gradient,
)

_DOWN, _UP, _DOWN_UNITS, _UP_UNITS = 3, 4, 5, 6  # places of A, B and their stand-ins among the inputs


class _Stand(NamedTuple):
    """What unit-wise gradients need: stand-ins [U,R,I,k,k] and [U,C,R], the unit of each row, and alpha / r.

    All None outside of such work, where the factors themselves ask for gradients.
    """

    down_U: Tensor | None = None
    up_UCR: Tensor | None = None
    unit_B: Tensor | None = None
    scale: float = 1.0


def convolve(layer: ConvolutionFactors, x_BCHW: Tensor, adapter: str = "default") -> Tensor:
    """W * x + b + (alpha / r) B (A * x), what peft's layer computes with one active adapter and no dropout.

    Args:
        layer: peft's layer; its base is frozen.
        x_BCHW: input.
        adapter: name of the factors.
    """
    base: Any = layer.base_layer
    factors: Any = (layer.lora_A[adapter], layer.lora_B[adapter])
    down, up, scale = factors[0].weight, factors[1].weight, layer.scaling[adapter]
    stand = _Stand()
    units = active_units()
    if units is not None:
        units.check_rows(len(x_BCHW))
        up_U = units.of(up)
        stand = _Stand(units.of(down), None if up_U is None else up_U.flatten(2), units.unit_B, scale)
        down, up = down.detach(), up.detach()  # a gradient that is not told apart has nowhere to go
    x_BCHW, weight, bias, a, b_CR = in_one_type(x_BCHW, base.weight, base.bias, down, scale * up.flatten(1))
    if is_pointwise(base):
        unit = stand._replace(down_U=None if stand.down_U is None else stand.down_U.flatten(2))
        row_NC: Tensor = _LowRankProduct.apply(_rows(x_BCHW), weight.flatten(1), bias, a.flatten(1), b_CR, *unit)  # type: ignore[no-untyped-call]
        return _of_rows(row_NC, x_BCHW)
    geometry = base.stride, base.padding
    out_BCHW: Tensor = _LowRankConvolution.apply(x_BCHW, weight, bias, a, b_CR, *stand, *geometry)  # type: ignore[no-untyped-call]
    return out_BCHW


class _LowRankProduct(torch.autograd.Function):
    """x W^T + b + (x A^T) B^T of rows x; the way back to x is one product with W + B A."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 (torch's own)
        x_NI: Tensor,
        weight_CI: Tensor,
        bias_C: Tensor | None,
        down_RI: Tensor,
        up_CR: Tensor,
        *stand: Any,  # noqa: ANN401
    ) -> Tensor:
        inner_NR = x_NI @ down_RI.T
        ctx.stand = _Stand(*stand)
        ctx.save_for_backward(*_needed(ctx, x_NI, inner_NR), weight_CI, down_RI, up_CR)
        return functional.linear(x_NI, weight_CI, bias_C).addmm_(inner_NR, up_CR.T)

    @staticmethod
    def backward(ctx: Any, *gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        x_NI, inner_NR, weight_CI, down_RI, up_CR = ctx.saved_tensors
        (gradient_NC,) = gradient
        x_gradient_NI = down_gradient_RI = up_gradient_CR = None
        if ctx.needs_input_grad[_DOWN]:
            down_gradient_RI = (gradient_NC @ up_CR).T @ x_NI
        if ctx.needs_input_grad[0]:
            x_gradient_NI = gradient_NC @ torch.addmm(weight_CI, up_CR, down_RI)
        if ctx.needs_input_grad[_UP]:
            up_gradient_CR = _up_gradient(gradient_NC, inner_NR)
        down_U = None
        if ctx.needs_input_grad[_DOWN_UNITS]:
            down_U = _product_units(gradient_NC @ up_CR, x_NI, ctx.stand.unit_B, len(ctx.stand.down_U))
        up_U = _up_units(ctx, gradient_NC, inner_NR)
        return x_gradient_NI, None, None, down_gradient_RI, up_gradient_CR, down_U, up_U, None, None


class _LowRankConvolution(torch.autograd.Function):
    """The way back through both branches is one convolution with W + B A where that costs less than two."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        x_BCHW: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        down: Tensor,
        up_CR: Tensor,
        *more: Any,  # noqa: ANN401
    ) -> Tensor:
        *stand, stride, padding = more
        ctx.stand = _Stand(*stand)
        out_BCHW = functional.conv2d(x_BCHW, weight, bias, stride, padding)
        inner_BRHW = functional.conv2d(x_BCHW, down, None, stride, padding)
        ctx.save_for_backward(*_needed(ctx, x_BCHW, inner_BRHW), weight, down, up_CR)
        ctx.size, ctx.geometry = x_BCHW.shape, (stride, padding)
        return _of_rows(_rows(out_BCHW).addmm_(_rows(inner_BRHW), up_CR.T), out_BCHW)

    @staticmethod
    def backward(ctx: Any, *gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        x_BCHW, inner_BRHW, weight, down, up_CR = ctx.saved_tensors
        (gradient_BCHW,) = gradient
        gradient_NC = _rows(gradient_BCHW)
        joins = len(gradient_NC) > len(weight)  # more positions than channels: joining the weights is the lesser work
        x_gradient_BCHW = down_gradient = up_gradient_CR = inner_gradient_BRHW = None
        down_asked = ctx.needs_input_grad[_DOWN] or ctx.needs_input_grad[_DOWN_UNITS]
        if down_asked or (ctx.needs_input_grad[0] and not joins):
            inner_gradient_BRHW = _of_rows(gradient_NC @ up_CR, gradient_BCHW)
        if ctx.needs_input_grad[_DOWN]:
            down_gradient = conv2d_weight(x_BCHW, down.shape, inner_gradient_BRHW, *ctx.geometry)
        if ctx.needs_input_grad[0]:
            if joins:
                x_gradient_BCHW = conv2d_input(ctx.size, _joined(weight, down, up_CR), gradient_BCHW, *ctx.geometry)
            else:
                x_gradient_BCHW = conv2d_input(ctx.size, weight, gradient_BCHW, *ctx.geometry)
                x_gradient_BCHW += conv2d_input(ctx.size, down, inner_gradient_BRHW, *ctx.geometry)
        if ctx.needs_input_grad[_UP]:
            up_gradient_CR = _up_gradient(gradient_NC, _rows(inner_BRHW))
        down_U = None
        if inner_gradient_BRHW is not None and ctx.needs_input_grad[_DOWN_UNITS]:
            rows = convolution_gradient(inner_gradient_BRHW, x_BCHW, down.shape[2:], *ctx.geometry)
            down_U = into_units(rows, ctx.stand.unit_B, len(ctx.stand.down_U))
        up_U = _up_units(ctx, gradient_NC, inner_BRHW)
        return x_gradient_BCHW, None, None, down_gradient, up_gradient_CR, down_U, up_U, None, None, None, None


def _needed(ctx: Any, x: Tensor, inner: Tensor) -> tuple[Tensor | None, Tensor | None]:  # noqa: ANN401
    """The input if A asks for a gradient, A * x if B does, for themselves or for their stand-ins."""
    asked = ctx.needs_input_grad
    return (x if asked[_DOWN] or asked[_DOWN_UNITS] else None), (inner if asked[_UP] or asked[_UP_UNITS] else None)


def _up_units(ctx: Any, gradient_NC: Tensor, inner: Tensor) -> Tensor | None:  # noqa: ANN401
    """Gradient of B's stand-in [U,C,R], if it asks for one; what A makes of the input is [N,R] or an image."""
    if not ctx.needs_input_grad[_UP_UNITS]:
        return None
    inner_NR = inner if inner.ndim == 2 else _rows(inner)
    unit = _product_units(gradient_NC, inner_NR, ctx.stand.unit_B, len(ctx.stand.up_UCR))
    return unit.mul_(ctx.stand.scale)  # of B itself, not of alpha / r B


def _product_units(gradient_NO: Tensor, x_NI: Tensor, unit_B: Tensor, units: int) -> Tensor:
    """Gradient [U,O,I] of the weight of a product of rows of positions, summed by unit."""
    gradient_BPO, x_BPI = (part.view(len(unit_B), -1, part.shape[1]) for part in (gradient_NO, x_NI))
    return into_units(product_gradient(gradient_BPO, x_BPI), unit_B, units)


def _up_gradient(gradient_NC: Tensor, inner_NR: Tensor) -> Tensor:
    """Gradient of B [C,R]: the few rows on the left, five times as fast as the other way round."""
    return (inner_NR.T @ gradient_NC).T


def _joined(weight: Tensor, down: Tensor, up_CR: Tensor) -> Tensor:
    """W + B A [C,I,k,k], channels last as W is in memory, so that nothing is put in another order first."""
    channels, inputs, high, wide = weight.shape
    row_CK, down_RK = (part.permute(0, 2, 3, 1).flatten(1) for part in (weight, down))
    return torch.addmm(row_CK, up_CR, down_RK).view(channels, high, wide, inputs).permute(0, 3, 1, 2)


def _rows(image_BCHW: Tensor) -> Tensor:
    """Positions as rows [B*H*W, C]; a view where channels come last in memory, as they do in this model."""
    return image_BCHW.permute(0, 2, 3, 1).flatten(0, 2)


def _of_rows(row_NC: Tensor, like_BCHW: Tensor) -> Tensor:
    """Rows of positions as an image [B,C,H,W] of the same height and width as ``like_BCHW``."""
    batch, _, height, width = like_BCHW.shape
    return row_NC.view(batch, height, width, -1).permute(0, 3, 1, 2)
