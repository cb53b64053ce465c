"""Texts of others, made fit for a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    """The text with every sign that is not printed (control codes, directions of writing) written out; tabs stay."""
    return "".join(
        sign if sign.isprintable() or sign in "\n\t" else sign.encode("unicode_escape").decode() for sign in text
    )
