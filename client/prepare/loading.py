"""The pixels of one entry, whatever they come from: a photograph, a frame of a DICOM file, the peak of a video."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ccfexp.data.files import LANDMARKS, BadFileError
from ccfexp.detection.faces import Image, Points
from client.prepare.opening import open_regular

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import BinaryIO

    from ccfexp.data.rows import Movement
    from client.prepare.entries import Material
    from client.prepare.settings import Limits

_FURTHEST = 1e6  # pixels: no photograph is as wide


@dataclass(frozen=True)
class Loaded:
    """A photograph as it is prepared.

    Attributes:
        image_HW3: uint8 RGB, upright.
        point_682: the 68 points in its pixels, of those that came along or, of a video, were found; None = none yet.
        taken_frame: of a video, the place of the frame that was taken, from 0.
        notes: what was done to the pixels, such as a conversion of colours.
    """

    image_HW3: Image = field(repr=False)
    point_682: Points | None = field(repr=False)
    taken_frame: int | None = None
    notes: tuple[str, ...] = ()


def load(
    material: Material, movement: Movement, limits: Limits, locate: Callable[[Image], Points | None] | None
) -> Loaded:
    """Read the pixels of one entry, and the landmarks that come along.

    Args:
        material: where they are.
        movement: of a video, whose peak is looked for.
        limits: what is too large; the time it takes is the caller's to bound.
        locate: of a video without landmarks, finds the 68 points in a frame, None where there is no face.

    Raises:
        BadFileError: they cannot be read; the reason alone.
    """
    if material.kind in ("video", "dicom_video"):
        return _load_video(material, movement, limits, locate)
    if material.kind == "dicom":
        from client.prepare.dicom_pixels import read_dicom_photograph

        image_HW3 = read_dicom_photograph(material.file, material.frame, limits)
        return Loaded(image_HW3, _landmarks(material, image_HW3, limits))
    from ccfexp.data.photographs import decode_photograph

    with open_regular(material.file, limits.bytes) as file:
        decoded = decode_photograph(file.read(), max_pixels=limits.pixels)
    return Loaded(decoded.image_HW3, _landmarks(material, decoded.image_HW3, limits), notes=decoded.notes)


def _landmarks(material: Material, image_HW3: Image, limits: Limits) -> Points | None:
    if material.landmarks is None:
        return None
    from ccfexp.data.landmark_files import read_landmark_file

    height, width = image_HW3.shape[:2]
    with open_regular(material.landmarks, limits.bytes) as file:
        points: Points = read_landmark_file(file.read(), material.landmarks.suffix, (width, height))
        return points


def _load_video(
    material: Material, movement: Movement, limits: Limits, locate: Callable[[Image], Points | None] | None
) -> Loaded:
    from client.prepare.peak import peak_of_video
    from client.prepare.video import count_frames, read_frame, read_frames

    with _open_video(material, limits) as file:
        supplied_T682 = None
        if material.landmarks is not None:
            supplied_T682 = _landmarks_of_frames(material.landmarks, count_frames(file, limits), limits)
        frame, point_682 = peak_of_video(
            lambda: read_frames(file, limits, material.start_s, material.end_s),
            lambda index: read_frame(file, limits, index),
            locate,
            movement,
            supplied_T682,
        )
    return Loaded(frame.image_HW3, point_682, frame.index)


def _open_video(material: Material, limits: Limits) -> BinaryIO:
    from client.prepare.dicom_video import open_dicom_video
    from client.prepare.video import VIDEO_BYTES

    opened = open_dicom_video if material.kind == "dicom_video" else open_regular
    return opened(material.file, VIDEO_BYTES * limits.bytes)


def _landmarks_of_frames(landmarks: Path, frames: int, limits: Limits) -> Points:
    """Landmarks [T, 68, 2] of all frames of a video; a face that is not there is NaN throughout."""
    with open_regular(landmarks, limits.bytes) as file:
        try:
            points = np.load(io.BytesIO(file.read()), allow_pickle=False)
        # Of a header that is not one, numpy raises whatever parsing it as Python leads to.
        except Exception:  # noqa: BLE001
            raise BadFileError("landmarks of the video are not a readable .npy file") from None
    if not isinstance(points, np.ndarray) or points.dtype.kind != "f" or points.shape[1:] != (LANDMARKS, 2):
        raise BadFileError(f"landmarks of a video must be a .npy array of floats [frames, {LANDMARKS}, 2]")
    if len(points) != frames:
        raise BadFileError(f"landmarks are of frames={len(points)}, the video has {frames}; make them of this video")
    missing_T = np.isnan(points).all((1, 2))
    if not (np.abs(points[~missing_T]) < _FURTHEST).all():  # also False for NaN and infinity
        raise BadFileError("landmarks of a frame hold values that are no pixels; write NaN for all where there is none")
    return points.astype(np.float32)
