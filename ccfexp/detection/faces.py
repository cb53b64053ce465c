"""What a detector and a landmarker answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
Points = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Face:
    """One face that was found, in pixels of the photograph (x right, y down, (0, 0) at its outer corner).

    Attributes:
        box_4: left, top, right, bottom.
        score: how sure the detector is, in [0, 1].
        point_52: the patient's right eye, left eye, nose tip, right and left oral commissure; right and left are the
            patient's, so in a photograph that is not mirrored the right eye is to the left of the left eye.
    """

    box_4: Points
    score: float
    point_52: Points


@dataclass(frozen=True)
class Landmarks:
    """The 68 points of one face: ``point_682`` in pixels of the photograph, ``confidence_68`` in [0, 1]."""

    point_682: Points
    confidence_68: Points


class Detector(Protocol):
    """Finds faces."""

    def detect(self, image_HW3: Image) -> list[Face]:
        """All faces of an upright RGB photograph [H, W, 3], the surest first; none is an empty list."""
        ...


class Landmarker(Protocol):
    """Finds the 68 iBUG points of a face."""

    def locate(self, image_HW3: Image, face: Face) -> Landmarks:
        """The points of one face of an upright RGB photograph [H, W, 3]."""
        ...
