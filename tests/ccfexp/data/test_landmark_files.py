"""The formats that annotators write give the same points; what is no list of 68 places of a face is refused."""

from __future__ import annotations

import io
import json
import pickle
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccfexp.data.files import BadFileError
from ccfexp.data.landmark_files import SUFFIXES, read_landmark_file

if TYPE_CHECKING:
    from collections.abc import Callable

SIZE = (640, 480)
POINTS = np.random.default_rng(0).uniform((5, 5), (635, 475), (68, 2)).round(3)


def npy(points: np.ndarray[Any, Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, points)
    return file.getvalue()


def lines(points: np.ndarray[Any, Any], between: str = ",") -> bytes:
    return "\n".join(between.join(map(repr, row)) for row in points.tolist()).encode()


def pts(points: np.ndarray[Any, Any], count: int = 68) -> bytes:
    return b"version: 1\nn_points:  %d\n{\n" % count + lines(points, " ") + b"\n}\n"


WRITERS: dict[str, Callable[[np.ndarray[Any, Any]], bytes]] = {
    ".npy": npy,
    ".pts": lambda points: pts(points + 0.5),
    ".json": lambda points: json.dumps(points.tolist()).encode(),
    ".csv": lines,
    ".txt": lambda points: lines(points, " "),
}


def test_every_format_gives_the_same_points() -> None:
    assert set(WRITERS) == set(SUFFIXES)
    for suffix, write in WRITERS.items():
        points = read_landmark_file(write(POINTS), suffix, SIZE)
        assert points.dtype == np.float32
        np.testing.assert_allclose(points, POINTS, atol=1e-4)
        np.testing.assert_array_equal(read_landmark_file(write(POINTS), suffix.upper(), SIZE), points)


def test_pts_without_a_header_is_read_as_with_one() -> None:
    """As a public data set has them."""
    bare, whole = (read_landmark_file(data, ".pts", SIZE) for data in (lines(POINTS, " "), pts(POINTS)))
    np.testing.assert_array_equal(bare, whole)


def test_the_half_pixel_of_pts() -> None:
    """Matlab's (1, 1) is the centre of the first pixel, half a pixel from its outer corner; ours says (0.5, 0.5)."""
    points = POINTS.copy()
    points[0] = (1, 1)
    points[1] = (640, 480)  # the centre of the last pixel
    read = read_landmark_file(pts(points), ".pts", SIZE)
    np.testing.assert_array_equal(read[:2], [(0.5, 0.5), (639.5, 479.5)])


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, np.int32, np.uint16, ">f8"])
def test_npy_of_any_numbers(kind: str | type[np.number[Any]]) -> None:
    points = POINTS.round().astype(kind)
    np.testing.assert_array_equal(read_landmark_file(npy(points), ".npy", SIZE), points.astype(np.float32))


def test_what_spreadsheets_and_tools_add() -> None:
    expected = read_landmark_file(lines(POINTS), ".csv", SIZE)
    variants = [
        (b"x,y\n" + lines(POINTS), ".csv"),
        (b"\xef\xbb\xbfx;y\r\n" + lines(POINTS, ";").replace(b"\n", b"\r\n") + b"\r\n\r\n", ".csv"),
        (lines(POINTS, "\t"), ".txt"),
        (lines(POINTS, ",  "), ".txt"),
        (json.dumps({"landmarks": POINTS.tolist(), "patient": "SMITH^JOHN"}).encode(), ".json"),
    ]
    for data, suffix in variants:
        np.testing.assert_array_equal(read_landmark_file(data, suffix, SIZE), expected)


@pytest.mark.parametrize(
    ("data", "suffix", "reason"),
    [
        (npy(POINTS[:67]), ".npy", r"of shape \[67, 2\], expected \[68, 2\]"),
        (npy(POINTS.T), ".npy", r"of shape \[2, 68\]"),
        (npy(POINTS.ravel()), ".npy", r"of shape \[136\]"),
        (npy(POINTS.astype(str)), ".npy", "not one .npy array of numbers"),
        (npy(POINTS * 1j), ".npy", "not one .npy array of numbers"),
        (npy(POINTS.astype(object)), ".npy", "not a readable .npy file"),
        (pickle.dumps(POINTS), ".npy", "not a readable .npy file"),
        (npy(POINTS)[:-5], ".npy", "not a readable .npy file"),
        (npy(POINTS).replace(b"(68, 2)", b"(9**9,)"), ".npy", "not a readable .npy file"),
        (npy(POINTS).replace(b"(68, 2), }", b"(10**15, 2)}"), ".npy", "not a readable .npy file"),
        (b"", ".npy", "not a readable .npy file"),
        (pts(POINTS[:67], 67), ".pts", r"of shape \[67, 2\]"),
        (pts(POINTS).replace(b"version: 1", b"version: 2"), ".pts", "not a .pts file of version 1"),
        (pts(POINTS)[:-2], ".pts", "not a .pts file of version 1"),
        (b"points\n" + lines(POINTS), ".pts", "not a .pts file of version 1"),
        (lines(POINTS[:67]), ".pts", r"of shape \[67, 2\]"),
        (json.dumps(POINTS.tolist()[:60]).encode(), ".json", r"of shape \[60, 2\]"),
        (b"[" * 100_000, ".json", "not a readable JSON file"),
        (b'{"points": []}', ".json", "not a JSON list of pairs"),
        (json.dumps([[True, 1.0]] * 68).encode(), ".json", "not a JSON list of pairs"),
        (json.dumps([["SMITH", "JOHN"]] * 68).encode(), ".json", "not a JSON list of pairs"),
        (json.dumps([[10**400, 1]] * 68).encode(), ".json", "not a number"),
        (b"null", ".json", "not a JSON list of pairs"),
        (lines(POINTS).replace(b".", b","), ".csv", "not two numbers, x and y, with a point as the decimal sign"),
        (lines(np.column_stack([np.arange(68), POINTS])), ".csv", "not two numbers"),
        (b"smith,john\n" * 69, ".csv", "not a number"),
        (lines(POINTS).replace(b"\n", b"\nsmith,john\n", 1), ".txt", "not a number"),
        (lines(POINTS[:67]), ".txt", r"of shape \[67, 2\]"),
        (b"", ".csv", r"of shape \[0\]"),
        ("x,y\n".encode("utf-16"), ".csv", "not UTF-8 text"),
        (b" " * 1_000_001, ".csv", "longer than 1000000 bytes"),
        (lines(POINTS), ".mat", "unknown format; known: .npy, .pts, .json, .csv, .txt"),
    ],
)  # fmt: skip
def test_refusals(data: bytes, suffix: str, reason: str) -> None:
    with pytest.raises(BadFileError, match=reason) as refused:
        read_landmark_file(data, suffix, SIZE)
    assert "smith" not in str(refused.value).lower()
    assert refused.value.__suppress_context__ or refused.value.__context__ is None


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda p: np.where(np.arange(136).reshape(68, 2) == 5, np.nan, p), "not finite"),
        (lambda p: np.where(np.arange(136).reshape(68, 2) == 5, np.inf, p), "not finite"),
        (lambda p: p * 2, "far outside of the photograph"),
        (lambda p: p - (1000, 0), "far outside of the photograph"),
        (lambda p: p / SIZE, "lie within 8 pixels; they must be 68 places of a face in pixels, not in fractions"),
        (lambda p: np.full_like(p, 100), "lie within 8 pixels"),
        (lambda p: p * (1, 0) + (0, 50), "lie within 8 pixels"),
    ],
)
def test_points_of_no_face(
    suffix: str, change: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]], reason: str
) -> None:
    points = change(POINTS)
    written = WRITERS[suffix](points)
    with pytest.raises(BadFileError, match=reason):
        read_landmark_file(written, suffix, SIZE)


def test_a_face_may_reach_over_the_border() -> None:
    """Of a photograph that cuts the chin off the points go on; whether that is enough of a face is asked elsewhere."""
    points = POINTS + np.array((0, 120))
    np.testing.assert_allclose(read_landmark_file(npy(points), ".npy", SIZE), points, atol=1e-4)


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_any_bytes_give_points_or_a_reason(suffix: str, data: st.DataObject) -> None:
    file = bytearray(WRITERS[suffix](POINTS))
    for place in data.draw(st.lists(st.integers(0, len(file) - 1), max_size=6)):
        file[place] = data.draw(st.integers(0, 255))
    try:
        points = read_landmark_file(bytes(file[: data.draw(st.integers(0, len(file)))]), suffix, SIZE)
    except BadFileError:
        return
    assert points.shape == (68, 2)
    assert np.isfinite(points).all()
