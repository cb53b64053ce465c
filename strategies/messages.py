"""What hospital and coordinator say to each other, as values that check themselves."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

from strategies.packing import AdapterManifest, FlatArray, pack, refusal, unpack

if TYPE_CHECKING:
    import torch

PROTOCOL_VERSION = 1
DTYPE = "float32"
SITE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_HASH = re.compile(r"[0-9a-f]{64}")
_METHOD = re.compile(r"[a-z][a-z0-9_]{0,31}")


@dataclass(frozen=True)
class Terms:
    """What both sides of a round agree on; public, compared field by field.

    Raises:
        WireError: a value that no round can have.
    """

    round_number: int  # 1, 2, ...
    method: str  # name of the aggregation strategy
    rank: int
    alpha: float
    config_sha256: str  # of the whole resolved configuration, as the coordinator has it
    base_sha256: str  # of the frozen base weights
    protocol: int = PROTOCOL_VERSION
    dtype: str = DTYPE

    def __post_init__(self) -> None:
        if self.protocol != PROTOCOL_VERSION:
            raise refusal("protocol", "protocol", self.protocol, f"{PROTOCOL_VERSION}")
        if self.dtype != DTYPE:
            raise refusal("dtype", "dtype", self.dtype, DTYPE)
        if not 1 <= self.round_number <= 1_000_000:
            raise refusal("round", "round_number", self.round_number, "1 to 1000000")
        if not 1 <= self.rank <= 4096:
            raise refusal("rank", "rank", self.rank, "1 to 4096")
        if not (math.isfinite(self.alpha) and self.alpha > 0):
            raise refusal("alpha", "alpha", self.alpha, "finite and above 0")
        if _METHOD.fullmatch(self.method) is None:
            raise refusal("method", "method", self.method, "a strategy name")
        for name in ("config_sha256", "base_sha256"):
            if _HASH.fullmatch(getattr(self, name)) is None:
                raise refusal("hash", name, getattr(self, name), "64 hexadecimal digits")

    def check_equal(self, expected: Terms) -> None:
        """Raises WireError naming the first field that differs."""
        for item in fields(self):
            found, agreed = getattr(self, item.name), getattr(expected, item.name)
            if found != agreed:
                checks = {"round_number": "round", "config_sha256": "hash", "base_sha256": "hash"}
                check = checks.get(item.name, item.name)
                raise refusal(check, item.name, found, f"{agreed!r}")


@dataclass(frozen=True)
class AdapterMessage:
    """Coordinator to hospital: the adapter to start from."""

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


@dataclass(frozen=True)
class AdapterUpdate:
    """Hospital to coordinator: the trained adapter (not its difference to the one sent) and public metadata."""

    terms: Terms
    manifest: AdapterManifest
    flat_P: FlatArray
    weight: float  # public unit count, the weight of this hospital in the mean
    metrics: Mapping[str, float] = field(default_factory=dict)  # names in PUBLIC_METRICS only

    @classmethod
    def of(
        cls, terms: Terms, state: Mapping[str, torch.Tensor], weight: float, metrics: Mapping[str, float] | None = None
    ) -> AdapterUpdate:
        """An update with the tensors packed. Raises WireError as `pack`."""
        return cls(terms, *pack(state), float(weight), dict(metrics or {}))

    def state(self) -> dict[str, torch.Tensor]:
        """The tensors by name, on the CPU."""
        return unpack(self.manifest, self.flat_P)


@dataclass(frozen=True)
class SiteHello:
    """Hospital to coordinator, once per connection: which site a node speaks for.

    Raises:
        WireError: an impossible name.
    """

    site: str

    def __post_init__(self) -> None:
        if SITE_NAME.fullmatch(self.site) is None:
            raise refusal("site", "site", self.site, "1 to 64 letters, digits, '_', '.', '-'")


@dataclass(frozen=True)
class UpdateBounds:
    """What the coordinator accepts in a round: the terms and adapter that it sent, and two bounds."""

    sent: AdapterMessage
    max_update_norm: float  # largest Euclidean norm of (update - sent adapter)
    max_weight: float  # largest public weight, so that no hospital can claim the whole mean
