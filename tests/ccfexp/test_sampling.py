"""Drawing: reproducible, picture by picture, whatever is drawn beside it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import pytest
import torch

from ccfexp.conditioning import Condition, ExpressionFeatures, IdentityFeatures
from ccfexp.diffusion import DiffusionConfig, Prediction
from ccfexp.errors import ConfigError
from ccfexp.model import CCFExp
from ccfexp.sampling import SamplingConfig, sample
from tests.ccfexp import tiny

COUNT = 4
Features = tuple[IdentityFeatures, ExpressionFeatures]


@pytest.fixture(scope="module")
def model() -> CCFExp:
    """The tiny model; drawing changes nothing in it."""
    return tiny.model()


@pytest.fixture(scope="module")
def features(model: CCFExp) -> Features:
    """Four people, four expressions."""
    batch = tiny.batch(model, COUNT)
    return batch.identity, batch.expression


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_a_picture_does_not_depend_on_the_batch(model: CCFExp, features: Features, eta: float) -> None:
    """One by one, in pairs with a rest, or all at once."""
    config = SamplingConfig(steps=3, eta=eta)
    together = sample(model, *features, config, seed=1, batch_size=COUNT)

    for size in (1, 3):
        torch.testing.assert_close(
            sample(model, *features, config, seed=1, batch_size=size), together, rtol=0, atol=1e-4
        )
    assert together.shape == (COUNT, 3, tiny.SIZE, tiny.SIZE)
    assert together.abs().max() <= 1
    first, *others = together
    assert all((other - first).abs().mean() > 0.05 for other in others)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_the_seed_decides(model: CCFExp, features: Features, eta: float) -> None:
    """The same seed gives the same bits, whatever the global generator does; another seed another picture."""
    config = SamplingConfig(steps=2, eta=eta)
    first = sample(model, *features, config, seed=1)
    torch.manual_seed(123)

    assert torch.equal(sample(model, *features, config, seed=1), first)
    assert (sample(model, *features, config, seed=2) - first).abs().mean() > 0.05


def test_eta_adds_noise_on_the_way(model: CCFExp, features: Features) -> None:
    """From the same first noise to another picture; with one step there is no way to add it on."""

    def drawn(steps: int, eta: float) -> torch.Tensor:
        return sample(model, *features, SamplingConfig(steps, eta), seed=1)

    assert not torch.allclose(drawn(3, 0.0), drawn(3, 1.0), atol=1e-2)
    assert torch.equal(drawn(1, 0.0), drawn(1, 1.0))


def test_progress_counts_pictures(model: CCFExp, features: Features) -> None:
    """After every batch: pictures done, pictures."""
    seen: list[tuple[int, int]] = []

    sample(
        model, *features, SamplingConfig(steps=1), seed=1, batch_size=3, on_batch=lambda *counts: seen.append(counts)
    )

    assert seen == [(3, 4), (4, 4)]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": 0}, "steps=0 must be >= 1"),
        ({"eta": 1.5}, r"eta=1.5 must lie in \[0, 1\]"),
        ({"eta": -0.1}, "eta=-0.1"),
    ],
)
def test_impossible_configurations(values: dict[str, Any], message: str) -> None:
    """The error names the value and the bound."""
    with pytest.raises(ConfigError, match=message):
        SamplingConfig(**values)


@pytest.mark.parametrize("prediction", ["epsilon", "v", "sample"])
def test_both_samplers_find_the_image_that_a_perfect_denoiser_knows(prediction: Prediction) -> None:
    """A denoiser that always knows the clean image leads either sampler to it, in every parametrisation."""
    config = replace(tiny.TINY, diffusion=DiffusionConfig(prediction=prediction))
    truth = torch.rand(1, 3, tiny.SIZE, tiny.SIZE, generator=torch.Generator().manual_seed(4)) - 0.5

    class Perfect(CCFExp):
        def forward(self, x_t_B3HW: torch.Tensor, t_B: torch.Tensor, _condition: Condition) -> torch.Tensor:
            x0 = truth.expand_as(x_t_B3HW)
            a = self.diffusion.alpha_bar(t_B)[:, None, None, None]
            eps = (x_t_B3HW - a.sqrt() * x0) / (1 - a).sqrt()
            return self.diffusion.target(x0, eps, t_B)

    base = tiny.model()
    perfect = Perfect(config, base.encoders)
    batch = tiny.batch(base, 2)
    for sampling in (SamplingConfig(steps=6), SamplingConfig(steps=6, sampler="dpm")):
        drawn = sample(perfect, batch.identity, batch.expression, sampling, seed=0)
        torch.testing.assert_close(drawn, truth.expand_as(drawn), atol=2e-2, rtol=0)


def test_given_seeds_belong_to_their_images(model: CCFExp, features: Features) -> None:
    """The noise of an image follows from its own seed, wherever it stands."""
    config = SamplingConfig(steps=2, sampler="dpm")
    drawn = sample(model, *features, config, seed=0, seeds=[5, 6, 7, 8])
    identity = IdentityFeatures(*(value.flip(0) for value in features[0]))
    expression = ExpressionFeatures(*(value.flip(0) for value in features[1]))
    turned = sample(model, identity, expression, config, seed=0, seeds=[8, 7, 6, 5])
    torch.testing.assert_close(turned.flip(0), drawn, rtol=0, atol=1e-4)


def test_guidance_goes_further_along_the_way_from_rest(features: Features) -> None:
    """0 draws the person at rest, 1 the expression, and one step of more goes beyond by the same way."""
    model = tiny.model(replace(tiny.TINY, diffusion=DiffusionConfig(prediction="sample")))
    identity, expression = features
    expression = ExpressionFeatures(*(10 * value for value in expression))
    resting = ExpressionFeatures(*(value.roll(1, 0) for value in expression))

    def drawn(guidance: float) -> torch.Tensor:
        config = SamplingConfig(steps=1, guidance=guidance)
        return sample(model, identity, expression, config, seed=1, resting=resting)

    at_rest, plain = sample(model, identity, resting, SamplingConfig(steps=1), seed=1), drawn(1.0)
    torch.testing.assert_close(drawn(0.0), at_rest, rtol=0, atol=1e-4)
    torch.testing.assert_close(plain, sample(model, identity, expression, SamplingConfig(steps=1), seed=1))
    between = (plain.abs() < 0.95) & (at_rest.abs() < 0.95)  # neither is clipped
    torch.testing.assert_close(drawn(0.5)[between], (0.5 * (plain + at_rest))[between], rtol=0, atol=1e-4)
    assert float((drawn(2.0) - plain)[between].abs().mean()) > 1e-3
    assert float((plain - at_rest)[between].abs().mean()) > 1e-3
    with pytest.raises(ConfigError, match=r"sampling guidance=2.0 needs the resting expression"):
        sample(model, identity, expression, SamplingConfig(steps=1, guidance=2.0), seed=1)


@pytest.mark.parametrize("sampler", ["ddim", "dpm"])
def test_more_steps_than_the_diffusion_has(model: CCFExp, features: Features, sampler: Literal["ddim", "dpm"]) -> None:
    with pytest.raises(ConfigError, match=r"sampling steps=1001 must lie in \[1, 1000\]; take fewer"):
        sample(model, *features, SamplingConfig(1001, sampler=sampler), seed=1)


def test_the_largest_seed_of_a_run(model: CCFExp, features: Features) -> None:
    drawn = sample(model, *features, SamplingConfig(steps=1), seed=2**63 - 1)
    assert drawn.isfinite().all()
