"""Pose against the camera that drew the face."""

from __future__ import annotations

from dataclasses import astuple, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ccfexp.data.phantom.camera import Camera, Scene
from ccfexp.data.phantom.expression import MOVEMENTS, Palsy
from ccfexp.data.phantom.identity import Identity
from ccfexp.data.phantom.sites import shared_phantom
from ccfexp.evaluation.measures import mirror
from ccfexp.evaluation.pose import head_pose

Array = NDArray[np.float64]
DEGREES = st.floats(-180, 180)


def face(
    identity: Identity,
    angle_3: tuple[float, float, float] = (0.0, 0.0, 0.0),
    movement: str = "rest",
    palsy: Palsy | None = None,
) -> Array:
    """Landmarks [68, 2] of a phantom with this yaw, pitch and roll in degrees."""
    yaw, pitch, roll = np.radians(angle_3)
    phantom = shared_phantom()
    point_683 = phantom.landmarks(
        identity, phantom.mesh(identity, phantom.weights(identity, movement, 1.0, palsy or Palsy()))
    )
    scene = replace(Scene.draw(identity.seed, 0), yaw=float(yaw), pitch=float(pitch), roll=float(roll))
    return Camera.frame(scene, point_683, 112).project(point_683)[:, :2].astype(np.float64)


@pytest.fixture(scope="module")
def somebody() -> Identity:
    return shared_phantom().identity(4321)


def test_it_finds_the_pose_that_the_camera_was_given() -> None:
    """The figures of the module's docstring, on other people; a palsy must not look like a turn."""
    rng = np.random.default_rng(1)
    errors: list[Array] = []
    for seed in range(7000, 7040):
        identity = shared_phantom().identity(seed)
        for movement in rng.choice(list(MOVEMENTS), 5):
            truth_3 = tuple(rng.uniform(-1, 1, 3) * (40, 20, 20))
            palsy = Palsy.of_grade(int(rng.integers(1, 7)), "left" if rng.random() < 0.5 else "right", rng)
            errors.append(np.array(astuple(head_pose(face(identity, truth_3, str(movement), palsy)))) - truth_3)
    error_N3 = np.abs(errors)
    assert (error_N3.mean(0) < (2.5, 3.0, 1.2)).all()
    assert (np.percentile(error_N3, 95, axis=0) < (6, 7.5, 3)).all()


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_palsy_moves_the_answer_by_little(somebody: Identity, side: str) -> None:
    at_rest = np.array(astuple(head_pose(face(somebody))))
    for movement in MOVEMENTS:
        palsied = head_pose(face(somebody, movement=movement, palsy=Palsy.of_grade(6, side)))  # type: ignore[arg-type]
        assert np.abs(np.array(astuple(palsied)) - at_rest).max() < 1


def test_signs_are_the_patients(somebody: Identity) -> None:
    """The nose moves to the image's right where the patient turns left; the left eye rises where roll is positive."""
    front, turned = face(somebody), face(somebody, (25, 0, 0))
    assert turned[30, 0] - turned[[0, 16], 0].mean() > front[30, 0] - front[[0, 16], 0].mean() + 5
    assert head_pose(turned).yaw_deg > 15
    assert head_pose(face(somebody, (0, 25, 0))).pitch_deg > 10  # the phantom's own sign: the nose comes down
    tilted = face(somebody, (0, 0, 15))
    assert tilted[45, 1] < tilted[36, 1] - 5
    assert head_pose(tilted).roll_deg == pytest.approx(head_pose(front).roll_deg + 15, abs=1)


@given(angle=DEGREES, scale=st.floats(0.01, 100), shift=st.floats(-1e3, 1e3))
def test_turning_the_picture_turns_the_roll_alone_and_size_and_place_are_nothing(
    somebody: Identity, angle: float, scale: float, shift: float
) -> None:
    points = face(somebody, (12, -7, 4))
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    # Counter-clockwise as it is seen, y downwards.
    turned = points @ np.array([[c, -s], [s, c]]) * scale + shift
    before, after = head_pose(points), head_pose(turned)
    assert after.yaw_deg == pytest.approx(before.yaw_deg, abs=1e-5)
    assert after.pitch_deg == pytest.approx(before.pitch_deg, abs=1e-5)
    assert (after.roll_deg - before.roll_deg - angle + 180) % 360 - 180 == pytest.approx(0, abs=1e-5)


@given(yaw=st.floats(-40, 40), pitch=st.floats(-20, 20), roll=st.floats(-20, 20))
def test_a_mirrored_picture_turns_and_tilts_the_other_way(
    somebody: Identity, yaw: float, pitch: float, roll: float
) -> None:
    """To within the small asymmetry of the mean head's own points."""
    points = face(somebody, (yaw, pitch, roll))
    pose, mirrored = head_pose(points), head_pose(mirror(points, 112))
    assert mirrored.yaw_deg == pytest.approx(-pose.yaw_deg, abs=1)
    assert mirrored.pitch_deg == pytest.approx(pose.pitch_deg, abs=1)
    assert mirrored.roll_deg == pytest.approx(-pose.roll_deg, abs=1)


def test_points_without_an_answer(somebody: Identity) -> None:
    missing = face(somebody)
    missing[30] = np.nan
    line = np.stack([np.arange(68.0), np.zeros(68)], 1)
    for points in (missing, np.zeros((68, 2)), line):
        assert np.isnan(astuple(head_pose(points))).all()
    lost_brow = face(somebody)
    lost_brow[20] = np.nan
    assert head_pose(lost_brow) == head_pose(face(somebody))
    with pytest.raises(ValueError, match=r"\[68, 2\]"):
        head_pose(np.zeros((5, 2)))
