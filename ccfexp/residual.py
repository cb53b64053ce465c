"""The base residual: what aggregation adds to the frozen base, W = W0 + U D, a low-rank product per layer.

The mean of products is not the product of means, so exact rules hand sites more than one factor pair: FLoRA (Wang et
al. 2024, arXiv 2409.05976) the stacked factors of all sites, FedEx-LoRA (Singhal et al. 2024, arXiv 2410.09432) what
the averaged factors miss. It travels in the adapter state, beside the factors of its layer X: D [R,n] or [R,c_in,k,k]
as ``X.lora_A.residual.weight`` and U [m,R] or [m,R,1,1] as ``X.lora_B.residual.weight``, with any R and at scale 1.

The base is always made anew from W0: loading a state is a function of that state, whatever was loaded before it, and a
site that was absent for rounds has the base of one that never was.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import torch
from peft.tuners.lora.layer import LoraLayer
from torch import Tensor, nn

from ccfexp.errors import CheckpointError

_ENDINGS: Final = (".lora_B.residual.weight", ".lora_A.residual.weight")  # as in Pair


class Pair(NamedTuple):
    """The residual of one layer; flattened from the second dimension on, up [m,R] @ down [R,n] has the size of W."""

    up: Tensor
    down: Tensor


def split(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Pair]]:
    """The factors of a state, and the residuals by layer.

    Raises:
        CheckpointError: half a pair, a layer without factors, or shapes other than its factors' (but for the rank).
    """
    factors = {name: value for name, value in state.items() if not name.endswith(_ENDINGS)}
    layers = {name.removesuffix(ending) for name in state for ending in _ENDINGS if name.endswith(ending)}
    pairs, half, strange, shapes = {}, 0, 0, 0
    for layer in sorted(layers):
        up, down = (state.get(layer + ending) for ending in _ENDINGS)
        of_down, of_up = (factors.get(name) for name in factor_names(layer))
        if up is None or down is None:
            half += 1
        elif of_down is None or of_up is None:
            strange += 1
        elif not _fits(Pair(up, down), of_down, of_up):
            shapes += 1
        else:
            pairs[layer] = Pair(up, down)
    if half or strange or shapes:  # counts alone: the names are those of whoever made the state
        raise CheckpointError(
            f"base residual does not fit its factors: {half} halves of a pair, {strange} of layers without factors, "
            f"{shapes} of another shape; use the state as aggregation made it"
        )
    return factors, pairs


def factor_names(layer: str) -> tuple[str, str]:
    """Peft's names of a layer's A and B."""
    return f"{layer}.lora_A.weight", f"{layer}.lora_B.weight"


def _fits(pair: Pair, down: Tensor, up: Tensor) -> bool:
    """The factors fit the layer or are refused themselves, so what fits them fits the layer."""
    rank = pair.down.shape[:1]
    return pair.down.shape[1:] == down.shape[1:] and pair.up.shape == (*up.shape[:1], *rank, *up.shape[2:])


@torch.no_grad()
def set_base(model: nn.Module, pairs: Mapping[str, Pair], pristine: dict[str, Tensor]) -> None:
    """Give every adapted layer the weight W0 + U D, or W0 bit for bit where it has no residual.

    Weights are written in place: who holds them (a compiled network) sees the new values.

    Args:
        model: with an adapter.
        pairs: residuals by layer, of ``split``.
        pristine: W0 of the layers that have a residual now, by layer; kept up to date here and by nobody else. On the
            CPU, where the sum is made too: a GPU has better uses for its memory, and at "tf32" it would shorten U D.
    """
    layers: dict[str, Any] = {name: layer for name, layer in model.named_modules() if isinstance(layer, LoraLayer)}
    weights: dict[str, Tensor] = {name: layer.get_base_layer().weight for name, layer in layers.items()}
    for layer in pristine.keys() - pairs.keys():
        weights[layer].copy_(pristine.pop(layer))
    for layer, pair in pairs.items():
        weight = weights[layer]
        if layer not in pristine:
            pristine[layer] = weight.detach().to("cpu", copy=True)
        base = pristine[layer]
        up, down = (part.to(base).flatten(1) for part in pair)
        weight.copy_(torch.addmm(base.flatten(1), up, down).view(weight.shape))


def stack(state: Mapping[str, Tensor], scale: float) -> tuple[dict[str, Tensor], dict[str, int]]:
    """One pair of stock factors per layer, [D; A] and [U, scale B], which peft computes with at scale 1.

    Args:
        state: factors, with or without residuals.
        scale: alpha / r of the factors.

    Returns:
        Factors by peft's names, and the rank R + r of the layers that have a residual; the others are as they were.

    Raises:
        CheckpointError: as ``split``.
    """
    factors, pairs = split(state)
    ranks = {}
    for layer, pair in pairs.items():
        down, up = factor_names(layer)
        factors[down] = torch.cat([pair.down, factors[down]])
        factors[up] = torch.cat([pair.up, scale * factors[up]], dim=1)
        ranks[layer] = len(factors[down])
    return factors, ranks


def unstack(factors: Mapping[str, Tensor], ranks: Mapping[str, int], rank: int, scale: float) -> dict[str, Tensor]:
    """The state that was stacked: the last ``rank`` rows are the factors, which can be trained on, to rounding.

    Args:
        factors: of ``stack``.
        ranks: of the layers that are stacked.
        rank: r of the factors before.
        scale: alpha / r of the factors before.

    Raises:
        ValueError: a layer has not the rank it should have.
        KeyError: a layer has no factors.
    """
    state = dict(factors)
    for layer, stacked in ranks.items():
        names, endings = factor_names(layer), reversed(_ENDINGS)
        down, up = (factors[name] for name in names)
        extra = stacked - rank
        if extra < 0 or down.shape[:1] != (stacked,) or up.shape[1:2] != (stacked,):
            raise ValueError(f"rank={stacked} of layer={layer} must be that of its factors and at least {rank}")
        state |= dict(zip(names, (down[extra:], up[:, extra:] / scale), strict=True))
        parts = (down[:extra], up[:, :extra].contiguous())
        state |= {layer + ending: part for ending, part in zip(endings, parts, strict=True)}
    return state
