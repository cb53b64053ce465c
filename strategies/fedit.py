"""FedIT: federated averaging of both LoRA factors (Zhang et al. 2023, arXiv:2305.05644).

A = sum_i p_i A_i and B = sum_i p_i B_i. The product BA is not the mean of the hospitals' products B_i A_i and depends
on how each site happens to split its product into factors; that is the known price of the simplest rule, which sends
r(m + n) numbers per adapted m x n matrix and is linear in the uploads. The baseline, not the default.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from strategies.aggregation import GlobalState, Roles, SiteUpdate
from strategies.rules import RuleOptions, averaged

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True)
class FedIT:
    """Both factors are trained and averaged, each by itself."""

    name: ClassVar[str] = "fedit"
    linear: ClassVar[bool] = True
    steady: ClassVar[bool] = True
    personal: ClassVar[bool] = False
    options: RuleOptions = field(default_factory=RuleOptions)

    def roles(self, round_number: int) -> Roles:  # noqa: ARG002 (the interface)
        """Every round alike."""
        return Roles(sent="AB", trained="AB", uploaded="AB")

    def aggregate(self, before: GlobalState, updates: Iterable[SiteUpdate], round_number: int) -> GlobalState:  # noqa: ARG002
        """The mean of each factor. Raises RoundError as `combined_change`."""
        return averaged(before, "AB", updates, self.options)
