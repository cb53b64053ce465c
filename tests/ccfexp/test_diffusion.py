"""Schedule, parametrisations and the DDIM step, against formulas written down again and against diffusers."""

from __future__ import annotations

import math
from typing import Any, get_args

import pytest
import torch
from diffusers import DDIMScheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from ccfexp.diffusion import Diffusion, DiffusionConfig, Prediction
from ccfexp.errors import ConfigError

ALL: tuple[Prediction, ...] = get_args(Prediction)
SHAPE = (1, 3, 4, 4)


def _alpha_bar(t: int) -> float:
    """The product of 1 - beta, in plain floats."""
    return math.prod(1 - (1e-4 + (0.02 - 1e-4) * k / 999) for k in range(t + 1))


def _normal(seed: int) -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("t", "published", "digit"),
    [(0, 0.99990, 1e-5), (250, 0.5214, 1e-4), (500, 0.0778, 1e-4), (980, 5.90e-5, 1e-7), (999, 4.04e-5, 1e-7)],
)
def test_published_schedule(t: int, published: float, digit: float) -> None:
    """Linear betas 1e-4 to 0.02 in 1000 steps."""
    found = float(Diffusion(DiffusionConfig()).alpha_bar(torch.tensor([t]))[0])

    assert found == pytest.approx(published, abs=digit / 2)
    assert found == pytest.approx(_alpha_bar(t), rel=1e-6)


@settings(max_examples=60, deadline=None)
@given(prediction=st.sampled_from(ALL), t=st.integers(0, 999), seed=st.integers(0, 2**31))
def test_a_perfect_prediction_gives_back_image_and_noise(prediction: Prediction, t: int, seed: int) -> None:
    """x0_and_eps inverts add_noise and target, as exactly as single precision over 1/sqrt(a) allows."""
    diffusion = Diffusion(DiffusionConfig(prediction=prediction))
    x0, eps, t_B = _normal(seed).clamp(-1, 1), _normal(seed + 1), torch.tensor([t])

    x_t = diffusion.add_noise(x0, eps, t_B)
    x0_again, eps_again = diffusion.x0_and_eps(diffusion.target(x0, eps, t_B), x_t, t_B)

    # v divides by nothing, epsilon by the signal, which falls to 1/157, and sample by the noise, 1/100 at t = 0.
    of_x0 = math.sqrt(_alpha_bar(t)) if prediction == "epsilon" else 1.0
    of_eps = math.sqrt(1 - _alpha_bar(t)) if prediction == "sample" else 1.0
    torch.testing.assert_close(x0_again, x0, rtol=0, atol=3e-6 / of_x0)
    torch.testing.assert_close(eps_again, eps, rtol=0, atol=3e-6 / of_eps)


@settings(max_examples=40, deadline=None)
@given(
    prediction=st.sampled_from(ALL),
    t=st.integers(1, 999),
    stride=st.integers(1, 400),
    eta=st.sampled_from([0.0, 0.5, 1.0]),
    seed=st.integers(0, 2**31),
)
def test_ddim_step_against_the_formula(prediction: Prediction, t: int, stride: int, eta: float, seed: int) -> None:
    """Equation 12 of the paper, number by number in double precision."""
    t_next = t - stride if t >= stride else None
    output, x_t, z = _normal(seed), _normal(seed + 1), _normal(seed + 2)

    step = Diffusion(DiffusionConfig(prediction=prediction)).ddim_step(output, x_t, t, t_next, eta, z)

    a, a_next = _alpha_bar(t), 1.0 if t_next is None else _alpha_bar(t_next)
    for out, x, noise, found in zip(*(part.flatten().tolist() for part in (output, x_t, z, step)), strict=True):
        if prediction == "epsilon":
            clean = (x - math.sqrt(1 - a) * out) / math.sqrt(a)
        elif prediction == "sample":
            clean = out
        else:
            clean = math.sqrt(a) * x - math.sqrt(1 - a) * out
        clean = min(1.0, max(-1.0, clean))
        eps = (x - math.sqrt(a) * clean) / math.sqrt(1 - a)
        sigma = eta * math.sqrt((1 - a_next) / (1 - a) * (1 - a / a_next))
        expected = math.sqrt(a_next) * clean + math.sqrt(max(0.0, 1 - a_next - sigma**2)) * eps + sigma * noise
        if t_next is None:
            expected = clean
        assert found == pytest.approx(expected, abs=2e-4)


@pytest.mark.parametrize("prediction", ALL)
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_whole_trajectory_against_diffusers(prediction: Prediction, eta: float) -> None:
    """50 steps with a smooth predictor; the noise estimate follows from the clipped image on both sides."""
    scheduler: Any = DDIMScheduler(  # type: ignore[no-untyped-call]
        num_train_timesteps=1000,
        beta_start=1e-4,
        beta_end=0.02,
        beta_schedule="linear",
        clip_sample=True,
        set_alpha_to_one=True,
        steps_offset=0,
        timestep_spacing="leading",
        prediction_type={"v": "v_prediction"}.get(prediction, prediction),
    )
    scheduler.set_timesteps(50)
    diffusion = Diffusion(DiffusionConfig(prediction=prediction))
    timesteps = diffusion.timesteps(50)
    assert timesteps == scheduler.timesteps.tolist() == list(range(980, -1, -20))
    ours = theirs = _normal(0)

    for number, (t, t_next) in enumerate(zip(timesteps, [*timesteps[1:], None], strict=True)):
        noise = _normal(100 + number)
        ours = diffusion.ddim_step(_predict(ours, t), ours, t, t_next, eta, noise if eta else None)
        # diffusers also adds noise to the last image (its variance there is nearly 0); both are compared before that.
        if t_next is None:
            noise = torch.zeros(SHAPE)
        theirs = scheduler.step(
            _predict(theirs, t),
            t,
            theirs,
            eta=eta,
            use_clipped_model_output=True,
            variance_noise=noise if eta else None,
        ).prev_sample
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def _predict(x: torch.Tensor, t: int) -> torch.Tensor:
    return torch.tanh(x) * (0.3 + 0.7 * t / 1000)


def test_the_last_step_gives_the_clean_estimate_without_noise() -> None:
    """Whatever eta."""
    diffusion, t_B = Diffusion(DiffusionConfig()), torch.tensor([20])
    out, x_t = 0.1 * _normal(1), _normal(2)

    step = diffusion.ddim_step(out, x_t, 20, None, 1.0, _normal(3))

    torch.testing.assert_close(step, diffusion.x0_and_eps(out, x_t, t_B)[0].clamp(-1, 1))


@pytest.mark.parametrize("prediction", ALL)
def test_loss_weights(prediction: Prediction) -> None:
    """Plain weights are ones; min-SNR weighs the error of x0 by min(SNR, gamma), for sample by min(SNR + 1, gamma)."""
    t_B = torch.tensor([0, 100, 400, 999])
    assert Diffusion(DiffusionConfig(prediction=prediction)).loss_weight(t_B).tolist() == [1.0] * 4

    found = Diffusion(DiffusionConfig(prediction=prediction, min_snr_gamma=5.0)).loss_weight(t_B)

    for t, weight in zip(t_B.tolist(), found.tolist(), strict=True):
        a = _alpha_bar(t)
        snr = a / (1 - a)
        error_of_x0 = {"epsilon": (1 - a) / a, "v": 1 - a}.get(prediction, 1.0)  # of a unit error of the prediction
        of_x0 = min(snr + 1, 5.0) if prediction == "sample" else min(snr, 5.0)
        assert weight == pytest.approx(of_x0 * error_of_x0, rel=2e-3)


@pytest.mark.parametrize("count", [0, -1, 1001])
def test_impossible_numbers_of_sampling_steps(count: int) -> None:
    """More steps than timesteps cannot be taken."""
    with pytest.raises(ConfigError, match=rf"sampling steps={count} must lie in \[1, 1000\]"):
        Diffusion(DiffusionConfig()).timesteps(count)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": 0}, "steps=0 must be >= 1"),
        ({"beta_start": 0.0}, "beta_start=0.0"),
        ({"beta_start": 0.03}, "beta_start=0.03, beta_end=0.02 must satisfy"),
        ({"prediction": "x0"}, "prediction='x0' must be epsilon"),
    ],
)
def test_impossible_configurations(values: dict[str, Any], message: str) -> None:
    """The error names the value and the bound."""
    with pytest.raises(ConfigError, match=message):
        DiffusionConfig(**values)
