"""The denoiser: the published ADM U-Net as a ``UNet2DConditionModel``, with sizes as configuration.

At 112 pixels with the defaults this is the network of CCFExp (arXiv 2409.07271) and DCFace (CVPR 2023): two residual
blocks that carry resampling weights in the published layout do not resample (``fixed_resolution_level``). The phantom
preset adds a pixel-unshuffle stem (``patch_size``), which makes a training step on a CPU several times cheaper.
"""

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.attention_processor import Attention
from torch import Tensor
from torch.nn import functional

from ccfexp.errors import ConfigError

_GROUPS = 32


@dataclass(frozen=True)
class UNetConfig:
    """Sizes of the U-Net; the defaults are the published network.

    Attributes:
        image_size: side of the images in pixels.
        patch_size: side of the pixel-unshuffle patches; 1 = none.
        channels: width of each level.
        attention_levels: levels whose blocks attend to the condition tokens.
        fixed_resolution_level: level whose resampling is switched off (weights kept), or None.
        head_size: channels of an attention head.
        token_size: channels of a condition token.
        predicts_variance: three more output channels, never trained by the published method.
        shared_projection: one linear map turns the tokens into keys and values for all attentions, as published; else
            each attention has its own (the default: the same function when the shared map is folded into them, and
            an adapter can then change what each attention reads).
    """

    image_size: int = 112
    patch_size: int = 1
    channels: tuple[int, ...] = (128, 128, 256, 256, 512, 512)
    attention_levels: tuple[int, ...] = (4,)
    fixed_resolution_level: int | None = 4
    head_size: int = 64
    token_size: int = 512
    predicts_variance: bool = True
    shared_projection: bool = False

    def __post_init__(self) -> None:
        for name in ("image_size", "patch_size", "head_size", "token_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} must be >= 1; give a positive whole number")
        if self.fixed_resolution_level is not None and not 0 <= self.fixed_resolution_level < len(self.channels) - 1:
            raise ConfigError(
                f"fixed_resolution_level={self.fixed_resolution_level} must lie in 0 to "
                f"{len(self.channels) - 2}; null is none"
            )
        halvings = len(self.channels) - 1 - (self.fixed_resolution_level is not None)
        unit = self.patch_size * 2**halvings
        if self.image_size % unit:
            raise ConfigError(
                f"image_size={self.image_size} must be a multiple of {unit} (patch_size x 2^halvings); "
                "choose another size"
            )
        if any(width % _GROUPS for width in self.channels):
            raise ConfigError(
                f"channels={self.channels} must be multiples of {_GROUPS} (group normalisation); round them"
            )
        levels = range(len(self.channels))
        if any(level not in levels for level in self.attention_levels):
            raise ConfigError(
                f"attention_levels={self.attention_levels} must lie in 0 to {len(self.channels) - 1}; "
                "name levels of channels"
            )
        widths = {self.channels[-1], *(self.channels[level] for level in self.attention_levels)}
        if self.shared_projection and len(widths) > 1:
            raise ConfigError(
                f"shared_projection=True needs one width in all attentions, not {sorted(widths)}; "
                "choose attention_levels of the last level's width, or shared_projection=False"
            )


class CCFExpUNet(UNet2DConditionModel):
    """U-Net with condition tokens in front of the self-attention keys and a style vector on the time embedding."""

    # diffusers has no types for what it makes of these.
    down_blocks: Any
    up_blocks: Any
    config: Any

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(  # noqa: PLR0917 (its arguments are the keys of a saved configuration)
        self,
        image_size: int = 112,
        patch_size: int = 1,
        channels: tuple[int, ...] = (128, 128, 256, 256, 512, 512),
        attention_levels: tuple[int, ...] = (4,),
        fixed_resolution_level: int | None = 4,
        head_size: int = 64,
        token_size: int = 512,
        predicts_variance: bool = True,
        shared_projection: bool = False,
    ) -> None:
        last = len(channels) - 1
        down = tuple(
            "SimpleCrossAttnDownBlock2D" if level in attention_levels else "ResnetDownsampleBlock2D"
            for level in range(len(channels))
        )
        up = tuple(
            "SimpleCrossAttnUpBlock2D" if last - place in attention_levels else "ResnetUpsampleBlock2D"
            for place in range(len(channels))
        )
        pixel_channels = 3 * patch_size**2
        super().__init__(  # type: ignore[no-untyped-call]
            sample_size=image_size // patch_size,
            in_channels=pixel_channels,
            out_channels=pixel_channels * (2 if predicts_variance else 1),
            down_block_types=down,
            mid_block_type="UNetMidBlock2DSimpleCrossAttn",
            up_block_types=up,
            block_out_channels=tuple(channels),
            layers_per_block=1,
            attention_head_dim=head_size,
            cross_attention_dim=2 * channels[-1] if shared_projection else token_size,
            class_embed_type="identity",
            resnet_time_scale_shift="scale_shift",
            norm_num_groups=_GROUPS,
        )
        if fixed_resolution_level is not None:
            # The published "down" and "up" of this level keep their convolutions but do not change the resolution.
            self.down_blocks[fixed_resolution_level].downsamplers[0].downsample = None
            self.up_blocks[last - fixed_resolution_level - 1].upsamplers[0].upsample = None

        self.condition_projection = None
        if shared_projection:
            self.condition_projection = torch.nn.Linear(token_size, 2 * channels[-1])
            network: Any = self
            _read_projected_tokens(network)

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float,
        encoder_hidden_states: Tensor,
        class_labels: Tensor | None = None,
        *arguments: Any,  # noqa: ANN401 (diffusers' own)
        **options: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        """As diffusers' U-Net; ``encoder_hidden_states`` are condition tokens, ``class_labels`` the style vector."""
        if self.condition_projection is not None:
            encoder_hidden_states = self.condition_projection(encoder_hidden_states)
        parent: Any = super()
        return parent.forward(sample, timestep, encoder_hidden_states, class_labels, *arguments, **options)

    @classmethod
    def build(cls, config: UNetConfig) -> "CCFExpUNet":
        """A U-Net with fresh weights; its first prediction is exactly zero."""
        unet: CCFExpUNet = cls(**vars(config))
        network: Any = unet  # diffusers' modules do not show as such to a type checker
        zero_output_layers(network)
        return unet

    def predict(self, x_t_B3HW: Tensor, t_B: Tensor, token_BNT: Tensor, style_BE: Tensor) -> Tensor:
        """Prediction [B,3,H,W] (the variance channels, if any, are dropped).

        Args:
            x_t_B3HW: noisy images.
            t_B: timesteps 0..999.
            token_BNT: condition tokens.
            style_BE: added to the time embedding; E = 4 x first width.
        """
        patch = int(self.config["patch_size"])
        x = functional.pixel_unshuffle(x_t_B3HW, patch) if patch > 1 else x_t_B3HW
        network: Any = self  # diffusers' modules do not show as such to a type checker
        (out,) = network(x, t_B, encoder_hidden_states=token_BNT, class_labels=style_BE, return_dict=False)
        sample: Tensor = out[:, : x.shape[1]]
        return functional.pixel_shuffle(sample, patch) if patch > 1 else sample


class _HeadPart(torch.nn.Module):
    """Keys (part 0) or values (part 1) out of projected tokens, which hold both head by head."""

    def __init__(self, heads: int, part: int) -> None:
        super().__init__()
        self.heads, self.part = heads, part

    def forward(self, token_BNK: Tensor) -> Tensor:
        part: Tensor = token_BNK.unflatten(-1, (self.heads, 2, -1))[..., self.part, :].flatten(-2)
        return part


def _read_projected_tokens(unet: torch.nn.Module) -> None:
    attentions: list[Any] = [module for module in unet.modules() if isinstance(module, Attention)]
    for attention in attentions:
        attention.add_k_proj = _HeadPart(attention.heads, 0)
        attention.add_v_proj = _HeadPart(attention.heads, 1)


def zero_output_layers(unet: torch.nn.Module) -> None:
    """Zero-initialise what ADM zero-initialises: last convolution of each residual block, attention output, output."""
    for name, module in unet.named_modules():
        if name.endswith((".conv2", ".to_out.0")) or name == "conv_out":
            layer: Any = module
            torch.nn.init.zeros_(layer.weight)
            torch.nn.init.zeros_(layer.bias)
