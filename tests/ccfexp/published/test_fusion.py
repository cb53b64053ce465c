"""Identity tokens, emotion tokens and the cycle of attentions against the published outputs."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from ccfexp.conditioning import Conditioner, ExpressionFeatures, IdentityFeatures
from ccfexp.errors import ConfigError
from ccfexp.published.fusion_names import OFFICIAL_CONDITIONING, to_conditioner
from tests.ccfexp.published.recipe import facts, fill, largest_difference, tensors, uniform

TOLERANCE = 1e-4
SMALL = replace(OFFICIAL_CONDITIONING, vector=64, map_channels=64, token_size=64, style_size=64)


def conditioner(state: dict[str, Tensor], *, small: bool) -> Conditioner:
    """A published conditioner; the embedder's positions are zero where the data state none."""
    config = SMALL if small else OFFICIAL_CONDITIONING
    size = config.token_size
    embedder = {"label_mapping.pos_emb.0": torch.zeros(50, size), "label_mapping.scaler.0": torch.ones(1)}
    model = Conditioner(config)
    model.load_state_dict(to_conditioner(embedder | state))
    return model.eval()


def prefixed(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{key}": value for key, value in state.items()}


@torch.no_grad()
def test_fusion_of_64_channels_and_each_attention() -> None:
    state, io = tensors("fusion64_state_f32"), tensors("fusion64_io")
    model = conditioner(state, small=True)
    emotion_BPT = model._expression_tokens(io["emotion"])
    assert largest_difference(emotion_BPT, io["emotion_tokens"]) < TOLERANCE
    identity, landmark = io["id_tokens"], io["landmark_tokens"]
    for found, name in (
        (model.identity_attention(landmark, identity), "att_id_out"),
        (model.expression_attention(identity, emotion_BPT), "att_em_out"),
        (model.landmark_attention(emotion_BPT, landmark), "att_lm_out"),
    ):
        assert largest_difference(found, io[name]) < TOLERANCE, name
    fused = model.fuse(identity, emotion_BPT, landmark)
    assert largest_difference(fused.transpose(1, 2), io["fused"]) < TOLERANCE
    projected = functional.linear(
        fused, state["cross_attn_adapter.weight"].flatten(1), state["cross_attn_adapter.bias"]
    )
    assert largest_difference(projected.transpose(1, 2), io["cross_attn"]) < TOLERANCE


@torch.no_grad()
def test_fusion_at_full_width() -> None:
    shapes, io = facts("keys_modules"), tensors("fusion512_recipe_io")
    parts = {"condition_adapter": 30000, "emotion_adapter": 30100, "cross_attn_adapter": 30200}
    state = {k: v for name, base in parts.items() for k, v in prefixed(name, fill(shapes[name], base)).items()}
    model = conditioner({k: v for k, v in state.items() if "cross_attn" not in k}, small=False)
    emotion_BPT = model._expression_tokens(uniform(900021, (1, 512)))
    assert largest_difference(emotion_BPT, io["emotion_tokens"]) < TOLERANCE
    fused = model.fuse(uniform(900020, (1, 49, 512)), emotion_BPT, uniform(900022, (1, 49, 512)))
    assert largest_difference(fused.transpose(1, 2), io["fused"]) < TOLERANCE
    projected = functional.linear(
        fused, state["cross_attn_adapter.weight"].flatten(1), state["cross_attn_adapter.bias"]
    )
    assert largest_difference(projected.transpose(1, 2), io["cross_attn"]) < TOLERANCE


@torch.no_grad()
def test_identity_tokens_and_style_of_the_embedder() -> None:
    io, fusion = tensors("label_mapping_io"), facts("keys_modules")
    state = {
        key: value
        for name in ("condition_adapter", "emotion_adapter")
        for key, value in prefixed(name, fill(fusion[name], 1)).items()
    }
    state |= {"label_mapping.pos_emb.0": io["pos_emb_init"], "label_mapping.scaler.0": io["scaler_init"]}
    model = conditioner(state, small=False)
    tokens_BPT = model.identity_project(io["spatial"].flatten(2).transpose(1, 2)) + model.identity_position
    assert largest_difference(model.style_identity(io["feature"]), io["id"]) < TOLERANCE
    assert largest_difference(tokens_BPT, io["cross_att"]) < TOLERANCE


@torch.no_grad()
def test_landmark_tokens_are_read_in_memory_order() -> None:
    """The published slip: a token is a stretch of channels, not a position."""
    io = tensors("mobilefacenet_recipe_io")
    model = Conditioner(OFFICIAL_CONDITIONING)
    assert torch.equal(model._landmark_tokens(io["features"])[:1], io["tokens"])
    corrected = Conditioner(replace(OFFICIAL_CONDITIONING, positions=True))
    corrected.landmark_position.zero_()
    assert torch.equal(corrected._landmark_tokens(io["features"])[0, 8], io["features"][0, :, 1, 1])


@torch.no_grad()
def test_the_whole_published_condition_is_its_parts() -> None:
    """``forward`` joins what the tests above check one by one."""
    model = Conditioner(SMALL)
    g = torch.Generator().manual_seed(0)
    identity = IdentityFeatures(torch.randn(2, 64, generator=g), torch.randn(2, 64, 7, 7, generator=g))
    expression = ExpressionFeatures(
        torch.randn(2, 64, generator=g), torch.randn(2, 64, 7, 7, generator=g), torch.randn(2, 136, generator=g)
    )
    condition = model(identity, expression)
    tokens_BPT = identity.map_BCGG.flatten(2).transpose(1, 2) + model.identity_position
    landmark_BPT = expression.landmark_map_BCGG.reshape(2, 49, 64)
    expected = model.fuse(tokens_BPT, model._expression_tokens(expression.deviation_BD), landmark_BPT)
    torch.testing.assert_close(condition.token_BNT, expected)
    embedder: Any = model.style_identity
    style: Tensor = (identity.vector_BD + embedder.position) * embedder.scale
    torch.testing.assert_close(condition.style_BE, style)


def test_published_tokens_need_equal_sizes() -> None:
    with pytest.raises(ConfigError, match=r"vector=128 must equal token_size=512 where projected_tokens=False"):
        replace(OFFICIAL_CONDITIONING, vector=128)
