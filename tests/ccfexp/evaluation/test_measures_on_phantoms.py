"""The clinical measures of the phantom population, by House-Brackmann grade.

The expected table was measured once on another implementation of the same head (40 people, left palsy, frontal, mm);
the measures here must reproduce it, which ties the phantom's palsy and the measures to each other.
"""

from __future__ import annotations

import numpy as np
import pytest

from ccfexp.data.phantom.expression import Palsy
from ccfexp.data.phantom.render import Phantom
from ccfexp.evaluation.measures import Array, FaceMeasures, Scale, ScaleSource, asymmetry_index, measure
from ccfexp.evaluation.movement_measures import (
    affected_minus_healthy,
    brow_raise_ratio,
    eye_closure_fraction,
    smile_excursion_ratio,
)

PEOPLE, GRADES = 40, (1, 2, 3, 4, 5, 6)
LEFT = 1
MM = Scale(1.0, ScaleSource.PHANTOM)

#                          grade  I      II     III    IV     V      VI
TABLE = {
    "rest brow difference":      (0.0,   0.0,   0.3,   1.6,   3.9,   5.5),
    "rest commissure drop":      (0.0,   0.0,   0.2,   1.0,   3.2,   5.2),
    "gentle closure":            (0.99,  0.92,  0.80,  0.49,  0.18,  0.0),
    "tight closure":             (1.0,   1.0,   1.0,   0.64,  0.24,  0.0),
    "brow raise ratio":          (1.0,   0.80,  0.36,  0.0,   0.0,   0.0),
    "smile excursion ratio":     (1.0,   0.72,  0.41,  0.16,  0.0,  -0.1),
    "smile commissure drop":     (0.0,   2.2,   5.3,   8.7,  13.5,  16.6),
}  # fmt: skip
# Beside 10 %: the people differ from those of the table, whose healthy asymmetry alone spreads these means by as much
# (1.05 mm at rest and 1.5 mm smiling per person, over the root of 40), and the table is rounded to its last digit.
ABSOLUTE = {
    "rest brow difference": 0.15,
    "rest commissure drop": 0.25,
    "gentle closure": 0.02,
    "tight closure": 0.02,
    "brow raise ratio": 0.06,
    "smile excursion ratio": 0.06,
    "smile commissure drop": 0.25,
}


@pytest.fixture(scope="module")
def by_grade() -> dict[str, list[float]]:
    """Mean of every measure over the people, grade by grade."""
    phantom = Phantom()
    people = [phantom.identity(seed) for seed in range(PEOPLE)]
    found: dict[str, list[float]] = {name: [] for name in TABLE}
    for grade in GRADES:
        palsy = Palsy.of_grade(grade, "left")

        def faces(movement: str, palsy: Palsy = palsy) -> FaceMeasures:
            return measure(np.stack([phantom.frontal_landmarks_mm(p, movement, palsy) for p in people]), MM)

        for name, value in _measures(faces("rest"), {m: faces(m) for m in _MOVEMENTS}).items():
            found[name].append(float(value.mean()))
    return found


_MOVEMENTS = ("gentle_eye_closure", "tight_eye_closure", "brow_raise", "smile_teeth")


def _measures(rest: FaceMeasures, moved: dict[str, FaceMeasures]) -> dict[str, Array]:
    smile = moved["smile_teeth"]
    return {
        "rest brow difference": -affected_minus_healthy(rest.brow_height_S, "left"),
        "rest commissure drop": rest.commissure_height_difference,
        "gentle closure": eye_closure_fraction(rest, moved["gentle_eye_closure"])[:, LEFT],
        "tight closure": eye_closure_fraction(rest, moved["tight_eye_closure"])[:, LEFT],
        "brow raise ratio": brow_raise_ratio(rest, moved["brow_raise"], "left").value,
        "smile excursion ratio": smile_excursion_ratio(rest, smile, "left").value,
        "smile commissure drop": smile.commissure_height_difference,
    }


@pytest.mark.parametrize("name", TABLE)
def test_table_is_reproduced(name: str, by_grade: dict[str, list[float]]) -> None:
    """Every mean within 10 % of the table, and within what its people and its rounding leave open."""
    np.testing.assert_allclose(by_grade[name], TABLE[name], rtol=0.10, atol=ABSOLUTE[name])


@pytest.mark.parametrize("name", TABLE)
def test_measures_are_monotone_in_grade(name: str, by_grade: dict[str, list[float]]) -> None:
    """A worse palsy never measures better, within a tenth of a millimetre or a hundredth of a ratio."""
    steps = np.diff(by_grade[name]) * np.sign(TABLE[name][-1] - TABLE[name][0])

    assert (steps > (-0.1 if "drop" in name or "difference" in name else -0.01)).all(), by_grade[name]


def test_healthy_phantoms_are_not_symmetric() -> None:
    """Real healthy faces are not; a measure that called them so would be blind, a phantom that were so a cheat."""
    phantom = Phantom()
    rest = measure(
        np.stack([phantom.frontal_landmarks_mm(phantom.identity(s), "rest", Palsy()) for s in range(PEOPLE)]), MM
    )

    assert 0.5 < np.abs(rest.commissure_height_difference).mean() < 1.8
    assert 0 < asymmetry_index(rest.brow_height_S).mean() < 0.1
