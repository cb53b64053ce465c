"""Inline charts: round ticks, true positions, gaps where there is no value."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccfexp.evaluation._charts import interval_chart, line_chart, ticks
from ccfexp.evaluation.bootstrap import Interval


@given(low=st.floats(-1e6, 1e6), span=st.floats(1e-3, 1e6), count=st.integers(2, 8))
def test_ticks_enclose_the_values_and_are_few(low: float, span: float, count: int) -> None:
    """Never a value outside the axis, never an unreadable crowd of ticks."""
    marks = ticks(low, low + span, count)
    step = marks[1] - marks[0]

    assert marks[0] <= low + 1e-6 * step
    assert marks[-1] >= low + span - 1e-6 * step
    assert 2 <= len(marks) <= count + 3  # both ends may lie just inside a step


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.25, 0.5, 0.75, 1]), (0.3, 0.82, [0.2, 0.4, 0.6, 0.8, 1.0]), (5, 5, [4.5, 4.75, 5.0, 5.25, 5.5])],
)
def test_ticks_by_hand(low: float, high: float, expected: list[float]) -> None:
    """Round numbers; a constant gets room on both sides."""
    np.testing.assert_allclose(expected, ticks(low, high, 4))


def points(svg: str) -> list[list[tuple[float, float]]]:
    """The corner points of every curve in the picture."""
    return [
        [(float(x), float(y)) for x, y in (p.split(",") for p in found.split())]
        for found in re.findall(r'points="([^"]*)"', svg)
    ]


def test_line_chart_puts_values_where_the_axis_says() -> None:
    """Equal steps in the data are equal steps in the picture, up is more."""
    (curve,) = points(str(line_chart([("a", (0, 1, 2), (0.0, 0.5, 1.0))], title="t", x_label="x", y_label="y")))

    (x0, y0), (x1, y1), (x2, y2) = curve
    assert x1 - x0 == pytest.approx(x2 - x1)
    assert y0 - y1 == pytest.approx(y1 - y2)
    assert y0 > y2


def test_line_chart_breaks_at_missing_values() -> None:
    """No line is drawn across a value that does not exist."""
    nan = float("nan")
    svg = line_chart([("a", range(5), (0.0, 1.0, nan, 1.0, 0.0)), ("b", (), ())], title="t", x_label="x", y_label="y")

    assert [len(p) for p in points(str(svg))] == [2, 2]


def test_line_chart_of_nothing_is_empty_axes() -> None:
    """A run stopped before its first round still has a page."""
    assert points(str(line_chart([], title="t", x_label="x", y_label="y"))) == []


def test_interval_chart_shows_estimates_and_whiskers() -> None:
    """Infinite values (the PSNR of the target with itself) have no place on an axis; missing intervals no whisker."""
    nan, inf = float("nan"), float("inf")
    rows = [
        ("federated", Interval(0.8, 0.7, 0.9, 0.95, 10, 100)),
        ("base", Interval(0.4, nan, nan, 0.95, 1, 0)),
        ("true target", Interval(inf, nan, nan, 0.95, 10, 100)),
    ]

    svg = str(interval_chart(rows, title="Side accuracy by model"))

    assert svg.count("<circle") == 2
    assert svg.count("whisker") == 1
    assert "true target" not in svg
    assert 'aria-label="Side accuracy by model"' in svg
    assert interval_chart(rows[2:], title="t") == ""
