"""Everything that a run depends on, in one frozen tree: what `configs.load` returns."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from typing import Literal

from ccfexp.adapter import AdapterConfig
from ccfexp.compute import ComputeConfig
from ccfexp.data.phantom.sites import PhantomSite
from ccfexp.errors import ConfigError
from ccfexp.evaluation.cases import MOST_MOVEMENTS
from ccfexp.privacy.engines import engine_of
from ccfexp.privacy.plan import PrivacyConfig
from ccfexp.training import TrainConfig
from configs.federation import EngineConfig, FederationConfig
from strategies.messages import MAX_RANK

FIRST_RESERVED = 100_000
"""Phantom people from this number on belong to pretraining and evaluation."""


@dataclass(frozen=True)
class EvaluationConfig:
    """How a run is judged on people whom no site and no pretraining has seen.

    Raises:
        ConfigError: a value out of its bounds.
    """

    patients: int = 24  # held-out phantom patients
    movements: int = 1  # of an examination; every patient is examined at every House-Brackmann grade
    every_rounds: int = 1  # measure after every so many rounds; the last one always
    sampler: Literal["ddim", "dpm"] = "ddim"
    sampling_steps: int = 4
    guidance: float = 1.0  # how far pictures go along the way from rest to the expression; 1 = to it
    baselines: bool = True  # train each site alone and pooled too, for comparison
    bootstrap: int = 1000  # resamples of people for the intervals

    def __post_init__(self) -> None:
        """Check every bound."""
        for name in ("patients", "movements", "every_rounds", "sampling_steps", "bootstrap"):
            if getattr(self, name) < 1:
                raise ConfigError(f"evaluation.{name}={getattr(self, name)} must be at least 1; give a positive number")
        if self.movements > MOST_MOVEMENTS:
            raise ConfigError(f"evaluation.movements={self.movements} must be at most {MOST_MOVEMENTS}, all there are")
        if self.sampler not in ("ddim", "dpm"):
            raise ConfigError(f"evaluation.sampler={self.sampler!r} must be ddim or dpm")
        if not 0 <= self.guidance <= 5:
            raise ConfigError(f"evaluation.guidance={self.guidance} must lie in [0, 5]; 1 is none")


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
    site_copies: int = 1  # every listed site stands for so many hospitals alike, each with people of its own
    patients_times: int = 1  # every hospital has so many times the patients that are listed for it
    site_ranks: tuple[int, ...] = ()  # largest rank that each listed site can train; empty: the adapter's at every site
    threads: int = 2  # torch threads of a process that trains
    compute: ComputeConfig = field(default_factory=ComputeConfig)  # of every process on this machine
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    privacy: PrivacyConfig | None = None  # of every site's training; null: updates are not anonymous
    federation: FederationConfig = field(default_factory=FederationConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)

    def __post_init__(self) -> None:
        """Check what its parts cannot check alone."""
        for name in ("site_copies", "patients_times"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least 1; 1 takes the sites as they are")
        hospitals = self.hospitals
        names = [site.name for site in hospitals]
        if len(set(names)) != len(names):
            raise ConfigError(f"sites={names} must have different names; rename one")
        if len(names) < self.federation.min_sites:
            raise ConfigError(
                f"federation.min_sites={self.federation.min_sites} must be at most the number of sites, {len(names)}; "
                "lower it or add a site"
            )
        _check_people(hospitals)
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"seed={self.seed} must be 0 to 2^63 - 1; choose another")
        if not 16 <= self.image_size <= 1024:
            raise ConfigError(f"image_size={self.image_size} must be 16 to 1024 pixels; use the size of the base")
        self._check_ranks()
        self._check_second_pass()
        self._check_privacy()
        if not self.expected_minutes > 0:
            raise ConfigError(f"expected_minutes={self.expected_minutes} must be > 0; say how long the run takes")
        if self.threads < 1:
            raise ConfigError(f"threads={self.threads} must be at least 1; use the number of cores")
        if not self.name or any(sign in self.name for sign in "/\\\0") or self.name.startswith("."):
            raise ConfigError(f"name={self.name!r} must be a plain folder name; it names the folder under runs/")

    def _check_ranks(self) -> None:
        if self.site_ranks and len(self.site_ranks) != len(self.sites):
            raise ConfigError(
                f"site_ranks={list(self.site_ranks)} must have one rank for each of {len(self.sites)} sites"
            )
        if self.site_ranks and not 1 <= min(self.site_ranks) <= max(self.site_ranks) <= MAX_RANK:
            raise ConfigError(
                f"site_ranks={list(self.site_ranks)} must be 1 to {MAX_RANK}; the adapter's rank bounds them"
            )

    def max_rank(self, hospital: str) -> int:
        """The largest rank that a hospital of the simulation can train."""
        if not self.site_ranks:
            return self.adapter.rank
        names = [site.name for site in self.hospitals]
        return self.site_ranks[names.index(hospital) % len(self.sites)]

    def _check_second_pass(self) -> None:
        """Refuse a second pass that no step of the run would come to."""
        steps = self.steps
        if self.train.cycle.cycle_weight and self.train.cycle_every > steps:
            raise ConfigError(
                f"train.cycle_every={self.train.cycle_every} must be at most the steps of a run, {steps}; lower "
                "it, or set train.cycle.cycle_weight=0 for one pass"
            )

    def _check_privacy(self) -> None:
        """Refuse a private run whose promise the rest of the configuration would break."""
        if self.privacy is None:
            return
        self.privacy.over(self.steps)
        self.federation.rule(mixed_ranks=False, private=True)
        engine_of(self.compute)
        for site in self.hospitals:
            patients = self.patients(site.name)
            if self.privacy.delta >= 1 / patients:
                raise ConfigError(
                    f"privacy.delta={self.privacy.delta} must be below 1 / patients={patients} of site {site.name}, "
                    f"{1 / patients:.2g}: so large a delta allows one patient to be told as a whole; lower it"
                )

    @property
    def steps(self) -> int:
        """Steps of a site that takes part in every round."""
        return self.train.steps * self.federation.rounds

    @property
    def private_plan(self) -> PrivacyConfig | None:
        """What every site is asked to promise: the noise that epsilon asks for over all steps; None: nothing.

        It takes a second to find, and nothing finds it until it is asked for.

        Raises:
            ConfigError: no noise is enough for epsilon.
        """
        return None if self.privacy is None else self.privacy.over(self.steps).calibrate()

    def patients(self, hospital: str) -> int:
        """How many patients a hospital of the simulation trains on: a constant, as public as the configuration."""
        site = next(site for site in self.hospitals if site.name == hospital)
        return site.subjects - site.holdout

    @property
    def hospitals(self) -> tuple[PhantomSite, ...]:
        """All sites of the run: the listed ones, or `site_copies` of each with people of their own."""
        sites = tuple(replace(site, subjects=self.patients_times * site.subjects) for site in self.sites)
        if self.site_copies == 1:
            return sites
        return tuple(
            replace(site, name=f"{site.name}{copy:03d}", first_identity=site.first_identity + copy * site.subjects)
            for copy in range(self.site_copies)
            for site in sites
        )


def _check_people(hospitals: tuple[PhantomSite, ...]) -> None:
    """Nobody is a patient of two hospitals, and nobody has been seen in pretraining or is kept for evaluation."""
    ranges = sorted((site.first_identity, site.first_identity + site.subjects, site.name) for site in hospitals)
    for (_, end, name), (begin, _, following) in itertools.pairwise(ranges):
        if begin < end:
            raise ConfigError(
                f"sites {name} and {following} share people: first_identity={begin} of {following} must be at least "
                f"{end}; move one of them"
            )
    if ranges and ranges[-1][1] > FIRST_RESERVED:
        raise ConfigError(
            f"people of site {ranges[-1][2]} end at {ranges[-1][1]}; first_identity + subjects must be at most "
            f"{FIRST_RESERVED}, because pretraining and evaluation use the people from there on"
        )
