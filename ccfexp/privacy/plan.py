"""What a private run promises: sampling, clipping, noise and the budget, in one frozen object.

Nothing here is about speed or memory (`ccfexp.compute`): whatever stands here is part of the promise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

from ccfexp.errors import ConfigError
from ccfexp.privacy.accounting import MAX_NOISE, MAX_STEPS, MIN_NOISE, Spent, epsilon, noise_for
from ccfexp.privacy.noise import SecureSource, SeededSource, Source
from ccfexp.privacy.steps import AutogradEngine, Engine, PrivatePlan

Unit = Literal["patient", "image"]
Randomness = Literal["secure", "seeded"]


@dataclass(frozen=True)
class PrivacyConfig:
    """Differentially private training of one site (DP-SGD with whole patients as units).

    Attributes:
        epsilon: what the whole run may cost; or
        noise_multiplier: standard deviation of the noise over the clipping norm. Exactly one of the two is given.
        delta: the probability with which epsilon may be exceeded; below 1 / patients.
        unit: whose presence is hidden. "patient": all of a person's photographs. "image": one photograph as
            what is drawn; its person's others, and itself where it shows the identity or the expression of another one,
            are not covered. For comparison only.
        sampling_rate: probability with which a unit is in a step, each independently of the others.
        clipping_norm: bound on the gradient of one unit over the whole adapter (per-unit clipping norm). Chosen on
            public or synthetic data: to choose it on patients would cost privacy that nobody has counted. The
            default is the median of phantoms with the shipped base.
        images_per_patient: at most so many of a patient's photographs are drawn in a step.
        draws_per_image: timesteps and noises that each of them is drawn with (noise multiplicity).
        steps: noised steps of the whole run; 0: as many as its rounds have.
        source: of sampling and noise. "secure": the operating system. "seeded": reproducible, and so no protection
            from anyone who knows the seed; for simulations of phantoms alone.

    Raises:
        ConfigError: a value out of its bounds, neither or both of epsilon and noise_multiplier.
    """

    epsilon: float | None = None
    noise_multiplier: float | None = None
    delta: float = 1e-5
    unit: Unit = "patient"
    sampling_rate: float = 0.05
    clipping_norm: float = 0.02
    images_per_patient: int = 2
    draws_per_image: int = 2
    steps: int = 0
    source: Randomness = "secure"

    def __post_init__(self) -> None:
        self._check_goal()
        if not 0 < self.delta < 0.1:
            raise ConfigError(f"privacy.delta={self.delta} must lie in (0, 0.1), below 1 / patients; 1e-5 is usual")
        if not 0 < self.sampling_rate <= 1:
            raise ConfigError(f"privacy.sampling_rate={self.sampling_rate} must lie in (0, 1]; it is a probability")
        if not (math.isfinite(self.clipping_norm) and self.clipping_norm > 0):
            raise ConfigError(
                f"privacy.clipping_norm={self.clipping_norm} must be finite and above 0; 0.02 suits the shipped base"
            )
        for name, least, most in (("images_per_patient", 1, 64), ("draws_per_image", 1, 64), ("steps", 0, MAX_STEPS)):
            if not least <= getattr(self, name) <= most:
                raise ConfigError(f"privacy.{name}={getattr(self, name)} must lie in [{least}, {most}]")
        for name, kind in (("unit", Unit), ("source", Randomness)):
            if getattr(self, name) not in get_args(kind):
                raise ConfigError(f"privacy.{name}={getattr(self, name)!r} must be one of {', '.join(get_args(kind))}")
        if self.unit == "image" and self.images_per_patient != 1:
            raise ConfigError(
                f"privacy.images_per_patient={self.images_per_patient} must be 1 with unit=image, where every image "
                "counts for itself; set it to 1"
            )

    def _check_goal(self) -> None:
        """Exactly one of epsilon and noise multiplier, and one that can be."""
        if (self.epsilon is None) == (self.noise_multiplier is None):
            raise ConfigError(
                f"privacy.epsilon={_shown(self.epsilon)} and privacy.noise_multiplier={_shown(self.noise_multiplier)}: "
                "exactly one must be given, for each follows from the other; set one and leave the other null"
            )
        if self.epsilon is not None and not (math.isfinite(self.epsilon) and self.epsilon > 0):
            raise ConfigError(f"privacy.epsilon={self.epsilon} must be finite and above 0; 8 is weak, 1 is strong")
        if self.noise_multiplier is not None and not MIN_NOISE <= self.noise_multiplier <= MAX_NOISE:
            raise ConfigError(
                f"privacy.noise_multiplier={self.noise_multiplier} must lie in [{MIN_NOISE}, {MAX_NOISE:g}]; less "
                "noise gives no protection worth a claim"
            )

    def over(self, steps: int) -> PrivacyConfig:
        """The same for a run of so many noised steps, unless it says itself how many.

        Raises:
            ConfigError: the run takes more steps than are planned for.
        """
        if self.steps and steps > self.steps:
            raise ConfigError(
                f"privacy.steps={self.steps} must be at least the steps of the run, {steps}; raise it, or set it to 0"
            )
        return self if self.steps else replace(self, steps=steps)

    def calibrate(self) -> PrivacyConfig:
        """The same with the noise multiplier that its epsilon asks for.

        Raises:
            ConfigError: it has no steps yet, or no noise is enough.
        """
        if self.noise_multiplier is not None or self.epsilon is None:
            return self
        if not self.steps:
            raise ConfigError("privacy.steps=0 must be at least 1 to calibrate the noise; say how many steps there are")
        noise = noise_for(self.epsilon, self.delta, self.sampling_rate, self.steps)
        return replace(self, epsilon=None, noise_multiplier=noise)

    def make(
        self,
        *,
        declared_patients: int,
        source: Source,
        rows_at_once: int = 16,
        engine: Engine | None = None,
    ) -> PrivatePlan:
        """The plan of a round.

        Args:
            declared_patients: how many patients the site declares in public, whoever is there.
            source: of sampling and noise.
            rows_at_once: rows in memory at a time.
            engine: how gradients are told apart; by autograd if none is given.

        Raises:
            ConfigError: not calibrated, or no patients are declared.
        """
        if declared_patients < 1:
            raise ConfigError(
                f"declared_patients={declared_patients} must be at least 1; say how many patients the site has, about"
            )
        return PrivatePlan(
            sampling_rate=self.sampling_rate,
            noise_multiplier=self.spent(1).noise_multiplier,
            clipping_norm=self.clipping_norm,
            images_per_patient=self.images_per_patient,
            draws_per_image=self.draws_per_image,
            by_image=self.unit == "image",
            expected=self.sampling_rate * declared_patients,
            declared_patients=declared_patients,
            source=source,
            rows_at_once=rows_at_once,
            engine=engine or AutogradEngine(),
        )

    def source_of(self, *seed: int) -> Source:
        """Where sampling and noise of a round come from; only a seeded source looks at the seed."""
        return SecureSource() if self.source == "secure" else SeededSource(seed)

    def spent(self, steps: int) -> Spent:
        """The cost of so many steps of a calibrated plan.

        Raises:
            ConfigError: it is not calibrated.
        """
        if self.noise_multiplier is None:
            raise ConfigError(f"privacy.epsilon={self.epsilon} has no noise multiplier yet; calibrate it first")
        return Spent(self.sampling_rate, self.noise_multiplier, steps)

    def epsilon_after(self, steps: int) -> float:
        """Epsilon of so many steps at the plan's delta, counted from nothing. Raises ConfigError as ``spent``."""
        return epsilon([self.spent(steps)], self.delta)


def _shown(value: float | None) -> str:
    return "null" if value is None else f"{value:g}"
