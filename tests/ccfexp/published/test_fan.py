"""FAN as a differentiable landmark encoder: the real network of face-alignment with random weights."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ccfexp.adapter import AdapterConfig
from ccfexp.conditioning import ConditioningConfig
from ccfexp.encoders import landmarks_from_vector
from ccfexp.errors import WeightsError
from ccfexp.losses import Batch, CycleConfig, cycle_loss
from ccfexp.model import CCFExp, EncoderNames, FrozenEncoders, ModelConfig, config_to_json
from ccfexp.published.encoder_files import describe, load_encoder
from ccfexp.published.fan import FANEncoder, load_fan, soft_argmax
from ccfexp.published.ir50 import IR50Encoder
from ccfexp.unet import UNetConfig
from tests.ccfexp import tiny
from tests.ccfexp.published.test_onnx_network import export, recogniser

if TYPE_CHECKING:
    from pathlib import Path

models: Any = pytest.importorskip("face_alignment.models")


def fan_file(path: Path) -> Path:
    """A file of exactly the published layout, with random weights."""
    torch.manual_seed(0)
    torch.save(models.FAN(4).state_dict(), path)
    return path


def test_soft_argmax_is_the_weighted_mean_position() -> None:
    """Against the definition in numpy; and a sharp peak is found where it is."""
    logit = torch.randn(2, 3, 6, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weight = np.exp(logit.numpy())
    weight /= weight.sum((2, 3), keepdims=True)
    x = (weight * (np.arange(8) + 0.5)[None, None, None] / 8).sum((2, 3))
    y = (weight * (np.arange(6) + 0.5)[None, None, :, None] / 6).sum((2, 3))
    np.testing.assert_allclose(soft_argmax(logit).numpy(), np.stack([x, y], -1), rtol=1e-6)
    peak = torch.zeros(1, 1, 64, 64)
    peak[0, 0, 20, 50] = 1
    torch.testing.assert_close(soft_argmax(30 * peak)[0, 0], torch.tensor([50.5, 20.5]) / 64, atol=1e-3, rtol=0)


@pytest.mark.slow
def test_the_file_becomes_an_encoder(tmp_path: Path) -> None:
    """What the network itself computes, landmarks within the picture, a gradient to the picture, nothing trainable."""
    path = fan_file(tmp_path / "fan.pth.tar")
    encoder = load_encoder(path.name, tmp_path)
    assert isinstance(encoder, FANEncoder)
    x_B3HW = (torch.rand(1, 3, 112, 112, generator=torch.Generator().manual_seed(1)) * 2 - 1).requires_grad_()
    encoded = encoder(x_B3HW)
    network = models.FAN(4).eval()
    network.load_state_dict(torch.load(path, weights_only=True))
    image = torch.nn.functional.interpolate((x_B3HW + 1) / 2, (256, 256), mode="bilinear")
    expected = soft_argmax(encoder.sharpness * network(image)[-1])
    landmark = landmarks_from_vector(encoded.vector_BD)
    torch.testing.assert_close(landmark, expected)
    assert bool(((landmark > 0) & (landmark < 1)).all())
    assert encoded.map_BCGG.shape == (1, 68, 7, 7)
    (gradient,) = torch.autograd.grad(encoded.vector_BD.square().sum(), x_B3HW)
    assert float(gradient.abs().max()) > 0
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


@pytest.mark.parametrize("content", [b"", b"no archive", b"something else", None])
def test_what_is_no_fan_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "fan.pth.tar"
    if content is None:
        torch.save({"weight": torch.zeros(2)}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(WeightsError, match="cannot be read as FAN with 4 stacks"):
        load_fan(path)


def test_a_file_under_a_known_name_must_have_the_known_hash(tmp_path: Path) -> None:
    (tmp_path / "face_alignment").mkdir()
    (tmp_path / "face_alignment/2DFAN4-11f355bf06.pth.tar").write_bytes(b"something else")
    with pytest.raises(WeightsError, match=r"altered weights file .*expected sha256=11f355bf06, found sha256=\w+"):
        load_encoder("face_alignment/2DFAN4-11f355bf06.pth.tar", tmp_path)
    with pytest.raises(WeightsError, match="does not lie beside the base"):
        load_encoder("insightface/w600k_r50.onnx", tmp_path)


@pytest.mark.slow
def test_a_base_for_photographs(tmp_path: Path) -> None:
    """ArcFace from ONNX, the deviation network and FAN in one model at 112 pixels: both passes reach every factor."""
    export(recogniser(widths=(8, 16, 16, 512), blocks=(1, 1, 1, 1)), tmp_path / "arcface.onnx", fold=True)
    fan_file(tmp_path / "fan.pth.tar")
    face = IR50Encoder()
    save_file(face.state_dict(), tmp_path / "face.safetensors", {"encoder": describe(face)})
    config = ModelConfig(
        unet=UNetConfig(image_size=112, patch_size=4, channels=(32, 64), attention_levels=(1,), head_size=32,
                        fixed_resolution_level=None, token_size=32, predicts_variance=False),
        conditioning=ConditioningConfig(vector=512, map_channels=512, landmark_channels=68, grid=7, token_size=32,
                                        heads=2, style_size=128),
        diffusion=tiny.EPSILON.diffusion,
        encoders=EncoderNames(identity="arcface.onnx", face="face.safetensors", landmark="fan.pth.tar"),
    )  # fmt: skip
    fresh = CCFExp(config, FrozenEncoders.load(config.encoders, tmp_path))
    save_file(fresh.state_dict(), tmp_path / "base.safetensors", {"model": config_to_json(config)})

    model = CCFExp.from_base(tmp_path / "base.safetensors")
    model.attach_adapter(AdapterConfig(rank=2), 0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
    generator = torch.Generator().manual_seed(3)
    target, person, eps = (torch.rand(2, 3, 112, 112, generator=generator) * 2 - 1 for _ in range(3))
    with torch.no_grad():
        photo, shown = model.encoders.identity_features(person), model.encoders.expression_features(target)
        target_identity_BD = model.encoders.identity(target).vector_BD
    batch = Batch(target, photo, shown, target_identity_BD, shown.landmark_B136, shown.deviation_BD, photo.vector_BD)
    terms = cycle_loss(model, batch, torch.tensor([100, 500]), eps, replace(CycleConfig(), expression_weight=0.1))
    terms.total_B.sum().backward()
    assert torch.isfinite(terms.total_B).all()
    factors = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert all(factor.grad is not None and bool(factor.grad.any()) for factor in factors)
