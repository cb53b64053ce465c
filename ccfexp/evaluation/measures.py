"""Clinical measures of one face from its 68 iBUG landmarks.

Left and right are always the patient's: points 17-21, 36-41, 31 and 48 are the patient's right (image left of an
unmirrored photograph), 22-26, 42-47, 35 and 54 the patient's left.  Arrays per side end in an axis of two, ordered
(right, left) as in :data:`SIDES`.

Every length is taken in a head frame fixed to the eye corners (the mid-points of the corners, because the mean of the
six lid points moves when the eye closes): origin between the eyes, x towards the patient's left, y towards the chin.
So head position and roll cancel.  Definitions follow Emotrics (Guarin et al. 2018), dynaface and the eye aspect ratio
literature, restricted to what 68 points allow: pupil and iris are not among them, so brow and lid measures refer to
the eye-corner mid-points, and measures that need a nasolabial point are absent.

The affected side is never inferred here: functions that need it take it as a label (see ``movement_measures``).

Shape legend: S = (right, left), ``...`` = any batch shape.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Callable

Array = NDArray[np.float64]

SIDES = ("right", "left")
IRIS_DIAMETER_MM = 11.77  # Emotrics; 12.2 mm is also in use, so an iris scale carries about 4 % of uncertainty
PUPIL_DISTANCE_MM = 63.0  # dynaface's adult mean

_BROW = ((17, 18, 19, 20, 21), (22, 23, 24, 25, 26))
# Each eye: outer-to-inner order differs by side, so name the roles: (corner, upper, upper, corner, lower, lower).
_EYE = ((36, 37, 38, 39, 40, 41), (42, 43, 44, 45, 46, 47))
_INNER_CORNER = (39, 42)
_COMMISSURE = (48, 54)
_UPPER_LIP_OUTER = (48, 49, 50, 51, 52, 53, 54)
_LOWER_LIP_OUTER = (48, 59, 58, 57, 56, 55, 54)
_UPPER_LIP_INNER = (60, 61, 62, 63, 64)
_LOWER_LIP_INNER = (60, 67, 66, 65, 64)

# Where each point goes when left and right are exchanged.
_MIRROR = (
    *(*range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1)),  # jaw, brows, nose
    *(45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40),  # eyes
    *(*range(54, 47, -1), *range(59, 54, -1), *range(64, 59, -1), *range(67, 64, -1)),  # lips
)


class ScaleSource(StrEnum):
    """Where a scale comes from; kept beside every length, because it decides how far the length can be trusted."""

    PHANTOM = "phantom"  # exact, known from the renderer
    IRIS = "iris"  # IRIS_DIAMETER_MM over a fitted iris
    PUPIL_DISTANCE = "pupil_distance"  # PUPIL_DISTANCE_MM over the eye distance: wrong by the person's own distance
    MANUAL = "manual"  # a ruler or a sticker in the photograph
    EYE_DISTANCE = "eye_distance"  # no millimetres: lengths are fractions of the distance between the eyes


@dataclass(frozen=True)
class Scale:
    """Millimetres per landmark unit and their source.

    ``mm_per_unit`` is a positive number or an array that broadcasts against the batch shape of the landmarks.  With
    the source EYE_DISTANCE it is eye distances per unit and lengths are not millimetres (see :attr:`unit`).

    Raises ValueError where a value is not positive; NaN passes (a face whose eyes coincide has no scale).
    """

    mm_per_unit: float | Array
    source: ScaleSource

    def __post_init__(self) -> None:
        if np.any(np.asarray(self.mm_per_unit) <= 0):
            raise ValueError(f"Expected mm_per_unit={self.mm_per_unit} > 0: a scale is a positive length ratio.")

    @property
    def unit(self) -> str:
        """The unit of every length made with this scale: "mm" or "eye distances"."""
        return "eye distances" if self.source is ScaleSource.EYE_DISTANCE else "mm"

    @classmethod
    def from_iris(cls, radius: float | Array) -> Scale:
        """Scale from a fitted iris; ``radius`` in landmark units."""
        return cls(IRIS_DIAMETER_MM / (2 * np.asarray(radius, np.float64)), ScaleSource.IRIS)

    @classmethod
    def from_pupil_distance(cls, points: NDArray[Any]) -> Scale:
        """Fallback in millimetres: the face in ``points`` [..., 68, 2] is given the adult mean eye distance."""
        return cls(PUPIL_DISTANCE_MM / eye_distance(points), ScaleSource.PUPIL_DISTANCE)

    @classmethod
    def from_eye_distance(cls, points: NDArray[Any]) -> Scale:
        """No millimetres at all: lengths in distances between the eyes of ``points`` [..., 68, 2]."""
        return cls(1 / eye_distance(points), ScaleSource.EYE_DISTANCE)


@dataclass(frozen=True)
class FaceMeasures:
    """Measures of one or many faces.  Lengths in ``scale.unit``, areas in its square, angles in degrees.

    Per side [..., 2] (right, left):
        brow_height_S: eye-corner mid-point to the mean of the five brow points, positive upwards.
        palpebral_fissure_S: mean of the two lid gaps; negative if the lids cross.
        eye_aspect_ratio_S: lid gaps over eye width, dimensionless (Soukupova and Cech 2016).
        eye_area_S: area of the six-point lid polygon.
        commissure_position_S: oral commissure to the lower lip at the midline (Emotrics "commissure excursion" of
            one photograph; the true excursion is a difference of two, see ``movement_measures``).
        smile_angle_S: 90 + elevation of the commissure about that point.
        eye_to_commissure_S: inner eye corner to commissure, the two lengths behind the facial asymmetry index.
        interlabial_S: gap of the inner lips halfway between commissure and midline, never negative.
    One per face [...]:
        commissure_height_difference: left minus right; positive where the patient's left commissure is lower.
        philtrum_deviation: signed, positive towards the patient's left.
        facial_asymmetry_index: absolute difference of the two lengths eye_to_commissure_S (dynaface).
        upper_lip_height_difference, lower_lip_height_difference: left minus right, of the outer lip halfway between
            commissure and midline; positive where the patient's left is lower.
        mouth_width: commissure to commissure.
        mouth_opening: inner lips at the midline, never negative.
    """

    scale: Scale
    brow_height_S: Array
    palpebral_fissure_S: Array
    eye_aspect_ratio_S: Array
    eye_area_S: Array
    commissure_position_S: Array
    smile_angle_S: Array
    eye_to_commissure_S: Array
    interlabial_S: Array
    commissure_height_difference: Array
    philtrum_deviation: Array
    facial_asymmetry_index: Array
    upper_lip_height_difference: Array
    lower_lip_height_difference: Array
    mouth_width: Array
    mouth_opening: Array


def measure(points: NDArray[Any], scale: Scale) -> FaceMeasures:
    """All measures of ``points`` [..., 68, 2] (x right, y down, any unit), lengths converted by ``scale``.

    A face with a missing point (NaN), or whose eyes coincide, has NaN where that matters, and no other face is touched.

    Raises ValueError where the shape is not [..., 68, 2].
    """
    q = head_frame(points) * np.asarray(scale.mm_per_unit, np.float64)[..., None, None]
    mid_lip = np.stack([np.zeros_like(q[..., 57, 0]), q[..., 57, 1]], -1)
    to_commissure = q[..., _COMMISSURE, :] - mid_lip[..., None, :]
    position = np.linalg.norm(to_commissure, axis=-1)
    eye_to_commissure = np.linalg.norm(q[..., _INNER_CORNER, :] - q[..., _COMMISSURE, :], axis=-1)
    halfway = q[..., _COMMISSURE, 0] / 2
    upper, lower = _lip_height(q, _UPPER_LIP_OUTER, halfway), _lip_height(q, _LOWER_LIP_OUTER, halfway)
    inner_gap = _lip_height(q, _LOWER_LIP_INNER, halfway) - _lip_height(q, _UPPER_LIP_INNER, halfway)
    return FaceMeasures(
        scale=scale,
        brow_height_S=_per_side(_brow_height, q),
        palpebral_fissure_S=_per_side(_palpebral_fissure, q),
        eye_aspect_ratio_S=_per_side(_eye_aspect_ratio, q),
        eye_area_S=_per_side(_eye_area, q),
        commissure_position_S=position,
        smile_angle_S=90 + np.degrees(np.arcsin(_divide(-to_commissure[..., 1], position))),
        eye_to_commissure_S=eye_to_commissure,
        interlabial_S=np.maximum(inner_gap, 0),
        commissure_height_difference=q[..., 54, 1] - q[..., 48, 1],
        philtrum_deviation=(q[..., 33, 0] + q[..., 51, 0]) / 2,
        facial_asymmetry_index=np.abs(eye_to_commissure[..., 1] - eye_to_commissure[..., 0]),
        upper_lip_height_difference=upper[..., 1] - upper[..., 0],
        lower_lip_height_difference=lower[..., 1] - lower[..., 0],
        mouth_width=np.linalg.norm(q[..., 54, :] - q[..., 48, :], axis=-1),
        mouth_opening=np.maximum(q[..., 66, 1] - q[..., 62, 1], 0),
    )


def head_frame(points: NDArray[Any]) -> Array:
    """``points`` [..., 68, 2] in the frame of the eyes: x to the patient's left, y to the chin, same length unit.

    Raises ValueError where the shape is not [..., 68, 2].
    """
    p = _as_points(points)
    right, left = _eye_centres(p)
    u = left - right
    u = _divide(u, np.linalg.norm(u, axis=-1, keepdims=True))
    v = np.stack([-u[..., 1], u[..., 0]], -1)
    axes = np.stack([u, v], -1)
    return (p - ((right + left) / 2)[..., None, :]) @ axes


def eye_distance(points: NDArray[Any]) -> Array:
    """Distance [...] between the eye-corner mid-points of ``points`` [..., 68, 2]; NaN where they coincide."""
    right, left = _eye_centres(_as_points(points))
    distance = np.linalg.norm(left - right, axis=-1)
    return np.where(distance > 0, distance, np.nan)


def mirror(points: NDArray[Any], width: float = 0.0) -> Array:
    """Landmarks [..., 68, 2] of the mirrored picture of ``width`` (pixel-edge origin): the sides change places."""
    p = _as_points(points)[..., _MIRROR, :]
    return np.stack([width - p[..., 0], p[..., 1]], -1)


def asymmetry_index(per_side: Array) -> Array:
    """|left - right| / (left + right) [...] of a positive measure [..., 2]; 0 symmetric, 1 one-sided, NaN if both 0."""
    right, left = per_side[..., 0], per_side[..., 1]
    return _divide(np.abs(left - right), left + right)


def _as_points(points: NDArray[Any]) -> Array:
    p = np.asarray(points, np.float64)
    if p.ndim < 2 or p.shape[-2:] != (68, 2):
        raise ValueError(f"Expected landmarks of shape [..., 68, 2], got {list(p.shape)}: one (x, y) per iBUG point.")
    return p


def _eye_centres(p: Array) -> tuple[Array, Array]:
    return (p[..., 36, :] + p[..., 39, :]) / 2, (p[..., 42, :] + p[..., 45, :]) / 2


def _per_side(one: Callable[[Array, tuple[int, ...], tuple[int, ...]], Array], q: Array) -> Array:
    return np.stack([one(q, _BROW[s], _EYE[s]) for s in (0, 1)], -1)


def _brow_height(q: Array, brow: tuple[int, ...], eye: tuple[int, ...]) -> Array:
    height: Array = (q[..., eye[0], 1] + q[..., eye[3], 1]) / 2 - q[..., brow, 1].mean(-1)
    return height


def _palpebral_fissure(q: Array, _: tuple[int, ...], eye: tuple[int, ...]) -> Array:
    gap: Array = (q[..., eye[5], 1] - q[..., eye[1], 1] + q[..., eye[4], 1] - q[..., eye[2], 1]) / 2
    return gap


def _eye_aspect_ratio(q: Array, _: tuple[int, ...], eye: tuple[int, ...]) -> Array:
    def length(a: int, b: int) -> Array:
        return np.asarray(np.linalg.norm(q[..., eye[a], :] - q[..., eye[b], :], axis=-1))

    return _divide(length(1, 5) + length(2, 4), 2 * length(0, 3))


def _eye_area(q: Array, _: tuple[int, ...], eye: tuple[int, ...]) -> Array:
    ring = q[..., eye, :]
    following = np.roll(ring, -1, axis=-2)
    crossed = ring[..., 0] * following[..., 1] - ring[..., 1] * following[..., 0]
    return np.asarray(np.abs(crossed.sum(-1)) / 2)


def _lip_height(q: Array, lip: tuple[int, ...], x_S: Array) -> Array:
    """Heights [..., 2] of the polyline ``lip`` at ``x_S`` [..., 2]; NaN where the polyline does not reach x.

    Straight segments, not a smoothing spline: a spline smoothed in squared pixels changes with the image size.
    """
    a, b = q[..., None, lip[:-1], :], q[..., None, lip[1:], :]
    t = _divide(x_S[..., None] - a[..., 0], b[..., 0] - a[..., 0])
    y = np.where((t >= 0) & (t <= 1), a[..., 1] + t * (b[..., 1] - a[..., 1]), np.nan)
    first = np.argmax(np.isfinite(y), axis=-1)
    height_S: Array = np.take_along_axis(y, first[..., None], -1)[..., 0]
    return height_S


def _divide(a: Array, b: Array) -> Array:
    """Quotient a / b, NaN (without a warning) where b is zero."""
    out = np.full(np.broadcast_shapes(a.shape, b.shape), np.nan)
    np.divide(a, b, out=out, where=np.broadcast_to(b != 0, out.shape))
    return out
