"""The frame of a video in which a movement is at its peak, from the landmarks of its frames.

A rule for each movement, in the frame of the eyes and in distances between them (`ccfexp.evaluation.measures`), so that
where the head is, how large and how it is rolled does not count. A palsied face moves on one side only. So a measure
that both sides have is looked at on each side by itself, as its change since that side moved least, and the larger
change counts: a mean would be diluted by the side that does not move. Which side is palsied is neither asked nor
answered.

==========================  ==========================================================================================
closures of eyes, blink     the lid gap (`palpebral_fissure_S`) is smallest
brow_raise, frown           the brow stands highest, lowest above its eye (`brow_height_S`)
smile_closed, smile_teeth   the corner of the mouth is furthest out and up, the way the great zygomatic muscle pulls it;
                            width alone would miss the rise, and is lost where the mouth is drawn to the healthy side
snarl                       wing of the nose and upper lip are closest to the eyes, which the muscle that makes a snarl
                            lifts together; their distance from each other hardly changes
lower_teeth                 the gap of the inner lips is widest (`interlabial_S`)
lip_pucker                  the mouth is narrowest. Its width belongs to no side: a palsied mouth is drawn over whole
cheek_puff                  cheeks far apart, mouth narrow, lips pressed: the outline widens where the cheeks are
                            (points 2-5, 11-14), while closing the lips against the pressure purses them. None of the
                            three alone stands out from the noise of 68 points
rest                        the face differs least from the median face of the video
==========================  ==========================================================================================
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np

from ccfexp.data.files import BadFileError
from ccfexp.data.rows import Movement
from ccfexp.evaluation.measures import Array, Scale, eye_distance, head_frame, measure

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from ccfexp.detection.faces import Image, Points
    from client.prepare.video import Frame

_CLOSURES = (Movement.GENTLE_EYE_CLOSURE, Movement.TIGHT_EYE_CLOSURE, Movement.BLINK)
_SMILES = (Movement.SMILE_CLOSED, Movement.SMILE_TEETH)
# (right, left) of the patient
_CORNERS = ([48, 60], [54, 64])
_ENDS = ([48, 49, 59, 60], [53, 54, 55, 64])
_NOSE_AND_LIP = ([31, 49, 50, 61], [35, 53, 52, 63])
_CHEEK = ([2, 3, 4, 5], [11, 12, 13, 14])
_UPPER_LIP, _LOWER_LIP = [49, 50, 51, 52, 53, 61, 62, 63], [55, 56, 57, 58, 59, 65, 66, 67]


def choose_peak(movement: Movement, landmark_T682: Points) -> int:
    """The frame at the peak of a movement.

    A single frame's landmarks jump; a movement that is held does not. So each measure is replaced by the median of
    itself and its two neighbours. A blink may last a frame or two and is taken as it is.

    Args:
        movement: which rule.
        landmark_T682: the 68 points of frames in the order of time, in pixels; NaN where no face was found.

    Returns:
        The index of the frame; the first of several that are equal.

    Raises:
        BadFileError: no frame with a face.
    """
    points = np.asarray(landmark_T682, np.float64)
    usable_N = np.flatnonzero(np.isfinite(points).all((1, 2)) & np.isfinite(eye_distance(points)))
    if not len(usable_N):
        raise BadFileError("no face was found in any frame of the video; check the part of it, and the landmarks")
    score_NS = _scores(movement, points[usable_N])
    if movement is not Movement.BLINK:
        score_NS = _median_of_three(score_NS)
    change_NS = score_NS - score_NS.min(0)
    return int(usable_N[np.argmax(change_NS.max(1))])


def peak_of_video(
    frames: Callable[[], Generator[Frame]],
    frame_at: Callable[[int], Frame],
    locate: Callable[[Image], Points | None] | None,
    movement: Movement,
    supplied_T682: Points | None = None,
) -> tuple[Frame, Points]:
    """The frame at the peak of a movement, and its landmarks.

    One frame is held at a time: the frames are gone through for their landmarks, and the chosen one is read again.

    Args:
        frames: gives the frames anew.
        frame_at: reads the frame at a place in the video.
        locate: finds the 68 points in an upright photograph; None as answer = no face.
        movement: what is made.
        supplied_T682: landmarks of all frames of the video, by their places; they win over ``locate``.

    Raises:
        BadFileError: no frame with a face, or neither landmarks nor a way to find them.
    """
    if supplied_T682 is None and locate is None:
        raise BadFileError("a video needs landmarks of its frames, or faces.landmarks other than supplied")
    places, found = [], []
    with closing(frames()) as all_frames:
        for place, points in _located(all_frames, locate, supplied_T682):
            places.append(place)
            found.append(points)
    chosen = choose_peak(movement, np.stack(found))
    return frame_at(places[chosen]), found[chosen]


def _located(
    frames: Iterator[Frame], locate: Callable[[Image], Points | None] | None, supplied_T682: Points | None
) -> Iterator[tuple[int, Points]]:
    for frame in frames:
        if supplied_T682 is not None:
            points: Points | None = supplied_T682[frame.index]
        else:
            assert locate is not None
            points = locate(frame.image_HW3)
        yield frame.index, np.full((68, 2), np.nan, np.float32) if points is None else points


def _scores(movement: Movement, points_N682: Array) -> Array:
    """How far a movement is made [N, S]: larger is more; S = (right, left), or 1 where a measure has no side."""
    face = measure(points_N682, Scale.from_eye_distance(points_N682))
    q_N682 = head_frame(points_N682) / eye_distance(points_N682)[:, None, None]
    if movement in _CLOSURES:
        return -face.palpebral_fissure_S
    if movement is Movement.BROW_RAISE:
        return face.brow_height_S
    if movement is Movement.FROWN:
        return -face.brow_height_S
    if movement in _SMILES:
        return _outward(q_N682, _CORNERS) - _height(q_N682, _CORNERS)
    if movement is Movement.SNARL:
        return -_height(q_N682, _NOSE_AND_LIP)
    if movement is Movement.LOWER_TEETH:
        return np.asarray(np.nan_to_num(face.interlabial_S))  # NaN: the inner lips do not reach halfway, so no gap
    width_N1 = _outward(q_N682, _ENDS).sum(1, keepdims=True)
    if movement is Movement.LIP_PUCKER:
        return np.asarray(-width_N1)
    if movement is Movement.CHEEK_PUFF:
        cheeks_N1 = _outward(q_N682, _CHEEK).mean(1, keepdims=True)
        lips_N1 = _height(q_N682, (_LOWER_LIP,)) - _height(q_N682, (_UPPER_LIP,))
        return np.asarray(cheeks_N1 - width_N1 - lips_N1)
    away_N68 = np.linalg.norm(q_N682 - np.median(q_N682, axis=0), axis=-1)
    return np.asarray(-away_N68.mean(1, keepdims=True))


def _outward(q_N682: Array, points: tuple[list[int], list[int]]) -> Array:
    """Mean distance [N, 2] of points from the midline, each side's own way."""
    right, left = (q_N682[:, side, 0].mean(1) for side in points)
    return np.stack([-right, left], -1)


def _height(q_N682: Array, groups: tuple[list[int], ...]) -> Array:
    """Mean y [N, G] of groups of points, towards the chin."""
    return np.stack([q_N682[:, group, 1].mean(1) for group in groups], -1)


def _median_of_three(score_NS: Array) -> Array:
    around = np.concatenate([score_NS[:1], score_NS, score_NS[-1:]])
    return np.asarray(np.median(np.stack([around[:-2], around[1:-1], around[2:]]), axis=0))
