"""A face that equals its mirror image has none; a palsy has more than a healthy face; a symmetrised one falls below."""

from __future__ import annotations

import numpy as np
import pytest

from ccfexp.data.phantom.camera import Camera, Scene
from ccfexp.data.phantom.expression import Palsy
from ccfexp.data.phantom.render import Phantom
from ccfexp.evaluation.measures import head_frame, mirror
from ccfexp.evaluation.symmetry import SYMMETRISED_BELOW, landmark_asymmetry
from tests.ccfexp.evaluation.faces import drawn_face

PEOPLE = 24


def test_a_symmetric_face_has_none_wherever_it_lies() -> None:
    face = drawn_face()
    turn = np.array([[np.cos(0.4), -np.sin(0.4)], [np.sin(0.4), np.cos(0.4)]])
    assert landmark_asymmetry(face) == pytest.approx(0, abs=1e-12)
    assert landmark_asymmetry(3 * face @ turn.T + (100, -40)) == pytest.approx(0, abs=1e-12)


def test_one_moved_point_counts_on_both_sides() -> None:
    """By hand: point 48 is 6 mm from where its partner's mirror image lies, and its partner too; eyes 60 mm apart."""
    face = drawn_face()
    face[48] += (0, 6)
    assert landmark_asymmetry(face) == pytest.approx(2 * 6 / 68 / 60)
    assert landmark_asymmetry(np.stack([face, drawn_face()]))[1] == pytest.approx(0, abs=1e-12)


def test_the_bound_on_phantoms() -> None:
    """Asymmetry grows with the grade; true palsies lie above the bound, and the same made symmetric below."""
    phantom = Phantom()
    median, below, shrunk_below = {}, [], []
    for grade in (1, 3, 6):
        points = []
        for seed in range(9000, 9000 + PEOPLE):
            person, palsy = phantom.identity(seed), Palsy.of_grade(grade, "left" if seed % 2 else "right")
            weights = phantom.weights(person, "smile_teeth", 1.0, palsy)
            landmark_683 = phantom.landmarks(person, phantom.mesh(person, weights))
            points.append(Camera.frame(Scene.draw(seed, 0), landmark_683, 112).project(landmark_683)[:, :2])
        asymmetry = landmark_asymmetry(np.stack(points))
        median[grade] = float(np.median(asymmetry))
        if grade > 1:
            frame = head_frame(np.stack(points))
            below.append(asymmetry < SYMMETRISED_BELOW)
            shrunk_below.append(landmark_asymmetry(0.55 * frame + 0.45 * mirror(frame)) < SYMMETRISED_BELOW)
    assert median[1] < median[3] < median[6]
    assert np.mean(below) < 0.05
    assert np.mean(shrunk_below) > 0.95
