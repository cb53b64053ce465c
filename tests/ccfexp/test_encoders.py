"""Frozen encoders: constant in their parameters, differentiable in their input, known by their metadata."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ccfexp import weights
from ccfexp.encoders import (
    EncoderConfig,
    PhantomEncoder,
    config_from_metadata,
    landmarks_from_vector,
    load_phantom_encoder,
    metadata_of,
)
from ccfexp.errors import ConfigError, WeightsError
from ccfexp.model import EncoderNames
from tests.ccfexp import tiny

CONDITIONING = EncoderNames()


@pytest.mark.parametrize("name", [CONDITIONING.identity, CONDITIONING.face, CONDITIONING.landmark])
def test_shipped_encoders_are_frozen_but_let_gradients_through(name: str) -> None:
    """No parameter asks for gradients and no running statistic moves, yet the input gets its gradient."""
    encoder = load_phantom_encoder(name)
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    image = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)).mul(2).sub(1).requires_grad_()

    encoded = encoder(image)
    (encoded.vector_BD.square().sum() + encoded.map_BCGG.square().sum()).backward()

    assert encoded.vector_BD.shape == (2, encoder.config.vector)
    assert encoded.map_BCGG.shape == (2, encoder.config.channels[-1], 8, 8)
    assert image.grad is not None
    assert (image.grad.flatten(1).abs().amax(1) > 0).all()
    assert not encoder.training
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())


def test_evaluators_are_other_networks() -> None:
    """Weights that condition the model or its losses are never those that judge it."""
    assert not {name for name in weights.known() if name.startswith("evaluator")} & set(vars(CONDITIONING).values())
    hashes = [weights.sha256(name) for name in weights.known()]
    assert len(set(hashes)) == len(hashes)


@pytest.mark.parametrize("shape", [(1, 3, 64, 64), (1, 3, 32, 40)])
def test_images_of_another_size_are_refused(shape: tuple[int, ...]) -> None:
    """Both numbers are in the error."""
    with pytest.raises(ConfigError, match=rf"image_size=32, but the image is \({shape[2]}, {shape[3]}\)"):
        tiny.encoder(0)(torch.zeros(shape))


@pytest.mark.parametrize("size", [0, 24, 60])
def test_impossible_sizes(size: int) -> None:
    """A map an eighth as large must exist."""
    with pytest.raises(ConfigError, match=f"image_size={size} must be a multiple of 8, at least 32"):
        EncoderConfig(image_size=size)


def test_metadata_name_the_architecture() -> None:
    """What is written beside the weights makes the same network again."""
    config = EncoderConfig(image_size=48, channels=(16, 24, 40), depth=3, vector=20)

    again = config_from_metadata({"encoder": metadata_of(config)}, "mine")

    assert again == config
    assert isinstance(again.channels, tuple)
    assert config_from_metadata({"encoder": metadata_of(replace(config, depth=1))}, "mine") != config
    assert PhantomEncoder(again)(torch.zeros(2, 3, 48, 48)).vector_BD.shape == (2, 20)


@pytest.mark.parametrize(
    "metadata",
    [{}, {"encoder": "{}"}, {"encoder": "no JSON"}, {"encoder": '{"channels": [1, 2, 3], "colour": 1}'}],
)
def test_weights_without_an_architecture_are_refused(metadata: dict[str, str]) -> None:
    """The error names the weights."""
    with pytest.raises(WeightsError, match="'mine' do not say which encoder"):
        config_from_metadata(metadata, "mine")


def test_the_base_is_no_encoder() -> None:
    """Its metadata describe a model."""
    with pytest.raises(WeightsError, match="'phantom-base' do not say which encoder"):
        load_phantom_encoder("phantom-base")


def test_landmarks_are_fractions_of_the_side() -> None:
    """0 is the middle of the image, +-2 its borders; x before y."""
    vector = torch.zeros(1, 136)
    vector[0, 2], vector[0, 3] = 2.0, -2.0

    landmark_B682 = landmarks_from_vector(vector)

    assert landmark_B682.shape == (1, 68, 2)
    assert landmark_B682[0, 0].tolist() == [0.5, 0.5]
    assert landmark_B682[0, 1].tolist() == [1.0, 0.0]
