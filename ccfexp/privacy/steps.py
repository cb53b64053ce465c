"""One training step seen from privacy's side: which images, and which gradient is made of what they say.

The training loop asks a plan and knows no other. An ordinary plan takes a batch and its mean; a private one samples
units, bounds what each adds, and adds noise. Both hand out gradients in ``parameter.grad``.

Shapes: T targets, R rows of a step, U units.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import accumulate, islice
from typing import NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor, nn

from ccfexp.privacy.noise import Source
from ccfexp.privacy.per_unit import Units, check_layers, clipped_sum, trained_weights

T = TypeVar("T")
S = TypeVar("S")
Losses = Callable[[slice], Tensor]  # some rows -> the loss of each, with its graph


class Targets(NamedTuple):
    """What may be drawn: indices of images [T], increasing, and the patient of each [T]."""

    target_T: Tensor
    patient_T: Tensor


class Draw(NamedTuple):
    """The rows of a step: which image each draws [R], and how many rows each unit has, one unit after the other.

    Where units are told apart each has a generator of its own: one for all would draw everything else anew for those
    who come after a unit that is there or not, and whoever knows the seed, as a coordinator does, would see it.
    """

    target_R: Tensor
    sizes: tuple[int, ...]
    random_U: tuple[torch.Generator, ...] = ()

    def groups(self, rows: int) -> Iterator[Draw]:
        """The units a few at a time, at most so many rows together; a unit with more rows comes alone."""
        edges = [0, *accumulate(self.sizes)]
        first = 0
        for last in range(1, len(self.sizes) + 1):
            if last == len(self.sizes) or edges[last + 1] - edges[first] > rows:
                part = slice(first, last)
                yield Draw(self.target_R[edges[first] : edges[last]], self.sizes[part], self.random_U[part])
                first = last

    def units(self, generator: torch.Generator) -> list[tuple[Tensor, torch.Generator]]:
        """The images of each unit's rows and where its randomness comes from: ``generator`` if it has none itself."""
        random_U = self.random_U or (generator,) * len(self.sizes)
        return list(zip(self.target_R.split(list(self.sizes)), random_U, strict=True))

    @property
    def unit_R(self) -> Tensor:
        """The unit of each row."""
        return torch.repeat_interleave(torch.arange(len(self.sizes)), torch.tensor(self.sizes, dtype=torch.int64))

    @property
    def weight_R(self) -> Tensor:
        """What each row weighs in the mean of its unit."""
        size_U = torch.tensor(self.sizes, dtype=torch.float32)
        return (1 / size_U)[self.unit_R]


class Outcome(NamedTuple):
    """What a step says of itself, at the site alone: the mean loss, and units that had no finite gradient."""

    loss: float
    left_out: int = 0


class Released(NamedTuple):
    """What a round tells besides its update: the site's weight, and public numbers."""

    weight: float
    metrics: Mapping[str, float]


class Pool(Protocol):
    """Threads."""

    count: int

    def each(self, work: Callable[[S], T], items: Sequence[S]) -> list[T]:
        """``work`` of every item, in order."""
        ...

    def map(self, work: Callable[[slice], T], size: int) -> list[T]:
        """``work`` of every share of so many examples, in order."""
        ...


def mean_gradient(parameters: Sequence[nn.Parameter], losses: Losses, rows: int, pool: Pool) -> float:
    """Put the gradient of the mean loss of some rows into the parameters, whatever was there; returns the loss."""

    def work(part: slice) -> tuple[float, tuple[Tensor, ...]]:
        loss = losses(part).sum() / rows
        return float(loss.detach()), torch.autograd.grad(loss, parameters, materialize_grads=True)

    parts = pool.map(work, rows)
    for index, parameter in enumerate(parameters):
        gradient = parts[0][1][index]
        for _, others in parts[1:]:
            gradient = gradient + others[index]
        parameter.grad = gradient
    return sum(loss for loss, _ in parts)


class Plan(Protocol):
    """What the training loop asks."""

    def running(self, model: nn.Module) -> AbstractContextManager[None]:
        """Around all steps of a round. Raises ConfigError where the plan cannot keep its promise with this model."""
        ...

    def draw(self, targets: Targets, generator: torch.Generator) -> Draw:
        """The rows of the next step."""
        ...

    def backward(self, model: nn.Module, draw: Draw, prepare: Callable[[Draw], Losses], pool: Pool) -> Outcome:
        """Put the step's gradient into the parameters.

        Args:
            model: what is trained.
            draw: the rows.
            prepare: makes the examples of some units, in order, and says how to compute their losses.
            pool: threads that may share the work.
        """
        ...

    def released(self, *, loss: float, steps: int, patients: int, images: int) -> Released:
        """What of a round's facts may be told."""
        ...


@dataclass(frozen=True)
class MeanPlan:
    """An ordinary step: the mean over a batch, its norm bounded.

    Attributes:
        batch_size: rows.
        gradient_clip: bound on the norm of the gradient of the whole batch.
    """

    batch_size: int
    gradient_clip: float

    def running(self, model: nn.Module) -> AbstractContextManager[None]:  # noqa: ARG002 (the interface)
        """Nothing to prepare."""
        return nullcontext()

    def draw(self, targets: Targets, generator: torch.Generator) -> Draw:
        """Targets drawn with replacement, all of them one unit."""
        index_R = torch.randint(len(targets.target_T), (self.batch_size,), generator=generator)
        return Draw(targets.target_T[index_R], (self.batch_size,))

    def backward(self, model: nn.Module, draw: Draw, prepare: Callable[[Draw], Losses], pool: Pool) -> Outcome:
        """The gradient of the mean loss, computed in equal shares and added in their order."""
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        loss = mean_gradient(parameters, prepare(draw), len(draw.target_R), pool)
        torch.nn.utils.clip_grad_norm_(parameters, self.gradient_clip)
        return Outcome(loss)

    def released(self, *, loss: float, steps: int, patients: int, images: int) -> Released:
        """Everything: nothing is protected."""
        return Released(float(patients), {"loss": loss, "steps": steps, "patients": patients, "images": images})


class Engine(Protocol):
    """How the gradients of units are computed; which one is a question of speed alone."""

    def running(self, model: nn.Module) -> AbstractContextManager[None]:
        """Around all steps of a round."""
        ...

    def gradients(
        self, trained: Sequence[nn.Parameter], unit_R: Tensor, units: int, loss: Callable[[], Tensor]
    ) -> list[Tensor]:
        """The gradient [U, ...] of the loss, a sum over rows, for each trained weight."""
        ...


class AutogradEngine:
    """`ccfexp.privacy.per_unit`: about as fast as an ordinary step."""

    def running(self, model: nn.Module) -> AbstractContextManager[None]:  # noqa: ARG002 (the interface)
        """Nothing to prepare."""
        return nullcontext()

    def gradients(
        self, trained: Sequence[nn.Parameter], unit_R: Tensor, units: int, loss: Callable[[], Tensor]
    ) -> list[Tensor]:
        """By autograd alone."""
        told_apart = Units(trained, unit_R, units)
        with told_apart.active():
            return told_apart.gradients(loss())


@dataclass(frozen=True)
class PrivatePlan:
    """DP-SGD with whole patients (Abadi et al. 2016; user-level sampling of Charles et al. 2024, arXiv:2407.07737).

    Each unit is in a step with the same probability. Of a patient some photographs are drawn, each with several
    timesteps and noises; the mean gradient is clipped over the whole adapter; the sum over units gets Gaussian noise
    and is divided by a constant. Everything that is computed from one patient's rows stays within that patient's clip,
    so photographs, draws and passes cost no privacy. A step without units is noise alone, and counts.

    Attributes:
        sampling_rate, noise_multiplier, clipping_norm, images_per_patient, draws_per_image: as in `PrivacyConfig`.
        by_image: every target is a unit for itself.
        expected: units in a step on average, from what the site declares and not from who is there.
        declared_patients: what the site declares.
        source: of sampling and noise.
        rows_at_once: rows in memory at a time, whatever was sampled.
        engine: how gradients are told apart.
    """

    sampling_rate: float
    noise_multiplier: float
    clipping_norm: float
    images_per_patient: int
    draws_per_image: int
    by_image: bool
    expected: float
    declared_patients: int
    source: Source
    rows_at_once: int = 16
    engine: Engine = field(default_factory=AutogradEngine)

    def running(self, model: nn.Module) -> AbstractContextManager[None]:
        """Check the model, and let the engine prepare it."""
        check_layers(model)
        return self.engine.running(model)

    def draw(self, targets: Targets, generator: torch.Generator) -> Draw:  # noqa: ARG002 (the interface)
        """Units by Poisson sampling; that, and all that is random of each, comes from the source."""
        patient_T = torch.arange(len(targets.target_T)) if self.by_image else targets.patient_T
        patients, unit_T = patient_T.unique(return_inverse=True)
        chosen = torch.from_numpy(self.source.uniform(len(patients)) < self.sampling_rate).nonzero().flatten()
        seeds = (self.source.uniform(len(chosen)) * 2**53).astype(int).tolist()
        random_U = tuple(torch.Generator().manual_seed(seed) for seed in seeds)
        rows, sizes = [], []
        for unit, random in zip(chosen.tolist(), random_U, strict=True):
            own = targets.target_T[unit_T == unit]
            some = own[torch.randperm(len(own), generator=random)[: self.images_per_patient]]
            rows.append(some.repeat_interleave(self.draws_per_image))
            sizes.append(len(rows[-1]))
        return Draw(torch.cat(rows) if rows else targets.target_T[:0], tuple(sizes), random_U)

    def backward(self, model: nn.Module, draw: Draw, prepare: Callable[[Draw], Losses], pool: Pool) -> Outcome:
        """The noised sum of clipped gradients over the expected number of units."""
        trained = trained_weights(model)
        sums = [torch.zeros_like(weight, dtype=torch.float64) for weight in trained]
        loss_U: list[float] = []
        rows = max(1, self.rows_at_once // pool.count)
        groups = draw.groups(rows)
        while some := list(islice(groups, pool.count)):  # no more in memory than is worked on
            work = [(group, prepare(group)) for group in some]
            for clipped, losses in pool.each(lambda item: self._clipped(trained, rows, *item), work):
                sums = [total + part for total, part in zip(sums, clipped, strict=True)]
                loss_U += losses
        deviation = self.noise_multiplier * self.clipping_norm
        for weight, total in zip(trained, sums, strict=True):
            noise = torch.from_numpy(self.source.normal(total.numel())).view(total.shape)
            noised = total.cpu() + deviation * noise
            weight.grad = (noised / self.expected).to(weight)
        finite = [loss for loss in loss_U if math.isfinite(loss)]
        return Outcome(sum(finite) / len(finite) if finite else 0.0, len(loss_U) - len(finite))

    def _clipped(
        self, trained: Sequence[nn.Parameter], at_once: int, group: Draw, losses: Losses
    ) -> tuple[list[Tensor], list[float]]:
        """The sum of the group's clipped gradients, and each unit's loss, not finite where its gradient is not."""
        device, units, rows = trained[0].device, len(group.sizes), len(group.target_R)
        unit_R, weight_R = group.unit_R.to(device), group.weight_R.to(device)
        loss_U = torch.zeros(units, device=device)
        gradients: list[Tensor] = []
        for start in range(0, rows, at_once):
            part = slice(start, min(start + at_once, rows))

            def weighted(part: slice = part) -> Tensor:
                weighted_R = losses(part) * weight_R[part]
                loss_U.index_add_(0, unit_R[part], weighted_R.detach().float())
                return weighted_R.sum()

            more = self.engine.gradients(trained, unit_R[part], units, weighted)
            gradients = more if not gradients else [held + new for held, new in zip(gradients, more, strict=True)]
        sums, norm_U = clipped_sum(gradients, self.clipping_norm)
        return sums, torch.where(norm_U.isfinite(), loss_U, math.nan).tolist()

    def released(self, *, loss: float, steps: int, patients: int, images: int) -> Released:  # noqa: ARG002
        """The declared weight and the number of steps, which is public: the rest depends on who is there."""
        return Released(float(self.declared_patients), {"steps": steps})
