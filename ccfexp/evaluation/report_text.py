"""Words and numbers of the report as a clinician reads them."""

from __future__ import annotations

import math

_ROMAN = ("I", "II", "III", "IV", "V", "VI")
_MOVEMENTS = {
    "rest": "At rest",
    "brow_raise": "Brow raise",
    "gentle_eye_closure": "Gentle eye closure",
    "tight_eye_closure": "Tight eye closure",
    "smile_closed": "Smile, lips closed",
    "smile_teeth": "Smile, showing teeth",
    "lip_pucker": "Lip pucker",
    "lower_teeth": "Lower teeth",
    "cheek_puff": "Cheek puff",
}
_SIDES = {"left": "left palsy", "right": "right palsy", "none": "no palsy", "bilateral": "palsy of both sides"}


def number_text(value: float, digits: int = 2, *, signed: bool = False) -> str:
    """Digits with a true minus sign; an en dash where there is no value, the sign of infinity where it is infinite."""
    if math.isnan(value):
        return "\u2013"
    if math.isinf(value):
        return "\u221e" if value > 0 else "\u2212\u221e"
    text = f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.replace("-", "").replace("+", "")
    return text.replace("-", "\u2212")


def grade_text(grade: int) -> str:
    """House-Brackmann grade 1 to 6 as I to VI; "ungraded" for anything else."""
    return _ROMAN[grade - 1] if 1 <= grade <= len(_ROMAN) else "ungraded"


def movement_text(movement: str) -> str:
    """A movement's name in words."""
    return _MOVEMENTS.get(movement, movement.replace("_", " ").capitalize())


def side_text(side: str) -> str:
    """A side label in words; the side is the patient's."""
    return _SIDES.get(side, side)


def duration_text(seconds: float) -> str:
    """Seconds as "48 s", "12 min 5 s" or "1 h 4 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def bytes_text(count: int) -> str:
    """Bytes in decimal units: "812 B", "34.1 kB", "1.24 MB"."""
    if count < 1000:
        return f"{count} B"
    if count < 1_000_000:
        return f"{count / 1e3:.1f} kB"
    if count < 1_000_000_000:
        return f"{count / 1e6:.2f} MB"
    return f"{count / 1e9:.2f} GB"
