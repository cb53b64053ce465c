"""Which detector and which landmarker a hospital asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ccfexp.detection.faces import Detector, Landmarker
from ccfexp.errors import WeightsError

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Finders:
    """What finds faces and their points; None where both come along with the photograph."""

    detector: Detector | None
    landmarker: Landmarker | None


def open_detector(
    detector: Literal["insightface", "supplied"],
    landmarks: Literal["fan", "supplied"],
    weights: Path | None,
    *,
    min_score: float,
    device: str = "cpu",
) -> Finders:
    """Open what is asked for; the heavy packages are imported only then.

    Args:
        detector: "insightface", or "supplied" for none.
        landmarks: "fan", or "supplied" for none.
        weights: the hospital's folder of weights; needed unless both are supplied.
        min_score: of a detection, in [0, 1].
        device: that the networks work on.

    Raises:
        WeightsError: no folder, a package that is not installed, or a file that is missing, altered or another.
    """
    if detector == "supplied" and landmarks == "supplied":
        return Finders(None, None)
    if weights is None:
        raise WeightsError("weights=null must be the folder of weights; place the files there by hand")
    finder: Detector | None = None
    landmarker: Landmarker | None = None
    if detector == "insightface":
        from ccfexp.detection.insightface_pack import InsightFaceDetector

        finder = InsightFaceDetector(weights, min_score, device)
    if landmarks == "fan":
        from ccfexp.detection.fan import FanLandmarker

        landmarker = FanLandmarker(weights, device)
    return Finders(finder, landmarker)
