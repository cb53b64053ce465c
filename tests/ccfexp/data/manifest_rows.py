"""Rows and files for the tests of manifests."""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from ccfexp.data.manifest import LandmarkSource, Movement, Role, Row, Side, Split, write_manifest

SIZE = 16


def make_row(path: str = "a.png", **changes: object) -> Row:
    """Return a good row for an image of that name; its hash is that of `write_files`."""
    row = Row(
        subject_id="subject-1",
        session="2020",
        movement=Movement.REST,
        side=Side.LEFT,
        grade=4,
        role=Role.BOTH,
        split=Split.TRAIN,
        path=path,
        sha256=hashlib.sha256(image_bytes(path)).hexdigest(),
        landmarks=path + ".npy",
        landmark_source=LandmarkSource.PHANTOM,
        consent_train=True,
        consent_generate=False,
    )
    return replace(row, **changes)  # type: ignore[arg-type]  # tests name the fields they change


def image_bytes(name: str, size: int = SIZE, mode: str = "RGB", kind: str = "PNG") -> bytes:
    """Return an image whose colour depends on its name."""
    value = sum(name.encode()) % 256
    colour: int | tuple[int, int, int] = (value, 255 - value, 7) if mode == "RGB" else value
    stream = io.BytesIO()
    Image.new(mode, (size, size), colour).save(stream, kind)
    return stream.getvalue()


def landmark_array(name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Return landmarks [68, 2] that depend on the name."""
    return np.full((68, 2), sum(name.encode()) % SIZE, np.float32)


def write_site(folder: Path, rows: list[Row]) -> Path:
    """Write a manifest with all its files and return its path."""
    for row in rows:
        (folder / row.path).parent.mkdir(parents=True, exist_ok=True)
        (folder / row.path).write_bytes(image_bytes(row.path))
        np.save(folder / row.landmarks, landmark_array(row.path))
    path = folder / "manifest.csv"
    write_manifest(path, rows)
    return path
