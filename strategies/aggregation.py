"""Aggregation rules as pure functions of what the hospitals sent.

Updates come as a stream in the order of the site names and are used one at a time, so memory does not grow with the
number of hospitals, and the order in which they happened to arrive changes nothing: the same updates, the same bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ccfexp.errors import RoundError
from strategies.packing import FlatArray

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True)
class SiteUpdate:
    """One hospital's screened update: its public site name, the trained adapter (float32 [P]) and its public weight."""

    site: str
    flat_P: FlatArray
    weight: float


def weighted_mean(updates: Iterable[SiteUpdate]) -> FlatArray:
    """sum_i w_i x_i / sum_i w_i, accumulated in float64 and rounded once to float32.

    Args:
        updates: in strictly ascending order of site; consumed one by one.

    Returns:
        float32 [P].

    Raises:
        RoundError: no update, a site twice or out of order, a weight that is not finite and above 0, arrays of
            different length.
    """
    total_P: np.ndarray[tuple[int], np.dtype[np.float64]] | None = None
    total_weight, last_site = 0.0, ""
    for update in updates:
        if update.site <= last_site:
            raise RoundError(f"updates must come once each, sorted by site: site={update.site!r} after {last_site!r}")
        if not (math.isfinite(update.weight) and update.weight > 0):
            raise RoundError(f"weight={update.weight!r} of site {update.site!r} must be finite and above 0")
        if total_P is None:
            total_P = np.zeros(update.flat_P.shape, np.float64)
        if update.flat_P.shape != total_P.shape:
            raise RoundError(f"array shape={update.flat_P.shape} of site {update.site!r} must be {total_P.shape}")
        total_P += update.weight * update.flat_P.astype(np.float64)
        total_weight += update.weight
        last_site = update.site
    if total_P is None:
        raise RoundError("updates=0 to average, need at least 1; see the refusals of this round for the reasons")
    mean: FlatArray = (total_P / total_weight).astype(np.float32)
    return mean
