"""Drawing: reproducible, picture by picture, whatever is drawn beside it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ccfexp.conditioning import ExpressionFeatures, IdentityFeatures
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
