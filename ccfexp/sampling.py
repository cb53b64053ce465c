"""Drawing images from noise, conditioned on an identity photograph and an expression photograph.

Two samplers: DDIM as published, and DPM-Solver++ of second order (Lu et al. 2022, by diffusers), which needs far fewer
steps.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal, cast

import torch
from torch import Tensor

from ccfexp.conditioning import Condition, ExpressionFeatures, IdentityFeatures
from ccfexp.errors import ConfigError
from ccfexp.model import CCFExp
from ccfexp.parallel import shares


@dataclass(frozen=True)
class SamplingConfig:
    """How an image is drawn; published: DDIM, 50 steps, eta 1.

    Attributes:
        steps: network evaluations per image.
        eta: of DDIM, 0 = deterministic given the first noise, 1 = as noisy as DDPM.
        sampler: ddim, or dpm (DPM-Solver++, deterministic).
        guidance: how far to go along the way from the same person at rest to the expression (Ho and Salimans 2022,
            with the identity photograph's own expression in place of no condition); 1 = to it, as published. More
            shows the expression more clearly and costs a second evaluation per step, and fidelity.
    """

    steps: int = 20
    eta: float = 0.0
    sampler: Literal["ddim", "dpm"] = "ddim"
    guidance: float = 1.0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"sampling steps={self.steps} must be >= 1; give a positive number")
        if not 0 <= self.eta <= 1:
            raise ConfigError(f"sampling eta={self.eta} must lie in [0, 1]; 0 is deterministic")
        if self.sampler not in ("ddim", "dpm"):
            raise ConfigError(f"sampling sampler={self.sampler!r} must be ddim or dpm; choose one")
        if not 0 <= self.guidance <= 5:
            raise ConfigError(f"sampling guidance={self.guidance} must lie in [0, 5]; 1 is none")
        if self.sampler == "dpm" and self.eta:
            raise ConfigError(f"sampling eta={self.eta} must be 0 with sampler='dpm', which adds no noise; set eta=0")


PUBLISHED_SAMPLING: Final = SamplingConfig(steps=50, eta=1.0)


def sample(
    model: CCFExp,
    identity: IdentityFeatures,
    expression: ExpressionFeatures,
    config: SamplingConfig,
    *,
    seed: int,
    batch_size: int = 32,
    threads: int = 1,
    resting: ExpressionFeatures | None = None,
    on_batch: Callable[[int, int], None] | None = None,
    seeds: Sequence[int] | None = None,
) -> Tensor:
    """Images [N,3,H,W] in [-1, 1] on the CPU.

    Args:
        model: base with or without adapter.
        identity: features of N identity photographs.
        expression: features of N expression photographs.
        config: sampler and steps.
        seed: image n depends on (seed, n) alone, whatever the batch size.
        batch_size: images drawn together.
        threads: shares that they are drawn in.
        resting: features of the N identity photographs as expression photographs; needed where there is guidance.
        on_batch: called with (images done, images).
        seeds: of each image's noise, in place of those that follow from ``seed``.

    Raises:
        ConfigError: guidance without ``resting``, or more steps than the diffusion has.
    """
    if config.guidance != 1 and resting is None:
        raise ConfigError(f"sampling guidance={config.guidance} needs the resting expression; give it, or guidance 1")
    model.diffusion.timesteps(config.steps)  # the bound is that of either sampler
    count, images = identity.vector_BD.shape[0], []
    own = _seeds(seed, count) if seeds is None else seeds

    def draw(first: int, part: slice) -> Tensor:
        chosen = slice(first + part.start, first + part.stop)
        with torch.no_grad():  # each thread has its own switch
            denoise = _denoiser(model, identity, expression, resting, config, chosen)
            return _draw(denoise, config, [torch.Generator().manual_seed(number) for number in own[chosen]]).cpu()

    with shares(threads) as work:
        for start in range(0, count, batch_size):
            stop = min(start + batch_size, count)
            images += work.map(partial(draw, start), stop - start)
            if on_batch is not None:
                on_batch(stop, count)
    return torch.cat(images)


def _seeds(seed: int, count: int) -> list[int]:
    """Of each image; a generator takes 63 bits, which the seed of a run may have before it is multiplied."""
    return [(seed * 1_000_003 + n) % 2**63 for n in range(count)]


@dataclass(frozen=True)
class _Denoiser:
    """The network under its condition, and where there is guidance also under the resting one."""

    model: CCFExp
    condition: Condition
    resting: Condition | None
    guidance: float

    def __call__(self, x_B3HW: Tensor, t_B: Tensor) -> Tensor:
        prediction: Tensor = self.model(x_B3HW, t_B, self.condition)
        if self.resting is None:
            return prediction
        still: Tensor = self.model(x_B3HW, t_B, self.resting)
        return still + self.guidance * (prediction - still)


def _denoiser(
    model: CCFExp,
    identity: IdentityFeatures,
    expression: ExpressionFeatures,
    resting: ExpressionFeatures | None,
    config: SamplingConfig,
    chosen: slice,
) -> _Denoiser:
    """The network under the conditions of the chosen images."""
    person = IdentityFeatures(*(value[chosen].to(model.device) for value in identity))

    def condition(features: ExpressionFeatures) -> Condition:
        return model.condition(person, ExpressionFeatures(*(value[chosen].to(model.device) for value in features)))

    still = condition(resting) if resting is not None and config.guidance != 1 else None
    return _Denoiser(model, condition(expression), still, config.guidance)


def _draw(denoise: _Denoiser, config: SamplingConfig, generators: list[torch.Generator]) -> Tensor:
    model = denoise.model
    side = model.config.unet.image_size

    def noise() -> Tensor:
        return torch.stack([torch.randn(3, side, side, generator=g) for g in generators]).to(model.device)

    x_B3HW = noise()
    if config.sampler == "dpm":
        return _solve(denoise, config.steps, x_B3HW)
    timesteps = model.diffusion.timesteps(config.steps)
    for t, t_next in zip(timesteps, [*timesteps[1:], None], strict=True):
        prediction = denoise(x_B3HW, torch.full((len(generators),), t, device=model.device))
        fresh = noise() if config.eta > 0 and t_next is not None else None
        x_B3HW = model.diffusion.ddim_step(prediction, x_B3HW, t, t_next, config.eta, fresh)
    return x_B3HW.clamp(-1, 1)


def _solve(denoise: _Denoiser, steps: int, x_B3HW: Tensor) -> Tensor:
    """DPM-Solver++(2M) from pure noise (the last step of first order: second order overshoots there)."""
    from diffusers import DPMSolverMultistepScheduler  # takes seconds to import; not every process draws so

    diffusion, make = denoise.model.diffusion, cast("Any", DPMSolverMultistepScheduler)
    prediction = diffusion.config.prediction
    scheduler = make(
        num_train_timesteps=diffusion.config.steps,
        trained_betas=(1 - diffusion.alpha_T).numpy(),
        prediction_type="v_prediction" if prediction == "v" else prediction,
        timestep_spacing="linspace",
        final_sigmas_type="zero",
        lower_order_final=True,
    )
    scheduler.set_timesteps(steps, device=x_B3HW.device)
    for t in scheduler.timesteps:
        t_B = t.to(x_B3HW.device).expand(x_B3HW.shape[0])
        x_B3HW = scheduler.step(denoise(x_B3HW, t_B), t, x_B3HW, return_dict=False)[0]
    return x_B3HW.clamp(-1, 1)
