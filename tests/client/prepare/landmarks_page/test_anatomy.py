"""The names of the points, which the page shows, against the exchange of left and right that the measures know."""

from __future__ import annotations

import json
from importlib.resources import files
from itertools import pairwise
from typing import Any

import numpy as np

from ccfexp.evaluation.measures import mirror

ANATOMY: dict[str, Any] = json.loads(
    files("client.prepare.landmarks_page").joinpath("static/anatomy.json").read_text(encoding="utf-8")
)
NAMES: list[str] = ANATOMY["names"]


def exchanged(name: str) -> str:
    """The same name on the other side."""
    side, _, rest = name.partition(" ")
    return {"right": f"left {rest}", "left": f"right {rest}"}.get(side, name)


def test_the_name_of_a_mirrored_point_is_that_of_the_other_side() -> None:
    """All 68, against `ccfexp.evaluation.measures.mirror`."""
    numbered = np.stack([np.arange(68.0), np.arange(68.0)], -1)
    mirrored = mirror(numbered)[:, 1].astype(int)

    assert len(set(NAMES)) == 68
    assert [NAMES[i] for i in mirrored] == [exchanged(name) for name in NAMES]
    assert [i for i, name in enumerate(NAMES) if exchanged(name) == name] == [
        i for i, other in enumerate(mirrored) if i == other
    ]


def test_the_names_that_clinicians_know() -> None:
    """Those whose numbers the domain's literature gives."""
    known = {36: "right outer canthus", 45: "left outer canthus", 48: "right oral commissure", 8: "chin"}
    known |= {30: "nose tip", 39: "right inner canthus", 54: "left oral commissure"}

    assert {number: NAMES[number] for number in known} == known


def test_every_point_is_in_one_region_and_on_a_curve() -> None:
    """The list shows each once; the curves are those of the iBUG scheme."""
    listed = [point for region in ANATOMY["regions"] for point in region["points"]]
    drawn = [point for curve in ANATOMY["curves"] for point in curve["points"]]

    assert sorted(listed) == sorted(drawn) == list(range(68))
    assert all(b == a + 1 for curve in ANATOMY["curves"] for a, b in pairwise(curve["points"]))
    starts = [(curve["points"][0], curve["closed"]) for curve in ANATOMY["curves"]]
    eyes_and_lips = (36, 42, 48, 60)
    assert starts == [(start, start in eyes_and_lips) for start in (0, 17, 22, 27, 31, *eyes_and_lips)]
