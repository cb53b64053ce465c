"""Which points are taken, which are refused, and which are only to be looked at."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccfexp.data.phantom.presets import SITES
from ccfexp.data.phantom.sites import photograph
from ccfexp.detection.faces import Points
from ccfexp.evaluation.measures import mirror
from client.prepare.landmarks_page.point_checks import RefusedPointsError, checked_points, flags_of
from tests.client.prepare.landmarks_page.desks import SIZE

RIGHT_EYE, LEFT_EYE = list(range(36, 42)), list(range(42, 48))


@pytest.fixture
def face() -> Points:
    """A phantom's true points."""
    return photograph(SITES["A"], 1000, 0, "rest", SIZE).landmark_682.astype(np.float32)


def refusal(points: npt.NDArray[Any], width: int = SIZE, height: int = SIZE) -> str:
    """Why points are refused."""
    with pytest.raises(RefusedPointsError) as refused:
        checked_points(points, width, height)
    return str(refused.value)


@pytest.mark.parametrize("movement", ["rest", "smile_teeth", "tight_eye_closure", "lip_pucker"])
@pytest.mark.parametrize("identity", [1000, 1003, 1006])
def test_true_points_of_palsied_faces_are_taken_and_not_flagged(identity: int, movement: str) -> None:
    """At the size of the published model too."""
    for size in (SIZE, 112):
        points = photograph(SITES["A"], identity, 0, movement, size).landmark_682

        assert np.array_equal(checked_points(points, size, size), points.astype(np.float32))
        assert flags_of(points, size, size, by_hand=False) == ()


@given(st.floats(-math.pi / 3, math.pi / 3), st.floats(0.5, 1.2))
def test_a_tilted_or_smaller_face_is_a_face_and_its_mirror_image_never(angle: float, scale: float) -> None:
    """Whatever its roll: right and left are told apart in the frame of the eyes."""
    face = photograph(SITES["A"], 1000, 0, "rest", SIZE).landmark_682
    rotation = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    turned = (face - SIZE / 2) @ rotation + SIZE / 2

    checked_points(turned, SIZE, SIZE)

    wrongly_numbered = np.stack([SIZE - mirror(turned, SIZE)[:, 0], mirror(turned, SIZE)[:, 1]], -1)
    assert "exchanged" in refusal(wrongly_numbered)
    assert "exchanged" in refusal(np.stack([SIZE - turned[:, 0], turned[:, 1]], -1))


def test_exchanged_parts_are_named_with_the_remedy(face: Points) -> None:
    """Only the eyes, only the corners of the mouth, only the brows."""
    eyes, mouth, brows = face.copy(), face.copy(), face.copy()
    eyes[[*RIGHT_EYE, *LEFT_EYE]] = face[[*LEFT_EYE, *RIGHT_EYE]]
    mouth[[48, 54]] = face[[54, 48]]
    brows[17:27] = face[26:16:-1]

    assert "right and left eye are exchanged" in refusal(eyes)
    assert "right and left oral commissure are exchanged" in refusal(mouth)
    assert "right and left brow are exchanged" in refusal(brows)
    assert "the patient's right eye is on the left of the picture" in refusal(eyes)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_are_named(face: Points, value: float) -> None:
    face[[3, 60], 0] = value

    assert refusal(face) == "points 3, 60 are not finite; place again"


def test_the_border_of_what_is_outside(face: Points) -> None:
    """Half of the picture's size and no further, by width and by height."""
    face[8] = (1.5 * SIZE, 1.5 * SIZE)
    checked_points(face, SIZE, SIZE)
    face[8] = (1.5 * SIZE + 0.01, SIZE)

    assert refusal(face) == "point 8 is too far outside of the picture; move back onto the face"
    checked_points(face, SIZE + 1, SIZE)


@pytest.mark.parametrize("shape", [(67, 2), (68, 3), (136,), (0, 2)])
def test_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    assert f"shape={list(shape)}" in refusal(np.zeros(shape, np.float32))


def test_points_in_one_place_are_no_face(face: Points) -> None:
    """All equal, or both eyes in one place."""
    assert "the eyes are closer to each other than 3.2 pixels" in refusal(np.full((68, 2), 20, np.float32))
    face[LEFT_EYE] = face[RIGHT_EYE]
    assert "the eyes are closer" in refusal(face)


def test_what_is_rare_is_flagged_unless_a_person_placed_it(face: Points) -> None:
    """Lids, lips, a nose outside of the picture."""
    face[[37, 38, 40, 41]] = face[[41, 40, 38, 37]]
    face[[62, 66]] = face[[66, 62]] + np.array([[0, 3], [0, -3]], np.float32)
    face[30] = (SIZE / 2, -1)

    flags = flags_of(face, SIZE, SIZE, by_hand=False)

    assert flags == (
        "right lids cross",
        "lips cross",
        "a point of brows, nose, eyes or lips lies outside of the picture",
    )
    assert flags_of(face, SIZE, SIZE, by_hand=True) == ()


def test_what_would_be_refused_is_flagged_whoever_placed_it(face: Points) -> None:
    """A manifest may bring such points along."""
    mirrored = np.stack([SIZE - face[:, 0], face[:, 1]], -1)

    for by_hand in (False, True):
        assert flags_of(mirrored, SIZE, SIZE, by_hand=by_hand) == (refusal(mirrored),)
