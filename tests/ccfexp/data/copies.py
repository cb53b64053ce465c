"""What happens to a photograph on its way through a hospital, and a face cut out of it upright."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ccfexp.data.alignment import five_points, similarity, warp

Picture = NDArray[np.uint8]
Array = NDArray[np.float64]


def upright_face(image_HW3: Picture, point_682: Array, size: int = 112) -> Picture:
    """The face as preparation cuts it out."""
    return warp(image_HW3, similarity(five_points(point_682), size), size)


def as_jpeg(image_HW3: Picture, quality: int) -> Picture:
    """Through a JPEG file."""
    buffer = io.BytesIO()
    Image.fromarray(image_HW3).save(buffer, "JPEG", quality=quality)
    with Image.open(buffer) as picture:
        return np.asarray(picture)


def resized(image_HW3: Picture, point_682: Array, factor: float) -> tuple[Picture, Array]:
    """Made larger or smaller."""
    height, width, _ = image_HW3.shape
    small = Image.fromarray(image_HW3).resize((round(width * factor), round(height * factor)))
    return np.asarray(small), point_682 * (small.width / width, small.height / height)


def cut(image_HW3: Picture, point_682: Array, rng: np.random.Generator, share: float) -> tuple[Picture, Array]:
    """Cut by up to ``share`` at each edge."""
    left, top, right, bottom = (round(edge) for edge in rng.uniform(0, share, 4) * image_HW3.shape[0])
    return image_HW3[top : image_HW3.shape[0] - bottom, left : image_HW3.shape[1] - right], point_682 - (left, top)


def exposed(image_HW3: Picture, gain: float, offset: float) -> Picture:
    """Brighter or darker, clipped."""
    return np.asarray(np.clip(image_HW3 * gain + offset, 0, 255), np.uint8)
