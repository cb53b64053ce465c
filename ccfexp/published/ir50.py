"""IR-50 in the AdaFace layout: the published recogniser, deviation network and backbone of the identity embedder.

24 residual blocks of width 64, 128, 256 and 512 on 112 x 112 images (Deng et al., ArcFace, CVPR 2019; Kim et al.,
AdaFace, CVPR 2022). 43,585,600 parameters.
"""

from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

from ccfexp.encoders import Encoded
from ccfexp.errors import ConfigError

SIDE: Final = 112
VECTOR: Final = 512
_STAGES: Final = ((64, 3), (128, 4), (256, 14), (512, 3))  # width, blocks; the first block of each halves the side
MAP_BLOCK: Final = 21  # the first block at 7 x 7


class IR50Features(NamedTuple):
    """Unit vector [B,512], its norm before [B,1], and the map after block ``MAP_BLOCK`` [B,512,7,7]."""

    unit_BD: Tensor
    norm_B1: Tensor
    map_BCGG: Tensor


class _Block(nn.Module):
    """BN-conv-BN-PReLU-conv-BN; the shortcut is a subsampling, or a convolution where the width changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.shortcut_layer: nn.Module = nn.MaxPool2d(1, stride)
        if inputs != outputs:
            self.shortcut_layer = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.PReLU(outputs),
            nn.Conv2d(outputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        total: Tensor = self.res_layer(x) + self.shortcut_layer(x)
        return total


class IR50(nn.Module):
    """The bare backbone; takes BGR images x_B3HW in [-1, 1] (``IR50Encoder`` takes RGB)."""

    def __init__(self) -> None:
        super().__init__()
        self.input_layer = nn.Sequential(nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.PReLU(64))
        blocks, inputs = [], 64
        for width, count in _STAGES:
            for place in range(count):
                blocks.append(_Block(inputs, width, 2 if place == 0 else 1))
                inputs = width
        self.body = nn.Sequential(*blocks)
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(512),
            nn.Dropout(0.4),
            nn.Flatten(),
            nn.Linear(512 * 7 * 7, VECTOR),
            nn.BatchNorm1d(VECTOR, affine=False),
        )

    def forward(self, x_B3HW: Tensor) -> IR50Features:
        """Features of 112 x 112 images.

        Raises:
            ConfigError: another size. (Published: a detached resize, through which no gradient passes.)
        """
        if x_B3HW.shape[-2:] != (SIDE, SIDE):
            raise ConfigError(f"IR-50 image size={tuple(x_B3HW.shape[-2:])} must be {SIDE} x {SIDE}; resize the images")
        x, map_BCGG = self.input_layer(x_B3HW), torch.empty(0)
        for number, block in enumerate(self.body):
            x = block(x)
            if number == MAP_BLOCK:
                map_BCGG = x
        vector_BD = self.output_layer(x)
        norm_B1 = torch.linalg.vector_norm(vector_BD, dim=1, keepdim=True)
        return IR50Features(vector_BD / norm_B1, norm_B1, map_BCGG)


class IR50Encoder(nn.Module):
    """IR-50 as an ``Encoder``: RGB in, the unnormalised vector and the 7 x 7 map out."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = IR50()

    def forward(self, x_B3HW: Tensor) -> Encoded:
        """Vector [B,512] and map [B,512,7,7] of RGB images in [-1, 1]."""
        features = self.backbone(x_B3HW.flip(1))
        return Encoded(features.unit_BD * features.norm_B1, features.map_BCGG)
