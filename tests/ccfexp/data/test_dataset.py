"""The images of a split: their order, and which image says who a person is."""

from __future__ import annotations

import io
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ccfexp.data.dataset import PatientImages, load_split
from ccfexp.data.manifest import Movement, Role, Row, Split, read_manifest
from ccfexp.errors import ManifestError
from tests.ccfexp.data.manifest_rows import SIZE, image_bytes, landmark_array, make_row, write_site


def load(folder: Path, rows: list[Row], split: str = "train") -> PatientImages:
    """Write a site and load one split of it."""
    return load_split(read_manifest(write_site(folder, rows), SIZE), split)


ROWS = [
    # subject a, two sessions: each image takes the rest image of its own session
    make_row("a1.png", subject_id="a", session="1", role=Role.IDENTITY),
    make_row("a2.png", subject_id="a", session="1", movement=Movement.SNARL, role=Role.EXPRESSION),
    make_row("a3.png", subject_id="a", session="2"),
    make_row("a4.png", subject_id="a", session="2", movement=Movement.FROWN, grade=None),
    # subject b: no rest image in session 2, so the first identity image of all sessions serves
    make_row("b1.png", subject_id="b", session="1", movement=Movement.BLINK),
    make_row("b2.png", subject_id="b", session="2", movement=Movement.SNARL, role=Role.EXPRESSION),
    # a rest image whose role is expression does not say who someone is
    make_row("b3.png", subject_id="b", session="2", role=Role.EXPRESSION),
    make_row("h.png", subject_id="h", split=Split.HOLDOUT, consent_train=False),
]


def test_fields_of_a_split(tmp_path: Path) -> None:
    """Every field of the loaded split is that of the sorted rows."""
    images = load(tmp_path, ROWS)

    # sorted by session and movement within a subject: a2 < ... by the movement's name
    assert images.movement_N == ["rest", "snarl", "frown", "rest", "blink", "rest", "snarl"]
    assert images.side_N == ["left"] * 7
    assert images.grade_N == [4, 4, None, 4, 4, 4, 4]
    assert images.patients == 2
    assert images.patient_N.tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert images.identity_N.tolist() == [0, 0, 3, 3, 4, 4, 4]
    assert images.target_T.tolist() == [1, 2, 3, 4, 5, 6]
    assert len(images) == 7


def test_shapes_and_types(tmp_path: Path) -> None:
    """Tensors have the documented shapes and types, and hold the files' content."""
    images = load(tmp_path, ROWS)
    first = torch.from_numpy(np.array(Image.open(io.BytesIO(image_bytes("a1.png")))))

    assert (images.image_N3HW.shape, images.image_N3HW.dtype) == ((7, 3, SIZE, SIZE), torch.uint8)
    assert (images.landmark_N682.shape, images.landmark_N682.dtype) == ((7, 68, 2), torch.float32)
    assert {images.patient_N.dtype, images.identity_N.dtype, images.target_T.dtype} == {torch.int64}
    assert torch.equal(images.image_N3HW[0], first.permute(2, 0, 1))
    assert torch.equal(images.landmark_N682[0], torch.from_numpy(landmark_array("a1.png")))


def test_splits_do_not_mix(tmp_path: Path) -> None:
    """The held-out patient is in the holdout split alone."""
    images = load(tmp_path, ROWS, "holdout")

    assert (len(images), images.patients, images.identity_N.tolist()) == (1, 1, [0])


def test_order_of_the_file_does_not_matter(tmp_path: Path) -> None:
    """The same rows in another order give the same tensors."""
    shuffled = random.Random(3).sample(ROWS, len(ROWS))
    one, other = load(tmp_path / "1", ROWS), load(tmp_path / "2", shuffled)

    assert shuffled != ROWS
    assert torch.equal(one.image_N3HW, other.image_N3HW)
    assert torch.equal(one.landmark_N682, other.landmark_N682)
    assert torch.equal(one.identity_N, other.identity_N)
    assert one.movement_N == other.movement_N


def test_text_shows_no_pixels(tmp_path: Path) -> None:
    """The text form of a split holds neither images nor landmarks."""
    text = repr(load(tmp_path, ROWS))

    assert "image_N3HW" not in text
    assert "landmark_N682" not in text


def test_empty_split_is_refused(tmp_path: Path) -> None:
    """A site without held-out patients says so when they are asked for."""
    with pytest.raises(ManifestError, match="no rows with split=holdout"):
        load(tmp_path, ROWS[:4], "holdout")


def test_a_split_with_nothing_to_draw_is_refused(tmp_path: Path) -> None:
    """Identity photographs alone teach nothing."""
    with pytest.raises(ManifestError, match="split=train has role=expression or role=both"):
        load(tmp_path, ROWS[:1])


def test_unknown_split_is_refused(tmp_path: Path) -> None:
    """Only the two splits exist."""
    with pytest.raises(ValueError, match="test"):
        load(tmp_path, ROWS, "test")


def test_files_changed_after_the_check_are_refused(tmp_path: Path) -> None:
    """An image that is altered or removed between check and use is not trained on."""
    manifest = read_manifest(write_site(tmp_path, ROWS), SIZE)
    (tmp_path / "a1.png").write_bytes(image_bytes("other"))
    (tmp_path / "a3.png").unlink()

    with pytest.raises(ManifestError) as caught:
        load_split(manifest, "train")

    assert caught.value.problems == ("row 2: image differs from its sha256", "row 4: a file cannot be read")
