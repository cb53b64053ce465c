"""The two-pass cycle loss of CCFExp (arXiv 2409.07271, section 3.4), with the published code's defects as switches.

First pass: denoise x_t; its estimate x0_1 is judged by identity and landmarks. Second pass: x0_1 becomes the image,
expression and landmark conditions are recomputed from it, the same noise is added at the same timestep, and the
network must again arrive at the person and the expression. Few images teach more that way.
"""

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

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
    """

    identity_weight: float = 0.05
    landmark_weight: float = 30.0
    expression_weight: float = 0.1
    cycle_weight: float = 0.3
    estimate_from: Literal["second", "first"] = "second"
    detach_first: bool = False
    clip: Literal["straight_through", "hard"] = "straight_through"
    trust_by_signal: bool = True

    def __post_init__(self) -> None:
        for name in ("identity_weight", "landmark_weight", "expression_weight", "cycle_weight"):
            if getattr(self, name) < 0:
                raise ConfigError(f"cycle {name}={getattr(self, name)} must be >= 0")
        if self.estimate_from not in ("second", "first"):
            raise ConfigError(f"cycle estimate_from={self.estimate_from!r} must be second or first")
        if self.clip not in ("straight_through", "hard"):
            raise ConfigError(f"cycle clip={self.clip!r} must be straight_through or hard")


class Batch(NamedTuple):
    """B training examples; features are frozen (computed once).

    Attributes:
        target_B3HW: the image to draw, in [-1, 1].
        identity: features of the identity photograph.
        expression: features of the expression photograph (the target itself, unless pairs are crossed).
        target_identity_BD: identity vector of the target.
        target_landmark_B136: landmark vector of the target.
        target_deviation_BD: deviation (face minus identity) of the target.
    """

    target_B3HW: Tensor
    identity: IdentityFeatures
    expression: ExpressionFeatures
    target_identity_BD: Tensor
    target_landmark_B136: Tensor
    target_deviation_BD: Tensor


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
    terms = _judged_terms(model, batch, judged, t_B, config)
    total_B = diffusion_B + terms.weighted(config)
    cycle_B = torch.zeros_like(total_B)
    if config.cycle_weight:
        cycle_B = _second_pass(model, batch, x0_1, judged, t_B, eps_B3HW, x_t, config)
        total_B = total_B + config.cycle_weight * cycle_B
    return LossTerms(total_B, *(term.detach() for term in (diffusion_B, *terms, cycle_B)))


class _Judged(NamedTuple):
    """What the frozen encoders say of an estimate; None = not asked for."""

    identity: IdentityFeatures | None
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
    identity = landmark = deviation_BD = None
    if config.identity_weight or needs_deviation:
        identity = model.encoders.identity_features(x0_B3HW)
    if config.landmark_weight or config.cycle_weight:
        landmark = model.encoders.landmark(x0_B3HW)
    if needs_deviation and identity is not None:
        deviation_BD = model.encoders.face(x0_B3HW).vector_BD - identity.vector_BD
    return _Judged(identity, landmark, deviation_BD)


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
    first = x0_1
    if config.detach_first:
        first, expression = x0_1.detach(), ExpressionFeatures(*(part.detach() for part in expression))
    condition = model.condition(batch.identity, expression)
    x_again = model.diffusion.add_noise(first, eps, t_B)
    x_estimate = x_again if config.estimate_from == "second" else x_t
    # The target is a constant: otherwise the first pass could lower the loss by moving what the second must predict.
    diffusion_B, x0_2 = _denoise(model, condition, first.detach(), x_again, eps, t_B, x_estimate, config)
    again = _judge(model, x0_2, replace(config, cycle_weight=0.0))
    return diffusion_B + _judged_terms(model, batch, again, t_B, config).weighted(config)


def _judged_terms(model: CCFExp, batch: Batch, judged: _Judged, t_B: Tensor, config: CycleConfig) -> _Terms:
    trust_B = model.diffusion.alpha_bar(t_B).sqrt() if config.trust_by_signal else torch.ones_like(t_B).float()
    nothing_B = torch.zeros_like(trust_B)
    identity_B = landmark_B = expression_B = nothing_B
    if config.identity_weight and judged.identity is not None:
        identity_B = trust_B * _identity_term(model, batch, judged.identity, t_B)
    if config.landmark_weight and judged.landmark is not None:
        landmark_B = trust_B * (judged.landmark.vector_BD - batch.target_landmark_B136).square().mean(1)
    if config.expression_weight and judged.deviation_BD is not None:
        expression_B = trust_B * (1 - functional.cosine_similarity(judged.deviation_BD, batch.target_deviation_BD))
    return _Terms(identity_B, landmark_B, expression_B)


def _identity_term(model: CCFExp, batch: Batch, identity: IdentityFeatures, t_B: Tensor) -> Tensor:
    """(t/T)(1 - cos(F(x0), F(identity photograph))) + (1 - t/T)(1 - cos(F(x0), F(image))), as DCFace mixes them."""
    late_B = t_B.float() / model.diffusion.config.steps
    to_person_B = 1 - functional.cosine_similarity(identity.vector_BD, batch.identity.vector_BD)
    to_image_B = 1 - functional.cosine_similarity(identity.vector_BD, batch.target_identity_BD)
    return late_B * to_person_B + (1 - late_B) * to_image_B
