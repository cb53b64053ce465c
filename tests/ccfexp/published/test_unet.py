# ruff: noqa: ANN401 - diffusers' modules do not show as such to a type checker
"""The U-Net against outputs of the published one: small with stored weights, full size by the number recipe."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ccfexp.published.unet_names import block_names, projection_names, to_diffusers
from ccfexp.unet import CCFExpUNet, UNetConfig
from tests.ccfexp.published.recipe import facts, fill, largest_difference, tensors, uniform

TOLERANCE = 1e-4
SMALL = UNetConfig(
    image_size=48, channels=(32, 32, 32, 32, 64, 64), head_size=32, token_size=64, shared_projection=True
)


def load(state: dict[str, Tensor], config: UNetConfig) -> Any:
    """Every published tensor has its place, and nothing but the token projection is left without one."""
    unet: Any = CCFExpUNet.build(config)
    mapped, unknown = to_diffusers(state, config)
    assert not unknown
    missing, unexpected = unet.load_state_dict(mapped, strict=False)
    assert not unexpected
    assert all(name.startswith("condition_projection.") or ".add_" in name for name in missing)
    return unet.eval()


@pytest.fixture(scope="module")
def small() -> Any:
    return load(tensors("unet_small_state_f16"), SMALL)


@pytest.fixture(scope="module")
def io() -> dict[str, Tensor]:
    return tensors("unet_small_io")


def projected(unet: Any, io: dict[str, Tensor], **options: Any) -> Tensor:
    """The published network takes tokens that the shared map has already been applied to."""
    unet.condition_projection = None
    tokens = io["cross_attn"].transpose(1, 2)
    (out,) = unet(io["x"], io["timesteps"], tokens, io["stylemod"], return_dict=False, **options)
    found: Tensor = out
    return found


def test_the_rule_of_names_is_the_published_table() -> None:
    table = facts("unet_diffusers_map")
    state = {name: torch.zeros(shape) for name, shape in facts("keys_modules")["unet_full"].items()}
    mapped, unknown = to_diffusers(state, UNetConfig())
    network: Any = CCFExpUNet.build(UNetConfig())
    assert not unknown
    assert set(mapped) == {key for pairs in table["official_to_diffusers"].values() for key, _ in pairs}
    assert set(network.state_dict()) == set(mapped) | set(table["diffusers_only_keys"])


@torch.no_grad()
def test_sample_and_variance_of_the_small_network(small: Any, io: dict[str, Tensor]) -> None:
    out = projected(small, io)
    assert largest_difference(out[:, :3], io["sample"]) < TOLERANCE
    assert largest_difference(out[:, 3:], io["variance"]) < TOLERANCE


@torch.no_grad()
def test_every_kind_of_block_gives_the_published_output(small: Any, io: dict[str, Tensor]) -> None:
    published, taps = {ours: theirs for theirs, ours in block_names(SMALL).items()}, {}
    wanted = {
        "down_blocks.4.attentions.0": "tap_input_blocks_9", "down_blocks.4.downsamplers.0": "tap_input_blocks_10",
        "mid_block.resnets.1": "tap_middle_block", "up_blocks.0.upsamplers.0": "tap_output_blocks_1",
        "up_blocks.1.attentions.1": None, "up_blocks.1.upsamplers.0": "tap_output_blocks_3",
    }  # fmt: skip
    hooks = [
        small.get_submodule(name).register_forward_hook(lambda _m, _i, out, name=name: taps.update({name: out}))
        for name in wanted
    ]
    projected(small, io)
    for hook in hooks:
        hook.remove()
    for name, tap in wanted.items():
        assert name in published
        if tap is not None:
            assert largest_difference(taps[name], io[tap]) < TOLERANCE, name


@torch.no_grad()
def test_attention_and_resampling_blocks_alone(small: Any, io: dict[str, Tensor]) -> None:
    attention = small.get_submodule("down_blocks.4.attentions.0")
    found = attention(io["attn_x"], encoder_hidden_states=io["attn_tokens"].transpose(1, 2))
    assert largest_difference(found, io["attn_out"]) < TOLERANCE
    for block, x, expected in (
        ("down_blocks.4.resnets.0", "res_x", "res_out"),
        ("down_blocks.0.downsamplers.0", "resdown_x", "resdown_out"),
        ("up_blocks.1.upsamplers.0", "resup_x", "resup_out"),
    ):
        found = small.get_submodule(block)(io[x], io["res_emb"])
        assert largest_difference(found, io[expected]) < TOLERANCE, block


@torch.no_grad()
def test_time_embedding(small: Any, io: dict[str, Tensor]) -> None:
    embedded = small.time_embedding(small.time_proj(io["timesteps"]))
    assert largest_difference(embedded, io["time_embed"]) < TOLERANCE


def test_gradient_norms_of_the_small_network(small: Any, io: dict[str, Tensor]) -> None:
    """Every published parameter's gradient norm; the fused maps' norms join those of their three parts."""
    small.zero_grad()
    projected(small, io)[:, :3].square().mean().backward()
    gradients = {name: (torch.zeros_like(p) if p.grad is None else p.grad) for name, p in small.named_parameters()}
    expected = facts("unet_small_grads")
    expected = expected.get("grad_l2", expected)
    table = facts("unet_diffusers_map")["official_to_diffusers"]
    checked = 0
    for name, norm in expected.items():
        found = math.sqrt(sum(float(gradients[ours].double().square().sum()) for ours, _ in table[name]))
        assert math.isclose(found, norm, rel_tol=1e-3, abs_tol=1e-7), (name, found, norm)
        checked += 1
    assert checked == 360  # the small network has fewer shortcuts with weights than the full one


def test_shared_and_folded_projection_are_the_same_function(io: dict[str, Tensor]) -> None:
    """Folding the shared map into every attention changes no output; trained, the copies may part."""
    state, generator = tensors("unet_small_state_f16"), torch.Generator().manual_seed(0)
    weight, bias = torch.randn(128, 64, 1, generator=generator) / 8, torch.randn(128, generator=generator) / 8
    tokens_BNT = torch.randn(2, 21, 64, generator=generator)
    outs = []
    for shared in (True, False):
        config = UNetConfig(**{**vars(SMALL), "shared_projection": shared})
        unet = load(state, config)
        unet.load_state_dict(projection_names(weight, bias, config), strict=False)
        with torch.no_grad():
            outs.append(unet(io["x"], io["timesteps"], tokens_BNT, io["stylemod"], return_dict=False)[0])
    assert largest_difference(*outs) < TOLERANCE
    assert float(outs[0].std()) > 0.01


@pytest.mark.parametrize("shared", [True, False])
def test_a_saved_network_comes_back_whole(tmp_path: Path, io: dict[str, Tensor], *, shared: bool) -> None:
    """Diffusers' own saving and loading: the two blocks that do not resample stay as they are."""
    config = UNetConfig(**{**vars(SMALL), "shared_projection": shared})
    unet = load(tensors("unet_small_state_f16"), config)
    unet.save_pretrained(tmp_path)
    stock: Any = CCFExpUNet
    back = stock.from_pretrained(tmp_path).eval()
    tokens_BNT = torch.randn(2, 21, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        (before,) = unet(io["x"], io["timesteps"], tokens_BNT, io["stylemod"], return_dict=False)
        (after,) = back(io["x"], io["timesteps"], tokens_BNT, io["stylemod"], return_dict=False)
    torch.testing.assert_close(after, before, rtol=0, atol=0)


@torch.no_grad()
def test_full_size_output() -> None:
    """93,563,910 parameters at 112 pixels, and statistics of all 25 block outputs' ends by the sample alone."""
    config = UNetConfig(shared_projection=True)
    unet = load(fill(facts("keys_modules")["unet_full"], 40000), config)
    assert sum(p.numel() for n, p in unet.named_parameters() if "condition_projection" not in n) == 93_563_910
    unet.condition_projection = None
    x, tokens_B1024N = 1.7 * uniform(900030, (1, 3, 112, 112)), uniform(900031, (1, 1024, 147))
    style = 0.5 * uniform(900032, (1, 512))
    (out,) = unet(x, torch.tensor([437]), tokens_B1024N.transpose(1, 2), style, return_dict=False)
    expected = tensors("unet_full_recipe_io")
    assert largest_difference(out[:, :3], expected["sample"]) < TOLERANCE
    assert largest_difference(out[:, 3:], expected["variance"]) < TOLERANCE
