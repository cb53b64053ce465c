"""One photograph becomes one prepared face: found, checked, brought into the frame, measured.

Runs in a process of its own (`client.prepare.crew`), so a reason is all that ever comes out of it beside the result.
"""

from __future__ import annotations

import functools
import io
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ccfexp.data.alignment import Similarity, five_points, outside_share, points_outside, similarity, warp
from ccfexp.data.duplicates import face_print, fingerprint
from ccfexp.data.files import BadFileError, decode_landmarks
from ccfexp.data.photographs import encode_png
from ccfexp.data.rows import LandmarkSource, Movement, Side
from ccfexp.detection.choose import Finders, open_detector
from ccfexp.evaluation.measures import Scale, ScaleSource, eye_distance
from ccfexp.evaluation.quality import SIZE, SourceFacts, assess
from client.prepare.entries import Material
from client.prepare.loading import load
from client.prepare.settings import Faces, Limits

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ccfexp.detection.faces import Face


Image = npt.NDArray[np.uint8]
Points = npt.NDArray[np.float32]
_MOST_OUTSIDE = 7  # of 68 points: a chin cut off still shows the movement, half a face does not


@dataclass(frozen=True)
class Recipe:
    """How photographs are prepared at this hospital; ``weights`` are the hashes of the files that find faces."""

    image_size: int
    faces: Faces
    limits: Limits
    weights: tuple[str, ...] = ()


@dataclass(frozen=True)
class Job:
    """One photograph to prepare.

    Attributes:
        mark: that the result belongs to.
        recipe: how.
        material: where the pixels are.
        movement, side, grade: as the source says.
        mm_per_pixel: of the photograph, where a scale is known.
        corrected_682: points that a person has corrected, in pixels of the photograph; they win over all others.
    """

    mark: str
    recipe: Recipe
    material: Material
    movement: Movement
    side: Side
    grade: int | None
    mm_per_pixel: float | None
    corrected_682: Points | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Portrait:
    """A prepared face: the bytes of its two files, where the points come from, what was measured."""

    image: bytes = field(repr=False)
    landmarks: bytes = field(repr=False)
    landmark_source: LandmarkSource
    figures: dict[str, Any] = field(repr=False)
    crop: bytes = field(repr=False)


@dataclass(frozen=True)
class _Found:
    """The points of the face of a photograph, and how sure of them whoever found them is."""

    point_682: Points
    source: LandmarkSource
    score: float | None
    confidence: float | None


def portray(job: Job) -> Portrait:
    """Prepare one photograph.

    Raises:
        BadFileError: it cannot be used; the reason says what to do.
        WeightsError: no photograph can be prepared, because what finds faces is missing or altered.
    """
    finders = _finders(job.recipe.faces)
    loaded = load(job.material, job.movement, job.recipe.limits, lambda image: _points_in(image, finders, job.recipe))
    found = _find(loaded.image_HW3, loaded.point_682, job, finders)
    size, point_682 = job.recipe.image_size, found.point_682
    _check_face(loaded.image_HW3, point_682, job.recipe.faces)
    frame = similarity(five_points(point_682), size)
    image_HW3 = warp(loaded.image_HW3, frame, size)
    judged = similarity(five_points(point_682), SIZE)
    quality = assess(
        warp(loaded.image_HW3, judged, SIZE),
        judged.points(point_682),
        SourceFacts(
            point_682=point_682,
            image_size=size,
            outside_share=outside_share(loaded.image_HW3, frame, size),
            movement=job.movement,
            side=job.side,
            grade=job.grade,
            landmark_source=found.source,
            score=found.score,
            confidence=found.confidence,
        ),
    )
    figures = {
        "quality": _without_nan(asdict(quality)),
        "score": found.score,
        "confidence": found.confidence,
        "frame": frame.matrix_23.tolist(),
        "mm_per_pixel": job.mm_per_pixel,
        "fingerprint": fingerprint(loaded.image_HW3),
        "notes": list(loaded.notes),
        "frame_of_video": loaded.taken_frame,
    }
    landmarks = _npy(frame.points(point_682))
    return Portrait(encode_png(image_HW3), landmarks, found.source, figures, face_print(image_HW3).tobytes())


def corrected_points(landmarks: Path, figures: Mapping[str, Any]) -> Points:
    """Points that a person has corrected on the prepared picture, in pixels of the photograph."""
    frame = Similarity(np.array(figures["frame"], np.float64))
    return frame.inverse().points(decode_landmarks(landmarks.read_bytes())).astype(np.float32)


def scale_of(figures: Mapping[str, Any], point_682: Points) -> Scale:
    """The scale of the prepared picture: millimetres where the source gave a scale, else distances between the eyes."""
    if figures["mm_per_pixel"] is None:
        return Scale.from_eye_distance(point_682)
    frame = Similarity(np.array(figures["frame"], np.float64))
    return Scale(figures["mm_per_pixel"] / frame.scale, ScaleSource.MANUAL)


@functools.cache
def _finders(faces: Faces) -> Finders:
    """What finds faces, loaded once in each process."""
    weights = None if faces.weights is None else Path(faces.weights)
    return open_detector(faces.detector, faces.landmarks, weights, min_score=faces.min_score)


def _points_in(image_HW3: Image, finders: Finders, recipe: Recipe) -> Points | None:
    """The points of the one face of a video's frame; None where there is none."""
    if finders.detector is None or finders.landmarker is None:
        return None
    faces = finders.detector.detect(image_HW3)
    if not faces or (len(faces) > 1 and recipe.faces.several == "refuse"):
        return None
    return finders.landmarker.locate(image_HW3, max(faces, key=_area)).point_682


def _find(image_HW3: Image, supplied_682: Points | None, job: Job, finders: Finders) -> _Found:
    """The points of the one face: corrected by a person, else as they came along, else found."""
    came = job.corrected_682 if job.corrected_682 is not None else supplied_682
    face = _face(image_HW3, came, job.recipe.faces, finders)
    score = None if face is None else face.score
    if job.corrected_682 is not None:
        return _Found(job.corrected_682, LandmarkSource.MANUAL, score, None)
    if supplied_682 is not None and job.material.landmarks is not None:
        return _Found(supplied_682, LandmarkSource.IMPORTED, score, None)
    if face is None or finders.landmarker is None:
        raise BadFileError(
            "comes without landmarks, and none are looked for; give a file of 68 points, or set faces.landmarks=fan "
            "with faces.detector=insightface and their weights"
        )
    located = finders.landmarker.locate(image_HW3, face)
    return _Found(located.point_682, LandmarkSource.DETECTOR, score, float(located.confidence_68.mean()))


def _face(image_HW3: Image, came_682: Points | None, faces: Faces, finders: Finders) -> Face | None:
    """The face that the detector finds, where there is a detector; with points given, the one that they lie on."""
    if finders.detector is None:
        return None
    found = finders.detector.detect(image_HW3)
    if came_682 is not None:
        return max((face for face in found if _holds(face, came_682)), key=_area, default=None)
    if not found:
        raise BadFileError("shows no face that the detector finds; photograph it anew, or give a file of 68 points")
    if len(found) > 1 and faces.several == "refuse":
        raise BadFileError(f"shows faces={len(found)}, expected 1; cut the others off, or set faces.several=largest")
    return max(found, key=_area)


def _check_face(image_HW3: Image, point_682: Points, faces: Faces) -> None:
    outside = points_outside(point_682, image_HW3)
    if outside > _MOST_OUTSIDE:
        raise BadFileError(
            f"shows part of a face: landmarks={outside} of 68 lie outside of the photograph, at most {_MOST_OUTSIDE} "
            "may; photograph the whole face"
        )
    distance = float(eye_distance(point_682))
    if not distance >= faces.min_side:
        raise BadFileError(
            f"shows a face of {distance:.1f} pixels between the eyes, at least faces.min_side={faces.min_side:g} are "
            "needed; give the photograph in a higher resolution"
        )


def _holds(face: Face, point_682: Points) -> bool:
    left, top, right, bottom = face.box_4
    x, y = point_682.mean(0)
    return bool(left <= x <= right and top <= y <= bottom)


def _area(face: Face) -> float:
    left, top, right, bottom = face.box_4
    return float((right - left) * (bottom - top))


def _without_nan(value: Any) -> Any:  # noqa: ANN401 (whatever JSON can hold)
    """The same with null where a figure could not be measured: JSON has no word for that."""
    if isinstance(value, dict):
        return {name: _without_nan(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(part) for part in value]
    if isinstance(value, (bool, str, int)) or value is None:
        return value
    return float(value) if np.isfinite(value) else None


def _npy(point_682: npt.NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, point_682.astype(np.float32), allow_pickle=False)
    return buffer.getvalue()
