"""Drawing images: DDIM from noise, conditioned on an identity photograph and an expression photograph."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ccfexp.conditioning import Condition, ExpressionFeatures, IdentityFeatures
from ccfexp.errors import ConfigError
from ccfexp.model import CCFExp
from ccfexp.parallel import shares


@dataclass(frozen=True)
class SamplingConfig:
    """DDIM settings; the published ones are 50 steps with eta 1.

    Attributes:
        steps: network evaluations per image.
        eta: 0 = deterministic given the first noise, 1 = as noisy as DDPM.
    """

    steps: int = 20
    eta: float = 0.0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"sampling steps={self.steps} must be >= 1")
        if not 0 <= self.eta <= 1:
            raise ConfigError(f"sampling eta={self.eta} must lie in [0, 1]")


def sample(
    model: CCFExp,
    identity: IdentityFeatures,
    expression: ExpressionFeatures,
    config: SamplingConfig,
    *,
    seed: int,
    batch_size: int = 32,
    threads: int = 1,
    on_batch: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Images [N,3,H,W] in [-1, 1] on the CPU.

    Args:
        model: base with or without adapter.
        identity: features of N identity photographs.
        expression: features of N expression photographs.
        config: steps and eta.
        seed: image n depends on (seed, n) alone, whatever the batch size.
        batch_size: images drawn together.
        threads: shares that they are drawn in.
        on_batch: called with (images done, images).
    """
    count, images = identity.vector_BD.shape[0], []

    def draw(first: int, part: slice) -> Tensor:
        chosen = slice(first + part.start, first + part.stop)
        generators = [torch.Generator().manual_seed(seed * 1_000_003 + n) for n in range(chosen.start, chosen.stop)]
        with torch.no_grad():  # each thread has its own switch
            condition = model.condition(
                IdentityFeatures(*(value[chosen].to(model.device) for value in identity)),
                ExpressionFeatures(*(value[chosen].to(model.device) for value in expression)),
            )
            return _draw(model, condition, config, generators).cpu()

    with shares(threads) as work:
        for start in range(0, count, batch_size):
            stop = min(start + batch_size, count)
            images += work.map(partial(draw, start), stop - start)
            if on_batch is not None:
                on_batch(stop, count)
    return torch.cat(images)


def _draw(model: CCFExp, condition: Condition, config: SamplingConfig, generators: list[torch.Generator]) -> Tensor:
    side = model.config.unet.image_size

    def noise() -> Tensor:
        return torch.stack([torch.randn(3, side, side, generator=g) for g in generators]).to(model.device)

    x_B3HW = noise()
    timesteps = model.diffusion.timesteps(config.steps)
    for t, t_next in zip(timesteps, [*timesteps[1:], None], strict=True):
        t_B = torch.full((len(generators),), t, device=model.device)
        prediction = model(x_B3HW, t_B, condition)
        fresh = noise() if config.eta > 0 and t_next is not None else None
        x_B3HW = model.diffusion.ddim_step(prediction, x_B3HW, t, t_next, config.eta, fresh)
    return x_B3HW.clamp(-1, 1)
