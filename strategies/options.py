"""What may be chosen beside the rule itself: how changes are combined, and what the coordinator makes of their mean."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ccfexp.errors import ConfigError


@dataclass(frozen=True)
class CombineOptions:
    """How the sites' changes become one.

    Attributes:
        centre: the weighted mean, or one that a few suspicious sites cannot move far (every site then counts alike).
        trim: of the trimmed mean: the share of sites left out at either end of every number; one at least, where
            there are three.
        norm_filter: an update longer than so many times the median of all is left out; 0 lets all in.
        residual: of flex: what the adapter's rank cannot hold is moved into the base instead of being lost.

    Raises:
        ConfigError: a value out of its bounds.
    """

    centre: Literal["mean", "median", "trimmed_mean"] = "mean"
    trim: float = 0.2
    norm_filter: float = 0.0
    residual: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.trim < 0.5:
            raise ConfigError(f"trim={self.trim} must lie between 0 and 0.5; 0.2 leaves out a fifth at either end")
        if not (self.norm_filter == 0 or 1 <= self.norm_filter <= 1000):
            raise ConfigError(f"norm_filter={self.norm_filter} must be 0 (off) or 1 to 1000; 3 is a good choice")

    @property
    def needs_all(self) -> bool:
        """Whether nothing can be combined before every update is there."""
        return self.centre != "mean" or self.norm_filter > 0


@dataclass(frozen=True)
class ServerOptimiser:
    """What the coordinator does with the mean change (Reddi et al. 2021, arXiv:2003.00295, algorithm 2).

    Attributes:
        kind: "plain" adds the mean change; "momentum" (FedAvgM) and "adam" (FedAdam) take it for a gradient.
        rate: of the step.
        momentum: share of the last step that is kept (momentum, adam).
        second: of the running mean of squares (adam).
        floor: added to the root of that mean (adam); it bounds how much a small change is blown up.

    Raises:
        ConfigError: a value out of its bounds.
    """

    kind: Literal["plain", "momentum", "adam"] = "plain"
    rate: float = 1.0
    momentum: float = 0.9
    second: float = 0.99
    floor: float = 1e-3

    def __post_init__(self) -> None:
        for name in ("rate", "floor"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ConfigError(f"{name}={getattr(self, name)} must be finite and above 0; give a positive number")
        for name in ("momentum", "second"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least 0 and below 1; 0.9 is a good choice")
        if self.kind == "adam" and self.rate > 0.1:  # its step is as long as the rate, whatever the change
            raise ConfigError(f"rate={self.rate} of kind=adam must be at most 0.1; 0.001 is a good choice")
        if self.kind == "plain" and self.rate != 1.0:
            raise ConfigError(f"rate={self.rate} changes nothing with kind=plain; leave it at 1 or choose momentum")
