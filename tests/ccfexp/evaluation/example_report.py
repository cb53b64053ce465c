"""An example of everything the report shows: phantom pictures, made-up models, three unequal hospitals."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ccfexp.data.phantom.expression import Palsy
from ccfexp.data.phantom.render import Phantom
from ccfexp.evaluation.comparison import compare
from ccfexp.evaluation.report import Curve, CurvePanel, PictureRow, ReportData, RunFacts, SiteComposition
from tests.ccfexp.evaluation.models import model, target

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ccfexp.data.phantom.expression import Side
    from ccfexp.data.phantom.identity import Identity

MOVEMENTS = ("rest", "brow_raise", "gentle_eye_closure", "smile_teeth", "lip_pucker")
HOSTILE = "<script src='https://example.org/x.js'></script>"


def example(rows: int = 2, size: int = 32) -> ReportData:
    """Report data with ``rows`` rows of pictures of ``size`` pixels."""
    comparison = compare(
        model("federated", 0.85, 1), model("base", 0.2, 2),
        [model("Hospital A", 0.5, 3), model("Hospital B", 0.72, 4), model("Hospital C", 0.45, 5)],
        pooled=model("pooled", 0.88, 6), target=target(), seed=0, resamples=200,
    )  # fmt: skip
    return ReportData(
        title="Federated training of a face model on phantoms",
        comparison=comparison,
        panels=(
            _panel("Training loss", "loss", 0.32, 0.12),
            _panel("Side accuracy, held-out people", "share", 0.3, 0.85),
        ),
        sites=_sites(),
        pictures=tuple(_row(i, size) for i in range(rows)),
        facts=RunFacts(
            command="python -m simulation.run default",
            seeds={"run": 0, "evaluation": 7},
            started="23 November 2026, 01:43 UTC",
            seconds=527.4,
            hardware="2 CPU cores, no GPU",
            versions={"ccfexp": "0.1.0", "torch": "2.13.0", "flwr": "1.41.0"},
            base_sha256="3f" * 32,
            encoder_sha256={"Identity encoder": "a1" * 32, "Evaluation encoder": "b2" * 32},
            config_hash="c4" * 32,
            rounds=12,
            steps_per_round=20,
            adapter_parameters=186_432,
            adapter_bytes=745_728,
            wire_bytes_up=26_900_000,
            wire_bytes_down=26_901_200,
        ),
        config_json=json.dumps(
            {"seed": 0, "federation": {"rounds": 12, "strategy": "fedit"}, "note": HOSTILE}, indent=2
        ),
    )


def _panel(title: str, y_label: str, start: float, end: float) -> CurvePanel:
    rounds = tuple(float(r) for r in range(13))
    names = ("federated", "pooled", "Hospital A", "Hospital B", "Hospital C")
    curves = []
    for i, name in enumerate(names):
        gain = 1 - 0.15 * i
        wobble = np.random.default_rng(i).normal(0, 0.008, 13)
        y = start + (end - start) * gain * (1 - np.exp(-np.arange(13) / 4)) + wobble
        curves.append(Curve(name, rounds, tuple(float(v) for v in y)))
    return CurvePanel(title, "round", y_label, tuple(curves))


def _sites() -> tuple[SiteComposition, ...]:
    rng = np.random.default_rng(3)
    sites = []
    for name, patients, tilt in (("Hospital A", 8, 0.2), ("Hospital B", 5, 0.5), ("Hospital C", 12, 0.8)):
        images = patients * 20
        left = int(images * tilt * 0.9)
        grades = rng.multinomial(images, rng.dirichlet(np.ones(6) * 2))
        counts = rng.multinomial(images, rng.dirichlet(np.ones(len(MOVEMENTS)) * 3))
        sites.append(
            SiteComposition(
                name=name,
                patients=patients,
                images=images,
                sides={"left": left, "right": images - left - images // 10, "none": images // 10},
                grades={g + 1: int(n) for g, n in enumerate(grades)},
                movements={m: int(n) for m, n in zip(MOVEMENTS, counts, strict=True)},
            )
        )
    return tuple(sites)


def _row(index: int, size: int) -> PictureRow:
    """A case; "base" forgets the palsy, "federated" has half of it, as a half-trained adapter might."""
    phantom = Phantom()
    person, other = phantom.identity(900 + index), phantom.identity(950 + index)
    grade = 2 + (index * 2) % 5
    side: Side = "left" if index % 2 == 0 else "right"
    palsy = Palsy.of_grade(grade, side)
    forehead, eye, mouth = palsy.severity
    half = replace(palsy, severity=(0.7 * forehead, 0.7 * eye, 0.7 * mouth))
    movement = ("smile_teeth", "gentle_eye_closure", "brow_raise", "lip_pucker")[index % 4]

    def photo(who: Identity, what: str, how: Palsy, seed: int) -> NDArray[np.uint8]:
        return phantom.render(who, what, 1.0, how, seed, size).image_HW3

    return PictureRow(
        movement=movement,
        side=side,
        grade=grade,
        identity=photo(person, "rest", Palsy(), 1),
        expression=photo(other, movement, palsy, 2),
        base=photo(person, movement, Palsy(), 3),
        federated=photo(person, movement, half, 3),
        target=photo(person, movement, palsy, 3),
    )
