"""Noise schedule, x0 estimate, DDIM steps and the 50-step trajectory against the published sampler."""

import pytest
import torch
from torch import Tensor

from ccfexp.diffusion import Diffusion, DiffusionConfig
from tests.ccfexp.published.recipe import largest_difference, tensors

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def io() -> dict[str, Tensor]:
    return tensors("scheduler_io")


@pytest.fixture(scope="module")
def diffusion() -> Diffusion:
    return Diffusion(DiffusionConfig(prediction="epsilon", rederive_noise=False))


def test_alphas(diffusion: Diffusion, io: dict[str, Tensor]) -> None:
    torch.testing.assert_close(diffusion.alpha_bar_T.float(), io["alphas_cumprod"], rtol=1e-5, atol=0)


def test_noising_and_the_estimate(diffusion: Diffusion, io: dict[str, Tensor]) -> None:
    t_B = io["timesteps"].long() if "timesteps" in io else torch.tensor([0, 250, 700, 999])
    noisy = diffusion.add_noise(io["x0"], io["noise"], t_B)
    assert largest_difference(noisy, io["noisy"]) < TOLERANCE
    estimate, _ = diffusion.x0_and_eps(io["eps"], noisy, t_B)
    scale = 1 / diffusion.alpha_bar(t_B).sqrt()[:, None, None, None]
    assert float(((estimate - io["x0_from_eps_noclip"]).abs() / scale).max()) < TOLERANCE
    assert largest_difference(estimate.clamp(-1, 1), io["x0_from_eps_clip"]) < 10 * TOLERANCE


@pytest.mark.parametrize("t", [980, 500, 20, 0])
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_one_step(diffusion: Diffusion, io: dict[str, Tensor], t: int, eta: float) -> None:
    part = {key: io[f"step{t}_{key}"] for key in ("sample", "eps", "noise")}
    t_next = t - 20 if t else None
    out = diffusion.ddim_step(part["eps"], part["sample"], t, t_next, eta, part["noise"] if eta else None)
    assert largest_difference(out, io[f"step{t}_eta{int(eta)}"]) < TOLERANCE


def test_the_whole_trajectory(diffusion: Diffusion, io: dict[str, Tensor]) -> None:
    """50 steps with eta 1 of a toy denoiser: every state on the way."""
    timesteps = diffusion.timesteps(50)
    assert timesteps == io["ddim_timesteps_50"].tolist()
    x = io["traj_x_T"]
    for k, (t, t_next) in enumerate(zip(timesteps, [*timesteps[1:], None], strict=True)):
        eps = torch.tanh(x) * (0.3 + 0.7 * t / 1000)
        x = diffusion.ddim_step(eps, x, t, t_next, 1.0, io["traj_noise"][k : k + 1])
        assert largest_difference(x, io["traj_states"][k : k + 1]) < TOLERANCE, t
