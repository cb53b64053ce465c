"""Words and numbers as a clinician reads them."""

from __future__ import annotations

import pytest

from ccfexp.evaluation.report_text import (
    bytes_text,
    duration_text,
    grade_text,
    movement_text,
    number_text,
    side_text,
)


@pytest.mark.parametrize(
    ("value", "signed", "expected"),
    [(0.876, False, "0.88"), (-0.5, False, "−0.50"), (0.5, True, "+0.50"), (-0.001, True, "0.00"),
     (float("nan"), False, "–"), (float("inf"), False, "∞"), (float("-inf"), False, "−∞")],
)  # fmt: skip
def test_numbers(value: float, signed: bool, expected: str) -> None:
    """A zero has no sign, a missing value is a dash."""
    assert number_text(value, 2, signed=signed) == expected


def test_labels() -> None:
    """Grades in Roman numerals, movements and sides in words, unknown ones still readable."""
    assert [grade_text(g) for g in (1, 4, 6, 0, 7)] == ["I", "IV", "VI", "ungraded", "ungraded"]
    assert movement_text("smile_teeth") == "Smile, showing teeth"
    assert movement_text("nose_wrinkle") == "Nose wrinkle"
    assert side_text("left") == "left palsy"
    assert side_text("none") == "no palsy"


def test_durations_and_bytes() -> None:
    """Units change where a person would change them."""
    assert [duration_text(s) for s in (47.6, 60, 527.4, 3840)] == ["48 s", "1 min 0 s", "8 min 47 s", "1 h 4 min"]
    assert [bytes_text(b) for b in (812, 34_120, 1_240_000, 2_500_000_000)] == [
        "812 B",
        "34.1 kB",
        "1.24 MB",
        "2.50 GB",
    ]
