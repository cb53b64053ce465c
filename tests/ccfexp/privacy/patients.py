"""Rows of patients, each differentiated for itself by torch and peft alone: what private steps are compared with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from peft.tuners.lora.layer import Conv2d as ConvolutionFactors
from torch import Tensor, nn

from ccfexp.adapter import AdapterConfig, Factors, train_only
from ccfexp.losses import Batch, CycleConfig
from ccfexp.model import CCFExp
from ccfexp.parallel import losses_of, part_of
from ccfexp.privacy.noise import Numbers, SeededSource
from ccfexp.privacy.per_unit import UnitConv2d, UnitLinear
from ccfexp.privacy.steps import AutogradEngine, Draw, Engine, Losses, PrivatePlan
from tests.ccfexp import tiny
from tests.ccfexp.residuals import moved

LOSS = CycleConfig(expression_weight=0.5)
M = TypeVar("M", bound=nn.Module)
UNBOUND = 1e9  # a clipping norm that clips nobody


class Silent(SeededSource):
    """Samples as seeded, and adds no noise."""

    def normal(self, count: int) -> Numbers:
        return np.zeros(count)


@dataclass(frozen=True)
class Rows:
    """Examples with their timesteps and noises; ``Draw.target_R`` counts them."""

    batch: Batch
    t_R: Tensor
    eps_R3HW: Tensor

    def prepare(self, model: CCFExp) -> Callable[[Draw], Losses]:
        """The losses of some of them."""

        def losses(draw: Draw) -> Losses:
            some: Any = draw.target_R
            return losses_of(model, part_of(self.batch, some), self.t_R[some], self.eps_R3HW[some], LOSS)

        return losses

    def to(self, dtype: torch.dtype) -> Rows:
        """The same in another precision."""
        return Rows(_cast(self.batch, dtype), self.t_R, self.eps_R3HW.to(dtype))


def rows(count: int, base: CCFExp | None = None) -> Rows:
    """Random pictures of random people at all noise levels, for the tiny model if for no other."""
    base = base or tiny.model()
    eps = tiny.noise(count, side=base.config.unet.image_size)
    return Rows(tiny.batch(base, count), torch.linspace(20, 960, count).long(), eps)


def adapted(factors: Factors = "AB", dtype: torch.dtype = torch.float64, base: CCFExp | None = None) -> CCFExp:
    """A model, the tiny one if no other, whose factors both say something: else the gradient of one would be zero."""
    model = base or tiny.model()
    model.attach_adapter(AdapterConfig(rank=2, alpha=4.0), 3)
    model.load_adapter_state(moved(model.adapter_state()))
    train_only(model, factors)
    return model.to(dtype)


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """What asks for gradients."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def as_peft(model: M) -> M:
    """The same model computed by peft's and torch's own layers, which know nothing of units."""
    for module in model.modules():
        if isinstance(module, ConvolutionFactors):
            del module.forward
        if isinstance(module, UnitLinear | UnitConv2d):
            factor: Any = module
            factor.__class__ = nn.Linear if isinstance(module, nn.Linear) else nn.Conv2d
    return model


def one_by_one(model: CCFExp, prepare: Callable[[Draw], Losses], count: int) -> list[dict[str, Tensor]]:
    """The gradient of every row's loss, computed as if there were no other."""
    weights, found = trained(as_peft(model)), []
    for row in range(count):
        loss = prepare(Draw(torch.tensor([row]), (1,)))(slice(None)).sum()
        found.append(dict(zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True)))
    return found


def mean_of(parts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of some gradients."""
    return {name: torch.stack([part[name] for part in parts]).mean(0) for name in parts[0]}


def norm(gradient: dict[str, Tensor]) -> float:
    """Of all tensors together, in double precision."""
    return float(torch.cat([part.flatten().double() for part in gradient.values()]).norm())


def distance(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Norm of the difference over that of the second; infinite where the names differ."""
    if one.keys() != other.keys():
        return float("inf")
    return norm({name: one[name].double() - other[name].double() for name in one}) / norm(other)


def gradients(model: nn.Module) -> dict[str, Tensor]:
    """What a step has put into the parameters."""
    found = {}
    for name, parameter in trained(model).items():
        assert parameter.grad is not None
        found[name] = parameter.grad.clone()
    return found


def plan(rows_at_once: int = 16, engine: Engine | None = None, clipping_norm: float = UNBOUND) -> PrivatePlan:
    """Of patients who all come, by default without a clip; without noise."""
    return PrivatePlan(
        sampling_rate=1.0,
        noise_multiplier=1.0,
        clipping_norm=clipping_norm,
        images_per_patient=2,
        draws_per_image=2,
        by_image=False,
        expected=4.0,
        declared_patients=4,
        source=Silent((0,)),
        rows_at_once=rows_at_once,
        engine=engine or AutogradEngine(),
    )


def _cast(value: Any, dtype: torch.dtype) -> Any:  # noqa: ANN401 (a tensor, or tuples of tensors)
    return value.to(dtype) if isinstance(value, Tensor) else type(value)(*(_cast(part, dtype) for part in value))
