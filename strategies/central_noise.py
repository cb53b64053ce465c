"""Gaussian noise that the coordinator adds to the mean change.

It hides how much any one *site* moved the mean from whoever sees the adapter, and from nobody who sees the updates: the
coordinator still does. Its size follows from what one site can do at most, C max_i p_i, with the weights of this very
round: a fixed number of sites in its place gives too little noise as soon as hospitals are unequal or one drops out. A
component that few sites have is averaged over those, so that the largest p_i is that of the component where it is most.
This is no statement about patients and no (epsilon, delta) is claimed for it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from strategies.aggregation import Wide


@dataclass(frozen=True)
class CentralNoise:
    """Noise of standard deviation multiplier x bound x (largest share of the mean).

    Attributes:
        multiplier: the noise multiplier.
        bound: largest norm that a site's change can have; longer ones are refused before.
        generator: of the noise; its seed is the coordinator's secret.
    """

    multiplier: float
    bound: float
    generator: np.random.Generator = field(repr=False)

    def added_to(self, change_P: Wide, largest_share: float) -> Wide:
        """The mean change with noise; the share as `averaging.largest_share` has it."""
        deviation = self.multiplier * self.bound * largest_share
        noisy_P: Wide = change_P + self.generator.normal(0.0, deviation, change_P.shape)
        return noisy_P
