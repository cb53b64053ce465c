"""The measures of one photograph, by hand and on a palsy whose side is known."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pytest

from ccfexp.data.phantom.expression import Palsy
from ccfexp.data.phantom.sites import shared_phantom
from ccfexp.evaluation.measures import Scale, ScaleSource
from client.prepare.clinical import clinical_measures
from tests.ccfexp.evaluation.faces import MM, drawn_face


def test_a_face_on_paper() -> None:
    """Brows 23 above the eyes, lids 10 apart, corners 25 beside and 10 above the middle of the lower lip."""
    found = clinical_measures(drawn_face(), MM)
    assert found.brow_height == pytest.approx((23, 23))
    assert found.lid_gap == pytest.approx((10, 10))
    assert found.commissure_position == pytest.approx((np.hypot(25, 10),) * 2)
    assert found.commissure_height_difference == pytest.approx(0)
    assert found.philtrum_deviation == pytest.approx(0)
    assert (found.unit, found.scale_source) == ("mm", ScaleSource.PHANTOM)


def test_without_millimetres_lengths_are_eye_distances() -> None:
    face = drawn_face()
    found = clinical_measures(face * 3, Scale.from_eye_distance(face * 3))
    assert found.brow_height == pytest.approx((23 / 60, 23 / 60))
    assert found.unit == "eye distances"


def test_right_and_left_are_the_patients() -> None:
    """In a smile a left palsy keeps the left brow, lid gap and corner from moving, and the left corner hangs."""
    phantom = shared_phantom()
    person = phantom.identity(6000)
    palsied = phantom.frontal_landmarks_mm(person, "smile_teeth", Palsy.of_grade(6, "left"))
    found = clinical_measures(palsied, MM)
    assert found.commissure_position[0] > found.commissure_position[1] + 3
    assert found.commissure_height_difference > 3
    assert found.philtrum_deviation < 0  # drawn to the healthy right


def test_a_face_without_a_scale_has_no_values() -> None:
    nowhere = np.zeros((68, 2))
    found = clinical_measures(nowhere, Scale.from_pupil_distance(nowhere))
    assert np.isnan(astuple(found)[:3]).all()
    with pytest.raises(ValueError, match=r"\[68, 2\]"):
        clinical_measures(np.zeros((2, 68, 2)), MM)
