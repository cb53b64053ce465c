"""From frozen features to what the U-Net reads: identity, expression and landmark tokens, fused in a cycle.

The cycle of CCFExp (arXiv 2409.07271, section 3): three cross-attentions, each asking one kind of token about another
(landmarks about identity, identity about expression, expression about landmarks), concatenated.

Shapes: B batch, P = grid^2 positions, T token size, D encoder vector, C map channels, E time-embedding size.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from ccfexp.bottleneck import Bottleneck
from ccfexp.errors import ConfigError


@dataclass(frozen=True)
class ConditioningConfig:
    """Sizes of the features, and the corrections to the published fusion as switches.

    Attributes:
        vector: size D of the identity and face vectors.
        map_channels: channels C of the identity and landmark maps.
        grid: side of these maps.
        landmark_channels: channels of the landmark map; 0 = as the identity map has.
        token_size: T.
        heads: heads of each fusion attention.
        style_size: E.
        projected_queries: queries get their own projection and normalised inputs (published: raw, so that the
            attention temperature depends on the scale of the features).
        positions: expression and landmark tokens know where they are (published: landmark maps are re-viewed so that
            a token mixes channels over all positions; expression tokens are all affine in one vector).
        residual: each fused token keeps its query (published: it does not).
        style_expression: the expression also enters the style vector (published: identity alone).
        projected_tokens: linear maps turn the encoders' features into tokens and style (published: the features are
            the tokens, which needs vector = map_channels = token_size = style_size, and a learned scale makes the
            style).
    """

    vector: int = 128
    map_channels: int = 96
    grid: int = 8
    token_size: int = 128
    heads: int = 4
    style_size: int = 512
    projected_queries: bool = True
    positions: bool = True
    residual: bool = True
    style_expression: bool = True
    projected_tokens: bool = True
    landmark_channels: int = 0

    def __post_init__(self) -> None:
        if self.token_size % self.heads:
            raise ConfigError(
                f"token_size={self.token_size} must be a multiple of heads={self.heads}; change one of them"
            )
        sizes = {name: getattr(self, name) for name in ("vector", "map_channels", "style_size", "landmark_channels")}
        sizes["landmark_channels"] = self.landmark_channels or self.map_channels
        unequal = [f"{name}={size}" for name, size in sizes.items() if size != self.token_size]
        if not self.projected_tokens and unequal:
            raise ConfigError(
                f"{', '.join(unequal)} must equal token_size={self.token_size} where projected_tokens=False; "
                "make them equal or set projected_tokens=True"
            )


class IdentityFeatures(NamedTuple):
    """Frozen features of the identity photograph."""

    vector_BD: Tensor
    map_BCGG: Tensor


class ExpressionFeatures(NamedTuple):
    """Frozen features of the expression photograph: deviation (face minus identity), landmark map, landmarks."""

    deviation_BD: Tensor
    landmark_map_BCGG: Tensor
    landmark_B136: Tensor


class Condition(NamedTuple):
    """What the U-Net reads."""

    token_BNT: Tensor
    style_BE: Tensor


class CrossAttention(nn.Module):
    """Multi-head attention of one kind of token over another."""

    def __init__(self, size: int, heads: int, *, projected_queries: bool, residual: bool) -> None:
        super().__init__()
        self.heads, self.residual = heads, residual
        self.normalise_query: nn.Module = nn.LayerNorm(size) if projected_queries else nn.Identity()
        self.normalise_key: nn.Module = nn.LayerNorm(size) if projected_queries else nn.Identity()
        self.query: nn.Module = nn.Linear(size, size) if projected_queries else nn.Identity()
        self.key_value = nn.Linear(size, 2 * size)
        self.out = nn.Linear(size, size)

    def forward(self, query_BPT: Tensor, other_BPT: Tensor) -> Tensor:
        """Tokens [B,P,T]: each query token's weighted mean of the other tokens' values."""
        query = self._split(self.query(self.normalise_query(query_BPT)))
        key, value = (self._split(part) for part in self.key_value(self.normalise_key(other_BPT)).chunk(2, -1))
        attended = functional.scaled_dot_product_attention(query, key, value)
        out: Tensor = self.out(attended.transpose(1, 2).flatten(2))
        return query_BPT + out if self.residual else out

    def _split(self, x_BPT: Tensor) -> Tensor:
        split_BHPT: Tensor = x_BPT.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        return split_BHPT


class Conditioner(nn.Module):
    """Tokens, cyclic cross-fusion and style vector."""

    def __init__(self, config: ConditioningConfig) -> None:
        super().__init__()
        self.config = config
        self.bottleneck = Bottleneck()
        positions, size = config.grid**2, config.token_size

        def project(inputs: int) -> nn.Module:
            return nn.Linear(inputs, size) if config.projected_tokens else nn.Identity()

        self.identity_project = project(config.map_channels)
        self.identity_position = nn.Parameter(0.02 * torch.randn(positions, size))
        self.expression_project = project(config.vector)
        self.expression_scale = nn.Parameter(torch.ones(positions, 1) + 0.02 * torch.randn(positions, 1))
        self.expression_position = nn.Parameter(0.02 * torch.randn(positions, size if config.positions else 1))
        self.landmark_project = project(config.landmark_channels or config.map_channels)
        if config.positions:
            self.landmark_position = nn.Parameter(0.02 * torch.randn(positions, size))

        def attention() -> CrossAttention:
            return CrossAttention(
                size, config.heads, projected_queries=config.projected_queries, residual=config.residual
            )

        self.identity_attention = attention()
        self.expression_attention = attention()
        self.landmark_attention = attention()
        self.style_identity: nn.Module = (
            nn.Linear(config.vector, config.style_size) if config.projected_tokens else _ScaledStyle(size)
        )
        self.style_expression = nn.Linear(config.vector, config.style_size) if config.style_expression else None

    def forward(self, identity: IdentityFeatures, expression: ExpressionFeatures) -> Condition:
        """Fuse the features of an identity photograph and an expression photograph."""
        identity_BPT = self.identity_project(_positions_first(identity.map_BCGG)) + self.identity_position
        expression_BPT = self._expression_tokens(expression.deviation_BD)
        landmark_BPT = self._landmark_tokens(self.bottleneck.narrow(expression.landmark_map_BCGG))
        style_BE = self.style_identity(identity.vector_BD)
        if self.style_expression is not None:
            style_BE = style_BE + self.style_expression(expression.deviation_BD)
        return Condition(self.fuse(identity_BPT, expression_BPT, landmark_BPT), style_BE)

    def fuse(self, identity_BPT: Tensor, expression_BPT: Tensor, landmark_BPT: Tensor) -> Tensor:
        """The cycle of three attentions; condition tokens [B,3P,T]: of identity, expression and landmarks."""
        fused = [
            self.identity_attention(landmark_BPT, identity_BPT),
            self.expression_attention(identity_BPT, expression_BPT),
            self.landmark_attention(expression_BPT, landmark_BPT),
        ]
        return torch.cat(fused, 1)

    def _expression_tokens(self, deviation_BD: Tensor) -> Tensor:
        token_BT: Tensor = self.expression_project(deviation_BD)
        return token_BT[:, None] * self.expression_scale + self.expression_position

    def _landmark_tokens(self, map_BCGG: Tensor) -> Tensor:
        if not self.config.positions:  # published: memory order, a token is a stretch of channels
            batch, channels, side, _ = map_BCGG.shape
            mixed: Tensor = self.landmark_project(map_BCGG.reshape(batch, side * side, channels))
            return mixed
        tokens: Tensor = self.landmark_project(_positions_first(map_BCGG)) + self.landmark_position
        return tokens


class _ScaledStyle(nn.Module):
    """The published style: the identity vector as token 0 of the embedder, plus its position, times a learned scale."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.position = nn.Parameter(0.02 * torch.randn(size))
        self.scale = nn.Parameter(torch.full((1,), 0.001))

    def forward(self, vector_BD: Tensor) -> Tensor:
        style_BE: Tensor = (vector_BD + self.position) * self.scale
        return style_BE


def _positions_first(map_BCGG: Tensor) -> Tensor:
    return map_BCGG.flatten(2).transpose(1, 2)
