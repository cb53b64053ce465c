"""What hospital and coordinator say to each other, as values that check themselves."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import TYPE_CHECKING

from strategies.coding import CODINGS, Coding
from strategies.packing import AdapterManifest, FlatArray, pack, refusal, unpack

if TYPE_CHECKING:
    import torch

PROTOCOL_VERSION = 3
MAX_RANK = 256
SITE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_HASH = re.compile(r"[0-9a-f]{64}")
_RUN = re.compile(r"[0-9a-f]{16}")
_METHOD = re.compile(r"[a-z][a-z0-9_]{0,31}")
_MAX_PLAN = 1000  # characters


@dataclass(frozen=True)
class Terms:
    """What both sides of a round agree on; public, compared field by field.

    Raises:
        WireError: a value that no round can have.
    """

    round_number: int  # 1, 2, ...
    method: str  # name of the aggregation rule
    rank: int  # of this site's adapter
    alpha: float  # of this site's adapter; alpha / rank is the same at every site
    config_sha256: str  # of the whole resolved configuration, as the coordinator has it
    base_sha256: str  # of the frozen base weights
    trained: str = "AB"  # factors that the site trains; the others stay as they are
    uploaded: str = "AB"  # factors whose change it sends back
    known_sha256: str = ""  # of factors that are not sent because a site draws them itself from the run's seed
    coding: Coding = "float32"  # how the numbers of an update are written
    privacy: str = ""  # canonical JSON of the calibrated plan of a private run; empty: the updates are not private
    run: str = "0" * 16  # drawn when a run begins: what a site remembers of one run is nothing to another
    protocol: int = PROTOCOL_VERSION

    def __post_init__(self) -> None:
        if self.protocol != PROTOCOL_VERSION:
            raise refusal("protocol", "protocol", self.protocol, f"{PROTOCOL_VERSION}")
        if self.coding not in CODINGS:
            raise refusal("coding", "coding", self.coding, f"one of {', '.join(CODINGS)}")
        if not 1 <= self.round_number <= 1_000_000:
            raise refusal("round", "round_number", self.round_number, "1 to 1000000")
        if not 1 <= self.rank <= MAX_RANK:
            raise refusal("rank", "rank", self.rank, f"1 to {MAX_RANK}")
        if not (math.isfinite(self.alpha) and self.alpha > 0):
            raise refusal("alpha", "alpha", self.alpha, "finite and above 0")
        if _METHOD.fullmatch(self.method) is None:
            raise refusal("method", "method", self.method, "a strategy name")
        if _RUN.fullmatch(self.run) is None:
            raise refusal("run", "run", self.run, "16 hexadecimal digits")
        self._check_factors()
        self._check_texts()

    def _check_texts(self) -> None:
        if len(self.privacy) > _MAX_PLAN:
            raise refusal("privacy", "privacy characters", len(self.privacy), f"at most {_MAX_PLAN}")
        for name in ("config_sha256", "base_sha256", "known_sha256"):
            value = getattr(self, name)
            if _HASH.fullmatch(value) is None and not (name == "known_sha256" and not value):
                raise refusal("hash", name, value, "64 hexadecimal digits")

    def _check_factors(self) -> None:
        for name in ("trained", "uploaded"):
            if getattr(self, name) not in ("A", "B", "AB"):
                raise refusal("factors", name, getattr(self, name), "A, B or AB")
        if not set(self.uploaded) <= set(self.trained):
            raise refusal("factors", "uploaded", self.uploaded, f"only what is trained, {self.trained}")

    def check_equal(self, expected: Terms) -> None:
        """Raises WireError naming the first field that differs."""
        for item in fields(self):
            found, agreed = getattr(self, item.name), getattr(expected, item.name)
            if found != agreed:
                checks = {"round_number": "round", "trained": "factors", "uploaded": "factors"}
                checks |= dict.fromkeys(("config_sha256", "base_sha256", "known_sha256"), "hash")
                check = checks.get(item.name, item.name)
                raise refusal(check, item.name, found, f"{agreed!r}")


@dataclass(frozen=True)
class AdapterMessage:
    """Coordinator to hospital: the adapter to start from, and what has been moved into the base."""

    terms: Terms
    manifest: AdapterManifest
    flat_P: FlatArray
    client_config: str  # JSON of adapter, train and seed; never a path

    @classmethod
    def of(cls, terms: Terms, state: Mapping[str, torch.Tensor], client_config: str) -> AdapterMessage:
        """A message with the tensors packed. Raises WireError as `pack`."""
        return cls(terms, *pack(state), client_config)

    def state(self) -> dict[str, torch.Tensor]:
        """The tensors by name, on the CPU."""
        return unpack(self.manifest, self.flat_P)

    @cached_property
    def uploaded(self) -> AdapterManifest:
        """What is to come back. Raises WireError if it is not among what is sent."""
        return self.manifest.only(self.terms.uploaded)


@dataclass(frozen=True)
class AdapterUpdate:
    """Hospital to coordinator: how far the uploaded factors moved in this round, and public metadata."""

    terms: Terms
    manifest: AdapterManifest
    change_P: FlatArray  # trained minus sent; every value can be written in the coding of the terms
    weight: float  # public unit count, the weight of this hospital in the mean
    metrics: Mapping[str, float] = field(default_factory=dict)  # names in PUBLIC_METRICS, or PRIVATE_METRICS

    @classmethod
    def of(
        cls, terms: Terms, change: Mapping[str, torch.Tensor], weight: float, metrics: Mapping[str, float] | None = None
    ) -> AdapterUpdate:
        """An update with the changes packed. Raises WireError as `pack`."""
        return cls(terms, *pack(change), float(weight), dict(metrics or {}))

    def state(self) -> dict[str, torch.Tensor]:
        """The changes by name, on the CPU."""
        return unpack(self.manifest, self.change_P)


@dataclass(frozen=True)
class SiteHello:
    """Hospital to coordinator, once per connection: which site a node speaks for, and the largest rank that it trains.

    Raises:
        WireError: an impossible name or rank.
    """

    site: str
    max_rank: int = MAX_RANK

    def __post_init__(self) -> None:
        if SITE_NAME.fullmatch(self.site) is None:
            raise refusal("site", "site", self.site, "1 to 64 letters, digits, '_', '.', '-'")
        if not 1 <= self.max_rank <= MAX_RANK:
            raise refusal("rank", "max_rank", self.max_rank, f"1 to {MAX_RANK}")


@dataclass(frozen=True)
class UpdateBounds:
    """What the coordinator accepts in a round: an answer to what it sent, and two bounds."""

    sent: AdapterMessage
    max_update_norm: float  # largest Euclidean norm of the change
    max_weight: float  # largest public weight, so that no hospital can claim the whole mean
