"""Mechanisms that are broken on purpose: an audit that does not catch them is worth nothing.

They are objects that a test or the audit's own command makes. No configuration key leads here, and nothing that trains
on patients can import this (see the contracts in ``pyproject.toml``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from ccfexp.privacy.noise import Source

if TYPE_CHECKING:
    from collections.abc import Callable

    from ccfexp.privacy.noise import Numbers
    from ccfexp.privacy.steps import PrivatePlan

_NO_BOUND = 1e9  # far above any gradient's norm


@dataclass(frozen=True)
class _Silent:
    """A source that samples as it should and whose noise is zero."""

    source: Source

    def uniform(self, count: int) -> Numbers:
        """The honest numbers."""
        return self.source.uniform(count)

    def normal(self, count: int) -> Numbers:
        """Zeros."""
        return np.zeros(count)


def honest(plan: PrivatePlan) -> PrivatePlan:
    """The plan as it is."""
    return plan


def without_noise(plan: PrivatePlan) -> PrivatePlan:
    """Sampled and clipped, but nothing is added."""
    return replace(plan, source=_Silent(plan.source))


def without_clipping(plan: PrivatePlan) -> PrivatePlan:
    """The noise that the clipping norm asks for, on gradients that were not clipped."""
    deviation = plan.noise_multiplier * plan.clipping_norm
    return replace(plan, clipping_norm=_NO_BOUND, noise_multiplier=deviation / _NO_BOUND)


BREAKS: Final[dict[str, Callable[[PrivatePlan], PrivatePlan]]] = {
    "nothing": honest,
    "noise": without_noise,
    "clipping": without_clipping,
}
