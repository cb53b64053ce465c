"""What of the expression photograph's landmark map gets through to the fusion.

The map is the wide path from that photograph into the picture: a grid of features, of which some tell who is seen.
DCFace (CVPR 2023, table 2) found that a grid of 7 x 7 style features carries so much of the person that the identity
photograph is ignored. How much of the stranger gets through here is measured: docs/ablation.md.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ccfexp.errors import ConfigError


@dataclass(frozen=True)
class Bottleneck:
    """Three ways to let less through; each can be used alone. An adapter is drawn with what it was trained with.

    Attributes:
        grid: the map is averaged to so many positions a side; 0 = as it is.
        normalised: every position's features have mean 0 and variance 1, so that their strength tells nothing.
        dropout: share of the training examples that are trained without the map (nothing is dropped when drawing).
    """

    grid: int = 0
    normalised: bool = False
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.grid <= 64:
            raise ConfigError(f"bottleneck.grid={self.grid} must lie in [0, 64]; 0 leaves the map as it is")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"bottleneck.dropout={self.dropout} must lie in [0, 1); 0 drops nothing")

    def narrow(self, map_BCGG: Tensor) -> Tensor:
        """The map [B,C,G,G] as it gets through."""
        if 0 < self.grid < map_BCGG.shape[-1]:
            coarse = functional.adaptive_avg_pool2d(map_BCGG, self.grid)
            map_BCGG = functional.interpolate(coarse, map_BCGG.shape[-2:], mode="nearest")
        if self.normalised:
            channels_last = map_BCGG.movedim(1, -1)
            map_BCGG = functional.layer_norm(channels_last, channels_last.shape[-1:]).movedim(-1, 1)
        return map_BCGG

    def drop(self, map_BCGG: Tensor, generator: torch.Generator) -> Tensor:
        """Whole maps of some examples set to zero."""
        if not self.dropout:
            return map_BCGG
        kept_B = torch.rand(len(map_BCGG), generator=generator) >= self.dropout
        return map_BCGG * kept_B.to(map_BCGG)[:, None, None, None]
