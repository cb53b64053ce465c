"""All four kinds of material become the same: an upright photograph, with its points where they are known."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ccfexp.data.files import BadFileError
from ccfexp.data.phantom.expression import Palsy
from ccfexp.data.phantom.render import Phantom
from ccfexp.data.photographs import encode_png
from ccfexp.data.rows import Movement
from ccfexp.detection.faces import Image, Points
from client.prepare.entries import Material
from client.prepare.loading import load
from client.prepare.settings import Limits
from tests.client.prepare.dicoms import write_dicom, write_dicom_video
from tests.client.prepare.films import Film, phantom_film, write_video


@pytest.fixture(scope="module")
def film() -> Film:
    return phantom_film(Phantom(), 1, "smile_teeth", Palsy.of_grade(4, "left"), frames=11)


@pytest.fixture(scope="module")
def video(film: Film, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("film") / "smith_john.mp4", film.images)


def save_landmarks(folder: Path, points: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> Path:
    np.save(folder / "smith_john.npy", points)
    return folder / "smith_john.npy"


def nowhere(_image_HW3: Image) -> Points | None:
    raise AssertionError("points that come along win")


def test_a_photograph_with_its_points(tmp_path: Path, film: Film) -> None:
    (tmp_path / "a.png").write_bytes(encode_png(film.images[4]))
    landmarks = save_landmarks(tmp_path, film.landmark_T682[4])

    alone = load(Material(kind="photograph", file=tmp_path / "a.png"), Movement.REST, Limits(), None)
    found = load(
        Material(kind="photograph", file=tmp_path / "a.png", landmarks=landmarks), Movement.REST, Limits(), None
    )

    np.testing.assert_array_equal(found.image_HW3, film.images[4])
    np.testing.assert_array_equal(found.point_682, film.landmark_T682[4])
    assert alone.point_682 is None
    assert found.taken_frame is None


def test_a_frame_of_a_dicom_file(tmp_path: Path, film: Film) -> None:
    file = write_dicom(tmp_path / "a.dcm", film.images[:3])
    landmarks = save_landmarks(tmp_path, film.landmark_T682[2])

    found = load(Material(kind="dicom", file=file, frame=2, landmarks=landmarks), Movement.REST, Limits(), nowhere)

    np.testing.assert_array_equal(found.image_HW3, film.images[2])
    np.testing.assert_array_equal(found.point_682, film.landmark_T682[2])


@pytest.mark.parametrize("kind", ["video", "dicom_video"])
@pytest.mark.parametrize("supplied", [True, False])
def test_a_videos_peak(tmp_path: Path, film: Film, video: Path, kind: str, supplied: bool) -> None:
    file = video if kind == "video" else write_dicom_video(tmp_path / "v.dcm", video.read_bytes(), fragments=3)
    landmarks = save_landmarks(tmp_path, film.landmark_T682) if supplied else None
    material = Material(kind=kind, file=file, landmarks=landmarks)  # type: ignore[arg-type]  # one of the words

    found = load(material, Movement.SMILE_TEETH, Limits(), nowhere if supplied else _nearest(film))

    assert found.taken_frame is not None
    assert film.intensity_T[found.taken_frame] >= 0.9
    np.testing.assert_array_equal(found.point_682, film.landmark_T682[found.taken_frame])
    assert np.abs(found.image_HW3.astype(int) - film.images[found.taken_frame]).mean() < 5


def _nearest(film: Film) -> Callable[[Image], Points | None]:
    """Knows the frames of one film by their looks, as a detector would."""

    def locate(image_HW3: Image) -> Points | None:
        away = [np.abs(image_HW3.astype(int) - image).mean() for image in film.images]
        points: Points = film.landmark_T682[int(np.argmin(away))]
        return points

    return locate


def test_only_the_part_of_the_movement_is_looked_at(tmp_path: Path, film: Film, video: Path) -> None:
    material = Material(
        kind="video", file=video, landmarks=save_landmarks(tmp_path, film.landmark_T682), start_s=0.0, end_s=0.05
    )

    assert load(material, Movement.SMILE_TEETH, Limits(), None).taken_frame in (0, 1)


@pytest.mark.parametrize("kind", ["photograph", "dicom", "video", "dicom_video"])
def test_what_is_missing_or_too_large_is_refused_without_its_name(tmp_path: Path, kind: str, video: Path) -> None:
    missing = Material(kind=kind, file=tmp_path / "smith_john")  # type: ignore[arg-type]  # one of the words
    large = Material(kind=kind, file=video)  # type: ignore[arg-type]
    for material, limits in ((missing, Limits()), (large, Limits(bytes=100))):
        with pytest.raises(BadFileError) as caught:
            load(material, Movement.REST, limits, None)
        assert "smith" not in str(caught.value)


def _npy(points: npt.ArrayLike) -> bytes:
    out = io.BytesIO()
    np.save(out, points)
    return out.getvalue()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (_npy(np.zeros((10, 68, 2), np.float32)), "frames=10, the video has 11"),
        (_npy(np.zeros((11, 67, 2), np.float32)), "68"),
        (_npy(np.zeros((11, 68, 2), np.int64)), "floats"),
        (_npy(np.array(5.0)), "floats"),
        (_npy(np.full((11, 68, 2), np.inf)), "no pixels"),
        (_npy(np.full((11, 68, 2), 1e7)), "no pixels"),
        (_npy(np.where(np.arange(68)[:, None] == 3, np.nan, np.ones((11, 68, 2)))), "no pixels"),
        (_npy(np.full((11, 68, 2), np.nan)), "no face"),
        (b"SMITH^JOHN", "not a readable .npy"),
        (b"\x93NUMPY\x01\x00\x76\x00{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", "not a readable .npy"),
    ],
)
def test_landmarks_of_a_video_are_checked(tmp_path: Path, video: Path, data: bytes, reason: str) -> None:
    (tmp_path / "smith_john.npy").write_bytes(data)
    material = Material(kind="video", file=video, landmarks=tmp_path / "smith_john.npy")

    with pytest.raises(BadFileError, match=reason) as caught:
        load(material, Movement.REST, Limits(), None)
    assert "SMITH" not in str(caught.value)


@given(st.binary(max_size=200))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_landmarks_of_any_bytes_are_survived(tmp_path: Path, video: Path, data: bytes) -> None:
    (tmp_path / "points.npy").write_bytes(b"\x93NUMPY\x01\x00" + data)

    with pytest.raises(BadFileError):
        load(
            Material(kind="video", file=video, landmarks=tmp_path / "points.npy"), Movement.REST, Limits(frames=2), None
        )
