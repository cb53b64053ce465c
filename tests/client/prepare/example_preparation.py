"""A preparation of phantoms, judged by the real examiner, with a few of them spoilt."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from ccfexp.data.phantom.presets import SITES
from ccfexp.data.phantom.sites import patient_palsy, photograph
from ccfexp.data.rows import LandmarkSource, Movement, Side, Split
from ccfexp.evaluation.measures import Scale, ScaleSource, eye_distance
from ccfexp.evaluation.quality import SIZE, SourceFacts, assess
from client.prepare.clinical import clinical_measures
from client.prepare.entries import Refusal
from client.prepare.report import Duplicate, PreparationReport, PreparedPhotograph
from tests.ccfexp.evaluation import spoilt

REFUSALS = (
    Refusal(4, "several faces=2; crop the photograph to the patient, or set faces.several: largest"),
    Refusal(11, "several faces=3; crop the photograph to the patient, or set faces.several: largest"),
    Refusal(17, "no face was found; take it away or crop it closer"),
    Refusal(23, "consent_train is empty; ask the patient, or remove the row"),
    Refusal(29, "several faces=2; crop the photograph to the patient, or set faces.several: largest"),
)


def preparation(folder: Path, subjects: int = 6) -> PreparationReport:
    """Photographs of hospital A in ``folder``/images; every ninth is spoilt, one is there twice."""
    rng = np.random.default_rng(0)
    site = replace(SITES["A"], subjects=subjects)
    (folder / "images").mkdir(parents=True)
    taken: list[PreparedPhotograph] = []
    for subject in range(subjects):
        for movement in ("rest", *site.movements):
            number = 40 + len(taken)
            photo = photograph(site, 91000 + subject, 0, movement, SIZE)
            image, points = photo.image_HW3, photo.landmark_682.astype(np.float64)
            if number % 9 == 0:
                image = (spoilt.bar, spoilt.mask)[number % 2](image, points, rng)
            elif number % 13 == 0:
                image = spoilt.blurred(image, 3, rng)
            file = folder / "images" / f"{number:03d} of 100%.png"  # an address needs quoting
            Image.fromarray(image).save(file)
            palsy = patient_palsy(site, 91000 + subject)
            source = (LandmarkSource.DETECTOR, LandmarkSource.MANUAL)[number % 3 == 0]
            facts = SourceFacts(
                point_682=points * 4, image_size=SIZE, outside_share=0.02, movement=Movement(movement),
                side=Side(palsy.side), grade=palsy.grade, landmark_source=source, score=0.9, confidence=0.8,
            )  # fmt: skip
            quality = assess(image, points, facts)
            scale = (
                Scale.from_pupil_distance(points)
                if subject % 3
                else Scale(float(11.77 / 0.187 / eye_distance(points)), ScaleSource.MANUAL)
            )
            taken.append(
                PreparedPhotograph(
                    number=number, subject=f"A-{subject * 7919 % 10000:04d}", movement=Movement(movement),
                    side=Side(palsy.side), grade=palsy.grade,
                    split=Split.HOLDOUT if subject % 5 == 4 else Split.TRAIN, landmark_source=source, image=file,
                    flags=quality.flags, score=None if source is LandmarkSource.MANUAL else 0.9 - 0.01 * (number % 7),
                    asymmetry=quality.asymmetry, measures=clinical_measures(points, scale),
                )
            )  # fmt: skip
    first, other = taken[0], taken[-1]
    duplicates = (
        Duplicate(first.number, 39, first.subject, first.subject),
        Duplicate(first.number, other.number, first.subject, other.subject, 0.034),
    )
    return PreparationReport(
        site="A",
        made="2026-11-24, 09:30",
        offered=len(taken) + len(REFUSALS) + 1,
        image_size=SIZE,
        photographs=tuple(taken),
        refusals=REFUSALS,
        duplicates=duplicates,
        settings={"Faces found by": "insightface", "Points found by": "FAN", "Held out": "0.2 of the patients, seed 0"},
    )
