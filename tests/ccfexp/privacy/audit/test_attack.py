"""The attacker's arithmetic, on sums whose parts are known."""

from __future__ import annotations

import pytest
import torch

from ccfexp.adapter import AdapterConfig, train_only
from ccfexp.losses import CycleConfig, cycle_loss
from ccfexp.privacy.audit.attack import Evidence, clipped, unit_gradients
from ccfexp.privacy.audit.canaries import audited_site
from ccfexp.training import stratified_timesteps
from tests.ccfexp import tiny

UNITS, NUMBERS = 40, 5000


def _units(generator: torch.Generator) -> torch.Tensor:
    """What each unit adds: of length 1, and with a part in common that makes any two .5 alike."""
    own, common = (torch.randn(n, NUMBERS, generator=generator) for n in (UNITS, 1))
    return torch.nn.functional.normalize(own + common, dim=1)


def _right_order(score: torch.Tensor, coin: torch.Tensor) -> float:
    return float((score[coin][:, None] > score[~coin]).float().mean())


def test_without_noise_the_sum_is_taken_apart() -> None:
    """Counts of each unit come out, though any one's direction is half that of all others."""
    generator = torch.Generator().manual_seed(1)
    adds, coin = _units(generator), torch.arange(UNITS) % 2 == 0
    count = torch.where(coin, torch.randint(5, 15, (UNITS,), generator=generator), 0)

    evidence = Evidence(UNITS)
    evidence.add((count.float() @ adds).double(), 10 * adds)

    torch.testing.assert_close(evidence.scores(), count.double() / 10, atol=1e-3, rtol=0)


@pytest.mark.parametrize("scale", [1.0, 20.0])
def test_noise_is_told_from_the_sum_itself(scale: float) -> None:
    """Units that add more than they should (no clip) are found through noise that would hide what they should add."""
    right = []
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        adds, coin = _units(generator), torch.rand(UNITS, generator=generator) < 0.5
        noise = 6 * torch.randn(NUMBERS, generator=generator)
        evidence = Evidence(UNITS)
        evidence.add((scale * coin.float() @ adds + noise).double(), adds)
        right.append(_right_order(evidence.scores(), coin))

    mean = sum(right) / len(right)
    assert (0.45 < mean < 0.65) if scale == 1 else mean > 0.85


def test_stretches_add_up() -> None:
    """Two looks at half of the noise each are worth more than either."""
    right: dict[int, list[float]] = {1: [], 8: []}
    for seed in range(20):
        generator = torch.Generator().manual_seed(100 + seed)
        coin = torch.rand(UNITS, generator=generator) < 0.5
        for stretches, found in right.items():
            evidence = Evidence(UNITS)
            for _ in range(stretches):
                adds = _units(generator)
                evidence.add((coin.float() @ adds + torch.randn(NUMBERS, generator=generator)).double(), adds)
            found.append(_right_order(evidence.scores(), coin))

    assert sum(right[8]) > sum(right[1]) + 1


def test_a_gradient_is_that_of_the_mean_loss() -> None:
    """For a patient of several photographs, in parts that fit into memory; nobody's ``grad`` is touched."""
    model = tiny.model()
    site = audited_site(model, 1, 2, seed=3)
    model.attach_adapter(AdapterConfig(rank=2, alpha=2.0), 0)
    train_only(model, "B")
    cycle, draws, weights = CycleConfig(), 18, [p for p in model.parameters() if p.requires_grad]

    found = unit_gradients(model, site.data, cycle, draws, seed=4)

    generator = torch.Generator().manual_seed(4)
    own = site.data.images.target_T[:3]
    t_R = stratified_timesteps(draws, model.config.diffusion.steps, generator)
    target = own.repeat(6)
    eps = torch.cat([torch.randn(n, 3, tiny.SIZE, tiny.SIZE, generator=generator) for n in (16, 2)])
    batch = site.data.batch(target, target, model.device)
    parts = torch.autograd.grad(cycle_loss(model, batch, t_R, eps, cycle).total_B.mean(), weights)
    torch.testing.assert_close(found[0], torch.cat([part.flatten() for part in parts]), rtol=1e-3, atol=1e-7)
    assert found.shape[0] == 3
    assert all(weight.grad is None for weight in weights)


def test_clipped() -> None:
    rows = torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]])

    assert torch.allclose(clipped(rows, 1.0), torch.tensor([[0.6, 0.8], [0.3, 0.4], [0.0, 0.0]]))
