"""The names of movements: ours, the field's, and the hospital's own."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

from ccfexp.data.rows import Movement
from ccfexp.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping

# What each movement is called elsewhere. Spaces, hyphens, underscores, other punctuation and capitals do not count, so
# that CloseEyeSoftly and close_eye softly are one name. Sources: the photographs of Emotrics-Plus (Big_Smile, ooooo,
# eeeek), the eleven actions of a clinic's video protocol (NeutralFace, ShrugNose, BlowCheek), the items of the
# Sunnybrook, eFACE and Yanagihara scales.
_SYNONYMS = {
    Movement.REST: "resting, at rest, neutral, neutral face, neutral expression, repose, relaxed",
    Movement.BROW_RAISE: "raise brow, raise brows, raised brows, raise eyebrow, raise eyebrows, raised eyebrows, "
    "eyebrow raise, eyebrows raise, brow elevation, eyebrow elevation, brow lift, forehead wrinkle, wrinkle forehead, "
    "wrinkle the forehead",
    Movement.GENTLE_EYE_CLOSURE: "gentle eyes closure, gently close eyes, gentle closure, close eye gently, "
    "close eyes gently, close eye softly, close eyes softly, eyes closed gently, eyes closed softly, soft eye closure, "
    "light eye closure",
    Movement.TIGHT_EYE_CLOSURE: "tight eyes closure, tight closure, tightly close eyes, close eye hardly, "
    "close eyes hardly, close eye hard, close eyes hard, close eye tightly, close eyes tightly, eyes closed tightly, "
    "forced eye closure, forceful eye closure, full eye closure, squeeze eyes",
    Movement.SMILE_CLOSED: "closed smile, close smile, closed mouth smile, smile closed mouth, smile mouth closed, "
    "light smile, small smile, gentle smile, slight smile, smile without teeth",
    # "Show me your teeth" is how examiners ask for a full smile; only "lower teeth" is the movement of the lower lip.
    Movement.SMILE_TEETH: "big smile, full smile, wide smile, broad smile, open smile, open mouth smile, "
    "smile open mouth, smile mouth open, smile with teeth, smile showing teeth, teeth smile, show teeth, "
    "show the teeth, showing teeth, grin",
    Movement.SNARL: "nose wrinkle, nose wrinkling, wrinkle nose, wrinkle the nose, shrug nose, scrunch nose, "
    "nose scrunch, nasal snarl",
    # A pout pushes the lips forward with the same muscle as a whistle; the field's protocols do not tell them apart.
    Movement.LIP_PUCKER: "pucker, pucker lips, lips pucker, lip puckering, whistle, whistling, pout, pouting, kiss, "
    "purse lips, pursed lips",
    Movement.LOWER_TEETH: "bottom teeth, show lower teeth, show bottom teeth, lower lip depression, depress lower lip, "
    "lower lip depressor",
    Movement.CHEEK_PUFF: "puff cheek, puff cheeks, puffed cheeks, cheeks puff, cheek puffing, blow cheek, blow cheeks, "
    "cheek blow, cheek blowing, inflate cheeks, puff out cheeks",
    Movement.FROWN: "frowning, brow furrow, furrow brow, furrowed brow, knit brows",
    Movement.BLINK: "blinking, eye blink, spontaneous blink, spontaneous eye blink, voluntary blink, "
    "voluntary eye blink",
}

# Names that mean one movement in one clinic and another in the next. They are not decided here.
_AMBIGUOUS = {
    # Sunnybrook's and eFACE's smile shows the teeth; where "show teeth" is an action of its own it does not.
    "smile, smiling": (Movement.SMILE_CLOSED, Movement.SMILE_TEETH),
    "eye closure, eyes closure, eyes closed, close eye, close eyes, closed eyes, eye closed": (
        Movement.GENTLE_EYE_CLOSURE,
        Movement.TIGHT_EYE_CLOSURE,
    ),
    "teeth": (Movement.SMILE_TEETH, Movement.LOWER_TEETH),
}

_ONE_SIDED = "is a movement of one side alone, which is none of the movements; leave the photograph out"
_NOT_OURS = {
    **{
        f"{side} {part}": _ONE_SIDED
        for side in ("left", "right")
        for part in ("smile", "snarl", "wink", "eyebrow", "brow", "brow raise", "eye closure")
    },
    "wink": _ONE_SIDED,
    "speaking": "shows speech, no movement that was asked for; write under words what speaking counts as, or leave the "
    "photographs out",
}

_LONGEST = 100  # signs of a name; a longer text is no movement and would only cost time


def _key(text: str) -> str:
    """Fold a name: capitals, spaces and punctuation do not count."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return "".join(sign for sign in folded if unicodedata.category(sign)[0] not in "ZPC")


def _table() -> dict[str, Movement]:
    """Every name that means one movement, folded."""
    table = {_key(movement): movement for movement in Movement}
    for movement, names in _SYNONYMS.items():
        table.update({_key(name): movement for name in names.split(",")})
    return table


_NAMES = _table()
_REASONS = {_key(name): reason for name, reason in _NOT_OURS.items()} | {
    _key(name): f"can mean {first} or {second}; write one of them, or say under words which is meant"
    for names, (first, second) in _AMBIGUOUS.items()
    for name in names.split(",")
}


def _own_names(words: Mapping[str, str]) -> dict[str, str]:
    """The hospital's names, folded."""
    own: dict[str, str] = {}
    for word, meaning in words.items():
        if own.setdefault(_key(word), meaning) != meaning:
            raise ConfigError(
                "words: two names that differ in capitals, spaces or punctuation alone mean different movements; "
                "keep one of them"
            )
    return own


def read_movement(text: str, words: Mapping[str, str]) -> Movement:
    """Read what a movement is called.

    Args:
        text: the name, as it is written in a table, a folder or a DICOM attribute.
        words: the hospital's own names, each with one of `Movement`; they come before every other name.

    Raises:
        ValueError: the reason why it is no movement; it starts with a verb and never repeats the text.
        ConfigError: two of the hospital's own names differ in capitals or punctuation alone, but not in meaning.
    """
    own = _own_names(words)
    if len(text) > _LONGEST:
        raise ValueError(f"is longer than {_LONGEST} signs; it cannot be the name of a movement")
    key = _key(text)
    if not key:
        raise ValueError("is empty; write what the face was asked to do")
    if key in own:
        return Movement(own[key])
    if key in _NAMES:
        return _NAMES[key]
    if key in _REASONS:
        raise ValueError(_REASONS[key])
    # The sounds that Emotrics-Plus asks for, however long: "ooo" puckers the lips, "eee" shows the lower teeth.
    if re.fullmatch(r"o{2,}h?", key):
        return Movement.LIP_PUCKER
    if re.fullmatch(r"e{2,}k?", key):
        return Movement.LOWER_TEETH
    known = ", ".join(Movement)
    hint = did_you_mean(re.sub(r"[\s-]+", "_", text.strip().casefold()), Movement)
    raise ValueError(f"is not a known movement.{hint} Known: {known}; the hospital's own names go under words")
