"""FedProx: a round against the objective of the paper written out, and a clip that is the data's alone."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from ccfexp.adapter import AdapterConfig, train_only
from ccfexp.data.phantom.sites import PhantomSite, write_site
from ccfexp.losses import CycleConfig
from ccfexp.model import CCFExp
from ccfexp.privacy.steps import Targets
from ccfexp.proximal import Anchor
from ccfexp.training import Examples, SiteData, TrainConfig, step_seed, train_local
from tests.ccfexp import tiny
from tests.ccfexp.residuals import moved

TRAIN = TrainConfig(steps=3, batch_size=2, learning_rate=1e-2, gradient_clip=1e9, expression_from="target")
SITE = PhantomSite("T", subjects=1, holdout=0, first_identity=70_000, sessions=1, movements=("smile_teeth",))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SiteData:
    """A hospital of one phantom patient."""
    return SiteData.prepare(tiny.model(), write_site(SITE, tmp_path_factory.mktemp("site"), tiny.SIZE))


def _model() -> CCFExp:
    model = tiny.model()
    model.attach_adapter(AdapterConfig(rank=2, alpha=4.0), 3)
    model.load_adapter_state(moved(model.adapter_state()))
    return model


def _trained(data: SiteData, config: TrainConfig) -> list[torch.Tensor]:
    model = _model()
    train_local(model, data, config, seed=5, round_number=1)
    return _values(model)


def _values(model: CCFExp) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters() if parameter.requires_grad]


def _by_hand(data: SiteData, strength: float) -> list[torch.Tensor]:
    """Eq. 2 as it is written, differentiated by torch, and Adam (Kingma and Ba 2015, algorithm 1)."""
    model = _model()
    theta = [parameter for parameter in model.parameters() if parameter.requires_grad]
    start = _values(model)
    first, second = ([torch.zeros_like(value) for value in start] for _ in range(2))
    for step in range(1, TRAIN.steps + 1):
        generator = torch.Generator().manual_seed(step_seed(5, 1, step))
        draw = TRAIN.plan.draw(Targets(data.images.target_T, data.images.patient_N), generator)
        losses = Examples(model, data, TRAIN).losses(TRAIN.cycle, generator, draw)
        objective = losses(slice(None)).mean()
        drift = torch.stack([(value - origin).square().sum() for value, origin in zip(theta, start, strict=True)]).sum()
        gradients = torch.autograd.grad(objective + strength / 2 * drift, theta)
        with torch.no_grad():
            for value, m, v, gradient in zip(theta, first, second, gradients, strict=True):
                m.mul_(0.9).add_(0.1 * gradient)
                v.mul_(0.999).add_(0.001 * gradient**2)
                size = (v / (1 - 0.999**step)).sqrt() + 1e-8
                value.sub_(TRAIN.learning_rate * (m / (1 - 0.9**step)) / size)
    return _values(model)


def _way(values: list[torch.Tensor]) -> torch.Tensor:
    """From the start to some values, as one vector."""
    start = _values(_model())
    return torch.cat([(value - origin).flatten() for value, origin in zip(values, start, strict=True)])


@pytest.mark.parametrize("strength", [0.0, 3.0])
def test_a_round_minimises_the_objective_of_the_paper(data: SiteData, strength: float) -> None:
    """Three steps, the first of which has no pull yet."""
    ours = _way(_trained(data, replace(TRAIN, proximal=strength)))
    theirs, other = (_way(_by_hand(data, each)) for each in (strength, 3.0 - strength))

    # Adam divides by the gradient's own size, so the few gradients that are all rounding may take another way.
    assert (ours - theirs).norm() < 0.02 * theirs.norm()
    assert (ours - other).norm() > 0.1 * theirs.norm()


def test_the_stronger_the_pull_the_nearer_a_round_ends(data: SiteData) -> None:
    config = replace(TRAIN, steps=6, cycle=CycleConfig(cycle_weight=0.0))

    ways = [float(_way(_trained(data, replace(config, proximal=each))).norm()) for each in (0.0, 0.01, 0.1, 100.0)]

    assert all(near < 0.75 * far for far, near in pairwise(ways))
    assert ways[-1] < ways[0] / 5


def test_the_clip_bounds_the_gradient_of_the_data_alone(data: SiteData) -> None:
    """What is added after it is mu (theta - theta_start), a hundred times as long here and whole."""
    gradients, thetas = [], []

    def look(optimiser: torch.optim.Optimizer, *_: object) -> None:
        parameters = optimiser.param_groups[0]["params"]
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in parameters]))
        thetas.append(torch.cat([parameter.detach().flatten() for parameter in parameters]))

    hook = register_optimizer_step_pre_hook(look)
    try:
        _trained(data, replace(TRAIN, gradient_clip=1e-3, proximal=2.0))
    finally:
        hook.remove()

    for gradient, theta in zip(gradients, thetas, strict=True):
        assert float((gradient - 2.0 * (theta - thetas[0])).norm()) == pytest.approx(1e-3, rel=1e-2)
    assert [float(gradient.norm()) > 0.1 for gradient in gradients] == [False, True, True]


def test_no_pull_is_no_change(data: SiteData) -> None:
    """Bit for bit, and nothing is kept for it."""
    parameter = nn.Parameter(torch.tensor([1.0, -0.0]))
    gradient = parameter.grad = torch.tensor([-0.0, 0.5])
    anchor = Anchor([parameter], 0.0)
    with torch.no_grad():
        parameter.add_(1)

    anchor.pull()

    assert not anchor._start
    assert gradient.signbit().tolist() == [True, False]
    assert gradient.tolist() == [0.0, 0.5]
    first, second = _trained(data, TRAIN), _trained(data, replace(TRAIN, proximal=0.0))
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_the_pull_by_hand() -> None:
    """0.5 (3 - 1) and 0.5 (-1 - 2) on top of what is there; the start is a copy."""
    parameter = nn.Parameter(torch.tensor([1.0, 2.0]))
    anchor = Anchor([parameter], 0.5)
    with torch.no_grad():
        parameter.copy_(torch.tensor([3.0, -1.0]))
    parameter.grad = torch.tensor([10.0, 20.0])

    anchor.pull()

    assert parameter.grad.tolist() == [11.0, 18.5]
    assert parameter.tolist() == [3.0, -1.0]


def test_one_factor_is_held_alone(data: SiteData) -> None:
    """What is not trained has no gradient to add to."""
    model = _model()
    before = model.adapter_state()
    train_only(model, "B")

    train_local(model, data, replace(TRAIN, proximal=1.0), seed=5, round_number=1, threads=2)

    same = {name for name, value in model.adapter_state().items() if torch.equal(value, before[name])}
    assert same == {name for name in before if "lora_A" in name}
