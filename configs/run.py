"""Everything that a run depends on, in one frozen tree: what `configs.load` returns."""

from __future__ import annotations

from dataclasses import dataclass, field

from ccfexp.adapter import AdapterConfig
from ccfexp.data.phantom.sites import PhantomSite
from ccfexp.errors import ConfigError
from ccfexp.training import TrainConfig
from configs.federation import EngineConfig, FederationConfig


@dataclass(frozen=True)
class EvaluationConfig:
    """How a run is judged on people whom no site and no pretraining has seen.

    Raises:
        ConfigError: a value out of its bounds.
    """

    patients: int = 24  # held-out phantom patients
    every_rounds: int = 1  # measure after every so many rounds; the last one always
    sampling_steps: int = 20
    bootstrap: int = 1000  # resamples of people for the intervals

    def __post_init__(self) -> None:
        """Check every bound."""
        for name in ("patients", "every_rounds", "sampling_steps", "bootstrap"):
            if getattr(self, name) < 1:
                raise ConfigError(f"evaluation.{name}={getattr(self, name)} must be at least 1; give a positive number")


@dataclass(frozen=True)
class RunConfig:
    """A simulated federation.

    Raises:
        ConfigError: a value out of its bounds, a site name twice, fewer sites than a round needs.
    """

    name: str  # of the folder under runs/
    seed: int
    base: str  # name or path of the base weights
    sites: tuple[PhantomSite, ...]
    image_size: int  # pixels
    expected_minutes: float  # on two cores, for the estimate that --dry-run prints
    threads: int = 2  # torch threads of a process that trains
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    federation: FederationConfig = field(default_factory=FederationConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)

    def __post_init__(self) -> None:
        """Check what its parts cannot check alone."""
        names = [site.name for site in self.sites]
        if len(set(names)) != len(names):
            raise ConfigError(f"sites={names} must have different names; rename one")
        if len(names) < self.federation.min_sites:
            raise ConfigError(
                f"federation.min_sites={self.federation.min_sites} must be at most the number of sites, {len(names)}; "
                "lower it or add a site"
            )
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"seed={self.seed} must be 0 to 2^63 - 1; choose another")
        if self.threads < 1:
            raise ConfigError(f"threads={self.threads} must be at least 1; use the number of cores")
        if not self.name or any(sign in self.name for sign in "/\\\0") or self.name.startswith("."):
            raise ConfigError(f"name={self.name!r} must be a plain folder name; it names the folder under runs/")
