"""FAN's points are those of face-alignment's own interface, before it rounds them to whole pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from ccfexp.detection.faces import Face
from ccfexp.detection.fan import REFERENCE_SCALE, FanLandmarker
from ccfexp.errors import WeightsError
from tests.ccfexp.detection import packs

if TYPE_CHECKING:
    from pathlib import Path

    from ccfexp.detection.faces import Image

face_alignment: Any = pytest.importorskip("face_alignment")


def face(*box: float) -> Face:
    return Face(np.array(box, np.float32), 0.9, np.zeros((5, 2), np.float32))


@pytest.mark.slow
def test_points_are_the_packages_own(astronaut: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the same random weights, for boxes within and across the border: whole pixels equal, and confidence."""
    path = packs.random_landmarker(tmp_path / packs.LANDMARKER)
    packs.publish(tmp_path, monkeypatch)
    checkpoints = tmp_path / "torch/hub/checkpoints"
    checkpoints.mkdir(parents=True)
    (checkpoints / path.name).symlink_to(path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    theirs = face_alignment.FaceAlignment(
        face_alignment.LandmarksType.TWO_D, device="cpu", face_detector="folder", compile=False
    )
    scrfd: Any = pytest.importorskip("face_alignment.detection.scrfd.scrfd_detector")
    assert scrfd.SCRFDDetector.reference_scale.fget(None) == REFERENCE_SCALE
    monkeypatch.setattr(type(theirs.face_detector), "reference_scale", REFERENCE_SCALE)
    ours = FanLandmarker(tmp_path)

    for box in (
        (165.0, 65.0, 275.0, 175.0),
        (170.3, 80.9, 260.2, 168.4),
        (-30.0, -40.0, 120.5, 90.0),
        (0, 0, 512, 512),
    ):
        points, scores, _ = theirs.get_landmarks_from_image(
            astronaut, detected_faces=[[*box, 0.9]], return_landmark_score=True
        )
        found = ours.locate(astronaut, face(*box))
        assert found.point_682.dtype == found.confidence_68.dtype == np.float32
        # The package cuts to the whole pixel towards zero; next to a whole number either one is right.
        np.testing.assert_array_less(np.abs(found.point_682 - points[0]), 1 + 1e-3)
        clear = np.abs(found.point_682 - np.round(found.point_682)) > 1e-3
        assert clear.sum() > 60
        np.testing.assert_array_equal(np.trunc(found.point_682)[clear], points[0][clear])
        np.testing.assert_allclose(found.confidence_68, np.clip(scores[0] / 2, 0, 1), atol=1e-6)
        assert len(np.unique(found.point_682, axis=0)) > 10


def test_the_file_must_be_the_published_one(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"missing weights file face_alignment/2DFAN4"):
        FanLandmarker(tmp_path)
    path = tmp_path / packs.LANDMARKER
    path.parent.mkdir()
    path.write_bytes(b"something else")
    with pytest.raises(WeightsError, match=r"altered weights file .*expected sha256=11f355bf06"):
        FanLandmarker(tmp_path)


def test_what_is_no_fan_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / packs.LANDMARKER
    path.parent.mkdir()
    path.write_bytes(b"something else")
    packs.publish(tmp_path, monkeypatch)
    with pytest.raises(WeightsError, match="cannot be read as FAN"):
        FanLandmarker(tmp_path)
