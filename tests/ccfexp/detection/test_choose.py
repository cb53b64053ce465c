"""What is asked for is opened; and from a photograph, or a photograph with its points, to the aligned crop."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from ccfexp.data.alignment import TEMPLATE_52, five_points, outside_share, points_outside, similarity, warp
from ccfexp.detection.choose import Finders, open_detector
from ccfexp.errors import WeightsError
from tests.ccfexp.detection import packs

if TYPE_CHECKING:
    from ccfexp.detection.faces import Image, Points

pytest.importorskip("insightface")
pytest.importorskip("face_alignment")

ROOT = Path(__file__).resolve().parents[3]
SCALE = 640 / 512  # of the astronaut in the detector's picture


def flagged(astronaut: Image) -> Image:
    """The astronaut with a white cell in the first corner, by which the planted detector knows her."""
    image_HW3 = astronaut.copy()
    image_HW3[:26, :26] = 255
    return image_HW3


def folder_of(path: Path, landmarks: Points) -> Path:
    packs.planted_detector(path / packs.DETECTOR, five_points(landmarks) * SCALE, brightness=254)
    packs.random_landmarker(path / packs.LANDMARKER)
    return path


def test_nothing_is_opened_where_both_are_supplied() -> None:
    assert open_detector("supplied", "supplied", None, min_score=0.5) == Finders(None, None)


def test_a_folder_is_needed(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="weights=null must be the folder"):
        open_detector("insightface", "fan", None, min_score=0.5)
    with pytest.raises(WeightsError, match="the weights folder does not exist"):
        open_detector("insightface", "supplied", tmp_path / "none", min_score=0.5)


def test_supplied_points_end_in_a_face_in_the_frame(astronaut: Image, astronaut_landmarks: Points) -> None:
    """Of the astronaut: dark eyes in their places above brighter cheeks, bright teeth in the smile."""
    frame = similarity(five_points(astronaut_landmarks), 112)
    assert points_outside(astronaut_landmarks, astronaut) == 0
    assert outside_share(astronaut, frame, 112) == 0
    light = warp(astronaut, frame, 112).astype(float).mean(-1)

    def around(x: float, y: float, reach: int = 2) -> float:
        return float(light[int(y) - reach : int(y) + reach + 1, int(x) - reach : int(x) + reach + 1].mean())

    eyes, nose = np.array(TEMPLATE_52)[:2], TEMPLATE_52[2]
    cheeks = [around(x, nose[1] - 5) for x in eyes[:, 0]]
    assert max(around(x, y, 4) for x, y in eyes) < 0.75 * min(cheeks)
    teeth = frame.points(astronaut_landmarks[60:68]).mean(0)
    assert around(*teeth) > around(nose[0], nose[1] + 5)


def test_a_detection_ends_in_the_same_crop(
    astronaut: Image, astronaut_landmarks: Points, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The planted detector answers the astronaut's own five points, through the network and back."""
    packs.planted_detector(tmp_path / packs.DETECTOR, five_points(astronaut_landmarks) * SCALE, brightness=254)
    packs.publish(tmp_path, monkeypatch)
    finders = open_detector("insightface", "supplied", tmp_path, min_score=0.5)
    assert finders.landmarker is None
    assert finders.detector is not None
    (face,) = finders.detector.detect(flagged(astronaut))
    np.testing.assert_allclose(face.point_52, five_points(astronaut_landmarks), atol=0.01)
    expected = warp(astronaut, similarity(five_points(astronaut_landmarks), 112), 112)
    found = warp(astronaut, similarity(face.point_52, 112), 112)
    assert np.abs(found.astype(int) - expected).max() <= 3


@pytest.mark.slow
def test_detector_and_landmarker_together(
    astronaut: Image, astronaut_landmarks: Points, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With random weights FAN's points mean nothing, but they lie in the crop around the face that was found."""
    packs.publish(folder_of(tmp_path, astronaut_landmarks), monkeypatch)
    finders = open_detector("insightface", "fan", tmp_path, min_score=0.5)
    assert finders.detector is not None
    assert finders.landmarker is not None
    image_HW3 = flagged(astronaut)
    (face,) = finders.detector.detect(image_HW3)
    landmarks = finders.landmarker.locate(image_HW3, face)
    middle = (face.box_4[:2] + face.box_4[2:]) / 2
    reach = 200 * (face.box_4[2:] - face.box_4[:2]).sum() / 165
    assert np.abs(landmarks.point_682 - middle).max() < 0.7 * reach
    assert ((landmarks.confidence_68 >= 0) & (landmarks.confidence_68 <= 1)).all()


_ALONE = """
import sys
from pathlib import Path
import numpy as np

def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "socket.sendmsg"):
        raise SystemExit(f"network: {event}")

sys.addaudithook(watch)
from dataclasses import replace
from ccfexp._io import sha256_file
from ccfexp.detection.choose import open_detector
from ccfexp.weights import local

folder = Path(sys.argv[1])
local.KNOWN = tuple(
    replace(file, sha256=sha256_file(folder / file.name)) if (folder / file.name).is_file() else file
    for file in local.KNOWN
)
finders = open_detector("insightface", "fan", folder, min_score=0.5)
image_HW3 = np.zeros((512, 512, 3), np.uint8)
image_HW3[:26, :26] = 255
(face,) = finders.detector.detect(image_HW3)
assert finders.landmarker.locate(image_HW3, face).point_682.shape == (68, 2)
"""


@pytest.mark.slow
def test_no_network_is_asked_and_nothing_is_said(astronaut_landmarks: Points, tmp_path: Path) -> None:
    """In a process of its own, from the first import on: no connection, no look-up, no line on the terminal."""
    folder_of(tmp_path, astronaut_landmarks)
    done = subprocess.run(
        [sys.executable, "-c", _ALONE, str(tmp_path)],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
