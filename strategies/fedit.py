"""FedIT: federated averaging of both LoRA factors (Zhang et al. 2023, arXiv:2305.05644).

A = sum_i p_i A_i and B = sum_i p_i B_i. The product BA is not the mean of the hospitals' products B_i A_i; that
inexactness is the known price of the simplest rule, which sends r(m + n) numbers per adapted m x n matrix and works
under secure aggregation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from strategies.aggregation import SiteUpdate, weighted_mean

if TYPE_CHECKING:
    from collections.abc import Iterable

    from strategies.packing import FlatArray


class FedIT:
    """FedAvg over the adapter's factors, weighted by the hospitals' public unit counts."""

    name = "fedit"
    linear = True  # in the uploads: may run under secure aggregation

    def aggregate(self, sent_P: FlatArray, updates: Iterable[SiteUpdate]) -> FlatArray:  # noqa: ARG002 (the interface)
        """The next adapter, float32 [P].

        Args:
            sent_P: the adapter that this round started from (FedIT does not need it).
            updates: sorted by site, consumed one by one.

        Raises:
            RoundError: as `weighted_mean`.
        """
        return weighted_mean(updates)
