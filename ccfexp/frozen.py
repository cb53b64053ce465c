"""Networks that never change, made light: the same function to rounding, with less time and memory on the way back.

What a layer keeps for its gradient is chosen for layers that are trained. A frozen one needs less: a convolution only
its weights, a rectifier where its input was positive, a subsampling nothing; and a normalisation with fixed statistics
is part of the convolution beside it.
"""

import itertools
from typing import Any, Final, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.grad import conv2d_input
from torch.nn.utils.fusion import fuse_conv_bn_eval

M = TypeVar("M", bound=nn.Module)
_Geometry = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], int]  # stride, padding, dilation, groups


def freeze(module: M) -> M:
    """Evaluation mode, no gradients for the parameters; gradients still flow to the input."""
    module.requires_grad_(False)
    module.eval()
    return module


def freeze_encoder(network: M, image_size: int) -> M:
    """An encoder for good: frozen, normalisations within convolutions, in the CPU's faster memory order.

    The function stays the same to rounding. The weights no longer carry the names of the file that they came from, and
    the network can no longer be trained.

    Args:
        network: takes RGB images [B,3,H,W].
        image_size: H = W of the images that it will be given.
    """
    freeze(network)
    for module in list(network.modules()):
        if isinstance(module, nn.Sequential):
            _fold_batch_norms(module)
    for module in list(network.modules()):
        for name, layer in list(module.named_children()):
            setattr(module, name, _lighter(layer))
    untyped: Any = network  # torch declares this argument for tensors alone
    untyped.to(memory_format=torch.channels_last)
    weight = next(value for value in network.state_dict().values() if value.is_floating_point())
    with torch.no_grad():
        network(weight.new_zeros(1, 3, image_size, image_size))  # every convolution learns the size of its input
    return freeze(network)


class FrozenConvolution(nn.Module):
    """A convolution whose weights never change, with a batch normalisation before it where there is one.

    The first input fixes the size of all: see ``freeze_encoder``.

    Args:
        layer: the convolution, zero-padded.
        norm: the normalisation of its input, with fixed statistics.
    """

    weight: Tensor
    bias: Tensor | None
    offset_1CHW: Tensor | None

    def __init__(self, layer: nn.Conv2d, norm: nn.BatchNorm2d | None = None) -> None:
        super().__init__()
        padding = tuple(int(size) for size in layer.padding)
        self.geometry: Final = (layer.stride, padding, layer.dilation, layer.groups)
        weight = layer.weight.detach()
        self.pointwise: Final = is_pointwise(layer) and norm is None
        self._pending: tuple[Tensor, Tensor] | None = None
        if norm is not None:
            scale_C, shift_C = _affine(norm)
            self._pending = (weight, shift_C)
            weight = weight * scale_C[:, None, None]
        self.register_buffer("weight", weight)
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach())
        self.register_buffer("offset_1CHW", None)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """What the normalisation and the convolution give."""
        if self._pending is not None:
            self.offset_1CHW, self._pending = self._offset(x_BCHW, *self._pending), None
        if self.pointwise:
            return pointwise(x_BCHW, self.weight, self.bias)
        out_BCHW: Tensor = _Convolution.apply(x_BCHW, self.weight, self.bias, self.geometry)  # type: ignore[no-untyped-call]
        return out_BCHW if self.offset_1CHW is None else out_BCHW + self.offset_1CHW

    def _offset(self, x_BCHW: Tensor, weight: Tensor, shift_C: Tensor) -> Tensor:
        """What the normalisation's shift adds: less at the edges, for the padding is zero and not shifted."""
        shift_1CHW = shift_C[None, :, None, None].expand(1, *x_BCHW.shape[1:])
        return functional.conv2d(shift_1CHW, weight, None, *self.geometry)


def is_pointwise(layer: nn.Conv2d) -> bool:
    """A 1 x 1 convolution that moves nothing."""
    return layer.kernel_size == layer.stride == (1, 1) and layer.groups == 1 and layer.padding == (0, 0)


def pointwise(x_BCHW: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A 1 x 1 convolution as a matrix product, which is what it is where channels come last in memory."""
    return functional.linear(x_BCHW.permute(0, 2, 3, 1), weight.flatten(1), bias).permute(0, 3, 1, 2)


class _Convolution(torch.autograd.Function):
    """Convolution that keeps its weights alone: the gradient of the input does not depend on the input."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x_BCHW: Tensor, weight: Tensor, bias: Tensor | None, geometry: _Geometry) -> Tensor:
        return functional.conv2d(x_BCHW, weight, bias, *geometry)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ANN401, ARG004
        x_BCHW, weight, _, geometry = inputs
        ctx.save_for_backward(weight)
        ctx.size, ctx.geometry = x_BCHW.shape, geometry

    @staticmethod
    def backward(ctx: Any, *gradient: Tensor) -> tuple[Tensor, None, None, None]:  # noqa: ANN401
        (weight,) = ctx.saved_tensors
        return conv2d_input(ctx.size, weight, gradient[0], *ctx.geometry), None, None, None


class _Rectifier(nn.Module):
    """PReLU with fixed slopes."""

    slope_C11: Tensor

    def __init__(self, layer: nn.PReLU) -> None:
        super().__init__()
        self.register_buffer("slope_C11", layer.weight.detach()[:, None, None])

    def forward(self, x_BCHW: Tensor) -> Tensor:
        out_BCHW: Tensor = _Rectify.apply(x_BCHW, self.slope_C11)  # type: ignore[no-untyped-call]
        return out_BCHW


class _Rectify(torch.autograd.Function):
    """PReLU that keeps one bit of its input (a byte, as torch stores it): where it was positive."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x_BCHW: Tensor, slope_C11: Tensor) -> Tensor:
        return functional.prelu(x_BCHW, slope_C11.flatten())

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ANN401, ARG004
        x_BCHW, slope_C11 = inputs
        ctx.save_for_backward(x_BCHW > 0, slope_C11)

    @staticmethod
    def backward(ctx: Any, *gradient: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        positive_BCHW, slope_C11 = ctx.saved_tensors
        return torch.where(positive_BCHW, gradient[0], gradient[0] * slope_C11), None


class _Scaling(nn.Module):
    """A normalisation with fixed statistics and no convolution beside it: a factor and a term for each channel.

    Torch's own computes a wrong gradient where the gradient that it is given is one image with its channels last in
    memory.
    """

    scale_C11: Tensor
    shift_C11: Tensor

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        scale_C, shift_C = _affine(norm)
        self.register_buffer("scale_C11", scale_C[:, None, None])
        self.register_buffer("shift_C11", shift_C[:, None, None])

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return torch.addcmul(self.shift_C11, x_BCHW, self.scale_C11)


class _Subsampling(nn.Module):
    """Every so many rows and columns: a maximum over one pixel, without its copy and its indices."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return x_BCHW[..., :: self.stride, :: self.stride]


def _fold_batch_norms(chain: nn.Sequential) -> None:
    """Join every batch normalisation of a chain with the convolution before it, or else with the one after it."""
    for (name, layer), (norm_name, norm) in itertools.pairwise(list(chain.named_children())):
        if isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            setattr(chain, name, fuse_conv_bn_eval(layer, norm))
            setattr(chain, norm_name, nn.Identity())
    for (norm_name, norm), (name, layer) in itertools.pairwise(list(chain.named_children())):
        if isinstance(norm, nn.BatchNorm2d) and isinstance(layer, nn.Conv2d) and layer.groups == 1:
            setattr(chain, name, FrozenConvolution(layer, norm))
            setattr(chain, norm_name, nn.Identity())


def _lighter(layer: nn.Module) -> nn.Module:
    if isinstance(layer, nn.Conv2d) and layer.padding_mode == "zeros" and not isinstance(layer.padding, str):
        return FrozenConvolution(layer)
    if isinstance(layer, nn.PReLU):
        return _Rectifier(layer)
    if isinstance(layer, nn.BatchNorm2d):
        return _Scaling(layer)
    if isinstance(layer, nn.MaxPool2d) and layer.kernel_size == 1 and isinstance(layer.stride, int):
        return _Subsampling(layer.stride)
    return layer


def _affine(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Scale and shift [C] of a normalisation with fixed statistics."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale_C = (norm.running_var + norm.eps).rsqrt()
    if norm.affine:
        scale_C = scale_C * norm.weight.detach()
    shift_C = -norm.running_mean * scale_C
    return scale_C, shift_C + norm.bias.detach() if norm.affine else shift_C
