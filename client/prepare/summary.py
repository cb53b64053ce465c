"""The page about a preparation, out of the record of what is prepared."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ccfexp.data.duplicates import PRINT_SIZE, near_duplicates
from ccfexp.data.files import decode_landmarks
from ccfexp.evaluation.quality import Flag, asymmetry
from client.prepare.clinical import clinical_measures
from client.prepare.portrait import scale_of
from client.prepare.report import Duplicate, PreparationReport, PreparedPhotograph, write_report

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from ccfexp.data.rows import LandmarkSource, Row
    from client.prepare.place import Place
    from client.prepare.preparation import Outcome
    from client.prepare.settings import PrepareFile
    from client.prepare.store import Item
    from client.prepare.verify import Verdict

_OF_POINTS = (Flag.SYMMETRISED, Flag.UNSURE)  # what these say is settled once a person has placed the points


def write_preparation_report(
    place: Place, site: str, settings: PrepareFile, outcome: Outcome, verdict: Verdict, items: Mapping[str, Item],
    made: datetime,
) -> None:  # fmt: skip
    """Write the report of a preparation.

    Args:
        place: where it lies.
        site: its name.
        settings: the hospital's.
        outcome: of the preparation.
        verdict: on the manifest.
        items: all that is prepared, by mark.
        made: when.

    Raises:
        OSError: the disk refuses; the page before stays.
    """
    of_path = {item.image_path: item for item in items.values()}
    rows = [(row, of_path[row.path]) for row in outcome.rows]
    write_report(
        place.report,
        PreparationReport(
            site=site,
            made=made.astimezone().strftime("%Y-%m-%d %H:%M"),
            offered=outcome.offered,
            image_size=rows[0][1].image_size if rows else 0,
            photographs=tuple(_photograph(place, row, item) for row, item in rows),
            refusals=outcome.refusals,
            duplicates=tuple(_duplicates([item for _, item in rows])),
            settings={
                "faces found by": "landmarks that come along"
                if settings.faces.detector == "supplied"
                else "insightface",
                "points found by": "nobody" if settings.faces.landmarks == "supplied" else "FAN",
                "share held out": f"{settings.holdout:g}",
                "seed": str(settings.seed),
            },
            notes=verdict.warnings,
        ),
    )


def flags_of(figures: Mapping[str, object], source: LandmarkSource) -> tuple[Flag, ...]:
    """Hints of a photograph, without those that a correction by hand has settled."""
    quality = figures["quality"]
    assert isinstance(quality, dict)
    flags = tuple(Flag(name) for name in quality["flags"])
    return tuple(flag for flag in flags if flag not in _OF_POINTS) if source == "manual" else flags


def _photograph(place: Place, row: Row, item: Item) -> PreparedPhotograph:
    # Read anew, because a person may have corrected them since they were measured.
    point_682 = decode_landmarks((place.data / row.landmarks).read_bytes())
    return PreparedPhotograph(
        number=item.number,
        subject=row.subject_id,
        movement=row.movement,
        side=row.side,
        grade=row.grade,
        split=row.split,
        landmark_source=row.landmark_source,
        image=place.data / row.path,
        flags=flags_of(item.figures, row.landmark_source),
        score=item.figures["score"],
        asymmetry=asymmetry(point_682),
        measures=clinical_measures(point_682, scale_of(item.figures, point_682)),
    )


def _duplicates(items: Sequence[Item]) -> list[Duplicate]:
    """Pairs that are probably one photograph, although their files differ."""
    if not items:
        return []
    print_N3232 = np.stack([np.frombuffer(item.crop, np.uint8).reshape(PRINT_SIZE, PRINT_SIZE) for item in items])
    pairs = near_duplicates([int(item.figures["fingerprint"]) for item in items], print_N3232)
    return [
        Duplicate(
            items[pair.a].number, items[pair.b].number, items[pair.a].subject, items[pair.b].subject, pair.distance
        )
        for pair in pairs
    ]
