"""Measures of a movement: one photograph at rest and one at the peak of the movement, of the same person.

The affected side is a label, the patient's left or right; it is never guessed from the face.  Ratios are gated: where
the healthy side itself hardly moved (the movement was not made, or not in the picture), a ratio of two tiny movements
is noise, so the value is NaN and ``active`` is False.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ccfexp.evaluation.measures import PUPIL_DISTANCE_MM, SIDES, Array

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ccfexp.evaluation.measures import FaceMeasures

NOISE_FLOOR_MM = 1.0  # healthy faces repeat a landmark within about this; smaller movements are not told from none
_LABELS = (*SIDES, "none", "bilateral")


@dataclass(frozen=True)
class GatedRatio:
    """Affected over healthy movement.

    ``value`` [...] is 1 if symmetric, 0 without movement, negative the wrong way, and NaN where ``active`` [...] is
    False: no affected side, or a healthy side that moved less than the noise floor.
    """

    value: Array
    active: NDArray[np.bool_]


def brow_raise_ratio(
    rest: FaceMeasures, raised: FaceMeasures, side: str | Sequence[str], *, noise_floor: float | None = None
) -> GatedRatio:
    """Rise of the affected over rise of the healthy brow (Auto-eFACE "brow raise").  ``side``: one label or one a face.

    ``noise_floor`` in the unit of the scale; None takes NOISE_FLOOR_MM.  Raises ValueError for an unknown side label,
    or where the two faces are measured in different units.
    """
    return _gated(raised.brow_height_S - rest.brow_height_S, side, _floor(rest, raised, noise_floor))


def smile_excursion_ratio(
    rest: FaceMeasures, smile: FaceMeasures, side: str | Sequence[str], *, noise_floor: float | None = None
) -> GatedRatio:
    """Excursion of the affected over that of the healthy commissure; arguments and errors as brow_raise_ratio."""
    excursion_S = commissure_excursion(rest, smile)
    return _gated(excursion_S, side, _floor(rest, smile, noise_floor))


def commissure_excursion(rest: FaceMeasures, smile: FaceMeasures) -> Array:
    """Commissure excursion [..., 2] (right, left): position in the smile minus position at rest."""
    return smile.commissure_position_S - rest.commissure_position_S


def eye_closure_fraction(rest: FaceMeasures, closed: FaceMeasures) -> Array:
    """Share [..., 2] (right, left) of the resting lid gap that the closure closes.

    1 complete, 0 none, negative if the eye opened; crossing lids count as closed.  NaN where the eye is not open at
    rest, so that nothing could close.
    """
    open_S = np.where(rest.palpebral_fissure_S > 0, rest.palpebral_fissure_S, np.nan)
    return 1 - np.maximum(closed.palpebral_fissure_S, 0) / open_S


def affected_minus_healthy(per_side: Array, side: str | Sequence[str]) -> Array:
    """Affected minus healthy value [...] of any measure [..., 2]; NaN where the label names no single side."""
    affected, healthy = _by_label(per_side, side)
    return affected - healthy


def _floor(rest: FaceMeasures, movement: FaceMeasures, noise_floor: float | None) -> float:
    if rest.scale.unit != movement.scale.unit:
        raise ValueError(
            f"Cannot compare rest in {rest.scale.unit} (scale from {rest.scale.source}) with a movement in "
            f"{movement.scale.unit} (scale from {movement.scale.source}): measure both with the same kind of scale."
        )
    if noise_floor is not None:
        return noise_floor
    return NOISE_FLOOR_MM if rest.scale.unit == "mm" else NOISE_FLOOR_MM / PUPIL_DISTANCE_MM


def _gated(moved_S: Array, side: str | Sequence[str], floor: float) -> GatedRatio:
    affected, healthy = _by_label(moved_S, side)
    # The denominator decides: below the floor the ratio is noise whatever the affected side did.
    active = np.abs(healthy) >= floor
    value = np.divide(affected, healthy, out=np.full(np.shape(active), np.nan), where=active)
    return GatedRatio(np.where(np.isfinite(value), value, np.nan), active & np.isfinite(value))


def _by_label(per_side: Array, side: str | Sequence[str]) -> tuple[Array, Array]:
    """(affected, healthy) [...] of ``per_side`` [..., 2]; both NaN where the label is none or bilateral."""
    labels = np.broadcast_to(np.asarray(side, dtype=str), per_side.shape[:-1])
    unknown = sorted(set(labels.ravel().tolist()) - set(_LABELS))
    if unknown:
        raise ValueError(f"Unknown side={unknown[0]!r}: expected one of {', '.join(_LABELS)} (the patient's).")
    right, left = per_side[..., 0], per_side[..., 1]
    affected = np.where(labels == "right", right, np.where(labels == "left", left, np.nan))
    healthy = np.where(labels == "right", left, np.where(labels == "left", right, np.nan))
    return affected, healthy
