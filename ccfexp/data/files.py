"""The two kinds of file that a manifest names, decoded from bytes and checked.

A reason for refusal never holds a path, a file name or a pixel: it may be shown outside the site.
"""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

__all__ = ["LANDMARKS", "BadFileError", "decode_image", "decode_landmarks"]

LANDMARKS = 68
"""Points of one face: the 68 of the iBUG 300-W scheme (Sagonas et al. 2016)."""

_EXIF_ORIENTATION = 0x0112


class BadFileError(ValueError):
    """A file that cannot be used; the text is the reason alone, without its name."""


def decode_image(data: bytes, image_size: int) -> npt.NDArray[np.uint8]:
    """Decode one photograph.

    Args:
        data: the bytes of an RGB PNG or JPEG file.
        image_size: the only accepted width and height, in pixels.

    Returns:
        Array [H, W, 3] of uint8, H = W = image_size.

    Raises:
        BadFileError: not a PNG or JPEG, damaged, not RGB, of another size, or stored turned or mirrored.
    """
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
            if image.size != (image_size, image_size):
                width, height = image.size
                raise BadFileError(f"image is {width}x{height} pixels, expected {image_size}x{image_size}")
            if image.mode != "RGB":
                raise BadFileError(f"image mode={image.mode}, expected RGB")
            # A viewer would mirror or turn such an image, so its left and right would depend on the reader.
            if image.getexif().get(_EXIF_ORIENTATION, 1) != 1:
                raise BadFileError("image is stored turned or mirrored (EXIF orientation), expected upright pixels")
            image.load()
            return np.array(image, dtype=np.uint8)
    except UnidentifiedImageError as error:
        raise BadFileError("image is not a readable PNG or JPEG") from error
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:  # what Pillow raises on damaged files
        raise BadFileError("image is damaged or incomplete") from error


def decode_landmarks(data: bytes) -> npt.NDArray[np.float32]:
    """Decode the landmarks of one photograph.

    Args:
        data: the bytes of a .npy file holding float32 [68, 2].

    Returns:
        Array [68, 2] of float32: x to the right and y down, in pixels of that image, (0, 0) at its outer corner.

    Raises:
        BadFileError: not a .npy file, another shape or type, or a value that is not finite.
    """
    try:
        points = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError, SyntaxError) as error:
        raise BadFileError("landmarks are not a readable .npy file") from error
    if not isinstance(points, np.ndarray):
        raise BadFileError("landmarks are an archive of arrays, expected one .npy array")
    if points.shape != (LANDMARKS, 2) or points.dtype != np.float32:
        raise BadFileError(
            f"landmarks are {points.dtype} {list(points.shape)}, expected float32 {[LANDMARKS, 2]}",
        )
    if not np.isfinite(points).all():
        raise BadFileError("landmarks hold values that are not finite")
    return points
