"""Desks for tests: a few phantoms in a folder whose name is a patient's."""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace
from pathlib import Path

import numpy as np

from ccfexp._io import atomic_write_bytes
from ccfexp.data.manifest import read_manifest, write_manifest
from ccfexp.data.phantom.presets import SITES
from ccfexp.data.phantom.sites import write_site
from ccfexp.data.rows import LandmarkSource, Row
from ccfexp.detection.faces import Points

SIZE = 64
PLANTED = "smith_john_1961"  # a folder's name, which no message may repeat


def write_phantoms(folder: Path, size: int = SIZE) -> Path:
    """Two patients with two photographs each, the second of each as if placed by a detector; returns the manifest."""
    site = replace(SITES["A"], subjects=2, sessions=1, movements=("smile_teeth",))
    path = write_site(site, folder, size)
    sources = (LandmarkSource.PHANTOM, LandmarkSource.DETECTOR)
    rows = [replace(row, landmark_source=sources[i % 2]) for i, row in enumerate(read_manifest(path, size).rows)]
    write_manifest(path, rows)
    return path


def read_rows(manifest: Path, size: int = SIZE) -> tuple[Row, ...]:
    """The rows, with every file checked."""
    return read_manifest(manifest, size).rows


def read_points(manifest: Path, row: Row) -> Points:
    """The points that a row names."""
    points: Points = np.load(manifest.parent / row.landmarks, allow_pickle=False)
    return points


def with_points(manifest: Path, row: Row, point_682: Points) -> Row:
    """Overwrite the points of a row, as another program does; returns the row that tells of them."""
    buffer = io.BytesIO()
    np.save(buffer, point_682, allow_pickle=False)
    atomic_write_bytes(manifest.parent / row.landmarks, buffer.getvalue())
    return replace(row, landmarks_sha256=hashlib.sha256(buffer.getvalue()).hexdigest())


def landmark_files(manifest: Path) -> set[str]:
    """What lies in the folder of landmarks."""
    return {f"landmarks/{path.name}" for path in (manifest.parent / "landmarks").iterdir()}
