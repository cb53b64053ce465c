"""From a photograph to the aligned crop: five points of the face, a similarity, and pixels without aliasing.

The frame is ArcFace's (Deng et al. 2019), which recognisers are trained in. Of its least squares fit all five points
usually have one weight. In a palsy that is wrong: the healthy corner of the mouth drags the frame along. Measured on
24 phantoms, eight movements, grades I to VI, in pixels of the 112-pixel frame, against the same head at rest:

==================================  ====================  ==================  ===============  ================
fit                                 turn, smile of V, VI  shift, all          shift with 1 px  chin, other pose
                                                          movements           of noise         (x, y)
==================================  ====================  ==================  ===============  ================
five points, one weight             5.7 degrees           1.21                1.51             0.79, 0.65
eyes, nose, mid-point of the mouth  2.7 degrees           0.92                1.30             1.03, 0.84
eyes and nose                       0.3 degrees           0.19                1.44             1.88, 1.44
here: eyes 1, nose 1/4, mouth 1/10  0.9 degrees           0.32                1.25             0.65, 0.75
==================================  ====================  ==================  ===============  ================

An eye's centre is the mid-point of its corners: with the mean of the six lid points, eyes and nose alone shift by
0.46 pixels instead of 0.17 (40 phantoms, eleven movements), because the lids move.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.ndimage import map_coordinates

from ccfexp.data.files import LANDMARKS, BadFileError

Array = npt.NDArray[np.float64]
Pixels = npt.NDArray[np.uint8]

TEMPLATE_SIZE: Final = 112
# Published as indices of pixels, whose centres lie half a pixel from the corner that we count from.
TEMPLATE_52: Final[tuple[tuple[float, float], ...]] = tuple(
    (x + 0.5, y + 0.5)
    for x, y in ((38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041))
)
"""Patient's right eye, left eye, nose tip, right and left oral commissure in the 112-pixel frame (insightface)."""

_EYE_CORNERS: Final = ((36, 39), (42, 45))
_NOSE_TIP, _COMMISSURES = 30, (48, 54)
_WEIGHT_4: Final = (1.0, 1.0, 0.25, 0.1)  # right eye, left eye, nose tip, mid-point of the commissures
_SHRINKING: Final = 3  # at least, that is left to the finer grid; less is faster and blurs
_LEAST_SPREAD: Final = 1.0  # pixels between the eyes; less is no face
_FLATTEST: Final = 0.1  # eyes to mouth over eye to eye, and the other way round; a frontal face has about 1


@dataclass(frozen=True)
class Similarity:
    """Turn, scale and shift from pixels of a photograph to those of a crop: ``y = matrix_23 @ (x, 1)``."""

    matrix_23: Array

    @property
    def scale(self) -> float:
        """Pixels of the crop for one of the photograph; above 1 the crop is an enlargement."""
        return float(np.hypot(self.matrix_23[0, 0], self.matrix_23[1, 0]))

    def points(self, point_N2: npt.ArrayLike) -> Array:
        """Where points [..., 2] of the photograph lie in the crop."""
        return np.asarray(point_N2, np.float64) @ self.matrix_23[:, :2].T + self.matrix_23[:, 2]

    def inverse(self) -> Similarity:
        """From the crop to the photograph."""
        back_22 = np.linalg.inv(self.matrix_23[:, :2])
        return Similarity(np.column_stack([back_22, -back_22 @ self.matrix_23[:, 2]]))


def five_points(point_682: npt.ArrayLike) -> Array:
    """The five points of `TEMPLATE_52` among 68 landmarks: mid-points of the eye corners, 30, 48, 54."""
    p = np.asarray(point_682, np.float64)
    eyes = [(p[a] + p[b]) / 2 for a, b in _EYE_CORNERS]
    return np.stack([*eyes, p[_NOSE_TIP], *(p[i] for i in _COMMISSURES)])


def similarity(point_52: npt.ArrayLike, size: int) -> Similarity:
    """The frame of a face: weighted least squares without reflection (Umeyama 1991, eq. 40-43, in the plane).

    Args:
        point_52: in pixels of the photograph, in the order of `TEMPLATE_52`.
        size: width and height of the crop in pixels.

    Raises:
        BadFileError: points that are not finite, coincide or lie on a line, and points of a mirrored face, whose
            sides would be exchanged.
    """
    point_42 = _eyes_nose_mouth(np.asarray(point_52, np.float64))
    _check(point_42)
    # A turn with a scale is one complex number; for these numbers weighted least squares has a closed form.
    source_4, target_4 = _complex(point_42), _complex(_eyes_nose_mouth(np.array(TEMPLATE_52)) * size / TEMPLATE_SIZE)
    weight_4 = np.array(_WEIGHT_4) / sum(_WEIGHT_4)
    source, target = weight_4 @ source_4, weight_4 @ target_4
    centred_4 = source_4 - source
    turn = weight_4 @ (centred_4.conj() * (target_4 - target)) / (weight_4 @ np.abs(centred_4) ** 2)
    shift = target - turn * source
    return Similarity(np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]]))


def warp(image_HW3: Pixels, frame: Similarity, size: int) -> Pixels:
    """The crop of a photograph, each pixel the mean of what it covers, up to interpolation.

    The part of the photograph under the crop is averaged over whole blocks until the crop shrinks it less than
    sixfold, then sampled (bilinear) on a finer grid than the crop's, and averaged again. What lies outside of the
    photograph repeats its border: black would be an edge that a network learns, a reflection would draw features twice.

    Args:
        image_HW3: uint8 RGB.
        frame: from the photograph to the crop.
        size: width and height of the crop in pixels.

    Raises:
        BadFileError: no pixel of the crop lies in the photograph.
    """
    height, width = image_HW3.shape[:2]
    shrinking = 1 / frame.scale
    block = max(1, int(shrinking / _SHRINKING))
    fine = max(1, int(np.ceil(shrinking / block)))
    corner_42 = frame.inverse().points([(0, 0), (size, 0), (0, size), (size, size)])
    left, top = np.floor(corner_42.min(0)).astype(int) - 2 * block
    right, bottom = np.ceil(corner_42.max(0)).astype(int) + 2 * block
    left, top, right, bottom = max(left, 0), max(top, 0), min(right, width), min(bottom, height)
    if left >= right or top >= bottom:
        raise BadFileError("shows nothing where the points of the face lie; they belong to another photograph")
    averaged_HW3 = _block_means(image_HW3[top:bottom, left:right], block)

    centre = (np.arange(size * fine) + 0.5) / fine
    point_HW2 = frame.inverse().points(np.stack(np.meshgrid(centre, centre), -1))
    # map_coordinates counts from the centre of the first pixel.
    place_2HW = np.moveaxis((point_HW2 - (left, top)) / block - 0.5, -1, 0)[::-1]
    sampled_3HW = np.stack(
        [map_coordinates(averaged_HW3[..., c], place_2HW, np.float32, order=1, mode="nearest") for c in range(3)]
    )
    crop_3HW = sampled_3HW.reshape(3, size, fine, size, fine).mean((2, 4))
    return np.asarray(np.moveaxis(crop_3HW, 0, -1) + 0.5).astype(np.uint8)


def outside_share(image_HW3: Pixels, frame: Similarity, size: int) -> float:
    """The share of the crop's pixels, in [0, 1], that the photograph does not reach and that `warp` makes up."""
    centre = np.arange(size) + 0.5
    point_HW2 = frame.inverse().points(np.stack(np.meshgrid(centre, centre), -1))
    return float(1 - _inside(point_HW2, image_HW3).mean())


def points_outside(point_682: npt.ArrayLike, image_HW3: Pixels) -> int:
    """How many of the 68 landmarks lie outside of the photograph: half a face is no photograph of a face."""
    return LANDMARKS - int(_inside(np.asarray(point_682), image_HW3).sum())


def _inside(point_N2: npt.NDArray[np.floating], image_HW3: Pixels) -> npt.NDArray[np.bool_]:
    height, width = image_HW3.shape[:2]
    return np.asarray(((point_N2 >= 0) & (point_N2 <= (width, height))).all(-1))


def _eyes_nose_mouth(point_52: Array) -> Array:
    return np.stack([*point_52[:3], point_52[3:].mean(0)])


def _complex(point_N2: Array) -> npt.NDArray[np.complex128]:
    return np.asarray(point_N2[:, 0] + 1j * point_N2[:, 1])


def _check(point_42: Array) -> None:
    """Refuse points that span no face."""
    if not np.isfinite(point_42).all():
        raise BadFileError("has landmarks that are not finite")
    across_2, down_2 = point_42[1] - point_42[0], point_42[3] - point_42[:2].mean(0)
    wide, high = float(np.hypot(*across_2)), float(np.hypot(*down_2))
    if wide < _LEAST_SPREAD or high < _FLATTEST * wide or wide < _FLATTEST * high:
        raise BadFileError("has landmarks that span no face: eyes, nose and mouth coincide or lie on a line")
    if across_2[0] * down_2[1] - across_2[1] * down_2[0] < _FLATTEST * wide * high:
        raise BadFileError(
            "has landmarks of a mirrored face: point 36 must be at the patient's right eye; mirror the photograph back "
            "or exchange the sides of its points"
        )


def _block_means(image_HW3: Pixels, block: int) -> npt.NDArray[np.float32]:
    """Means over blocks of pixels; the last row and column repeat the border where they are not whole."""
    if block == 1:
        return image_HW3.astype(np.float32)
    height, width = image_HW3.shape[:2]
    padded_HW3 = np.pad(image_HW3, ((0, -height % block), (0, -width % block), (0, 0)), mode="edge")
    rows_HW3 = padded_HW3.reshape(-1, block, padded_HW3.shape[1] * 3).sum(1, dtype=np.uint32)
    mean_HW3: npt.NDArray[np.float32] = rows_HW3.reshape(len(rows_HW3), -1, block, 3).sum(2, dtype=np.float32)
    mean_HW3 /= block * block
    return mean_HW3
