"""A hospital's own file: where its data are, whom it talks to, and the limits that no run can move.

The file lies on the hospital's disk and is read there alone. Nothing in it is ever sent but the site's name and the
largest rank that it trains.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import configs
from ccfexp.compute import ComputeConfig
from ccfexp.errors import ConfigError, did_you_mean
from strategies.messages import MAX_RANK, SITE_NAME

if TYPE_CHECKING:
    import argparse

DATA_SET = re.compile(r"[A-Za-z0-9_-]{1,64}")
MessageKind = Literal["query", "train"]
_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):([0-9]{1,5})")


@dataclass(frozen=True)
class Policy:
    """The hospital's limits. Every one must be written down: a limit that is not there is no limit.

    Attributes:
        messages: what the coordinator may ask for: the site's name (query), a round of training (train).
        max_rounds: rounds in which an update may leave, over all runs together.
        max_bytes: of one message that leaves.
        max_update_norm: largest Euclidean norm of what one round changes in the adapter.
        min_patients: training patients below which nothing is trained.
        max_rank: of the adapter that is trained here: memory grows with it. It is told to the coordinator, which sends
            an adapter of this rank where the run's is larger.
        max_epsilon: null lets updates leave without differential privacy; a number asks for differential privacy, and
            for no more than this much of it, over all rounds and runs together.
        delta: at which epsilon is counted, below 1 / patients; null only without max_epsilon.

    Raises:
        ConfigError: a value out of its bounds.
    """

    messages: tuple[MessageKind, ...]
    max_rounds: int
    max_bytes: int
    max_update_norm: float
    min_patients: int
    max_rank: int
    max_epsilon: float | None
    delta: float | None

    def __post_init__(self) -> None:
        for name in ("max_rounds", "max_bytes", "min_patients"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"policy.{name}={getattr(self, name)} must be at least 1; to stop all, stop the service"
                )
        if not 1 <= self.max_rank <= MAX_RANK:
            raise ConfigError(f"policy.max_rank={self.max_rank} must be 1 to {MAX_RANK}; 8 is a good choice")
        for name in ("max_update_norm", "max_epsilon"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ConfigError(f"policy.{name}={value} must be finite and above 0; give a positive number")
        if self.delta is None and self.max_epsilon is not None:
            raise ConfigError(
                f"policy.delta=null must be a number with policy.max_epsilon={self.max_epsilon}: epsilon alone "
                "promises nothing; give one far below 1 / patients"
            )
        if self.delta is not None and not 0 < self.delta < 0.1:
            raise ConfigError(f"policy.delta={self.delta} must lie in (0, 0.1); choose one far below 1 / patients")


@dataclass(frozen=True)
class SiteFile:
    """What stands in the file; `load_site` makes the paths absolute.

    Raises:
        ConfigError: a value out of its bounds.
    """

    name: str  # public; with policy.max_rank the only thing of this file that is sent
    superlink: str  # host:port of the coordinator's proxy
    root_certificate: str  # of the coordinator's certificate authority
    private_key: str  # of this site; `python -m client.keygen` makes it
    manifest: str
    work: str  # ledger, approvals, caches and logs
    base: str  # name or path of the base weights
    policy: Policy
    data_set: str = "patients"  # the hospital's own name of the photographs' patients: each has a privacy budget
    # How many patients the hospital declares in public, whoever comes or goes: its weight in the mean of a private run,
    # and what sums over patients are divided by.
    declared_patients: int | None = None
    folder: str = "."  # where relative paths start, itself relative to this file
    device: str = "cpu"
    threads: int = 2
    port: int = 9094  # of the SuperNode, on the loopback interface alone
    poll_s: float = 1.0  # how often the SuperNode asks for work
    isolation: Literal["kernel", "python"] = "kernel"  # python: also where the kernel cannot close off approved code
    compute: ComputeConfig = field(default_factory=ComputeConfig)

    def __post_init__(self) -> None:
        if SITE_NAME.fullmatch(self.name) is None:
            raise ConfigError(f"name={self.name!r} must be 1 to 64 letters, digits, '_', '.', '-'; it is public")
        match = _ADDRESS.fullmatch(self.superlink)
        if match is None or not 1 <= int(match[2]) <= 65535:
            raise ConfigError(f"superlink={self.superlink!r} must be host:port, as the coordinator gives it")
        if not 1024 <= self.port <= 65535:
            raise ConfigError(f"port={self.port} must be 1024 to 65535; choose a free one")
        if not 0.05 <= self.poll_s <= 60:
            raise ConfigError(f"poll_s={self.poll_s} must be 0.05 to 60 seconds; 1 is a good choice")
        if DATA_SET.fullmatch(self.data_set) is None:
            raise ConfigError(
                f"data_set={self.data_set!r} must be 1 to 64 letters, digits, '_', '-'; choose another name"
            )
        if self.declared_patients is not None and self.declared_patients < 1:
            raise ConfigError(f"declared_patients={self.declared_patients} must be at least 1, or null")
        if self.threads < 1:
            raise ConfigError(f"threads={self.threads} must be at least 1; use the number of cores")


@dataclass(frozen=True)
class Site:
    """A hospital, ready to use: its file with absolute paths.

    Attributes:
        file: what is written.
        path: where the file lies.
        root: the folder that relative paths start from.
    """

    file: SiteFile
    path: Path
    root: Path

    @property
    def name(self) -> str:
        """The public name."""
        return self.file.name

    @property
    def policy(self) -> Policy:
        """The limits."""
        return self.file.policy

    @property
    def manifest(self) -> Path:
        """The table of images; its folder is all of the data that training may read."""
        return self._absolute(self.file.manifest)

    @property
    def work(self) -> Path:
        """What this machine writes."""
        return self._absolute(self.file.work)

    @property
    def cache(self) -> Path:
        """Frozen features of the site's images: the only folder that training may write to."""
        return self.work / "cache"

    @property
    def private_key(self) -> Path:
        """The site's private key."""
        return self._absolute(self.file.private_key)

    @property
    def root_certificate(self) -> Path:
        """The coordinator's certificate authority."""
        return self._absolute(self.file.root_certificate)

    @property
    def base(self) -> str:
        """A name of shipped weights, or an absolute path."""
        return str(self._absolute(self.file.base)) if self.file.base.endswith(".safetensors") else self.file.base

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the coordinator."""
        host, _, port = self.file.superlink.rpartition(":")
        return host.strip("[]"), int(port)

    def _absolute(self, path: str) -> Path:
        return (self.root / Path(path).expanduser()).absolute()


def add_site_arguments(parser: argparse.ArgumentParser) -> None:
    """The two ways to name a site on a command line; `chosen_site` reads them."""
    parser.add_argument("--site", help="a site of the demonstration")
    parser.add_argument("--site-file", type=Path, help="a hospital's own file")


def chosen_site(chosen: argparse.Namespace) -> Site:
    """The site that a command line names. Raises ConfigError as `load_site`."""
    return load_site(chosen.site, chosen.site_file)


def load_site(name: str | None, path: Path | None) -> Site:
    """A site of the demonstration by name, or a hospital by its file.

    Raises:
        ConfigError: neither or both are given, an unknown name, a file that does not fit.
    """
    if (name is None) == (path is None):
        raise ConfigError("give --site NAME for a site of the demonstration, or --site-file FILE for a hospital")
    if path is None:
        known = sorted(file.stem for file in configs.SITES.glob("*.yaml"))
        if name not in known:
            hint = did_you_mean(str(name), known)
            raise ConfigError(
                f"unknown site={name!r}.{hint} Known: {', '.join(known)}; a hospital gives --site-file FILE instead"
            )
        path = configs.SITES / f"{name}.yaml"
    path = path.expanduser().absolute()
    file = configs.load_file(path, SiteFile)
    return Site(file, path, (path.parent / file.folder).resolve())
