"""What the page about a preparation says in words: hints, sources, cautions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ccfexp.data.rows import LandmarkSource, Movement, Side, Split
from ccfexp.evaluation import quality
from ccfexp.evaluation.measures import IRIS_DIAMETER_MM, PUPIL_DISTANCE_MM, ScaleSource
from ccfexp.evaluation.quality import Flag

if TYPE_CHECKING:
    from client.prepare.report import PreparationReport

FLAGS: dict[Flag, tuple[str, str]] = {
    Flag.BLURRED: ("blurred", f"edges of the face are soft: sharpness below {quality.MIN_SHARPNESS}"),
    Flag.DARK: ("dark", "the brightest parts of the face are dim, or much of it is black"),
    Flag.BRIGHT: ("bright", f"more than {quality.MAX_BRIGHT:.0%} of the face is clipped to white"),
    Flag.SMALL: ("small", f"the face was enlarged more than {quality.MAX_ENLARGEMENT:g} times"),
    Flag.TURNED: ("turned", f"turned or nodded by more than {quality.MAX_TURN_DEG:g}\u00b0"),
    Flag.TILTED: ("tilted", f"tilted to a shoulder by more than {quality.MAX_TILT_DEG:g}\u00b0; it was turned upright"),
    Flag.OCCLUDED_EYES: ("eyes hidden?", "a bar over the eyes, or an eye without the edges that eyes have"),
    Flag.OCCLUDED_MOUTH: ("mouth hidden?", "a mask, or a mouth without the edges that mouths have"),
    Flag.OCCLUDED_FACE: ("face hidden?", "nose or cheeks are partly of another colour than this person\u2019s skin"),
    Flag.OUTSIDE: ("cut off", f"more than {quality.MAX_OUTSIDE:.0%} of the picture lies outside the photograph"),
    Flag.SYMMETRISED: ("too alike?", "the points are more alike on both sides than the grade lets expect"),
    Flag.UNSURE: ("unsure", "the detector was not sure of the face or of the points"),
}
"""Label and meaning of every hint."""

SOURCES: dict[LandmarkSource, str] = {
    LandmarkSource.DETECTOR: "detector",
    LandmarkSource.MANUAL: "set by hand",
    LandmarkSource.IMPORTED: "came along",
    LandmarkSource.PHANTOM: "phantom",
}

SCALES: dict[ScaleSource, tuple[str, str]] = {
    ScaleSource.PHANTOM: ("exact", "millimetres, known exactly"),
    ScaleSource.MANUAL: ("given", "millimetres, by the scale that the hospital has written down"),
    ScaleSource.IRIS: ("iris", f"millimetres, if the iris is {IRIS_DIAMETER_MM:g} mm wide (uncertain by about 4 %)"),
    ScaleSource.PUPIL_DISTANCE: (
        "assumed",
        f"millimetres, if the eyes are {PUPIL_DISTANCE_MM:g} mm apart, the adult mean: as wrong as the person is not",
    ),
    ScaleSource.EYE_DISTANCE: ("none", "fractions of the distance between the eyes, no millimetres"),
}
"""Short label and meaning of every scale."""


@dataclass(frozen=True)
class Caution:
    """A sentence that the reader should not miss: what is so, and what to do."""

    what: str
    remedy: str


def cautions(report: PreparationReport) -> list[Caution]:
    """What a reader should not miss, the gravest first."""
    taken = report.photographs
    found: list[Caution] = []
    leaks = sum(pair.across for pair in report.duplicates)
    if leaks:
        found.append(
            Caution(
                f"{_number(leaks, 'photograph')} probably stand{'s' if leaks == 1 else ''} under two patients.",
                "One person may have two numbers, or a photograph is misfiled. A face could then be trained on and "
                "judged on. Correct the source and prepare again.",
            )
        )
    drawn = [
        photo for photo in taken
        if photo.landmark_source is LandmarkSource.DETECTOR and photo.side is not Side.NONE and photo.grade != 1
    ]  # fmt: skip
    if drawn:
        found.append(
            Caution(
                f"The points of {_number(len(drawn), 'palsied face')} are a detector\u2019s. Detectors have seen few "
                "palsies and tend to draw the weak side like the healthy one.",
                "Look at them and correct them by hand. Until then their measures and asymmetry may be too even.",
            )
        )
    if taken and not any(photo.split is Split.HOLDOUT for photo in taken):
        found.append(Caution("No patient is held out.", "Nothing can be judged on people of this hospital."))
    without = {photo.subject for photo in taken} - {photo.subject for photo in taken if photo.movement is Movement.REST}
    if without:
        found.append(
            Caution(
                f"{_number(len(without), 'patient')} {'has' if len(without) == 1 else 'have'} no photograph at rest.",
                "Another of their photographs shows who they are.",
            )
        )
    return found


def _number(count: int, noun: str) -> str:
    """A count with its noun."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
