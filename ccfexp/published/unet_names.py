"""From the published U-Net's state dict to that of ``CCFExpUNet``: the same numbers under diffusers' names.

The published network fuses queries, keys and values of an attention into one map whose rows are ordered head by head;
diffusers keeps three maps. Block numbers follow from the levels.
"""

from collections.abc import Iterator
from typing import Final

from torch import Tensor

from ccfexp.unet import UNetConfig

# As published; ``shared_projection=False`` is the same function with the shared map folded into every attention.
OFFICIAL_UNET: Final = UNetConfig(shared_projection=True)
_RESIDUAL = {
    "in_layers.0": "norm1", "in_layers.2": "conv1", "emb_layers.1": "time_emb_proj", "out_layers.0": "norm2",
    "out_layers.3": "conv2", "skip_connection": "conv_shortcut",
}  # fmt: skip
_ATTENTION = {"norm": "group_norm", "proj_out": "to_out.0"}
_FUSED, _PARTS = "qkv", ("to_q", "to_k", "to_v")
_ENDS = {
    "time_embed.0": "time_embedding.linear_1", "time_embed.2": "time_embedding.linear_2", "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out", "out.2": "conv_out",
}  # fmt: skip


def block_names(config: UNetConfig) -> dict[str, str]:
    """Published block -> diffusers block, of every residual block and attention (one residual block a level)."""
    return dict(_pairs(config))


def _pairs(config: UNetConfig) -> Iterator[tuple[str, str]]:
    last, number = len(config.channels) - 1, 1
    for level in range(last + 1):
        yield f"input_blocks.{number}.0", f"down_blocks.{level}.resnets.0"
        if level in config.attention_levels:
            yield f"input_blocks.{number}.1", f"down_blocks.{level}.attentions.0"
        if level < last:
            yield f"input_blocks.{number + 1}.0", f"down_blocks.{level}.downsamplers.0"
        number += 2
    yield "middle_block.0", "mid_block.resnets.0"
    yield "middle_block.1", "mid_block.attentions.0"
    yield "middle_block.2", "mid_block.resnets.1"
    for place, level in enumerate(reversed(range(last + 1))):
        for layer in (0, 1):
            block, inner = f"output_blocks.{2 * place + layer}", 1
            yield f"{block}.0", f"up_blocks.{place}.resnets.{layer}"
            if level in config.attention_levels:
                yield f"{block}.1", f"up_blocks.{place}.attentions.{layer}"
                inner = 2
            if layer == 1 and level > 0:
                yield f"{block}.{inner}", f"up_blocks.{place}.upsamplers.0"


def to_diffusers(state: dict[str, Tensor], config: UNetConfig) -> tuple[dict[str, Tensor], list[str]]:
    """Tensors under diffusers' names, and the published names that belong to no block of this U-Net."""
    blocks, tensors, unknown = block_names(config), {}, []
    for name, value in state.items():
        stem, _, kind = name.rpartition(".")
        block, inner = _split(stem, blocks)
        if stem in _ENDS:
            tensors[f"{_ENDS[stem]}.{kind}"] = value
        elif block is None:
            unknown.append(name)
        elif inner in _RESIDUAL and ".attentions." not in blocks[block]:
            tensors[f"{blocks[block]}.{_RESIDUAL[inner]}.{kind}"] = value
        elif inner in _ATTENTION and ".attentions." in blocks[block]:
            flat = value.flatten(1) if inner == "proj_out" and kind == "weight" else value
            tensors[f"{blocks[block]}.{_ATTENTION[inner]}.{kind}"] = flat
        elif inner == _FUSED and ".attentions." in blocks[block]:
            for part, piece in zip(_PARTS, _by_head(value, config.head_size, 3), strict=True):
                tensors[f"{blocks[block]}.{part}.{kind}"] = piece
        else:
            unknown.append(name)
    return tensors, unknown


def _split(stem: str, blocks: dict[str, str]) -> tuple[str | None, str]:
    """Which block a name starts with, and what comes after it."""
    parts = stem.split(".")
    for count in (3, 2):
        block = ".".join(parts[:count])
        if block in blocks:
            return block, ".".join(parts[count:])
    return None, stem


def _by_head(fused: Tensor, head_size: int, parts: int) -> list[Tensor]:
    """Rows ordered (head, part, channel) as one tensor per part with rows ordered (head, channel)."""
    rows = fused.flatten(1) if fused.ndim > 1 else fused
    split = rows.unflatten(0, (-1, parts, head_size))
    return [split[:, part].flatten(0, 1).contiguous() for part in range(parts)]


def projection_names(weight: Tensor, bias: Tensor, config: UNetConfig) -> dict[str, Tensor]:
    """The published shared map of the condition tokens, kept shared or folded into every attention (``config``).

    Args:
        weight: [2W,T,1] or [2W,T], rows ordered (head, key or value, channel).
        bias: [2W].
        config: its ``shared_projection`` decides.
    """
    flat = weight.flatten(1)
    if config.shared_projection:
        return {"condition_projection.weight": flat, "condition_projection.bias": bias}
    tensors: dict[str, Tensor] = {}
    for block in block_names(config).values():
        if ".attentions." in block:
            for kind, value in (("weight", flat), ("bias", bias)):
                key, val = _by_head(value, config.head_size, 2)
                tensors |= {f"{block}.add_k_proj.{kind}": key.clone(), f"{block}.add_v_proj.{kind}": val.clone()}
    return tensors
