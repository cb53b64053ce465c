"""One private training with canaries, and what an attacker who sees all of it can prove about its epsilon."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ccfexp.errors import ConfigError
from ccfexp.losses import CycleConfig
from ccfexp.privacy.audit.attack import Evidence, clipped, unit_gradients
from ccfexp.privacy.audit.bounds import Bound, from_scores, highest
from ccfexp.privacy.audit.broken import honest
from ccfexp.privacy.audit.canaries import MOVEMENTS
from ccfexp.privacy.plan import PrivacyConfig
from ccfexp.training import TrainConfig, train_local

if TYPE_CHECKING:
    from collections.abc import Callable

    from ccfexp.model import CCFExp
    from ccfexp.privacy.audit.canaries import AuditedSite
    from ccfexp.privacy.steps import PrivatePlan


@dataclass(frozen=True)
class OneRunConfig:
    """What is trained, and how closely the attacker looks.

    Attributes:
        privacy: the promise that is tested, for so many steps.
        learning_rate: of the training.
        cycle: its loss. One pass is enough to test what is clipped and noised, and takes half of the time.
        draws: timesteps and noises with which the attacker computes each unit's gradient.
        look_every: steps between two such looks; in between the model is taken to be the same.
    """

    privacy: PrivacyConfig
    learning_rate: float = 5e-4
    cycle: CycleConfig = field(default_factory=lambda: CycleConfig(cycle_weight=0.0))
    draws: int = 16
    look_every: int = 20

    def __post_init__(self) -> None:
        for name in ("draws", "look_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least 1; give a positive number")
        if self.privacy.steps < 1:
            raise ConfigError(f"privacy.steps={self.privacy.steps} must be at least 1; say how many are audited")

    def work(self, patients: int, canaries: int) -> float:
        """About how many examples are worked on."""
        looks = -(-self.privacy.steps // self.look_every)
        steps = self.privacy.steps * self.rows_of_step(patients, canaries)
        return looks * (patients + canaries) * self.draws + steps

    def rows_of_step(self, patients: int, canaries: int) -> float:
        """About how many examples are in a step: half of the canaries are, with one picture each."""
        pictures = patients * min(self.privacy.images_per_patient, len(MOVEMENTS)) + canaries / 2
        return self.privacy.sampling_rate * self.privacy.draws_per_image * pictures


@dataclass(frozen=True)
class OneRunResult:
    """The claim, and what was found.

    Attributes:
        claimed: epsilon by the accountant, of the plan that was meant.
        bound: the lower bound of the training that took place.
        highest: what the bound would be if every guess were right.
        steps: noised steps.
        patients: ordinary patients beside the canaries.
    """

    claimed: float
    bound: Bound
    highest: float
    steps: int
    patients: int

    @property
    def refuted(self) -> bool:
        """Whether the training was less private than claimed."""
        return self.bound.epsilon > self.claimed

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "refuted": self.refuted}


def audit_training(
    model: CCFExp,
    site: AuditedSite,
    config: OneRunConfig,
    *,
    seed: int,
    spoil: Callable[[PrivatePlan], PrivatePlan] = honest,
    threads: int = 1,
    on_work: Callable[[float, str], None] | None = None,
) -> OneRunResult:
    """Train with the canaries whose coin says so, attack, and compare with the claim.

    Args:
        model: base with an adapter, whose trained factors ask for gradients; it is trained on.
        site: patients and canaries.
        config: what is trained, and how closely the attacker looks.
        seed: of everything that is random, but for sampling and noise of a secure source.
        spoil: makes another plan of the honest one, to see whether the audit finds it.
        threads: of every batch.
        on_work: called with (examples worked on since, what is being done).
    """
    privacy = config.privacy.calibrate()
    plan = spoil(
        privacy.make(declared_patients=site.patients + -(-site.canaries // 2), source=privacy.source_of(seed, 1, 1))
    )
    train = TrainConfig(
        steps=privacy.steps, learning_rate=config.learning_rate, expression_from="target", cycle=config.cycle
    )
    attacker = _Attacker(model, site, config, privacy.clipping_norm, plan.expected, seed, on_work)
    attacker.look()
    train_local(
        model, site.trained, train, seed=seed, round_number=1, plan=plan, threads=threads, on_step=attacker.on_step
    )
    bound = from_scores(attacker.scores().numpy(), site.in_M.numpy(), privacy.delta)
    return OneRunResult(
        claimed=privacy.epsilon_after(privacy.steps),
        bound=bound,
        highest=highest(site.canaries, privacy.delta),
        steps=privacy.steps,
        patients=site.patients,
    )


class _Attacker:
    """Looks at the model now and then, and at what every step releases."""

    def __init__(
        self,
        model: CCFExp,
        site: AuditedSite,
        config: OneRunConfig,
        bound: float,
        expected_units: float,
        seed: int,
        on_work: Callable[[float, str], None] | None,
    ) -> None:
        self._model, self._site, self._config, self._seed = model, site, config, seed
        self._bound, self._expected_units, self._on_work = bound, expected_units, on_work
        self._weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._evidence = Evidence(site.data.images.patients)
        self._adds_ND = torch.zeros(0)
        self._sum_D, self._steps = torch.zeros(0), 0

    def look(self) -> None:
        """Compute what every unit adds to a step of the model as it is."""
        gradient_ND = unit_gradients(
            self._model, self._site.data, self._config.cycle, self._config.draws, self._seed, self._looked
        )
        self._adds_ND = clipped(gradient_ND, self._bound)
        self._sum_D, self._steps = torch.zeros(gradient_ND.shape[1], dtype=torch.float64), 0

    def on_step(self, step: int, steps: int, loss: float) -> None:  # noqa: ARG002 (the loop's interface)
        """Add the gradient that the step has released."""
        released = torch.cat([_gradient(weight).flatten() for weight in self._weights])
        self._sum_D += released.double().cpu() * self._expected_units
        self._steps += 1
        if self._on_work is not None:
            rows = self._config.rows_of_step(self._site.patients, self._site.canaries)
            self._on_work(rows, f"step {step} of {steps}")
        if self._steps == self._config.look_every or step == steps:
            drawn = self._config.privacy.sampling_rate * self._steps
            self._evidence.add(self._sum_D, drawn * self._adds_ND)
            if step < steps:
                self.look()

    def scores(self) -> Tensor:
        """Of every canary."""
        return self._evidence.scores()[self._site.patients :]

    def _looked(self) -> None:
        if self._on_work is not None:
            self._on_work(self._config.draws, "gradients of canaries")


def _gradient(weight: torch.nn.Parameter) -> Tensor:
    return torch.zeros_like(weight) if weight.grad is None else weight.grad
