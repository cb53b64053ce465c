"""Networks made light: the same function and the same gradient, with less kept for the way back."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from ccfexp.encoders import EncoderConfig, PhantomEncoder
from ccfexp.frozen import _lighter, freeze, freeze_encoder
from ccfexp.published.ir50 import IR50Encoder
from ccfexp.published.mobilefacenet import MobileFaceNet

if TYPE_CHECKING:
    from collections.abc import Callable

NETWORKS: dict[str, tuple[Callable[[], Any], int]] = {
    "phantom": (lambda: PhantomEncoder(EncoderConfig()), 64),
    "IR-50": (IR50Encoder, 112),  # normalises before its convolutions too, whose padding is zero afterwards
    "MobileFaceNet": (MobileFaceNet, 112),
}


def with_statistics(network: Any) -> Any:  # noqa: ANN401
    """The network in double precision, with statistics, scales and shifts that a training would leave."""
    for module in network.modules():
        if hasattr(module, "running_var"):
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            if module.affine:
                nn.init.normal_(module.weight, mean=1.0, std=0.3)
                nn.init.normal_(module.bias, std=0.3)
    return network.double()


def outputs_and_gradient(network: Any, side: int) -> list[torch.Tensor]:  # noqa: ANN401
    generator = torch.Generator().manual_seed(1)
    x_B3HW = torch.rand(2, 3, side, side, generator=generator, dtype=torch.float64).requires_grad_()
    encoded = network(x_B3HW)
    (gradient,) = torch.autograd.grad(encoded.vector_BD.square().sum() + encoded.map_BCGG.sum(), x_B3HW)
    return [*encoded, gradient]


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_an_encoder_for_good_computes_the_same(name: str) -> None:
    """Neither output nor gradient changes, and no normalisation over a map is left to be computed."""
    torch.manual_seed(0)
    build, side = NETWORKS[name]
    plain = freeze(with_statistics(build()))
    light = freeze_encoder(copy.deepcopy(plain), side)
    for ours, theirs in zip(outputs_and_gradient(light, side), outputs_and_gradient(plain, side), strict=True):
        scale = float(theirs.detach().abs().max())
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9 * scale)
        assert scale > 0
    assert not any(isinstance(module, nn.BatchNorm2d) for module in light.modules())
    assert not any(parameter.requires_grad for parameter in light.parameters())


def test_a_single_image_has_the_gradient_that_it_has_among_others() -> None:
    """Whatever order its numbers have in memory: torch's own normalisation fails at that for a batch of one."""
    torch.manual_seed(0)
    norm: Any = freeze(with_statistics(nn.BatchNorm2d(16)))
    light = _lighter(norm)
    x_1CHW = torch.rand(1, 16, 4, 4, dtype=torch.float64).requires_grad_()
    gradient = torch.rand(1, 4, 4, 16, dtype=torch.float64).as_strided((1, 16, 4, 4), (16, 1, 64, 16))
    out = light(x_1CHW)
    (found,) = torch.autograd.grad(out, x_1CHW, gradient)
    scale_C11 = (norm.weight * (norm.running_var + norm.eps).rsqrt())[:, None, None]
    torch.testing.assert_close(found, gradient * scale_C11)


def test_what_is_kept_for_the_way_back() -> None:
    """Of the maps that the network computes none is kept: weights, and where the rectifiers' inputs were positive."""
    light = freeze_encoder(IR50Encoder(), 112)
    kept: list[torch.Tensor] = []
    own = {tensor.data_ptr() for tensor in light.state_dict().values()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in own:
            kept.append(tensor)
        return tensor

    x_B3HW = torch.rand(1, 3, 112, 112).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        light(x_B3HW)
    assert sum(tensor.dtype == torch.bool for tensor in kept) == 25  # one of each block, and that of the input layer
    assert all(tensor.shape[-1] <= 7 or tensor.dim() < 4 for tensor in kept if tensor.dtype != torch.bool)
