"""Charts as inline SVG that follow the page's colours, so that they work in light, dark and print without a file.

Every curve differs in dash as well as colour.  Text is set in SVG text elements, so it can be searched and read aloud.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup, escape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ccfexp.evaluation.bootstrap import Interval

STYLES = 6  # classes s0 to s5 in the template: colour and dash of a curve
_WIDTH, _HEIGHT = 460, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 12, 40


def line_chart(
    curves: Sequence[tuple[str, Sequence[float], Sequence[float]]], *, title: str, x_label: str, y_label: str
) -> Markup:
    """Curves (name, x, y) over one pair of axes; points that are not finite break their curve."""
    xs = _finite([v for _, x, _ in curves for v in x])
    ys = _finite([v for _, _, y in curves for v in y])
    x_ticks, y_ticks = ticks(min(xs), max(xs), 6), ticks(min(ys), max(ys), 5)
    x_of = _Axis(min(xs), max(xs), _LEFT, _WIDTH - _RIGHT)
    y_of = _Axis(y_ticks[0], y_ticks[-1], _HEIGHT - _BOTTOM, _TOP)
    parts = [_y_grid(y_ticks, y_of, y_label)]
    parts += [
        Markup('<text class="tick" text-anchor="middle" x="{:.1f}" y="{}">{}</text>').format(
            x_of(t), _HEIGHT - _BOTTOM + 16, _number(t, x_ticks)
        )
        for t in x_ticks
        if min(xs) <= t <= max(xs)
    ]
    parts.append(
        Markup('<text class="axis" text-anchor="middle" x="{}" y="{}">{}</text>').format(
            (_LEFT + _WIDTH - _RIGHT) // 2, _HEIGHT - 6, x_label
        )
    )
    for index, (name, x, y) in enumerate(curves):
        for piece in _pieces(x, y):
            points = " ".join(f"{x_of(a):.1f},{y_of(b):.1f}" for a, b in piece)
            parts.append(
                Markup('<polyline class="curve s{}" points="{}"><title>{}</title></polyline>').format(
                    index % STYLES, points, name
                )
            )
    return _svg(parts, title, _WIDTH, _HEIGHT)


def interval_chart(rows: Sequence[tuple[str, Interval]], *, title: str) -> Markup:
    """One line a model: a dot at the estimate, a whisker over the interval.  Infinite ones are left out."""
    shown = [(name, v) for name, v in rows if np.isfinite(v.estimate)]
    values = [n for _, v in shown for n in (v.estimate, v.low, v.high) if np.isfinite(n)]
    if not values:
        return Markup("")
    marks = ticks(min(values), max(values), 4)
    left, right, line = 92, 14, 24
    width, height = 420, line * len(shown) + 30
    x_of = _Axis(marks[0], marks[-1], left, width - right)
    parts = [
        Markup(
            '<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="4" y2="{y}"/>'
            '<text class="tick" text-anchor="middle" x="{x:.1f}" y="{t}">{n}</text>'
        ).format(x=x_of(m), y=height - 24, t=height - 8, n=_number(m, marks))
        for m in marks
    ]
    for index, (name, v) in enumerate(shown):
        y = 4 + line * (index + 0.5)
        kind = "main" if index == 0 else "other"
        if np.isfinite(v.low):
            parts.append(
                Markup('<line class="whisker {}" x1="{:.1f}" x2="{:.1f}" y1="{y}" y2="{y}"/>').format(
                    kind, x_of(v.low), x_of(v.high), y=y
                )
            )
        parts.append(Markup('<circle class="dot {}" cx="{:.1f}" cy="{}" r="4.5"/>').format(kind, x_of(v.estimate), y))
        parts.append(Markup('<text class="row {}" x="0" y="{}">{}</text>').format(kind, y + 4, name))
    return _svg(parts, title, width, height)


def ticks(low: float, high: float, count: int) -> list[float]:
    """About ``count`` round numbers (1, 2, 2.5 or 5 times a power of ten) whose range encloses [low, high]."""
    if high <= low:
        half = abs(low) / 10 or 1.0
        low, high = low - half, high + half
    rough = (high - low) / count
    power = 10.0 ** np.floor(np.log10(rough))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough * 0.999)
    first, last = int(np.floor(low / step + 1e-9)), int(np.ceil(high / step - 1e-9))
    return [float(i * step) for i in range(first, last + 1)]


def _svg(parts: list[Markup], title: str, width: int, height: int) -> Markup:
    head = Markup('<svg role="img" viewBox="0 0 {} {}" aria-label="{}">').format(width, height, escape(title))
    return head + Markup("").join(parts) + Markup("</svg>")


def _y_grid(marks: list[float], y_of: _Axis, label: str) -> Markup:
    lines = Markup("").join(
        Markup(
            '<line class="grid" x1="{l}" x2="{r}" y1="{y:.1f}" y2="{y:.1f}"/>'
            '<text class="tick" text-anchor="end" x="{t}" y="{b:.1f}">{n}</text>'
        ).format(l=_LEFT, r=_WIDTH - _RIGHT, y=y_of(m), t=_LEFT - 6, b=y_of(m) + 4, n=_number(m, marks))
        for m in marks
    )
    middle = (_TOP + _HEIGHT - _BOTTOM) // 2
    return lines + Markup(
        '<text class="axis" text-anchor="middle" transform="translate(12 {}) rotate(-90)">{}</text>'
    ).format(middle, label)


class _Axis:
    """A linear map from values to picture units."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        self.low, self.start = low, start
        self.per_unit = (end - start) / (high - low) if high > low else 0.0

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) * self.per_unit


def _finite(values: Sequence[float]) -> list[float]:
    return [float(v) for v in values if np.isfinite(v)] or [0.0, 1.0]


def _pieces(x: Sequence[float], y: Sequence[float]) -> list[list[tuple[float, float]]]:
    pieces: list[list[tuple[float, float]]] = [[]]
    for a, b in zip(x, y, strict=True):
        if np.isfinite(a) and np.isfinite(b):
            pieces[-1].append((a, b))
        elif pieces[-1]:
            pieces.append([])
    return [p for p in pieces if p]


def _number(value: float, marks: Sequence[float]) -> str:
    step = abs(marks[1] - marks[0]) if len(marks) > 1 else 1.0
    digits = max(0, int(np.ceil(-np.log10(step) - 1e-9)))
    if round(step, digits) != round(step, digits + 1):  # a step of 2.5 x 10^n
        digits += 1
    return f"{value:.{digits}f}"
