"""The denoiser: the published layout, its two switched-off resamplings, and the phantom preset."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from ccfexp.errors import ConfigError
from ccfexp.model import PHANTOM
from ccfexp.unet import CCFExpUNet, UNetConfig
from tests.ccfexp.tiny import UNET

# Like the published network, one level keeps its resolution; 16 px and two widths instead of 112 px and four.
FIXED = UNetConfig(
    image_size=16,
    channels=(32, 32, 64),
    attention_levels=(1,),
    fixed_resolution_level=1,
    head_size=32,
    token_size=24,
)


def _inputs(config: UNetConfig, size: int = 2) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    x_t = torch.randn(size, 3, config.image_size, config.image_size, generator=generator)
    token = torch.randn(size, 5, config.token_size, generator=generator)
    style = torch.randn(size, 4 * config.channels[0], generator=generator)
    return x_t, torch.tensor([10, 900][:size]), token, style


def _random(config: UNetConfig) -> CCFExpUNet:
    torch.manual_seed(1)
    unet: Any = CCFExpUNet(**asdict(config))
    unet.eval().requires_grad_(False)
    network: CCFExpUNet = unet
    return network


def test_published_sizes() -> None:
    """The published 93,563,910 parameters, and four untied copies of the one map of condition tokens."""
    with torch.device("meta"):
        unet = CCFExpUNet(**asdict(UNetConfig()))
    parameters = sum(parameter.numel() for parameter in unet.parameters())
    untied = sum(p.numel() for name, p in unet.named_parameters() if "add_k_proj" in name or "add_v_proj" in name)

    assert parameters == 95_665_158
    assert untied == 4 * (512 * 1024 + 1024)
    assert parameters - untied == 93_563_910
    assert unet.config["sample_size"] == 112
    assert unet.conv_out.out_channels == 6


@pytest.mark.parametrize("config", [FIXED, UNET])
def test_first_prediction_is_exactly_zero(config: UNetConfig) -> None:
    """As ADM starts; a plain constructor would not."""
    prediction = CCFExpUNet.build(config).predict(*_inputs(config))

    assert prediction.shape == (2, 3, config.image_size, config.image_size)
    assert not prediction.any()
    assert _random(config).predict(*_inputs(config)).abs().mean() > 1e-3


def test_a_saved_network_comes_back_with_its_resampling_switched_off(tmp_path: Path) -> None:
    """Reloading rebuilds the layers, so the switches must be part of building."""
    unet: Any = _random(FIXED)
    unet.save_pretrained(tmp_path)
    again: Any = type(unet).from_pretrained(tmp_path).eval()

    assert again.down_blocks[1].downsamplers[0].downsample is None
    assert again.up_blocks[0].upsamplers[0].upsample is None
    assert again.down_blocks[0].downsamplers[0].downsample is not None
    assert again.up_blocks[1].upsamplers[0].upsample is not None
    assert torch.equal(again.predict(*_inputs(FIXED)), unet.predict(*_inputs(FIXED)))


def test_conditions_and_time_reach_the_output() -> None:
    """Each of the four inputs matters."""
    unet, inputs = _random(UNET), _inputs(UNET)
    plain = unet.predict(*inputs)

    for place, other in enumerate((inputs[0] + 1, inputs[1] + 50, inputs[2] + 1, inputs[3] + 1)):
        changed = (*inputs[:place], other, *inputs[place + 1 :])
        assert (unet.predict(*changed) - plain).abs().max() > 1e-4, place


def test_phantom_preset_works_on_patches() -> None:
    """64 pixels go in and out, 16 x 16 patches of 48 numbers between."""
    with torch.device("meta"):
        unet = CCFExpUNet(**asdict(PHANTOM.unet))
        prediction = unet.predict(*(part.to("meta") for part in _inputs(PHANTOM.unet)))

    assert unet.conv_in.in_channels == unet.conv_out.out_channels == 48
    assert unet.config["sample_size"] == 16
    assert prediction.shape == (2, 3, 64, 64)
    assert 2e6 < sum(parameter.numel() for parameter in unet.parameters()) < 6e6


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"image_size": 100}, "image_size=100 must be a multiple of 16"),
        ({"image_size": 64, "patch_size": 3}, "image_size=64 must be a multiple of 48"),
        ({"channels": (128, 128, 256, 256, 512, 500)}, "must be multiples of 32"),
        ({"attention_levels": (6,)}, r"attention_levels=\(6,\) must lie in 0 to 5"),
    ],
)
def test_impossible_sizes(values: dict[str, object], message: str) -> None:
    """The error names the value and the bound."""
    with pytest.raises(ConfigError, match=message):
        UNetConfig(**values)  # type: ignore[arg-type]
