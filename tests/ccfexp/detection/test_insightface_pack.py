"""The real path of insightface's detector on files of its interface: geometry, refusals, silence."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from ccfexp.detection.insightface_pack import InsightFaceDetector
from ccfexp.errors import WeightsError
from tests.ccfexp.detection import packs

if TYPE_CHECKING:
    from pathlib import Path

    from ccfexp.detection.faces import Image

pytest.importorskip("insightface")

POINTS = np.array([(40.0, 50.0), (75.0, 50.0), (57.0, 72.0), (43.0, 92.0), (72.0, 92.0)])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    packs.planted_detector(tmp_path / packs.DETECTOR, POINTS, brightness=200)
    packs.publish(tmp_path, monkeypatch)
    return tmp_path


def with_white(height: int, width: int, cell: tuple[int, int], scale: float) -> Image:
    """A black photograph in which one cell of 32 pixels of the network's picture is white; cell by (column, row)."""
    image_HW3 = np.zeros((height, width, 3), np.uint8)
    left, top = (round(32 * index / scale) for index in cell)
    side = round(32 / scale)
    image_HW3[top : top + side, left : left + side] = 255
    return image_HW3


@pytest.mark.parametrize("size", [(640, 640), (320, 320), (1920, 1920), (2560, 1280)])
def test_answers_are_in_pixels_of_the_photograph(folder: Path, size: tuple[int, int]) -> None:
    """The planted face lies where it was planted, whatever the photograph's size and the empty space beside it."""
    height, width = size
    scale = 640 / max(size)
    image_HW3 = with_white(height, width, (3, 5), scale)
    (face,) = InsightFaceDetector(folder, 0.5).detect(image_HW3)
    expected = (np.array([3 * 32, 5 * 32]) + POINTS) / scale
    np.testing.assert_allclose(face.point_52, expected, atol=0.01 / scale)
    np.testing.assert_allclose(face.box_4[:2], expected.min(0) - 20 / scale, atol=0.01 / scale)
    np.testing.assert_allclose(face.box_4[2:], expected.max(0) + 20 / scale, atol=0.01 / scale)
    assert face.score > 0.99
    assert face.point_52[0, 0] < face.point_52[1, 0]  # the patient's right eye is at image left


def test_the_score_is_a_bound(folder: Path) -> None:
    image_HW3 = with_white(640, 640, (3, 5), 1.0)
    image_HW3[image_HW3 > 0] = 200  # half sure: the planted threshold itself
    (face,) = InsightFaceDetector(folder, 0.4).detect(image_HW3)
    assert face.score == pytest.approx(0.5, abs=0.01)
    assert InsightFaceDetector(folder, 0.6).detect(image_HW3) == []


def test_nothing_in_the_picture_is_no_face(folder: Path) -> None:
    assert InsightFaceDetector(folder, 0.5).detect(np.zeros((100, 3000, 3), np.uint8)) == []


def test_several_faces_come_surest_first(folder: Path) -> None:
    image_HW3 = with_white(640, 640, (3, 3), 1.0)
    image_HW3[image_HW3 > 0] = 200
    image_HW3[13 * 32 : 14 * 32, 12 * 32 : 13 * 32] = 255
    faces = InsightFaceDetector(folder, 0.4).detect(image_HW3)
    assert [round(face.score, 1) for face in faces] == [1.0, 0.5]


def test_a_face_that_fills_the_photograph_is_found_with_a_border(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The planted network knows white squares of 32 pixels; one of 64 is found when the picture is half as large."""
    whole = np.array([(2.0, 4.0), (26.0, 4.0), (14.0, 14.0), (4.0, 26.0), (24.0, 26.0)])
    path = packs.planted_detector(tmp_path / packs.DETECTOR, whole)
    packs.publish(tmp_path, monkeypatch)
    detector = InsightFaceDetector(path.parent.parent, 0.5)
    asked: list[Any] = []
    network = detector._model

    class OnlySmall:
        """The planted network, blind for what fills its picture."""

        def detect(self, img: Image, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            asked.append(img)
            border = img[:, [0, 1, -2, -1]].max() or img[[0, 1, -2, -1]].max()
            return (np.empty((0, 5)), np.empty((0, 5, 2))) if border else network.detect(img, *args, **kwargs)

    detector._model = OnlySmall()
    image_HW3 = np.full((600, 600, 3), 90, np.uint8)
    image_HW3[240:300, 240:300] = 255  # 32 pixels where 600 become 320, from pixel 160 + 128 = 9 cells of 32
    (face,) = detector.detect(image_HW3)
    assert len(asked) == 2
    np.testing.assert_allclose(face.point_52, 240 + whole * 600 / 320, atol=0.05)


def test_a_random_network_gives_well_formed_faces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packs.random_detector(tmp_path / packs.DETECTOR)
    packs.publish(tmp_path, monkeypatch)
    image_HW3 = np.random.default_rng(0).integers(0, 256, (400, 300, 3), np.uint8)
    faces = InsightFaceDetector(tmp_path, 0.2).detect(image_HW3)
    assert len(faces) > 10
    scores = [face.score for face in faces]
    assert scores == sorted(scores, reverse=True)
    for face in faces:
        left, top, right, bottom = face.box_4
        assert 0 < (left + right) / 2 < 300
        assert 0 < (top + bottom) / 2 < 400
        assert right - left >= 1
        assert bottom - top >= 1
        assert face.point_52.shape == (5, 2)
        assert face.point_52.dtype == np.float32


def test_files_that_are_no_detector(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Missing, not published, not a network, another network; and never a word of where it lies."""
    folder = tmp_path / "smith_john_1961"
    folder.mkdir()
    caplog.set_level(logging.DEBUG)
    with pytest.raises(WeightsError, match=r"missing weights file insightface/det_10g\.onnx"):
        InsightFaceDetector(folder, 0.5)
    path = packs.random_detector(folder / packs.DETECTOR)
    with pytest.raises(WeightsError, match=r"altered weights file .*expected sha256=5838f7fe"):
        InsightFaceDetector(folder, 0.5)
    for content in (b"no network", path.read_bytes()[:3000]):
        path.write_bytes(content)
        packs.publish(folder, monkeypatch)
        with pytest.raises(WeightsError, match="cannot be read as a network") as refused:
            InsightFaceDetector(folder, 0.5)
        assert refused.value.__suppress_context__
    packs.single_output(path)
    packs.publish(folder, monkeypatch)
    with pytest.raises(WeightsError, match="is not a detector with five points"):
        InsightFaceDetector(folder, 0.5)
    assert "smith" not in caplog.text + "".join(capfd.readouterr())
