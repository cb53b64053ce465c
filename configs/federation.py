"""How a federation runs: rounds, strategy, what the coordinator accepts, and what one site gets of a machine."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ccfexp.errors import ConfigError


@dataclass(frozen=True)
class FederationConfig:
    """The coordinator's part of a run.

    Raises:
        ConfigError: a value out of its bounds.
    """

    rounds: int = 10
    strategy: str = "fedit"  # a name in strategies.registry
    min_sites: int = 2  # a round with fewer usable updates fails, resumably
    round_timeout_s: float = 3600.0  # how long a site may take; in a simulation, where sites queue, there is no limit
    wait_for_sites_s: float = 600.0  # how long the coordinator waits for sites to connect
    max_update_norm: float = 1000.0  # Euclidean norm of (update - sent adapter) above which an update is refused
    max_weight: float = 100_000.0  # largest public unit count that a site may claim

    def __post_init__(self) -> None:
        """Check every bound."""
        if not 1 <= self.rounds <= 1_000_000:
            raise ConfigError(f"federation.rounds={self.rounds} must be 1 to 1000000; choose how many rounds to train")
        if self.min_sites < 1:
            raise ConfigError(f"federation.min_sites={self.min_sites} must be at least 1; a round needs an update")
        for name in ("round_timeout_s", "wait_for_sites_s", "max_update_norm", "max_weight"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"federation.{name}={value} must be finite and above 0; give a positive number")


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
