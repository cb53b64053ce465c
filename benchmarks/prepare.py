"""Preparing a hospital's photographs: images per second, what a second process gives, and the check of 10,000 rows."""

from __future__ import annotations

import hashlib
import io
import tempfile
import time
from datetime import date
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks._harness import Result, main
from ccfexp.data.manifest import LandmarkSource, Movement, Role, Row, Side, Split, write_manifest
from ccfexp.data.phantom.sites import shared_phantom
from ccfexp.data.photographs import encode_png
from client.prepare.crew import Crew, Failed
from client.prepare.entries import Material
from client.prepare.place import Place
from client.prepare.portrait import Job, Recipe, portray
from client.prepare.settings import Faces, Limits
from client.prepare.verify import verify

PHOTOGRAPHS, SIDE = 64, 1024  # JPEG files of about a megapixel, with landmarks that come along
ROWS, SECONDS, SIZE = 10_000, 10.0, 112
PEOPLE = 8


def measure() -> Result:
    """Prepare the same photographs with one process and with two; check a data set of 10,000 rows."""
    with tempfile.TemporaryDirectory() as folder:
        jobs = _jobs(Path(folder))
        one, two = _rate(jobs, 1), _rate(jobs, 2)
        place = _data_set(Path(folder) / "site")
        begin = time.perf_counter()
        verdict = verify(place, SIZE, date(2026, 1, 1))
        seconds = time.perf_counter() - begin
    if verdict.problems or len(verdict.rows) != ROWS:
        raise RuntimeError(f"rows={len(verdict.rows)} were checked with problems={len(verdict.problems)}")
    return Result(
        "prepare",
        two / one,
        1.5,
        at_most=False,
        rows=(
            ("one process", f"{one:.1f} photographs of {SIDE}x{SIDE} a second"),
            ("two processes", f"{two:.1f} photographs a second"),
            ("check", f"{seconds:.1f} s for {ROWS} rows"),
        ),
        also=(Result("prepare_check", seconds / SECONDS, 1.0),),
    )


def _jobs(folder: Path) -> list[Job]:
    """Photographs of a few people, each with noise of its own."""
    phantom, rng = shared_phantom(), np.random.default_rng(0)
    recipe = Recipe(SIZE, Faces(), Limits())
    shots = [phantom.render(phantom.identity(seed), "smile_teeth", size=SIDE, crop="loose") for seed in range(PEOPLE)]
    jobs = []
    for number in range(PHOTOGRAPHS):
        shot = shots[number % PEOPLE]
        noisy = np.clip(shot.image_HW3 + rng.integers(-4, 5, shot.image_HW3.shape), 0, 255).astype(np.uint8)
        file = folder / f"{number}.jpg"
        Image.fromarray(noisy).save(file, "JPEG", quality=92)
        np.save(file.with_suffix(".npy"), shot.landmark_682)
        material = Material(kind="photograph", file=file, landmarks=file.with_suffix(".npy"))
        jobs.append(Job(str(number), recipe, material, Movement.SMILE_TEETH, Side.NONE, 1, None))
    return jobs


def _rate(jobs: list[Job], processes: int) -> float:
    """Photographs a second, once the processes have loaded what they need."""
    with Crew.of(processes, 120.0) as crew:
        list(crew.each(portray, jobs[: 4 * processes]))
        begin = time.perf_counter()
        done = list(crew.each(portray, jobs))
        seconds = time.perf_counter() - begin
    if failed := [answer.reason for _, answer in done if isinstance(answer, Failed)]:
        raise RuntimeError(f"{len(failed)} photographs were refused: {failed[0]}")
    return len(jobs) / seconds


def _data_set(folder: Path) -> Place:
    """A data set as preparation leaves it."""
    place = Place(folder / "data" / "manifest.csv", folder / "work")
    for name in ("images", "landmarks"):
        (place.data / name).mkdir(parents=True)
    phantom = shared_phantom()
    shots = [phantom.render(phantom.identity(seed), size=SIZE) for seed in range(PEOPLE)]
    rows = []
    for number in range(ROWS):
        shot = shots[number % PEOPLE]
        image_HW3 = shot.image_HW3.copy()
        image_HW3[0, 0] = (number % 256, number // 256, 0)
        image, landmarks, name = encode_png(image_HW3), io.BytesIO(), f"{number:032x}"
        np.save(landmarks, shot.landmark_682)
        (place.data / "images" / f"{name}.png").write_bytes(image)
        (place.data / "landmarks" / f"{name}.npy").write_bytes(landmarks.getvalue())
        rows.append(
            Row(
                subject_id=f"S{number // 10}",
                session="001",
                movement=Movement.REST,
                side=Side.LEFT,
                grade=3,
                role=Role.BOTH,
                split=Split.HOLDOUT if number // 10 % 5 == 0 else Split.TRAIN,
                path=f"images/{name}.png",
                sha256=hashlib.sha256(image).hexdigest(),
                landmarks=f"landmarks/{name}.npy",
                landmark_source=LandmarkSource.IMPORTED,
                consent_train=True,
                consent_generate=True,
                landmarks_sha256=hashlib.sha256(landmarks.getvalue()).hexdigest(),
                consent_expires=date(2030, 1, 1),
            )
        )
    write_manifest(place.manifest, rows)
    return place


if __name__ == "__main__":
    raise SystemExit(main(measure, about=__doc__ or ""))
