"""FFA-LoRA: A stays as it was drawn, B is trained and averaged (Sun et al. 2024, arXiv:2403.12313).

With one A at every site sum_i p_i B_i A is the mean of the products, exactly. A is drawn from the run's seed, so that
it never travels: r m numbers per layer each way. What it costs is expressiveness: the update's row space never changes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from strategies.aggregation import GlobalState, Roles, SiteUpdate
from strategies.rules import RuleOptions, averaged

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True)
class FFA:
    """Only B is trained, sent and averaged; the terms of a round carry the hash of the A that a site must have."""

    name: ClassVar[str] = "ffa"
    linear: ClassVar[bool] = True
    steady: ClassVar[bool] = True
    personal: ClassVar[bool] = False
    options: RuleOptions = field(default_factory=RuleOptions)

    def roles(self, round_number: int) -> Roles:  # noqa: ARG002 (the interface)
        """Every round alike."""
        return Roles(sent="B", trained="B", uploaded="B")

    def aggregate(self, before: GlobalState, updates: Iterable[SiteUpdate], round_number: int) -> GlobalState:  # noqa: ARG002
        """The mean of B. Raises RoundError as `combined_change`."""
        return averaged(before, "B", updates, self.options)
