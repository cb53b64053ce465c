"""The few measures of a face that a clinician looks for first, of one photograph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ccfexp.evaluation.measures import ScaleSource, measure

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ccfexp.evaluation.measures import Scale

RightLeft = tuple[float, float]
"""The patient's right and left."""


@dataclass(frozen=True)
class ClinicalMeasures:
    """Lengths in ``unit``; defined in `ccfexp.evaluation.measures.FaceMeasures`. NaN where there is no value.

    Attributes:
        brow_height: droops in a palsy of the forehead.
        lid_gap: palpebral fissure; wide at rest, and open where closing fails.
        commissure_position: reach of the mouth's corner, less on the weak side of a smile.
        commissure_height_difference: positive where the patient's left corner is lower.
        philtrum_deviation: positive towards the patient's left; the mouth is drawn to the healthy side.
        unit: "mm" or "eye distances".
        scale_source: where the unit comes from, which decides how far a length can be trusted.
    """

    brow_height: RightLeft
    lid_gap: RightLeft
    commissure_position: RightLeft
    commissure_height_difference: float
    philtrum_deviation: float
    unit: str
    scale_source: ScaleSource


def clinical_measures(point_682: NDArray[Any], scale: Scale) -> ClinicalMeasures:
    """Measure one face.

    Args:
        point_682: landmarks [68, 2], x right and y down.
        scale: of these landmarks.

    Raises:
        ValueError: the shape is not [68, 2].
    """
    if point_682.shape != (68, 2):
        raise ValueError(
            f"Expected landmarks of shape [68, 2], got {list(point_682.shape)}: one (x, y) per iBUG point."
        )
    face = measure(point_682, scale)
    brow, gap, corner = (
        (float(per_side[0]), float(per_side[1]))
        for per_side in (face.brow_height_S, face.palpebral_fissure_S, face.commissure_position_S)
    )
    return ClinicalMeasures(
        brow_height=brow,
        lid_gap=gap,
        commissure_position=corner,
        commissure_height_difference=float(face.commissure_height_difference),
        philtrum_deviation=float(face.philtrum_deviation),
        unit=scale.unit,
        scale_source=scale.source,
    )
