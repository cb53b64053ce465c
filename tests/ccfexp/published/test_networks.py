"""The published face networks against outputs of the published implementation, at full size."""

import pytest
import torch

from ccfexp.errors import ConfigError
from ccfexp.published.ir50 import IR50, IR50Encoder
from ccfexp.published.mobilefacenet import MobileFaceNet
from tests.ccfexp.published.recipe import facts, fill, largest_difference, tensors, uniform

TOLERANCE = 1e-4  # absolute, of outputs of order one


@pytest.fixture(scope="module")
def ir50() -> IR50:
    network = IR50()
    network.load_state_dict(fill(facts("keys_modules")["ir50_backbone"], 10000))
    return network.eval()


@pytest.fixture(scope="module")
def mobilefacenet() -> MobileFaceNet:
    network = MobileFaceNet("published")
    network.load_state_dict(fill(facts("keys_modules")["mobilefacenet"], 20000))
    return network.eval()


def test_ir50_has_the_published_names_shapes_and_size() -> None:
    shapes = {key: list(value.shape) for key, value in IR50().state_dict().items()}
    assert shapes == facts("keys_modules")["ir50_backbone"]
    assert sum(p.numel() for p in IR50().parameters()) == 43_585_600


@torch.no_grad()
def test_ir50_gives_the_published_features(ir50: IR50) -> None:
    expected, x_1 = tensors("ir50_recipe_io"), uniform(900001, (1, 3, 112, 112))
    features = ir50(x_1)
    assert largest_difference(features.unit_BD, expected["feature_unit"]) < TOLERANCE
    assert largest_difference(features.norm_B1, expected["norm"]) < TOLERANCE * float(expected["norm"])
    assert largest_difference(features.map_BCGG, expected["spatial_block21"]) < TOLERANCE


@torch.no_grad()
def test_the_encoder_turns_rgb_into_bgr_and_keeps_the_norm(ir50: IR50) -> None:
    expected, encoder = tensors("ir50_recipe_io"), IR50Encoder().eval()
    encoder.backbone = ir50
    for stream, batch, name in ((900001, 1, "recognition_model_out"), (900002, 2, "recognition_model_out_b2")):
        found = encoder(uniform(stream, (batch, 3, 112, 112))).vector_BD
        assert largest_difference(found, expected[name]) < TOLERANCE * float(expected["norm"])


def test_ir50_refuses_another_size(ir50: IR50) -> None:
    with pytest.raises(ConfigError, match=r"IR-50 image size=\(64, 64\) must be 112 x 112"):
        ir50(torch.zeros(1, 3, 64, 64))


def test_mobilefacenet_has_the_published_names_and_shapes(mobilefacenet: MobileFaceNet) -> None:
    shapes = {key: list(value.shape) for key, value in mobilefacenet.state_dict().items()}
    assert shapes == facts("keys_modules")["mobilefacenet"]
    assert sum(p.numel() for p in mobilefacenet.parameters()) == 1_007_248


@torch.no_grad()
def test_mobilefacenet_gives_the_published_landmarks(mobilefacenet: MobileFaceNet) -> None:
    expected = tensors("mobilefacenet_recipe_io")
    encoded = mobilefacenet(uniform(900002, (2, 3, 112, 112)))
    assert largest_difference(encoded.map_BCGG, expected["features"]) < TOLERANCE
    assert largest_difference(encoded.vector_BD.reshape(2, 68, 2), expected["landmarks"]) < TOLERANCE


@torch.no_grad()
def test_the_detectors_own_input_range_is_bgr_from_zero_to_one(mobilefacenet: MobileFaceNet) -> None:
    """The correction feeds what the detector was trained on: the same network on (BGR + 1) / 2."""
    own = MobileFaceNet("own").eval()
    own.load_state_dict(mobilefacenet.state_dict())
    x_B3HW = uniform(900002, (2, 3, 112, 112))
    torch.testing.assert_close(own(x_B3HW).vector_BD, mobilefacenet((x_B3HW.flip(1) + 1) / 2).vector_BD)
