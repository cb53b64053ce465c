"""The two-pass cycle loss of CCFExp (arXiv 2409.07271, section 3.4), with the published code's defects as switches.

First pass: denoise x_t; its estimate x0_1 is judged by identity and landmarks. Second pass: x0_1 becomes the image,
expression and landmark conditions are recomputed from it, the same noise is added at the same timestep, and the
network must again arrive at the person and the expression. Few images teach more that way.
"""

from dataclasses import dataclass, replace
from typing import Final, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from ccfexp.conditioning import Condition, ExpressionFeatures, IdentityFeatures
from ccfexp.encoders import Encoded
from ccfexp.errors import ConfigError
from ccfexp.model import CCFExp


@dataclass(frozen=True)
class CycleConfig:
    """Weights of the terms and the corrections.

    Attributes:
        identity_weight: weight of the identity term (published .05).
        landmark_weight: weight of the mean squared landmark error in encoder units (published: 1 times a hidden 10).
        expression_weight: weight of the expression term, 1 - cosine between the deviations (face minus identity) of the
            estimate and of the target; the published loss judges the expression by landmarks alone (0).
        cycle_weight: weight of the second pass (published .3); 0 = one pass.
        estimate_from: the second pass's clean image comes from the second noisy image (corrected) or the first
            (published; inconsistent as a denoising estimate).
        detach_first: no gradient through x0_1 into the first pass (less memory, one backward chain less).
        clip: x0 estimates are clipped to [-1, 1] with a straight-through gradient (corrected), or hard (published:
            gradients die wherever the estimate leaves the range, which at large t is almost everywhere).
        trust_by_signal: the judged terms weigh with the signal's amplitude sqrt(a_t) (corrected): at large t an
            estimate is a blur, and judging it teaches the blur.
        second_image: whose vector the identity term of the second pass takes as that of the image: the target's
            (corrected), or the first estimate's (published: what is being judged is its own measure).
        identity_from: the identity term compares with a mix of photograph and image that leans to the photograph as t
            grows (published), or with one of the two.
        identity_time_cut: share of the timesteps, from 0, at which the identity term is nothing.
        identity_start_bias: what the photograph weighs in the mix at t = 0.
    """

    identity_weight: float = 0.05
    landmark_weight: float = 30.0
    expression_weight: float = 0.1
    cycle_weight: float = 0.3
    estimate_from: Literal["second", "first"] = "second"
    detach_first: bool = False
    clip: Literal["straight_through", "hard"] = "straight_through"
    trust_by_signal: bool = True
    second_image: Literal["target", "estimate"] = "target"
    identity_from: Literal["mix", "image", "photograph"] = "mix"
    identity_time_cut: float = 0.0
    identity_start_bias: float = 0.0

    def __post_init__(self) -> None:
        for name in ("identity_weight", "landmark_weight", "expression_weight", "cycle_weight"):
            if getattr(self, name) < 0:
                raise ConfigError(f"cycle {name}={getattr(self, name)} must be >= 0; 0 leaves the term out")
        if self.estimate_from not in ("second", "first"):
            raise ConfigError(
                f"cycle estimate_from={self.estimate_from!r} must be second or first; second is consistent"
            )
        if self.clip not in ("straight_through", "hard"):
            raise ConfigError(f"cycle clip={self.clip!r} must be straight_through or hard; choose one")
        if self.second_image not in ("target", "estimate"):
            raise ConfigError(f"cycle second_image={self.second_image!r} must be target or estimate; choose one")
        if self.identity_from not in ("mix", "image", "photograph"):
            raise ConfigError(
                f"cycle identity_from={self.identity_from!r} must be mix, image or photograph; choose one"
            )
        for name in ("identity_time_cut", "identity_start_bias"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"cycle {name}={getattr(self, name)} must lie in [0, 1]; 0 is the default")


# The loss as the published code computes it (its landmark term carries a factor of 10 that its settings do not show).
OFFICIAL_CYCLE: Final = CycleConfig(
    landmark_weight=10.0, expression_weight=0.0, estimate_from="first", clip="hard", trust_by_signal=False,
    second_image="estimate",
)  # fmt: skip


class Batch(NamedTuple):
    """B training examples; features are frozen (computed once).

    Attributes:
        target_B3HW: the image to draw, in [-1, 1].
        identity: features of the identity photograph.
        expression: features of the expression photograph (the target itself, unless pairs are crossed).
        target_identity_BD: the recogniser's vector of the target.
        target_landmark_B136: landmark vector of the target.
        target_deviation_BD: deviation (face minus neutral) of the target.
        person_BD: the recogniser's vector of the identity photograph.
    """

    target_B3HW: Tensor
    identity: IdentityFeatures
    expression: ExpressionFeatures
    target_identity_BD: Tensor
    target_landmark_B136: Tensor
    target_deviation_BD: Tensor
    person_BD: Tensor


class LossTerms(NamedTuple):
    """Per-example terms [B], detached; ``total_B`` carries the gradient."""

    total_B: Tensor
    diffusion_B: Tensor
    identity_B: Tensor
    landmark_B: Tensor
    expression_B: Tensor
    cycle_B: Tensor


def cycle_loss(model: CCFExp, batch: Batch, t_B: Tensor, eps_B3HW: Tensor, config: CycleConfig) -> LossTerms:
    """Loss of every example [B]; its mean is the published Final = L1 + w L2.

    Args:
        model: base with or without adapter.
        batch: examples.
        t_B: timesteps.
        eps_B3HW: standard normal noise, used in both passes.
        config: weights and corrections.
    """
    condition = model.condition(batch.identity, batch.expression)
    x_t = model.diffusion.add_noise(batch.target_B3HW, eps_B3HW, t_B)
    diffusion_B, x0_1 = _denoise(model, condition, batch.target_B3HW, x_t, eps_B3HW, t_B, x_t, config)
    judged = _judge(model, x0_1, config)
    terms = _judged_terms(model, batch, judged, t_B, config, batch.target_identity_BD)
    total_B = diffusion_B + terms.weighted(config)
    cycle_B = torch.zeros_like(total_B)
    if config.cycle_weight:
        cycle_B = _second_pass(model, batch, x0_1, judged, t_B, eps_B3HW, x_t, config)
        total_B = total_B + config.cycle_weight * cycle_B
    return LossTerms(total_B, *(term.detach() for term in (diffusion_B, *terms, cycle_B)))


class _Judged(NamedTuple):
    """What the frozen encoders say of an estimate; None = not asked for."""

    person_BD: Tensor | None
    landmark: Encoded | None
    deviation_BD: Tensor | None


class _Terms(NamedTuple):
    """Identity, landmark and expression terms [B], not yet weighted."""

    identity_B: Tensor
    landmark_B: Tensor
    expression_B: Tensor

    def weighted(self, config: CycleConfig) -> Tensor:
        """Their weighted sum [B]."""
        identity_B, landmark_B = config.identity_weight * self.identity_B, config.landmark_weight * self.landmark_B
        return identity_B + landmark_B + config.expression_weight * self.expression_B


def _judge(model: CCFExp, x0_B3HW: Tensor, config: CycleConfig) -> _Judged:
    needs_deviation = config.expression_weight or config.cycle_weight
    person_BD = landmark = deviation_BD = None
    if config.identity_weight or needs_deviation:
        person_BD, neutral_BD = model.encoders.vectors(x0_B3HW)
        if needs_deviation:
            deviation_BD = model.encoders.deviation(x0_B3HW, neutral_BD)
    if config.landmark_weight or config.cycle_weight:
        landmark = model.encoders.landmark(x0_B3HW)
    return _Judged(person_BD, landmark, deviation_BD)


def _denoise(
    model: CCFExp,
    condition: Condition,
    x0: Tensor,
    x_in: Tensor,
    eps: Tensor,
    t_B: Tensor,
    x_estimate: Tensor,
    config: CycleConfig,
) -> tuple[Tensor, Tensor]:
    """Weighted squared error [B] of the prediction for ``x_in``, and the clipped estimate built on ``x_estimate``."""
    prediction = model(x_in, t_B, condition)
    error_B = (prediction - model.diffusion.target(x0, eps, t_B)).square().flatten(1).mean(1)
    estimate, _ = model.diffusion.x0_and_eps(prediction, x_estimate, t_B)
    clipped = estimate.clamp(-1, 1)
    if config.clip == "straight_through":
        clipped = estimate + (clipped - estimate).detach()
    return model.diffusion.loss_weight(t_B) * error_B, clipped


def _second_pass(
    model: CCFExp,
    batch: Batch,
    x0_1: Tensor,
    judged: _Judged,
    t_B: Tensor,
    eps: Tensor,
    x_t: Tensor,
    config: CycleConfig,
) -> Tensor:
    """L2 [B]: x0_1 as the image; its expression and landmarks as conditions, the identity photograph unchanged."""
    assert judged.landmark is not None
    assert judged.deviation_BD is not None
    expression = ExpressionFeatures(judged.deviation_BD, judged.landmark.map_BCGG, judged.landmark.vector_BD)
    first, image_BD = x0_1, batch.target_identity_BD
    if config.second_image == "estimate" and judged.person_BD is not None:
        image_BD = judged.person_BD
    if config.detach_first:
        first, image_BD = x0_1.detach(), image_BD.detach()
        expression = ExpressionFeatures(*(part.detach() for part in expression))
    condition = model.condition(batch.identity, expression)
    x_again = model.diffusion.add_noise(first, eps, t_B)
    x_estimate = x_again if config.estimate_from == "second" else x_t
    # The target is a constant: otherwise the first pass could lower the loss by moving what the second must predict.
    diffusion_B, x0_2 = _denoise(model, condition, first.detach(), x_again, eps, t_B, x_estimate, config)
    again = _judge(model, x0_2, replace(config, cycle_weight=0.0))
    return diffusion_B + _judged_terms(model, batch, again, t_B, config, image_BD).weighted(config)


def _judged_terms(
    model: CCFExp, batch: Batch, judged: _Judged, t_B: Tensor, config: CycleConfig, image_BD: Tensor
) -> _Terms:
    """Terms of an estimate; ``image_BD`` is the vector that stands for the image in the identity term."""
    trust_B = model.diffusion.alpha_bar(t_B).sqrt() if config.trust_by_signal else torch.ones_like(t_B).float()
    nothing_B = torch.zeros_like(trust_B)
    identity_B = landmark_B = expression_B = nothing_B
    if config.identity_weight and judged.person_BD is not None:
        late_B = t_B.float() / model.diffusion.config.steps
        identity_B = trust_B * _identity_term(judged.person_BD, batch.person_BD, image_BD, late_B, config)
    if config.landmark_weight and judged.landmark is not None:
        landmark_B = trust_B * (judged.landmark.vector_BD - batch.target_landmark_B136).square().mean(1)
    if config.expression_weight and judged.deviation_BD is not None:
        expression_B = trust_B * (1 - functional.cosine_similarity(judged.deviation_BD, batch.target_deviation_BD))
    return _Terms(identity_B, landmark_B, expression_B)


def _identity_term(
    vector_BD: Tensor, person_BD: Tensor, image_BD: Tensor, late_B: Tensor, config: CycleConfig
) -> Tensor:
    """w(1 - cos(F(x0), F(photograph))) + (1 - w)(1 - cos(F(x0), F(image))), w = t/T where mixed, as DCFace does."""
    share_B = config.identity_start_bias + (1 - config.identity_start_bias) * late_B
    if config.identity_from != "mix":
        share_B = torch.full_like(late_B, float(config.identity_from == "photograph"))
    to_person_B = 1 - functional.cosine_similarity(vector_BD, person_BD)
    to_image_B = 1 - functional.cosine_similarity(vector_BD, image_BD)
    return (late_B >= config.identity_time_cut) * (share_B * to_person_B + (1 - share_B) * to_image_B)
