"""A face drawn on paper, whose measures can be computed by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ccfexp.evaluation.measures import Scale, ScaleSource

if TYPE_CHECKING:
    from ccfexp.evaluation.measures import Array

MM = Scale(1.0, ScaleSource.PHANTOM)


def drawn_face() -> Array:
    """A symmetric face on paper, in millimetres: eyes at (+-30, 0), 24 wide and 10 open, mouth 50 wide at y = 60."""
    p = np.zeros((68, 2))
    p[:17] = [(x, 90 - x * x / 80) for x in np.linspace(-70, 70, 17)]
    p[17:22] = [(-50, -20), (-42, -24), (-34, -26), (-26, -25), (-18, -20)]
    p[27:31] = [(0, y) for y in (0, 10, 20, 30)]
    p[31:36] = [(-10, 38), (-5, 39), (0, 40), (5, 39), (10, 38)]
    p[36:42] = [(-42, 0), (-34, -5), (-26, -5), (-18, 0), (-26, 5), (-34, 5)]
    p[48:55] = [(-25, 60), (-15, 56), (-5, 54), (0, 55), (5, 54), (15, 56), (25, 60)]
    p[55:60] = [(15, 66), (7, 69), (0, 70), (-7, 69), (-15, 66)]
    p[60:65] = [(-22, 60), (-8, 58), (0, 58), (8, 58), (22, 60)]
    p[65:68] = [(8, 62), (0, 62), (-8, 62)]
    p[22:27] = p[21:16:-1] * (-1, 1)
    p[42:48] = p[[39, 38, 37, 36, 41, 40]] * (-1, 1)
    return p
