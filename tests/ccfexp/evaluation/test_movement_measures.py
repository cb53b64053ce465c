"""Paired measures (rest, movement): hand-computed ratios, the activation gate and side labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from ccfexp.evaluation.measures import Scale, ScaleSource, measure, mirror
from ccfexp.evaluation.movement_measures import (
    affected_minus_healthy,
    brow_raise_ratio,
    commissure_excursion,
    eye_closure_fraction,
    smile_excursion_ratio,
)
from tests.ccfexp.evaluation.faces import MM, drawn_face

if TYPE_CHECKING:
    from ccfexp.evaluation.measures import Array, FaceMeasures


def raised(right: float, left: float) -> Array:
    """The drawing with its brows raised by so many millimetres."""
    p = drawn_face()
    p[17:22, 1] -= right
    p[22:27, 1] -= left
    return p


def smiling(right: float, left: float) -> Array:
    """Corners drawn outwards from the lower mid-lip by so many millimetres."""
    p = drawn_face()
    for corner, by in ((48, right), (54, left)):
        outwards = p[corner] - p[57]
        p[corner] += by * outwards / np.linalg.norm(outwards)
    return p


def m(p: Array, scale: Scale = MM) -> FaceMeasures:
    """Measure in the millimetres of the drawing."""
    return measure(p, scale)


@pytest.mark.parametrize(("side", "expected"), [("left", 0.25), ("right", 4.0)])
def test_brow_raise_ratio_takes_the_side_from_the_label(side: str, expected: float) -> None:
    """The same face, labelled otherwise, gives the inverse ratio: nothing is guessed from the picture."""
    ratio = brow_raise_ratio(m(drawn_face()), m(raised(right=8, left=2)), side)

    assert ratio.value == pytest.approx(expected)
    assert ratio.active


def test_smile_excursion_ratio_by_hand() -> None:
    """A commissure pulled inwards counts as negative."""
    rest, smile = m(drawn_face()), m(smiling(right=10, left=-1))

    np.testing.assert_allclose([10, -1], commissure_excursion(rest, smile))
    assert smile_excursion_ratio(rest, smile, "left").value == pytest.approx(-0.1)


def test_mirrored_face_with_the_other_label_gives_the_same_ratio() -> None:
    """A ratio knows affected and healthy, not left and right."""
    rest, smile = drawn_face(), smiling(right=9, left=3)

    original = smile_excursion_ratio(m(rest), m(smile), "left")
    mirrored = smile_excursion_ratio(m(mirror(rest)), m(mirror(smile)), "right")

    np.testing.assert_allclose(original.value, mirrored.value)


def test_two_tiny_movements_have_no_ratio() -> None:
    """0.02 over 0.01 mm would read as 2, a grossly over-active paralysed side."""
    ratio = brow_raise_ratio(m(drawn_face()), m(raised(right=0.01, left=0.02)), "left")

    assert np.isnan(ratio.value)
    assert not ratio.active


def test_gate_is_on_the_healthy_side_and_configurable() -> None:
    """A still affected side is a true 0; a still healthy side is no measurement."""
    rest, half = m(drawn_face()), m(raised(right=0.5, left=0.25))

    assert not brow_raise_ratio(rest, half, "left").active
    assert brow_raise_ratio(rest, half, "left", noise_floor=0.4).value == pytest.approx(0.5)
    assert brow_raise_ratio(m(drawn_face()), m(raised(right=8, left=0.0)), "left").value == pytest.approx(0)


def test_gate_follows_the_unit_of_the_scale() -> None:
    """One millimetre at a 63 mm eye distance, when lengths are eye distances: the drawing's eyes are 60 apart."""
    rest, high, low = drawn_face(), raised(0.97, 0.97), raised(0.93, 0.93)
    eyes = Scale.from_eye_distance(rest)

    assert brow_raise_ratio(m(rest, eyes), m(high, eyes), "left").active
    assert not brow_raise_ratio(m(rest, eyes), m(low, eyes), "left").active


def test_a_batch_with_a_label_each() -> None:
    """Labels without one affected side have no ratio."""
    rest = m(np.stack([drawn_face()] * 5))
    movement = m(np.stack([raised(8, 2), raised(2, 8), raised(8, 8), raised(8, 2), raised(0, 0)]))

    ratio = brow_raise_ratio(rest, movement, ["left", "right", "none", "bilateral", "left"])

    np.testing.assert_allclose([0.25, 0.25, np.nan, np.nan, np.nan], ratio.value)
    np.testing.assert_array_equal([True, True, False, False, False], ratio.active)


def test_eye_closure_fraction() -> None:
    """Half closed is 0.5, and crossed lids are complete closure."""
    rest, half = drawn_face(), drawn_face()
    half[[37, 38], 1] += 5
    half[[43, 44], 1] += 12  # crossed lids are closed lids

    np.testing.assert_allclose([0.5, 1.0], eye_closure_fraction(m(rest), m(half)))


def test_eye_that_was_never_open_has_no_closure() -> None:
    """Nothing could close, so there is no fraction to report."""
    shut = drawn_face()
    shut[[37, 38]] = shut[[41, 40]]

    closure = eye_closure_fraction(m(shut), m(shut))

    assert np.isnan(closure[0])
    assert closure[1] == pytest.approx(0)


def test_affected_minus_healthy() -> None:
    """The sign follows the label."""
    face = m(raised(right=0, left=-4))

    assert affected_minus_healthy(face.brow_height_S, "left") == pytest.approx(-4)
    assert affected_minus_healthy(face.brow_height_S, "right") == pytest.approx(4)
    assert np.isnan(affected_minus_healthy(face.brow_height_S, "none"))


def test_unknown_side_is_refused() -> None:
    """Labels are exact: a guess at a misspelt side would be a guess at laterality."""
    with pytest.raises(ValueError, match="side='Left'"):
        brow_raise_ratio(m(drawn_face()), m(raised(8, 2)), "Left")


def test_millimetres_are_not_compared_with_eye_distances() -> None:
    """A difference of two units is refused."""
    rest = m(drawn_face())
    movement = m(raised(8, 2), Scale(np.asarray(1 / 60), ScaleSource.EYE_DISTANCE))

    with pytest.raises(ValueError, match="eye distances"):
        brow_raise_ratio(rest, movement, "left")
