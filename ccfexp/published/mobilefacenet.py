"""MobileFaceNet (Chen et al., CCBR 2018) with 136 outputs: the published detector of 68 landmarks.

Depthwise residual stages down to 7 x 7, a global depthwise convolution, a linear layer. 1,007,248 parameters.
"""

from collections import OrderedDict
from typing import Final, Literal

from torch import Tensor, nn

from ccfexp.encoders import Encoded

InputRange = Literal["published", "own"]
_LANDMARKS: Final = 136


class _Unit(nn.Sequential):
    """Convolution, batch normalisation and, unless linear, PReLU."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1, *, linear: bool = False
    ) -> None:
        padding = 0 if kernel in (1, 7) else kernel // 2  # the global convolution sees all 7 x 7 positions at once
        layers: OrderedDict[str, nn.Module] = OrderedDict(
            conv=nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False),
            bn=nn.BatchNorm2d(outputs),
        )
        if not linear:
            layers["prelu"] = nn.PReLU(outputs)
        super().__init__(layers)


class _Depthwise(nn.Module):
    """Widen by 1 x 1, filter each channel by 3 x 3, project; with a shortcut inside a stage."""

    def __init__(self, inputs: int, outputs: int, groups: int, stride: int) -> None:
        super().__init__()
        self.conv = _Unit(inputs, groups)
        self.conv_dw = _Unit(groups, groups, 3, stride, groups)
        self.project = _Unit(groups, outputs, linear=True)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.project(self.conv_dw(self.conv(x)))
        return x + out if self.residual else out


class _Stage(nn.Module):
    def __init__(self, width: int, groups: int, blocks: int) -> None:
        super().__init__()
        self.model = nn.Sequential(*(_Depthwise(width, width, groups, 1) for _ in range(blocks)))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.model(x)
        return out


class _Output(nn.Module):
    """Global depthwise convolution, linear layer, batch normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_6_dw = _Unit(512, 512, 7, groups=512, linear=True)
        self.linear = nn.Linear(512, _LANDMARKS, bias=False)
        self.bn = nn.BatchNorm1d(_LANDMARKS)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.bn(self.linear(self.conv_6_dw(x).flatten(1)))
        return out


class MobileFaceNet(nn.Module):
    """The detector as an ``Encoder``: vector = landmarks (x, y alternating, 136), map = features [B,512,7,7].

    Args:
        input_range: what the network is fed from RGB images in [-1, 1]: the same, as the published code does, or BGR
            in [0, 1], which is what the detector was trained on (corrected).
    """

    def __init__(self, input_range: InputRange = "own") -> None:
        super().__init__()
        self.input_range = input_range
        self.conv1 = _Unit(3, 64, 3, 2)
        self.conv2_dw = _Unit(64, 64, 3, 1, 64)
        self.conv_23 = _Depthwise(64, 64, 128, 2)
        self.conv_3 = _Stage(64, 128, 4)
        self.conv_34 = _Depthwise(64, 128, 256, 2)
        self.conv_4 = _Stage(128, 256, 6)
        self.conv_45 = _Depthwise(128, 128, 512, 2)
        self.conv_5 = _Stage(128, 256, 2)
        self.conv_6_sep = _Unit(128, 512)
        self.output_layer = _Output()

    def forward(self, x_B3HW: Tensor) -> Encoded:
        """Landmarks [B,136] and features [B,512,7,7] of 112 x 112 RGB images in [-1, 1]."""
        x = x_B3HW if self.input_range == "published" else (x_B3HW.flip(1) + 1) / 2
        x = self.conv_3(self.conv_23(self.conv2_dw(self.conv1(x))))
        x = self.conv_5(self.conv_45(self.conv_4(self.conv_34(x))))
        map_BCGG = self.conv_6_sep(x)
        return Encoded(self.output_layer(map_BCGG), map_BCGG)
