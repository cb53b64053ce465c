"""How a federation runs: rounds, strategy, what the coordinator accepts, and what one site gets of a machine."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from ccfexp.errors import ConfigError
from strategies import registry
from strategies.coding import Coding
from strategies.options import CombineOptions, ServerOptimiser


@dataclass(frozen=True)
class FederationConfig:
    """The coordinator's part of a run.

    Raises:
        ConfigError: a value out of its bounds.
    """

    rounds: int = 10
    strategy: str = registry.AUTO  # a rule by name; auto: rolora; flex at mixed ranks; fedsvd with privacy
    combine: CombineOptions = field(default_factory=CombineOptions)
    optimiser: ServerOptimiser = field(default_factory=ServerOptimiser)
    upload: Coding = "float32"  # how sites write the numbers of an update
    min_sites: int = 2  # a round with fewer usable updates fails, resumably
    min_fraction: float = 0.0  # and so does one with a smaller share of the sites that were asked
    sites_per_round: int | None = None  # so many are drawn for every round; null asks all that are connected
    round_timeout_s: float = 3600.0  # how long a site may take; in a simulation, where sites queue, there is no limit
    # With enough usable replies, how much longer the others are waited for; null: to the end. Not in a simulation.
    grace_s: float | None = None
    wait_for_sites_s: float = 600.0  # how long the coordinator waits for sites to connect
    weighting: Literal["patients", "equal"] = "patients"  # what a site's weight in the mean is
    weight_cap: float | None = None  # no site counts for more patients than this; null: as many as it declares
    max_update_norm: float = 1000.0  # Euclidean norm of (trained - sent) above which an update is refused
    max_weight: float = 100_000.0  # largest public unit count that a site may claim
    secure_aggregation: bool = False  # the coordinator sees the sum of the updates alone; not part of this release
    central_noise: float = 0.0  # noise multiplier of the coordinator's noise on the mean; see strategies.central_noise

    def __post_init__(self) -> None:
        """Check every bound, and that rule and options go together."""
        if not 1 <= self.rounds <= 1_000_000:
            raise ConfigError(f"federation.rounds={self.rounds} must be 1 to 1000000; choose how many rounds to train")
        if self.min_sites < 1:
            raise ConfigError(f"federation.min_sites={self.min_sites} must be at least 1; a round needs an update")
        if not 0 <= self.min_fraction <= 1:
            raise ConfigError(f"federation.min_fraction={self.min_fraction} must lie in [0, 1]; 0.5 asks for half")
        if self.sites_per_round is not None and self.sites_per_round < self.min_sites:
            raise ConfigError(
                f"federation.sites_per_round={self.sites_per_round} must be at least min_sites={self.min_sites}"
            )
        for name in ("round_timeout_s", "grace_s", "wait_for_sites_s", "weight_cap", "max_update_norm", "max_weight"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ConfigError(f"federation.{name}={value} must be finite and above 0; give a positive number")
        if not (math.isfinite(self.central_noise) and self.central_noise >= 0):
            raise ConfigError(
                f"federation.central_noise={self.central_noise} must be finite and at least 0; 0 adds none"
            )
        self._check_rule()
        if self.combine.centre != "mean" and self.min_sites < 3:
            raise ConfigError(
                f"federation.min_sites={self.min_sites} must be at least 3 with combine.centre={self.combine.centre}: "
                "of two sites nobody can say which is the odd one; raise it"
            )

    def _check_rule(self) -> None:
        rule = self.rule(mixed_ranks=False, private=False)
        if self.secure_aggregation:
            raise ConfigError(
                f"federation.secure_aggregation=true goes with strategy={rule}, but this release has no protocol for "
                "it (Flower's own works with its former interface alone); set it to false: each update is seen"
            )

    def rule(self, *, mixed_ranks: bool, private: bool) -> str:
        """The name of the rule that runs.

        Args:
            mixed_ranks: whether a site cannot train the run's rank.
            private: whether sites train with differential privacy.

        Raises:
            ConfigError: it does not go with the other options. With strategy=auto that may show only when the sites'
                ranks are known; an option that the rule would pass over in silence is no option.
        """
        rule = registry.chosen(self.strategy, private=private, mixed_ranks=mixed_ranks)
        registry.check_combination(
            rule,
            self.combine,
            self.optimiser,
            secure_aggregation=self.secure_aggregation,
            central_noise=self.central_noise > 0,
        )
        return rule


@dataclass(frozen=True)
class EngineConfig:
    """What one virtual site gets of this machine when sites train in parallel (`--engine ray`).

    Raises:
        ConfigError: a value out of its bounds.
    """

    client_cpus: int = 1
    client_gpus: float = 0.0  # a fraction: 0.25 lets four sites share one GPU

    def __post_init__(self) -> None:
        """Check every bound."""
        if self.client_cpus < 1:
            raise ConfigError(f"engine.client_cpus={self.client_cpus} must be at least 1; a site needs a core")
        if not (math.isfinite(self.client_gpus) and self.client_gpus >= 0):
            raise ConfigError(f"engine.client_gpus={self.client_gpus} must be finite and at least 0; 0 trains on CPU")
