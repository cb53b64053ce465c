"""One photograph, on a real face and with the real networks' interfaces: found, checked, brought into the frame."""

from __future__ import annotations

import io
import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ccfexp.data.alignment import five_points
from ccfexp.data.files import BadFileError, decode_image, decode_landmarks
from ccfexp.data.landmark_files import read_landmark_file
from ccfexp.data.rows import LandmarkSource, Movement, Side
from ccfexp.errors import WeightsError
from client.prepare.entries import Material
from client.prepare.portrait import Job, Recipe, portray
from client.prepare.settings import Faces, Limits
from tests.ccfexp.detection import packs
from tests.client.prepare.clinic import Clinic, write_csv

pytest.importorskip("insightface")
POINTS = Path(packs.__file__).with_name("astronaut_landmarks.json")
SCALE = 640 / 512  # of the photograph in the detector's picture


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    """scikit-image's astronaut with a white corner, by which the planted detector knows her, and her 68 points."""
    package = find_spec("skimage")
    if package is None or package.origin is None:
        pytest.skip("scikit-image is not installed")
    with Image.open(Path(package.origin).parent / "data/astronaut.png") as picture:
        image_HW3 = np.array(picture.convert("RGB"))
    image_HW3[:26, :26] = 255
    folder = tmp_path / "inbox" / "a" / "1"
    folder.mkdir(parents=True)
    Image.fromarray(image_HW3).save(folder / "rest_1.png")
    (folder / "rest_1.json").write_bytes(POINTS.read_bytes())
    return folder / "rest_1.png"


def job(photograph: Path, faces: Faces, *, landmarks: bool) -> Job:
    """The photograph to prepare."""
    points = photograph.with_suffix(".json") if landmarks else None
    material = Material(kind="photograph", file=photograph, landmarks=points)
    return Job("m", Recipe(112, faces, Limits()), material, Movement.REST, Side.NONE, 1, None)


def pack(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Weights of the right names and shapes: a detector that answers this one face, and a random FAN."""
    point_682 = read_landmark_file(POINTS.read_bytes(), ".json", (512, 512))
    packs.planted_detector(folder / packs.DETECTOR, five_points(point_682) * SCALE, brightness=254)
    packs.random_landmarker(folder / packs.LANDMARKER)
    packs.publish(folder, monkeypatch)
    return folder


def test_a_real_photograph_with_its_points_is_prepared_by_the_command(tmp_path: Path, photograph: Path) -> None:
    """Without any weights; nothing of the photograph is flagged."""
    clinic = Clinic.at(tmp_path)
    write_csv(tmp_path / "labels.csv", [{"subject": "a", "side": "none", "grade": "I", "consent_train": "yes"}])
    clinic.settings(source=str(photograph.parents[2]), labels={"file": str(tmp_path / "labels.csv")}, image_size=112)
    assert clinic.prepare() == 0

    (row,) = clinic.manifest(112).rows
    assert (row.movement, row.landmark_source) == (Movement.REST, LandmarkSource.IMPORTED)
    made = portray(job(photograph, Faces(), landmarks=True))
    assert made.image == (clinic.place.data / row.path).read_bytes()
    assert made.figures["quality"]["flags"] == []
    assert json.loads(json.dumps(made.figures, allow_nan=False)) == made.figures


@pytest.mark.slow
def test_detector_and_landmarker_end_in_a_portrait(
    tmp_path: Path, photograph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How sure the detector is stands with the result. Random weights' points are a face at best by chance."""
    faces = Faces("insightface", "fan", str(pack(tmp_path / "weights", monkeypatch)))
    made = portray(job(photograph, faces, landmarks=True))
    assert made.landmark_source is LandmarkSource.IMPORTED
    assert made.figures["score"] > 0.5
    assert decode_image(made.image, 112).shape == (112, 112, 3)
    assert np.isfinite(decode_landmarks(made.landmarks)).all()

    try:
        found = portray(job(photograph, faces, landmarks=False))
    except BadFileError as error:
        assert any(word in str(error) for word in ("mirrored", "points", "part of a face", "between the eyes"))  # noqa: PT017
    else:
        assert found.landmark_source is LandmarkSource.DETECTOR
        assert 0 <= found.figures["confidence"] <= 1


@pytest.mark.slow
def test_photographs_of_no_face_and_of_several_are_refused(
    tmp_path: Path, photograph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the detector; and weights that were altered stop everything."""
    weights = pack(tmp_path / "weights", monkeypatch)
    faces = Faces("insightface", "fan", str(weights))
    buffer = io.BytesIO()
    Image.new("RGB", (512, 512), (90, 80, 70)).save(buffer, "PNG")
    photograph.with_name("wall.png").write_bytes(buffer.getvalue())
    with pytest.raises(BadFileError, match="shows no face that the detector finds"):
        portray(job(photograph.with_name("wall.png"), faces, landmarks=False))

    with Image.open(photograph) as picture:
        image_HW3 = np.array(picture)
    image_HW3[:26, 153:180] = 255
    Image.fromarray(image_HW3).save(photograph.with_name("crowd.png"))
    with pytest.raises(BadFileError, match="shows faces=2, expected 1"):
        portray(job(photograph.with_name("crowd.png"), faces, landmarks=False))

    (weights / packs.DETECTOR).write_bytes(b"another")
    with pytest.raises(WeightsError, match="altered weights file"):
        portray(job(photograph, Faces("insightface", "fan", str(weights), min_score=0.6), landmarks=False))
