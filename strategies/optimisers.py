"""The coordinator's step: what becomes of the mean change (Reddi et al. 2021, arXiv:2003.00295, algorithm 2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from strategies.aggregation import Wide
    from strategies.options import ServerOptimiser


def server_step(
    change_P: Wide, letters: str, options: ServerOptimiser, memory: Mapping[str, Wide]
) -> tuple[Wide, dict[str, Wide]]:
    """The step to take and the memory to keep.

    Args:
        change_P: mean change of the factors in ``letters``, float64.
        letters: which factors; each set has moments of its own, so that alternating rules do not mix them.
        options: which optimiser.
        memory: what the last call returned, or nothing.
    """
    if options.kind == "plain":
        return change_P, {}
    kept = dict(memory)
    first = f"momentum.{letters}"
    if options.kind == "momentum":
        kept[first] = options.momentum * memory.get(first, np.zeros_like(change_P)) + change_P
        return options.rate * kept[first], kept
    second = f"squares.{letters}"
    kept[first] = options.momentum * memory.get(first, np.zeros_like(change_P)) + (1 - options.momentum) * change_P
    kept[second] = options.second * memory.get(second, np.zeros_like(change_P)) + (1 - options.second) * change_P**2
    return options.rate * kept[first] / (np.sqrt(kept[second]) + options.floor), kept
