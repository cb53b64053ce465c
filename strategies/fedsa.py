"""FedSA-LoRA: A is shared, every site keeps a B of its own (Guo et al. 2024, arXiv:2410.01463).

Both factors are trained, only A is averaged. Each hospital ends with a model of its own; there is none of the whole
federation, so this is a mode for personal models and not for one that is released. A hospital that loses its B loses
its model.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from strategies.aggregation import GlobalState, Roles, SiteUpdate
from strategies.rules import RuleOptions, averaged

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True)
class FedSA:
    """B never leaves a site and is not sent to it."""

    name: ClassVar[str] = "fedsa"
    linear: ClassVar[bool] = True
    steady: ClassVar[bool] = True
    personal: ClassVar[bool] = True
    options: RuleOptions = field(default_factory=RuleOptions)

    def roles(self, round_number: int) -> Roles:  # noqa: ARG002 (the interface)
        """Every round alike."""
        return Roles(sent="A", trained="AB", uploaded="A")

    def aggregate(self, before: GlobalState, updates: Iterable[SiteUpdate], round_number: int) -> GlobalState:  # noqa: ARG002
        """The mean of A. Raises RoundError as `combined_change`."""
        return averaged(before, "A", updates, self.options)
