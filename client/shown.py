"""Texts of others and figures of privacy, made fit for a terminal."""

from __future__ import annotations

import math


def printable(text: str) -> str:
    """The text with every sign that is not printed (control codes, directions of writing) written out; tabs stay."""
    return "".join(
        sign if sign.isprintable() or sign in "\n\t" else sign.encode("unicode_escape").decode() for sign in text
    )


def rounded_up(value: float) -> str:
    """A cost to a thousandth, never less than it is."""
    return f"{math.ceil(value * 1000) / 1000:.12g}" if math.isfinite(value) else "beyond any figure"
