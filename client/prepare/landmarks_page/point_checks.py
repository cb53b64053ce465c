"""What 68 points placed by a person, or by a detector, must satisfy; and what about them should be looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ccfexp.data.files import LANDMARKS
from ccfexp.errors import CCFExpError
from ccfexp.evaluation.measures import SIDES, Scale, eye_distance, head_frame, measure

if TYPE_CHECKING:
    import numpy.typing as npt

    from ccfexp.detection.faces import Points

MARGIN = 0.5  # of the width and the height: an aligned crop cuts off the chin, so the jaw may lie outside of it
SMALLEST_EYE_DISTANCE = 0.05  # of the longer edge
# In eye distances. The true points of phantoms reach -.08 with eyes shut tight and -.02 with lips closed.
LIDS_CROSS = -0.1
LIPS_CROSS = -0.05

# Pairs that no palsy brings past each other, the patient's right first.
_PAIRS = {
    "eye": ((36, 39), (42, 45)),
    "brow": (tuple(range(17, 22)), tuple(range(22, 27))),
    "oral commissure": ((48,), (54,)),
    "side of the nose": ((31,), (35,)),
    "end of the jaw line": ((0,), (16,)),
}
_MOUTH = range(48, 68)
_FIRST_AFTER_JAW = 17


class RefusedPointsError(CCFExpError, ValueError):
    """Points that are not those of a face in this picture; the text says why and what to do."""


def checked_points(point_682: npt.NDArray[Any], width: int, height: int) -> Points:
    """Accept 68 points of a face.

    Args:
        point_682: x right and y down in pixels of the picture, (0, 0) at its outer corner.
        width: of the picture, in pixels.
        height: likewise.

    Returns:
        The points as float32.

    Raises:
        RefusedPointsError: another shape, a value that is not finite, a point further outside of the picture than
            half of its size, eyes that coincide, or right and left exchanged.
    """
    given = np.asarray(point_682, np.float64)
    if given.shape != (LANDMARKS, 2):
        raise RefusedPointsError(
            f"points have shape={list(given.shape)}, expected {[LANDMARKS, 2]}: one x, y per point"
        )
    broken_68 = np.asarray(~np.isfinite(given).all(1))
    if broken_68.any():
        raise RefusedPointsError(f"{_listed(broken_68)} not finite; place again")
    size_2 = np.array([width, height])
    outside_68 = np.asarray(((given < -MARGIN * size_2) | (given > (1 + MARGIN) * size_2)).any(1))
    if outside_68.any():
        raise RefusedPointsError(f"{_listed(outside_68)} too far outside of the picture; move back onto the face")
    points = given.astype(np.float32)
    smallest = SMALLEST_EYE_DISTANCE * max(width, height)
    if not eye_distance(points) >= smallest:
        raise RefusedPointsError(f"the eyes are closer to each other than {smallest:.1f} pixels; move their corners")
    _refuse_exchanged(head_frame(points))
    return points


def flags_of(point_682: Points, width: int, height: int, *, by_hand: bool) -> tuple[str, ...]:
    """Say in short words what about points should be looked at; nothing where all seems well.

    Points that `checked_points` refuses are told of always. What is only rare (crossed lids or lips, a point between
    brows and lips outside of the picture) is not told of points that a person has placed so.
    """
    try:
        checked_points(point_682, width, height)
    except RefusedPointsError as error:
        return (str(error),)
    if by_hand:
        return ()
    found = []
    fissure_S = measure(point_682, Scale.from_eye_distance(point_682)).palpebral_fissure_S
    found += [f"{side} lids cross" for side, gap in zip(SIDES, fissure_S, strict=True) if gap < LIDS_CROSS]
    frame = head_frame(point_682) / eye_distance(point_682)
    if frame[66, 1] - frame[62, 1] < LIPS_CROSS:
        found.append("lips cross")
    inner = point_682[_FIRST_AFTER_JAW:]
    if ((inner < 0) | (inner > np.array([width, height]))).any():
        found.append("a point of brows, nose, eyes or lips lies outside of the picture")
    return tuple(found)


def _refuse_exchanged(frame_682: npt.NDArray[np.float64]) -> None:
    """Refuse right for left, in the frame of the eyes, so that a tilted head is no reason."""
    if frame_682[_MOUTH, 1].mean() <= 0:  # with exchanged eyes the frame is turned round, and the mouth is above them
        _refuse_pair("eye")
    for name, (right, left) in _PAIRS.items():
        if frame_682[list(right), 0].mean() >= frame_682[list(left), 0].mean():
            _refuse_pair(name)


def _refuse_pair(name: str) -> None:
    raise RefusedPointsError(
        f"right and left {name} are exchanged, or the face is upside down: right and left are the patient's, so the "
        f"patient's right {name} is on the left of the picture; move the points there"
    )


def _listed(wrong_68: npt.NDArray[np.bool_]) -> str:
    numbers = np.flatnonzero(wrong_68)
    named = ", ".join(str(number) for number in numbers[:5]) + (", ..." if len(numbers) > 5 else "")
    return f"point {named} is" if len(numbers) == 1 else f"points {named} are"
