"""Where a head looks, from its 68 iBUG points alone.

The points are compared with those of the mean phantom head seen from the front, by a scaled orthographic camera (POS:
DeMenthon and Davis 1995, "Model-based object pose in 25 lines of code", its first step): the affine map that fits best
in the least-squares sense, made a rotation by its singular vectors.

Only points that a palsy leaves where they are take part: eye corners (36, 39, 42, 45), the bridge and tip of the nose
(27 to 30), and the outline beside the ears (0 to 2 and 14 to 16), without whose depth a turn cannot be told from a
narrow face. Brows, nostrils, lips, lids and chin move with the face, and one-sidedly.

Measured on 720 phantoms of 120 people, all movements and grades I to VI on either side, with exact landmarks, yaw up to
40 and pitch and roll up to 20 degrees: mean error 1.9 (yaw), 2.3 (pitch), 0.8 (roll), 95 % below 4.9, 6.0, 2.2. The
rest is the shape of the person's own skull. Detectors that mark the outline as it is seen, not the same point of the
skin, err more in a strong turn; nothing here was measured on photographs of patients.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ccfexp.data.phantom.head import Head

Array = NDArray[np.float64]

STEADY = (0, 1, 2, 14, 15, 16, 27, 28, 29, 30, 36, 39, 42, 45)
"""The points that a palsy hardly moves."""

_DEGENERATE = 1e-6  # smallest over largest singular value: points on one line


@dataclass(frozen=True)
class HeadPose:
    """Angles of a head in degrees; zero looks straight into the camera. NaN where the points allow no answer.

    Attributes:
        yaw_deg: positive = turned to the patient's left.
        pitch_deg: positive = chin down.
        roll_deg: positive = tilted towards the patient's right shoulder (counter-clockwise in the picture).
    """

    yaw_deg: float
    pitch_deg: float
    roll_deg: float


def head_pose(point_682: NDArray[Any]) -> HeadPose:
    """Pose of one face from its landmarks [68, 2] (x right, y down, any unit).

    A face with a missing point (NaN) among `STEADY`, or whose points lie on one line, has angles NaN.

    Raises:
        ValueError: the shape is not [68, 2].
    """
    points = np.asarray(point_682, np.float64)
    if points.shape != (68, 2):
        raise ValueError(f"Expected landmarks of shape [68, 2], got {list(points.shape)}: one (x, y) per iBUG point.")
    seen_N2 = points[list(STEADY)] * (1, -1)  # the head's y grows upwards
    if not np.isfinite(seen_N2).all():
        return HeadPose(np.nan, np.nan, np.nan)
    affine_23 = (_inverse_model() @ (seen_N2 - seen_N2.mean(0))).T
    left_22, stretch_2, right_23 = np.linalg.svd(affine_23, full_matrices=False)
    if stretch_2[1] <= _DEGENERATE * stretch_2[0]:
        return HeadPose(np.nan, np.nan, np.nan)
    x_3, y_3 = left_22 @ right_23
    return _angles(np.stack([x_3, y_3, np.cross(x_3, y_3)]))


@cache
def _inverse_model() -> Array:
    """Pseudo-inverse [3, N] of the mean head's steady points about their centre."""
    head = Head.load()
    point_683 = (head.mean_V3[head.anchor_vertex_L3] * head.anchor_weight_L31).sum(1).astype(np.float64)
    model_N3 = point_683[list(STEADY)]
    return np.linalg.pinv(model_N3 - model_N3.mean(0))


def _angles(rotation_33: Array) -> HeadPose:
    """Angles of a rotation that turns first about y (yaw), then about x (pitch), then about z (roll)."""
    r = rotation_33
    pitch = np.arcsin(np.clip(r[2, 1], -1, 1))
    yaw, roll = np.arctan2(-r[2, 0], r[2, 2]), np.arctan2(-r[0, 1], r[1, 1])
    return HeadPose(*(float(angle) for angle in np.degrees([yaw, pitch, roll])))
