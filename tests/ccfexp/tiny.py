"""A whole model small enough for a test: 32-pixel images, a grid of 4 x 4 positions, untrained encoders."""

from __future__ import annotations

from dataclasses import replace

import torch

from ccfexp.conditioning import ConditioningConfig
from ccfexp.diffusion import DiffusionConfig
from ccfexp.encoders import EncoderConfig, PhantomEncoder
from ccfexp.frozen import freeze, freeze_encoder
from ccfexp.losses import Batch
from ccfexp.model import CCFExp, FrozenEncoders, ModelConfig
from ccfexp.unet import UNetConfig

SIZE = 32
UNET = UNetConfig(
    image_size=SIZE,
    patch_size=4,
    channels=(32, 64),
    attention_levels=(1,),
    fixed_resolution_level=None,
    head_size=32,
    token_size=32,
    predicts_variance=False,
)
TINY = ModelConfig(
    unet=UNET,
    conditioning=ConditioningConfig(vector=16, map_channels=16, grid=4, token_size=32, heads=2, style_size=128),
    diffusion=DiffusionConfig(prediction="v", min_snr_gamma=5.0),
)
EPSILON = replace(TINY, diffusion=DiffusionConfig())


def encoder(seed: int, vector: int = 16) -> PhantomEncoder:
    """An untrained encoder, frozen."""
    torch.manual_seed(seed)
    network = PhantomEncoder(EncoderConfig(image_size=SIZE, channels=(8, 8, 16), depth=1, vector=vector))
    return freeze_encoder(network, SIZE)


def model(config: ModelConfig = TINY, seed: int = 0) -> CCFExp:
    """A frozen base with pseudo-random weights; also the layers that start at zero say something."""
    encoders = FrozenEncoders(encoder(seed + 1), encoder(seed + 2), encoder(seed + 3, vector=136))
    torch.manual_seed(seed)
    base = CCFExp(config, encoders)
    with torch.no_grad():
        for parameter in base.unet.parameters():
            if not parameter.any():
                parameter.normal_(std=0.05)
    base.base_sha256 = "b" * 64
    return freeze(base)


def batch(base: CCFExp, size: int = 3, seed: int = 7) -> Batch:
    """Random pictures, encoded as a site would encode them: target and identity photograph differ."""
    generator, side = torch.Generator().manual_seed(seed), base.config.unet.image_size
    target, person = (torch.rand(size, 3, side, side, generator=generator) * 2 - 1 for _ in range(2))
    with torch.no_grad():
        return Batch(
            target_B3HW=target,
            identity=base.encoders.identity_features(person),
            expression=base.encoders.expression_features(target),
            target_identity_BD=base.encoders.identity(target).vector_BD,
            target_landmark_B136=base.encoders.landmark(target).vector_BD,
            target_deviation_BD=base.encoders.expression_features(target).deviation_BD,
            person_BD=base.encoders.identity(person).vector_BD,
        )


def noise(size: int = 3, seed: int = 11, side: int = SIZE) -> torch.Tensor:
    """Standard normal [size, 3, side, side]."""
    return torch.randn(size, 3, side, side, generator=torch.Generator().manual_seed(seed))
