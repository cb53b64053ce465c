"""Frozen encoders behind a Protocol, and the small ones trained on phantoms.

Full-size counterparts (``IR-50``, ``MobileFaceNet``) give the same outputs: a vector and a feature map. All take RGB
images x_B3HW in [-1, 1]. Encoders used in conditioning or losses are never those used in evaluation.

Shapes: B batch, D feature size, C map channels, G map side.
"""

import json
from dataclasses import asdict, dataclass
from typing import NamedTuple, Protocol

from torch import Tensor, nn

from ccfexp import weights
from ccfexp.errors import ConfigError, WeightsError
from ccfexp.frozen import freeze_encoder


class Encoded(NamedTuple):
    """``vector_BD`` (unnormalised) and ``map_BCGG``."""

    vector_BD: Tensor
    map_BCGG: Tensor


class Encoder(Protocol):
    """What the model asks of an encoder: frozen, deterministic, differentiable with respect to its input."""

    def __call__(self, x_B3HW: Tensor) -> Encoded:
        """Vector and map of RGB images in [-1, 1]."""
        ...


@dataclass(frozen=True)
class EncoderConfig:
    """A small residual network for ``image_size`` pixels; the map has an eighth of the resolution.

    Attributes:
        image_size: side of the input in pixels, a multiple of 8.
        channels: widths at 1/2, 1/4 and 1/8 of the resolution.
        depth: residual blocks at 1/8.
        vector: size of the output vector.
    """

    image_size: int = 64
    channels: tuple[int, int, int] = (24, 48, 96)
    depth: int = 2
    vector: int = 128

    def __post_init__(self) -> None:
        if self.image_size % 8 or self.image_size < 32:
            raise ConfigError(
                f"encoder image_size={self.image_size} must be a multiple of 8, at least 32; "
                "64 is that of the shipped ones"
            )


class _Residual(nn.Module):
    """conv-BN-PReLU-conv-BN with a shortcut, as in the IR networks."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.PReLU(outputs),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        plain = inputs == outputs and stride == 1
        self.shortcut: nn.Module = nn.Identity() if plain else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        total: Tensor = self.body(x) + self.shortcut(x)
        return total


class PhantomEncoder(nn.Module):
    """The small encoder; about 0.5 M parameters.

    The vector comes from a global depthwise convolution (every position keeps its own weight, as in MobileFaceNet),
    so it can carry positions.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        a, b, c = config.channels
        self.trunk = nn.Sequential(
            nn.Conv2d(3, a, 4, 2, 1, bias=False),
            nn.BatchNorm2d(a),
            nn.PReLU(a),
            _Residual(a, b, 2),
            _Residual(b, c, 2),
            *(_Residual(c, c, 1) for _ in range(config.depth - 1)),
        )
        side = config.image_size // 8
        self.pool = nn.Sequential(nn.Conv2d(c, 4 * c, side, groups=c, bias=False), nn.BatchNorm2d(4 * c), nn.Flatten())
        self.project = nn.Linear(4 * c, config.vector)

    def forward(self, x_B3HW: Tensor) -> Encoded:
        """Vector [B,D] and map [B,C,G,G] of RGB images in [-1, 1].

        Raises:
            ConfigError: the images have another size than the encoder was trained for.
        """
        if x_B3HW.shape[-1] != self.config.image_size or x_B3HW.shape[-2] != self.config.image_size:
            raise ConfigError(
                f"encoder image_size={self.config.image_size}, but the image is {tuple(x_B3HW.shape[-2:])}; "
                "resize the image"
            )
        map_BCGG = self.trunk(x_B3HW)
        return Encoded(self.project(self.pool(map_BCGG)), map_BCGG)


def load_phantom_encoder(name: str) -> PhantomEncoder:
    """A shipped encoder, frozen, in evaluation mode.

    Raises:
        WeightsError: missing, altered, or not an encoder.
    """
    tensors, metadata = weights.load(name)
    encoder = PhantomEncoder(config_from_metadata(metadata, name))
    try:
        encoder.load_state_dict({key: value for key, value in tensors.items() if not key.startswith("head.")})
    except RuntimeError as error:
        raise WeightsError(f"weights {name!r} do not fit the encoder that their metadata describes: {error}") from error
    return freeze_encoder(encoder, encoder.config.image_size)


def config_from_metadata(metadata: dict[str, str], name: str) -> EncoderConfig:
    """The architecture recorded beside an encoder's weights.

    Raises:
        WeightsError: the metadata hold no such record.
    """
    try:
        fields = json.loads(metadata["encoder"])
        return EncoderConfig(**(fields | {"channels": tuple(fields["channels"])}))
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"weights {name!r} do not say which encoder they belong to") from error


def metadata_of(config: EncoderConfig) -> str:
    """The architecture as it is recorded beside an encoder's weights."""
    return json.dumps(asdict(config), sort_keys=True)


def vector_from_landmarks(landmark_B682: Tensor) -> Tensor:
    """A landmark encoder's vector [B,136] from landmarks [B,68,2] in fractions of the image side."""
    return ((landmark_B682 - 0.5) / 0.25).flatten(1)


def landmarks_from_vector(vector_B136: Tensor) -> Tensor:
    """Landmarks [B,68,2] in fractions of the image side (x right, y down) from a landmark encoder's vector."""
    offset_B682: Tensor = vector_B136.unflatten(-1, (68, 2)) * 0.25
    return 0.5 + offset_B682
