"""The 68 points of one photograph, as annotators and tools write them."""

from __future__ import annotations

import io
import json
import re
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from ccfexp.data.files import LANDMARKS, BadFileError

if TYPE_CHECKING:
    from collections.abc import Callable

SUFFIXES: Final = (".npy", ".pts", ".json", ".csv", ".txt")
_LONGEST: Final = 1_000_000  # bytes; 68 points need a few thousand
_LEAST_EXTENT: Final = 8.0  # pixels; less is no face, or fractions of the picture's size
_FAR: Final = 0.5  # of the picture's size beyond its border
_PTS_HEADER: Final = re.compile(r"\s*version:\s*1\s+n_points:\s*(\d+)\s*\{([^{}]*)\}\s*")
_LETTER: Final = re.compile(r"[A-Za-df-z{}]")  # e is of a number's exponent
_BETWEEN: Final = re.compile(r"\s*[,;\t]\s*|\s+")


def read_landmark_file(data: bytes, suffix: str, size_wh: tuple[int, int]) -> npt.NDArray[np.float32]:
    """The landmarks of one photograph.

    .npy: numbers [68, 2]. .json: 68 pairs, or an object with them under "landmarks". .csv and .txt: 68 lines of x and
    y, separated by comma, semicolon, tab or blanks, under a header of words or none. These four count pixels as we do:
    (0, 0) is the outer corner of the first pixel, whose centre is (0.5, 0.5). .pts is the format of iBUG, made by
    Matlab, where (1, 1) is the centre of the first pixel; so 0.5 is taken away.

    Args:
        data: the bytes of the file.
        suffix: of its name, one of `SUFFIXES`.
        size_wh: width and height of the upright photograph, in pixels.

    Returns:
        Array [68, 2]: x to the right and y down, in pixels of the photograph.

    Raises:
        BadFileError: another format, another number of points, a value that is not a finite number, points that
            (nearly) coincide, or one that lies further outside than half the photograph's size.
    """
    readers: dict[str, Callable[[bytes], npt.NDArray[np.float64]]] = {
        ".npy": _read_npy,
        ".pts": _read_pts,
        ".json": _read_json,
        ".csv": _read_lines,
        ".txt": _read_lines,
    }
    if suffix.lower() not in readers:
        raise BadFileError(f"landmarks are in an unknown format; known: {', '.join(SUFFIXES)}")
    if len(data) > _LONGEST:
        raise BadFileError(f"landmarks file is longer than {_LONGEST} bytes, which is no list of 68 points")
    point_N2 = readers[suffix.lower()](data)
    if point_N2.shape != (LANDMARKS, 2):
        raise BadFileError(f"landmarks are of shape {list(point_N2.shape)}, expected {[LANDMARKS, 2]}")
    _check(point_N2, size_wh)
    return point_N2.astype(np.float32)


def _check(point_682: npt.NDArray[np.float64], size_wh: tuple[int, int]) -> None:
    if not np.isfinite(point_682).all():
        raise BadFileError("landmarks hold values that are not finite")
    size = np.array(size_wh, np.float64)
    if (point_682 < -_FAR * size).any() or (point_682 > (1 + _FAR) * size).any():
        raise BadFileError(
            "landmarks lie far outside of the photograph; they must be in pixels of the upright photograph at its full "
            "size"
        )
    if np.ptp(point_682, axis=0).min() < _LEAST_EXTENT:
        raise BadFileError(
            f"landmarks lie within {_LEAST_EXTENT:g} pixels; they must be 68 places of a face in pixels, not in "
            "fractions of the photograph's size"
        )


def _read_npy(data: bytes) -> npt.NDArray[np.float64]:
    try:
        points = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError, SyntaxError, MemoryError, OverflowError, TypeError, RecursionError):
        raise BadFileError("landmarks are not a readable .npy file of numbers") from None
    if not isinstance(points, np.ndarray) or points.dtype.kind not in "fiu":
        raise BadFileError("landmarks are not one .npy array of numbers")
    return points.astype(np.float64)


def _read_pts(data: bytes) -> npt.NDArray[np.float64]:
    text = _text(data)
    match = _PTS_HEADER.fullmatch(text)
    if match is None and not _LETTER.search(text):
        return _pairs(text) - 0.5  # AFLFP's files have no header; where they count from is not published
    if match is None:
        raise BadFileError("landmarks are not a .pts file of version 1: 'version: 1', 'n_points: 68', then the points")
    return _pairs(match[2]) - 0.5


def _read_json(data: bytes) -> npt.NDArray[np.float64]:
    try:
        found = json.loads(_text(data))
    except (ValueError, RecursionError):
        raise BadFileError("landmarks are not a readable JSON file") from None
    if isinstance(found, dict):
        found = found.get("landmarks")
    if not isinstance(found, list) or not all(
        isinstance(pair, list) and len(pair) == 2 and all(type(value) in (int, float) for value in pair)
        for pair in found
    ):
        raise BadFileError('landmarks are not a JSON list of pairs of numbers, nor an object with one as "landmarks"')
    return _numbers(found)


def _read_lines(data: bytes) -> npt.NDArray[np.float64]:
    text = _text(data)
    first, _, rest = text.lstrip().partition("\n")
    # A header has no digit, so a damaged first point is not mistaken for one.
    return _pairs(text if re.search(r"\d", first) else rest)


def _pairs(text: str) -> npt.NDArray[np.float64]:
    pairs = [_BETWEEN.split(line.strip()) for line in text.splitlines() if line.strip()]
    if any(len(pair) != 2 for pair in pairs):
        raise BadFileError("landmarks have a line that is not two numbers, x and y, with a point as the decimal sign")
    return _numbers(pairs)


def _numbers(pairs: list[list[str]] | list[list[float]]) -> npt.NDArray[np.float64]:
    try:
        return np.array([[float(value) for value in pair] for pair in pairs], np.float64)
    except (ValueError, OverflowError):
        raise BadFileError("landmarks hold something that is not a number") from None


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadFileError("landmarks are not UTF-8 text") from None
