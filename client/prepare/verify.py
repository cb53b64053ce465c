"""Is the data set what it should be? Every file's hash, consents, splits, sizes, and nothing beside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ccfexp.data.manifest import ended_consents, read_manifest
from ccfexp.data.rows import LandmarkSource, Row, Side, Split
from ccfexp.errors import ManifestError
from client.prepare import publish

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import date

    from client.prepare.place import Place

_PALSIED = 3  # House-Brackmann grade from which on a detector's symmetry is seen


@dataclass(frozen=True)
class Verdict:
    """What was found.

    Attributes:
        problems: each with its row; none if the data set is what it should be.
        warnings: what a person should look at.
        rows: of the manifest.
    """

    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    rows: tuple[Row, ...]

    @property
    def summary(self) -> str:
        """One line."""
        train, held = ({row.subject_id for row in self.rows if row.split is split} for split in Split)
        return f"{len(self.rows)} photographs of {len(train)} patients to train on and {len(held)} held out"


def verify(
    place: Place, image_size: int, today: date, barred: Collection[str] = (), kept: Collection[str] = ()
) -> Verdict:
    """Check the manifest, all files that it names, and all that lie beside them; changes nothing.

    Args:
        place: of the site.
        image_size: side of the photographs in pixels.
        today: by which consents end.
        barred: pseudonyms of patients who have withdrawn.
        kept: files, relative to the manifest, that are prepared and wait, for a photograph at rest of their patient.
    """
    try:
        rows = read_manifest(place.manifest, image_size).rows
    except ManifestError as error:
        return Verdict(error.problems or (str(error),), (), ())
    named = {path for row in rows for path in (row.path, row.landmarks)}
    problems = ended_consents(rows, today)
    problems += [
        f"row {number}: its patient has withdrawn; prepare again, which takes the row out"
        for number, row in enumerate(rows, start=2)
        if row.subject_id in barred
    ]
    if beside := publish.unnamed(place.data, named | set(kept)):
        problems.append(
            f"files={beside} in images/ and landmarks/ are named by no row; training could read them, look at them and "
            "move them away"
        )
    return Verdict(tuple(problems), tuple(warnings_of(rows)), rows)


def warnings_of(rows: Sequence[Row]) -> list[str]:
    """What a person should look at."""
    found = []
    detected = sum(
        row.landmark_source is LandmarkSource.DETECTOR and (row.grade or 0) >= _PALSIED and row.side is not Side.NONE
        for row in rows
    )
    if detected:
        found.append(
            f"{detected} photographs of grades III to VI have landmarks of a detector; detectors draw a palsied face "
            "too symmetric, correct them by hand (--landmarks)"
        )
    if unhashed := sum(not row.landmarks_sha256 for row in rows):
        found.append(f"{unhashed} landmark files have no hash in the manifest; a change of them is not seen")
    if not any(row.split is Split.HOLDOUT for row in rows):
        found.append("no patient is held out: nothing will tell how well faces of others are drawn")
    if ungraded := sum(row.grade is None for row in rows):
        found.append(f"{ungraded} photographs have no House-Brackmann grade")
    sides: dict[str, set[Side]] = {}
    for row in rows:
        sides.setdefault(row.subject_id, set()).add(row.side)
    if both := sum({Side.LEFT, Side.RIGHT} <= own for own in sides.values()):
        found.append(f"{both} patients are paralysed left in one photograph and right in another; check their labels")
    return found
