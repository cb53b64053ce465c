"""A hospital with phantoms in place of patients: its photographs as sources have them, with exact landmarks."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import openpyxl
import yaml
from PIL import Image

from ccfexp.data.manifest import Manifest, read_manifest
from ccfexp.data.phantom.expression import Palsy
from ccfexp.data.phantom.sites import shared_phantom
from client.prepare.__main__ import main
from client.prepare.place import Place
from client.site import Site, load_site
from tests.client.sites import write_site

SIZE = 64  # of the shipped base
GRADES = ("I", "II", "III", "IV", "V", "VI")
MOVEMENTS = ("rest", "smile_teeth")


@dataclass(frozen=True)
class Shot:
    """A photograph of a patient, and all that is known of it."""

    subject: str
    session: str
    movement: str
    side: str
    grade: int
    image_HW3: npt.NDArray[np.uint8] = field(repr=False)
    landmark_682: npt.NDArray[np.float32] = field(repr=False)

    def encoded(self, kind: str = "PNG", **options: object) -> bytes:
        """As an image file."""
        buffer = io.BytesIO()
        Image.fromarray(self.image_HW3).save(buffer, kind, **options)
        return buffer.getvalue()

    def facts(self) -> dict[str, str]:
        """As a table has it."""
        return {
            "subject": self.subject,
            "session": self.session,
            "movement": self.movement,
            "side": self.side,
            "grade": GRADES[self.grade - 1],
            "consent_train": "true",
            "consent_generate": "false",
        }


def shots(
    patients: int = 3, movements: Sequence[str] = MOVEMENTS, *, size: int = 128, first: int = 500, sessions: int = 1
) -> list[Shot]:
    """Photographs of patients of rising grade, left and right."""
    phantom = shared_phantom()
    taken = []
    for number in range(patients):
        grade, side = number % 6 + 1, ("left", "right")[number % 2]
        person = phantom.identity(first + number)
        palsy = Palsy.of_grade(grade, side)  # type: ignore[arg-type]
        for session in range(sessions):
            for movement in movements:
                photo = phantom.render(person, movement, 1.0, palsy, session, size, crop="loose")
                taken.append(
                    Shot(
                        f"MRN-{first + number}", f"2024-0{session + 1}-15", movement, side if grade > 1 else "none",
                        grade, photo.image_HW3, photo.landmark_682,
                    )
                )  # fmt: skip
    return taken


def write_landmarks(path: Path, shot: Shot) -> None:
    """A file of 68 points."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, shot.landmark_682)


def write_folder(root: Path, taken: Iterable[Shot], *, landmarks: bool = True, suffix: str = ".png") -> Path:
    """Photographs as subject/session/movement_frame; the rest stands in ``labels.csv`` beside the folder."""
    rows = []
    for shot in taken:
        path = root / shot.subject / shot.session / f"{shot.movement}_1{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(shot.encoded("JPEG", quality=95) if suffix == ".jpg" else shot.encoded())
        if landmarks:
            write_landmarks(path.with_suffix(".npy"), shot)
        rows.append(shot.facts())
    write_csv(
        root.with_name("labels.csv"), list({row["subject"]: row for row in rows}.values()), ("session", "movement")
    )
    return root


def write_table(path: Path, taken: Iterable[Shot], **changed: str) -> Path:
    """A table of photographs (CSV or XLSX by its ending) with its files beside it."""
    rows = []
    for number, shot in enumerate(taken):
        name = f"photo {number} {shot.subject}"
        (path.parent / "pictures").mkdir(parents=True, exist_ok=True)
        (path.parent / "pictures" / f"{name}.png").write_bytes(shot.encoded())
        write_landmarks(path.parent / "pictures" / f"{name}.npy", shot)
        row = {"path": f"pictures/{name}.png", "landmarks": f"pictures/{name}.npy"}
        rows.append(row | shot.facts() | changed)
    if path.suffix == ".xlsx":
        book = openpyxl.Workbook()
        sheet = book.worksheets[0]
        for line in ([*rows[0]], *([*row.values()] for row in rows)):
            sheet.append(line)
        book.save(path)
    else:
        write_csv(path, rows)
    return path


def write_csv(path: Path, rows: Sequence[Mapping[str, str]], without: Sequence[str] = ()) -> None:
    """A table of texts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = [name for name in rows[0] if name not in without]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


@dataclass(frozen=True)
class Clinic:
    """A hospital's site with a source of photographs."""

    site: Site
    inbox: Path

    @classmethod
    def at(cls, folder: Path, **values: object) -> Clinic:
        """A new one in a folder."""
        site = load_site(None, write_site(folder / "site", **values))
        (folder / "inbox").mkdir(exist_ok=True)
        return cls(site, folder / "inbox")

    @property
    def place(self) -> Place:
        """Where it writes."""
        return Place.of(self.site)

    def settings(self, **values: object) -> None:
        """Write prepare.yaml; small processes, so that tests start quickly."""
        whole = {"source": str(self.inbox), "processes": 1, "holdout": 0.34} | values
        (self.site.root / "prepare.yaml").write_text(yaml.safe_dump(whole), encoding="utf-8")

    def prepare(self, *arguments: str) -> int:
        """The command, in this process."""
        return main(["--site-file", str(self.site.path), *arguments])

    def manifest(self, size: int = SIZE) -> Manifest:
        """The manifest, every file of it checked."""
        return read_manifest(self.site.manifest, size)

    def written(self) -> list[Path]:
        """All files outside of the inbox."""
        return sorted(path for path in self.site.root.rglob("*") if path.is_file())
