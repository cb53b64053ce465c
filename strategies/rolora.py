"""RoLoRA: the factors are trained in turn, B first (Chen et al. 2024, arXiv:2409.02346; 2025, arXiv:2502.01755).

With the other factor the same at every site the mean of one is the mean of the products, exactly, every round; both
learn, and only one goes up: r m or r n numbers. B must come first: while it is zero, A has no gradient at all.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from ccfexp.errors import RoundError
from strategies.aggregation import GlobalState, Roles, SiteUpdate
from strategies.rules import RuleOptions, averaged, places

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True)
class RoLoRA:
    """Odd rounds train B, even rounds A. Both are sent, so that a site that was away needs no past."""

    name: ClassVar[str] = "rolora"
    linear: ClassVar[bool] = True
    steady: ClassVar[bool] = True
    personal: ClassVar[bool] = False
    options: RuleOptions = field(default_factory=RuleOptions)

    def roles(self, round_number: int) -> Roles:
        """B in round 1, A in round 2, and so on."""
        letter = "B" if round_number % 2 else "A"
        return Roles(sent="AB", trained=letter, uploaded=letter)

    def aggregate(self, before: GlobalState, updates: Iterable[SiteUpdate], round_number: int) -> GlobalState:
        """The mean of this round's factor.

        Raises:
            RoundError: as `combined_change`; A is to be trained while every B is zero, which teaches nothing.
        """
        letter = self.roles(round_number).uploaded
        if letter == "A" and not any(before.flat_P[whole].any() for whole, _ in places(before.manifest, "B")):
            raise RoundError(f"round {round_number} trains A while B is zero, so nothing is learnt; train B first")
        return averaged(before, letter, updates, self.options)
