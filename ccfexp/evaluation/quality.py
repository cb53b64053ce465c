"""What may be wrong with a photograph, as hints for the person who looks through them.

`assess` sees one aligned crop at `SIZE` pixels, its landmarks, and what is known of the photograph it was cut from. Its
flags are hints from thresholds. Those of sharpness, light, occlusion, pose and symmetry were set on phantoms, by what
400 clean ones never or hardly ever reach (all grades, movements, skin tones and sites' cameras); the figures stand
beside each. Nothing was measured on patients: a flag refuses nothing, and no flag is no proof of a good photograph.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_gradient_magnitude

from ccfexp.data.rows import LandmarkSource, Movement, Side
from ccfexp.evaluation.measures import eye_distance, head_frame, mirror
from ccfexp.evaluation.occlusion import Mask, Occlusion, face_mask, occlusion
from ccfexp.evaluation.pose import HeadPose, head_pose

Array = NDArray[np.float64]

SIZE: Final = 112
"""Width and height in pixels of the crops that are judged; all thresholds hold at this size."""

MIN_SHARPNESS: Final = 1.18
"""Clean: at least 1.20, though one of the sites is blurred by up to 1.3 pixels; blurred by 3 more: at most 1.17."""

MIN_HIGHLIGHT: Final = 72.0
"""Of 255. The brightest hundredth of a face hangs little on its skin: clean at least 82, two stops less at most 64."""

MAX_DARK: Final = 0.10
MAX_BRIGHT: Final = 0.15
"""Clean: at most 0.023 dark, 0.145 bright (light skin beside a window)."""

MIN_EYE_EDGES: Final = 0.015
"""Clean: 99 % above 0.024 (closed lids of dark skin least), blurred by 3 pixels above 0.019; under a hand of the
person's own colour 99 % below 0.012."""

MIN_MOUTH_EDGES: Final = (0.024, 0.040)
MOUTH_SHARPNESS: Final = (1.18, 1.30)
"""At two sharpnesses, between them in proportion. Clean: 99 % above 0.023 (blurred by 3 pixels), 0.031, 0.036, 0.039
and 0.048 as sharpness rises; under a hand of the person's own colour 95 % below 0.023."""

MAX_MASK_CHROMA: Final = 0.17
"""Clean: at most 0.11; masks of five colours: at least 0.2."""

MAX_NOT_SKIN: Final = 0.12
"""Share of nose or cheeks of another hue. Clean: at most 0.08."""

MAX_TURN_DEG: Final = 20.0
MAX_TILT_DEG: Final = 20.0
"""Beyond the 95 % error of `head_pose` (6 degrees at most) from the pose of people who look into a camera."""

MAX_OUTSIDE: Final = 0.10
MIN_SCORE: Final = 0.6
MIN_CONFIDENCE: Final = 0.4
MAX_ENLARGEMENT: Final = 1.25
"""These four are chosen, not measured: no phantom says them."""

MIN_ASYMMETRY_REST: Final = {5: 0.021, 6: 0.032}
MIN_ASYMMETRY_MOVING: Final = {4: 0.013, 5: 0.015, 6: 0.022}
"""By House-Brackmann grade. About 1 % of phantoms are more symmetric. Of those whose asymmetry was shrunk to a third,
as a small net does it, all are found at rest, and 65, 26 and 39 % of grades IV, V and VI in movement."""

_DARK, _BRIGHT = 25.0, 250.0  # brightness of 255 at which shape is lost: sensor noise below, clipping above
_LUMA = np.array([0.299, 0.587, 0.114])  # Rec. 601
_FINE, _COARSE = 1.0, 2.0  # pixels
_PAIRED = (*range(17, 27), *range(36, 68))  # brows, eyes and mouth


class Flag(StrEnum):
    """A hint that something may be wrong with a photograph."""

    BLURRED = "blurred"
    DARK = "dark"
    BRIGHT = "bright"
    SMALL = "small"
    TURNED = "turned"
    TILTED = "tilted"
    OCCLUDED_EYES = "occluded_eyes"
    OCCLUDED_MOUTH = "occluded_mouth"
    OCCLUDED_FACE = "occluded_face"
    OUTSIDE = "outside"
    SYMMETRISED = "symmetrised"
    UNSURE = "unsure"


@dataclass(frozen=True, kw_only=True)
class SourceFacts:
    """What is known of the photograph that a crop was cut from.

    Attributes:
        point_682: landmarks in pixels of the photograph, for the pose and the size of the face.
        image_size: side of the prepared picture in pixels.
        outside_share: share of the crop that lies outside the photograph.
        movement, side, grade: what is written down of the patient; None = not graded.
        landmark_source: where the points come from.
        score: of the detector, in [0, 1]; None = none was asked.
        confidence: mean over the points, in [0, 1]; None = unknown.
    """

    point_682: NDArray[Any]
    image_size: int
    outside_share: float
    movement: Movement
    side: Side
    grade: int | None
    landmark_source: LandmarkSource
    score: float | None = None
    confidence: float | None = None


@dataclass(frozen=True)
class Exposure:
    """Light on the face, brows to chin.

    Attributes:
        dark_share, bright_share: of the face's pixels, too dark or too bright to show any shape.
        highlight: brightness of the brightest hundredth, 0 to 255.
    """

    dark_share: float
    bright_share: float
    highlight: float


@dataclass(frozen=True)
class Quality:
    """What was measured of one photograph, and the hints that follow.

    Attributes:
        sharpness: steepness of the face's edges at 1 pixel over that at 2 pixels, of the crop; 2 = ideal, 1 = no detail
            finer than 2 pixels.
        exposure: light on the face.
        eye_distance_px: between the mid-points of the eye corners, in pixels of the photograph.
        upscaled: the prepared picture has more pixels than the face had.
        pose: in the photograph, before it was turned upright.
        outside_share: as given.
        occlusion: what hides the face.
        asymmetry: difference in height of the points of both sides, root mean square over brows, eyes and mouth, in eye
            distances. Heights, because a turn of the head changes widths.
        flags: in the order of `Flag`.
    """

    sharpness: float
    exposure: Exposure
    eye_distance_px: float
    upscaled: bool
    pose: HeadPose
    outside_share: float
    occlusion: Occlusion
    asymmetry: float
    flags: tuple[Flag, ...]


def assess(image_HW3: NDArray[np.uint8], point_682: NDArray[Any], facts: SourceFacts) -> Quality:
    """Judge one photograph.

    Args:
        image_HW3: aligned RGB crop [SIZE, SIZE, 3] of uint8.
        point_682: landmarks [68, 2] in pixels of the crop.
        facts: of the photograph that it was cut from.

    Raises:
        ValueError: another shape or type, or a landmark that is not finite.
    """
    _check(image_HW3, point_682, facts)
    points = np.asarray(point_682, np.float64)
    face_HW = face_mask(points, SIZE)
    distance = float(eye_distance(facts.point_682))
    enlargement = float(eye_distance(points)) * facts.image_size / SIZE / distance
    quality = Quality(
        sharpness=_sharpness(image_HW3 @ _LUMA, face_HW),
        exposure=_exposure(image_HW3, face_HW),
        eye_distance_px=distance,
        upscaled=enlargement > 1,
        pose=head_pose(facts.point_682),
        outside_share=facts.outside_share,
        occlusion=occlusion(image_HW3, points),
        asymmetry=asymmetry(points),
        flags=(),
    )
    raised = _raised(quality, facts, enlargement)
    return Quality(**{**vars(quality), "flags": tuple(flag for flag in Flag if raised[flag])})


def asymmetry(point_682: NDArray[Any]) -> float:
    """Root mean square difference in height of paired points, in eye distances; 0 = both sides alike."""
    framed = head_frame(point_682) / eye_distance(point_682)
    height_N = (framed - mirror(framed))[list(_PAIRED), 1]
    return float(np.sqrt(np.mean(height_N**2)))


def _check(image_HW3: NDArray[np.uint8], point_682: NDArray[Any], facts: SourceFacts) -> None:
    """Refuse what cannot be judged."""
    if image_HW3.shape != (SIZE, SIZE, 3) or image_HW3.dtype != np.uint8:
        raise ValueError(
            f"Expected a crop of uint8 [{SIZE}, {SIZE}, 3], got {image_HW3.dtype} {list(image_HW3.shape)}; resize it."
        )
    for points in (point_682, facts.point_682):
        if np.shape(points) != (68, 2) or not np.isfinite(points).all():
            raise ValueError(
                "Expected 68 finite landmarks (x, y) in the crop and in the photograph; leave this one out."
            )


def _sharpness(luma_HW: Array, face_HW: Mask) -> float:
    """Ratio of the gradients at two scales where the face has edges (Zhuo and Sim 2011, "Defocus map estimation").

    A step blurred by s pixels has a gradient proportional to 1 / sqrt(s^2 + scale^2), so its contrast cancels. The
    variance of the Laplacian depends on contrast and on sensor noise as much as on blur.
    """
    fine_HW, coarse_HW = (gaussian_gradient_magnitude(luma_HW, scale, mode="nearest") for scale in (_FINE, _COARSE))
    if not face_HW.any():
        return float("nan")
    edge_HW = face_HW & (coarse_HW >= np.quantile(coarse_HW[face_HW], 0.8))
    total = float(coarse_HW[edge_HW].sum())
    return float(fine_HW[edge_HW].sum()) / total if total > 0 else float("nan")


def _exposure(image_HW3: NDArray[np.uint8], face_HW: Mask) -> Exposure:
    if not face_HW.any():
        return Exposure(float("nan"), float("nan"), float("nan"))
    luma_N = image_HW3[face_HW] @ _LUMA
    # Two clipped channels leave no shape; red alone clips on many a healthy cheek.
    bright_N = np.median(image_HW3[face_HW], axis=1) >= _BRIGHT
    return Exposure(float((luma_N <= _DARK).mean()), float(bright_N.mean()), float(np.quantile(luma_N, 0.99)))


def _raised(q: Quality, facts: SourceFacts, enlargement: float) -> dict[Flag, bool]:
    """Every flag, up or down. A comparison with NaN is false, so what could not be measured raises nothing."""
    hidden, dim = q.occlusion, q.exposure.highlight < MIN_HIGHLIGHT
    mask = hidden.mask_chroma > MAX_MASK_CHROMA
    bright = q.exposure.bright_share > MAX_BRIGHT
    foreign = hidden.cheeks > MAX_NOT_SKIN or (hidden.nose > MAX_NOT_SKIN and not hidden.bar)
    face = mask or (foreign and not bright)  # clipped light changes hues
    least_mouth = float(np.interp(q.sharpness, MOUTH_SHARPNESS, MIN_MOUTH_EDGES))
    edges_tell = not (dim or bright)  # bad light takes the edges of the whole face away
    return {
        Flag.BLURRED: q.sharpness < MIN_SHARPNESS,
        # What covers a face may be black; that is not the light.
        Flag.DARK: dim or (q.exposure.dark_share > MAX_DARK and not (face or hidden.bar)),
        Flag.BRIGHT: bright,
        Flag.SMALL: enlargement > MAX_ENLARGEMENT,
        Flag.TURNED: max(abs(q.pose.yaw_deg), abs(q.pose.pitch_deg)) > MAX_TURN_DEG,
        Flag.TILTED: abs(q.pose.roll_deg) > MAX_TILT_DEG,
        Flag.OCCLUDED_EYES: hidden.bar or (edges_tell and hidden.eye_edges < MIN_EYE_EDGES),
        Flag.OCCLUDED_MOUTH: mask or (edges_tell and hidden.mouth_edges < least_mouth),
        Flag.OCCLUDED_FACE: face,
        Flag.OUTSIDE: q.outside_share > MAX_OUTSIDE,
        Flag.SYMMETRISED: _is_symmetrised(q.asymmetry, facts),
        Flag.UNSURE: (facts.score is not None and facts.score < MIN_SCORE)
        or (facts.confidence is not None and facts.confidence < MIN_CONFIDENCE),
    }


def _is_symmetrised(measured: float, facts: SourceFacts) -> bool:
    """Whether points are more alike on both sides than the grade that is written down lets expect.

    Detectors have seen few palsies and draw the weak side like the other. House-Brackmann IV is symmetric at rest, and
    a palsy of both sides may be; nothing is said of those, nor of points that a person has set.
    """
    if facts.side not in (Side.LEFT, Side.RIGHT) or facts.grade is None:
        return False
    if facts.landmark_source not in (LandmarkSource.DETECTOR, LandmarkSource.IMPORTED):
        return False
    least = MIN_ASYMMETRY_REST if facts.movement is Movement.REST else MIN_ASYMMETRY_MOVING
    return measured < least.get(facts.grade, 0.0)
