"""The diffusion process: schedule, what the network predicts, and the DDIM step.

Shapes: B images of 3 x H x W in [-1, 1]; t_B integer timesteps 0..T-1; a_B = alphas_cumprod[t].
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ccfexp.errors import ConfigError

Prediction = Literal["epsilon", "v", "sample"]


@dataclass(frozen=True)
class DiffusionConfig:
    """Schedule and parametrisation; the published model predicts epsilon with plain weights.

    Attributes:
        steps: number of timesteps T.
        beta_start, beta_end: linear schedule.
        prediction: epsilon (Ho et al. 2020), v = sqrt(a) eps - sqrt(1-a) x0 (Salimans and Ho 2022, eq. 11), or sample
            (x0 itself: images lie near a low-dimensional set and noise does not, so that a narrow network with a
            patch stem can put out the one and not the other).
        min_snr_gamma: weight min(SNR, gamma)-style (Hang et al. 2023, eq. 9), or None for plain weights.
        rederive_noise: after an estimate has been clipped, a DDIM step takes the noise that leads from the clipped
            image to x_t (published: the noise as predicted, which then no longer belongs to that image).
    """

    steps: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 0.02
    prediction: Prediction = "epsilon"
    min_snr_gamma: float | None = None
    rederive_noise: bool = True

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"diffusion steps={self.steps} must be >= 1; 1000 is usual")
        if not 0 < self.beta_start <= self.beta_end < 1:
            raise ConfigError(
                f"beta_start={self.beta_start}, beta_end={self.beta_end} must satisfy 0 < start <= end < 1; "
                "0.0001 and 0.02 are usual"
            )
        if self.min_snr_gamma is not None and not self.min_snr_gamma > 0:
            raise ConfigError(f"min_snr_gamma={self.min_snr_gamma} must be > 0, or null for plain weights")
        if self.prediction not in ("epsilon", "v", "sample"):
            raise ConfigError(f"prediction={self.prediction!r} must be epsilon, v or sample; a base knows one of them")


class Diffusion:
    """Pure functions of the schedule; holds only constants."""

    def __init__(self, config: DiffusionConfig) -> None:
        self.config = config
        beta_T = torch.linspace(config.beta_start, config.beta_end, config.steps, dtype=torch.float64)
        self.alpha_T = 1 - beta_T
        self.alpha_bar_T = torch.cumprod(self.alpha_T, 0)

    def _a(self, t_B: Tensor) -> tuple[Tensor, Tensor]:
        a_B = self.alpha_bar_T.to(t_B.device)[t_B].float()[:, None, None, None]
        return a_B.sqrt(), (1 - a_B).sqrt()

    def add_noise(self, x0_B3HW: Tensor, eps_B3HW: Tensor, t_B: Tensor) -> Tensor:
        """x_t = sqrt(a) x0 + sqrt(1-a) eps (Ho et al. 2020, eq. 4)."""
        signal, noise = self._a(t_B)
        return signal * x0_B3HW + noise * eps_B3HW

    def target(self, x0_B3HW: Tensor, eps_B3HW: Tensor, t_B: Tensor) -> Tensor:
        """What the network should predict."""
        if self.config.prediction == "epsilon":
            return eps_B3HW
        if self.config.prediction == "sample":
            return x0_B3HW
        signal, noise = self._a(t_B)
        return signal * eps_B3HW - noise * x0_B3HW

    def x0_and_eps(self, prediction_B3HW: Tensor, x_t_B3HW: Tensor, t_B: Tensor) -> tuple[Tensor, Tensor]:
        """Estimates of the clean image (not clipped) and of the noise."""
        signal, noise = self._a(t_B)
        if self.config.prediction == "epsilon":
            return (x_t_B3HW - noise * prediction_B3HW) / signal, prediction_B3HW
        if self.config.prediction == "sample":
            return prediction_B3HW, (x_t_B3HW - signal * prediction_B3HW) / noise
        return signal * x_t_B3HW - noise * prediction_B3HW, noise * x_t_B3HW + signal * prediction_B3HW

    def alpha_bar(self, t_B: Tensor) -> Tensor:
        """Signal power a_B of timesteps."""
        return self.alpha_bar_T.to(t_B.device)[t_B].float()

    def loss_weight(self, t_B: Tensor) -> Tensor:
        """Weight [B] of the squared error of the prediction.

        Without ``min_snr_gamma`` ones. With it, in terms of the clean image: min(SNR, gamma) for epsilon and v (Hang et
        al. 2023), and min(SNR + 1, gamma), the v loss with a cap, for sample, which keeps a weight at the large
        timesteps where the conditions decide who and which expression is drawn.
        """
        gamma = self.config.min_snr_gamma
        if gamma is None:
            return torch.ones_like(t_B, dtype=torch.float32)
        a_B = self.alpha_bar(t_B)
        snr_B = a_B / (1 - a_B)
        if self.config.prediction == "sample":
            return (snr_B + 1).clamp(max=gamma)
        capped_B = snr_B.clamp(max=gamma)
        return capped_B / snr_B if self.config.prediction == "epsilon" else capped_B / (snr_B + 1)

    def timesteps(self, count: int) -> list[int]:
        """Leading spacing: ``count`` timesteps from high to low, ending at 0 (50 of 1000: 980, 960 ... 0).

        Raises:
            ConfigError: more sampling steps than timesteps, or fewer than one.
        """
        if not 1 <= count <= self.config.steps:
            raise ConfigError(f"sampling steps={count} must lie in [1, {self.config.steps}]; take fewer")
        stride = self.config.steps // count
        return [stride * k for k in reversed(range(count))]

    def ddim_step(
        self, prediction: Tensor, x_t: Tensor, t: int, t_next: int | None, eta: float, noise: Tensor | None
    ) -> Tensor:
        """One DDIM step from ``t`` to ``t_next`` (None = the end); x0 is clipped to [-1, 1] (Song et al. 2021, eq. 12).

        Args:
            prediction: of the network for ``x_t`` [B,3,H,W].
            x_t: noisy images [B,3,H,W].
            t: their timestep.
            t_next: the next, lower timestep, or None for the clean image.
            eta: 0 = deterministic, 1 = as noisy as DDPM.
            noise: standard normal [B,3,H,W], needed where eta > 0.
        """
        t_B = torch.full((x_t.shape[0],), t, device=x_t.device)
        x0, eps = self.x0_and_eps(prediction, x_t, t_B)
        x0 = x0.clamp(-1, 1)
        a_next = torch.ones((), dtype=torch.float64) if t_next is None else self.alpha_bar_T[t_next]
        a = self.alpha_bar_T[t]
        if self.config.rederive_noise:
            eps = (x_t - a.sqrt().float() * x0) / (1 - a).sqrt().float()
        variance = (1 - a_next) / (1 - a) * (1 - a / a_next)
        sigma = eta * variance.sqrt()
        direction = (1 - a_next - sigma**2).clamp(min=0).sqrt()
        out = a_next.sqrt().float() * x0 + direction.float() * eps
        return out if noise is None or t_next is None else out + sigma.float() * noise
