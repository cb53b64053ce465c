"""Clinical measures against configurations computed by hand, and the symmetries every measure must obey."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccfexp.evaluation.measures import (
    FaceMeasures,
    Scale,
    ScaleSource,
    asymmetry_index,
    eye_distance,
    head_frame,
    measure,
    mirror,
)
from tests.ccfexp.evaluation.faces import MM, drawn_face

if TYPE_CHECKING:
    from ccfexp.evaluation.measures import Array

SIGNED = ("commissure_height_difference", "philtrum_deviation", "upper_lip_height_difference",
          "lower_lip_height_difference")  # fmt: skip
LENGTHS = ("brow_height_S", "palpebral_fissure_S", "commissure_position_S", "eye_to_commissure_S", "interlabial_S",
           "facial_asymmetry_index", "mouth_width", "mouth_opening", *SIGNED)  # fmt: skip


def uneven_face(seed: int) -> Array:
    """The drawing with every point moved by about a millimetre."""
    return drawn_face() + np.random.default_rng(seed).normal(0, 1.0, (68, 2))


def values(m: FaceMeasures) -> dict[str, Array]:
    """Every measure by name."""
    return {f.name: getattr(m, f.name) for f in fields(m) if f.name != "scale"}


def test_symmetric_face_by_hand() -> None:
    """Every number follows from the coordinates of the drawing."""
    m = measure(drawn_face(), MM)

    np.testing.assert_allclose([23, 23], m.brow_height_S)
    np.testing.assert_allclose([10, 10], m.palpebral_fissure_S)
    np.testing.assert_allclose([10 / 24, 10 / 24], m.eye_aspect_ratio_S)
    np.testing.assert_allclose([160, 160], m.eye_area_S)  # rectangle 8 x 10 and two triangles of 8 x 10 / 2
    np.testing.assert_allclose([np.hypot(25, 10)] * 2, m.commissure_position_S)
    np.testing.assert_allclose([90 + np.degrees(np.arctan2(10, 25))] * 2, m.smile_angle_S)
    np.testing.assert_allclose([np.hypot(7, 60)] * 2, m.eye_to_commissure_S)
    # At x = 12.5 the inner lips run from (8, 58) and (8, 62) to the corner (22, 60).
    np.testing.assert_allclose([4 * (1 - 4.5 / 14)] * 2, m.interlabial_S)
    for name in ("commissure_height_difference", "philtrum_deviation", "facial_asymmetry_index",
                 "upper_lip_height_difference", "lower_lip_height_difference"):  # fmt: skip
        assert abs(getattr(m, name)) < 1e-12, name
    assert m.mouth_width == pytest.approx(50)
    assert m.mouth_opening == pytest.approx(4)


def test_left_sided_weakness_by_hand() -> None:
    """Signs are the patient's: a drooping left corner is positive, a philtrum pulled to the right is negative."""
    p = drawn_face()
    p[54] += (0, 5)
    p[[53, 55]] += (0, 4)
    p[[33, 51]] += (-3, 0)
    p[22:27] += (0, 4)
    p[[46, 47]] += (0, 2)

    m = measure(p, MM)

    assert m.commissure_height_difference == pytest.approx(5)
    assert m.philtrum_deviation == pytest.approx(-3)
    np.testing.assert_allclose([23, 19], m.brow_height_S)
    np.testing.assert_allclose([10, 12], m.palpebral_fissure_S)
    np.testing.assert_allclose([np.hypot(25, 10), np.hypot(25, 5)], m.commissure_position_S)
    np.testing.assert_allclose([90 + np.degrees(np.arctan2(10, 25)), 90 + np.degrees(np.arctan2(5, 25))],
                               m.smile_angle_S)  # fmt: skip
    assert m.facial_asymmetry_index == pytest.approx(np.hypot(7, 65) - np.hypot(7, 60))
    # At x = 12.5 both lips lie on the segment between the moved point and its unmoved neighbour towards the midline.
    assert m.upper_lip_height_difference == pytest.approx(4 * 7.5 / 10)
    assert m.lower_lip_height_difference == pytest.approx(4 * 5.5 / 8)


def test_closing_eye_does_not_move_the_frame() -> None:
    """A frame from all six lid points would shift when one eye closes; the corners do not."""
    p = drawn_face()
    closed = p.copy()
    closed[[37, 38]] = closed[[41, 40]]

    m = measure(closed, MM)

    np.testing.assert_allclose([0, 10], m.palpebral_fissure_S)
    np.testing.assert_allclose(measure(p, MM).brow_height_S, m.brow_height_S)
    np.testing.assert_allclose(head_frame(p)[48:], head_frame(closed)[48:])


def test_crossed_lids_are_negative_and_closed_lips_not() -> None:
    """Lids that cross show as a negative gap; a mouth cannot be more than closed."""
    p = drawn_face()
    p[[37, 38]] += (0, 11)
    p[[65, 66, 67]] -= (0, 9)

    m = measure(p, MM)

    assert m.palpebral_fissure_S[0] == pytest.approx(-1)
    assert m.mouth_opening == 0
    np.testing.assert_array_equal([0, 0], m.interlabial_S)


@given(seed=st.integers(0, 2**32 - 1))
def test_mirroring_exchanges_left_and_right(seed: int) -> None:
    """Sides change places, signed measures change sign, the others stay."""
    p = uneven_face(seed)
    m, mirrored = values(measure(p, MM)), values(measure(mirror(p, width=112.0), MM))

    for name, value in m.items():
        expected = value[..., ::-1] if name.endswith("_S") else -value if name in SIGNED else value
        np.testing.assert_allclose(expected, mirrored[name], rtol=1e-9, atol=1e-9, err_msg=name)


def test_mirror_is_its_own_inverse_and_keeps_a_symmetric_face() -> None:
    """Mirroring is geometry and names, nothing else."""
    np.testing.assert_allclose(drawn_face(), mirror(drawn_face()), atol=1e-12)
    p = uneven_face(3)
    np.testing.assert_allclose(p, mirror(mirror(p, 64.0), 64.0), atol=1e-12)


@given(
    seed=st.integers(0, 2**32 - 1),
    angle=st.floats(-np.pi, np.pi),
    size=st.floats(0.05, 20),
    shift=st.tuples(st.floats(-500, 500), st.floats(-500, 500)),
)
def test_position_roll_and_image_size_cancel(seed: int, angle: float, size: float, shift: tuple[float, float]) -> None:
    """The same face elsewhere, rolled and in other pixels gives the same millimetres and angles."""
    p = uneven_face(seed)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    moved = size * p @ turn + shift

    expected, found = values(measure(p, MM)), values(measure(moved, Scale(1 / size, ScaleSource.MANUAL)))

    for name, value in expected.items():
        np.testing.assert_allclose(value, found[name], rtol=1e-7, atol=1e-7, err_msg=name)


def test_lengths_scale_and_ratios_do_not() -> None:
    """Lengths grow with the scale, areas with its square, ratios and angles not at all."""
    p = uneven_face(5)
    single, double = measure(p, MM), measure(p, Scale(2.0, ScaleSource.IRIS))

    for name in LENGTHS:
        np.testing.assert_allclose(2 * getattr(single, name), getattr(double, name), err_msg=name)
    np.testing.assert_allclose(4 * single.eye_area_S, double.eye_area_S)
    np.testing.assert_allclose(single.eye_aspect_ratio_S, double.eye_aspect_ratio_S)
    np.testing.assert_allclose(single.smile_angle_S, double.smile_angle_S)
    assert double.scale.source is ScaleSource.IRIS


def test_a_batch_is_its_faces() -> None:
    """A batch with a scale each gives what its faces give alone."""
    p = np.stack([uneven_face(i) for i in range(6)]).reshape(2, 3, 68, 2)
    mm = np.linspace(0.5, 1, 6).reshape(2, 3)

    batch = values(measure(p, Scale(mm, ScaleSource.IRIS)))

    for i in np.ndindex(2, 3):
        alone = values(measure(p[i], Scale(float(mm[i]), ScaleSource.IRIS)))
        for name, value in alone.items():
            np.testing.assert_allclose(value, batch[name][i], err_msg=name)


def test_missing_points_and_coinciding_eyes_are_nan_for_that_face_only() -> None:
    """One bad face does not spoil or stop a batch."""
    p = np.stack([drawn_face()] * 3)
    p[1, 54] = np.nan
    p[2, 36:48] = 0

    m = measure(p, MM)

    assert np.isfinite(m.commissure_position_S[0]).all()
    np.testing.assert_array_equal([True, False], np.isfinite(m.commissure_position_S[1]))
    assert np.isfinite(m.palpebral_fissure_S[1]).all()
    assert np.isnan(m.palpebral_fissure_S[2]).all()
    assert np.isnan(eye_distance(p)[2])


def test_scale_sources() -> None:
    """Each source converts as documented and stays attached."""
    p = drawn_face() * 0.5
    iris = Scale.from_iris(11.77 / 4)
    pupils = Scale.from_pupil_distance(p)
    eyes = Scale.from_eye_distance(p)

    assert iris.mm_per_unit == pytest.approx(2)
    assert pupils.mm_per_unit == pytest.approx(63 / 30)
    assert measure(p, eyes).mouth_width == pytest.approx(50 / 60)
    assert [s.source.value for s in (iris, pupils, eyes)] == ["iris", "pupil_distance", "eye_distance"]
    assert [s.unit for s in (iris, pupils, eyes)] == ["mm", "mm", "eye distances"]


@pytest.mark.parametrize("bad", [0.0, -1.0])
def test_impossible_scale_is_refused(bad: float) -> None:
    """The error names the value."""
    with pytest.raises(ValueError, match=f"mm_per_unit={bad}"):
        Scale(bad, ScaleSource.MANUAL)


@pytest.mark.parametrize("shape", [(68,), (67, 2), (68, 3), (2, 68)])
def test_wrong_shape_is_refused(shape: tuple[int, ...]) -> None:
    """The error names the expected shape."""
    with pytest.raises(ValueError, match=r"\[\.\.\., 68, 2\]"):
        measure(np.zeros(shape), MM)


def test_asymmetry_index() -> None:
    """0 is symmetric, 1 one-sided, 0 / 0 undefined."""
    np.testing.assert_allclose([0, 1, 0.5], asymmetry_index(np.array([[2.0, 2.0], [0.0, 3.0], [1.0, 3.0]])))
    assert np.isnan(asymmetry_index(np.array([0.0, 0.0])))
