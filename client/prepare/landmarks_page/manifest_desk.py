"""The faces of a manifest on the desk: their points are saved so that the manifest is valid at every instant.

New points go into a new file with a name of no meaning, then the manifest names that file, then the old file is
deleted. A process that ends anywhere in between leaves a file that nothing names, never a row without its points.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import os
import secrets
import threading
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from ccfexp._io import atomic_write_bytes, sha256_file
from ccfexp.data.files import BadFileError, decode_landmarks
from ccfexp.data.manifest import read_manifest, write_manifest
from ccfexp.data.rows import LandmarkSource
from client.prepare.landmarks_page.desk import ChangedError, Face, Picture, Placed, UnknownFaceError
from client.prepare.landmarks_page.point_checks import checked_points, flags_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import numpy.typing as npt

    from ccfexp.data.rows import Row
    from ccfexp.detection.faces import Points

_PNG = b"\x89PNG"


def random_name() -> str:
    """32 hexadecimal digits that tell nothing."""
    return secrets.token_hex(16)


class ManifestDesk:
    """The rows of a manifest.

    Args:
        manifest: the CSV file; it and its landmarks are rewritten.
        image_size: width and height of every image, in pixels.
        on_saved: called with the row's ``path`` and its new points once they are saved. What it raises passes through
            `save`; the points stay saved.
        flags: what else should be looked at, by the row's ``path``; it ceases to be said once a person has saved.
        new_name: gives the stem of each new landmarks file.

    Raises:
        ManifestError: the manifest cannot be used.
        OSError: it cannot be read.
    """

    def __init__(
        self,
        manifest: Path,
        image_size: int,
        on_saved: Callable[[str, Points], None] | None = None,
        *,
        flags: Mapping[str, tuple[str, ...]] | None = None,
        new_name: Callable[[], str] = random_name,
    ) -> None:
        self._path = manifest.resolve()
        self._root = self._path.parent
        self._size = image_size
        self._on_saved = on_saved
        self._flags = dict(flags or {})
        self._new_name = new_name
        self._lock = threading.RLock()
        self._numbers: dict[str, int] = {}  # of paths; grows alone, so that a number never means another face
        self._rows: dict[int, Row] = {}
        self._faces: dict[int, Face] = {}
        self._hash = ""
        self._read()

    def faces(self) -> list[Face]:
        """All rows in their order; a manifest that somebody changed is read again."""
        with self._lock:
            if sha256_file(self._path) != self._hash:
                self._read()
            return list(self._faces.values())

    def picture(self, number: int) -> Picture:
        """The image file of a row, if it is the one that the manifest tells of."""
        row = self._row(number)
        data = _read_file(self._root / row.path)
        if hashlib.sha256(data).hexdigest() != row.sha256:
            _refuse_changed("the picture")
        return Picture(data, "image/png" if data.startswith(_PNG) else "image/jpeg")

    def placed(self, number: int) -> Placed:
        """The landmarks file of a row."""
        return self._placed(self._row(number))

    def save(self, number: int, point_682: npt.NDArray[Any], version: str) -> tuple[Face, Placed]:
        """Save points, as placed by hand. Raises as `Desk.save` does; nothing is changed then."""
        points = checked_points(point_682, self._size, self._size)
        with self._lock, _alone(self._root):
            old = self._row(number)
            if sha256_file(self._path) != self._hash:
                _refuse_changed("the manifest")
            if self._placed(old).version != version:
                _refuse_changed("this face")
            row = self._rows[number] = self._replaced(number, points)
            self._hash = sha256_file(self._path)
            face, placed = self._face(row), self._placed(row)
            self._faces[number] = face
            self._delete(old.landmarks)
        if self._on_saved is not None:
            self._on_saved(row.path, points)
        return face, placed

    def _replaced(self, number: int, points: Points) -> Row:
        """Write the points and let the manifest name them; returns the new row."""
        old = self._rows[number]
        buffer = io.BytesIO()
        np.save(buffer, points, allow_pickle=False)
        data = buffer.getvalue()
        row = _with_landmarks(old, str(PurePosixPath(old.landmarks).with_name(f"{self._new_name()}.npy")), data)
        file = self._root / row.landmarks
        if file.exists():
            raise FileExistsError("a landmarks file of the new name exists")
        atomic_write_bytes(file, data)
        try:
            write_manifest(self._path, list((self._rows | {number: row}).values()))
        except BaseException:
            if sha256_file(self._path) == self._hash:  # else the manifest was replaced, and names the file
                file.unlink()
            raise
        return row

    def _delete(self, landmarks: str) -> None:
        """Delete a landmarks file unless a row still needs it: rows may share one, also through a link."""
        file = (self._root / landmarks).resolve()
        if all((self._root / row.landmarks).resolve() != file for row in self._rows.values()):
            (self._root / landmarks).unlink(missing_ok=True)

    def _read(self) -> None:
        """Read the manifest and all points anew."""
        seen = sha256_file(self._path)
        rows = read_manifest(self._path, self._size).rows
        if sha256_file(self._path) != seen:
            _refuse_changed("the manifest")
        for row in rows:
            self._numbers.setdefault(row.path, len(self._numbers) + 1)
        faces = [self._face(row) for row in rows]
        self._rows = {self._numbers[row.path]: row for row in rows}
        self._faces = {face.number: face for face in faces}
        self._hash = seen

    def _face(self, row: Row) -> Face:
        by_hand = row.landmark_source is LandmarkSource.MANUAL
        flags = flags_of(self._placed(row).point_682, self._size, self._size, by_hand=by_hand)
        return Face(
            number=self._numbers[row.path],
            subject=row.subject_id,
            session=row.session,
            movement=row.movement,
            side=row.side,
            grade=row.grade,
            landmark_source=row.landmark_source,
            flags=flags if by_hand else (*self._flags.get(row.path, ()), *flags),
            width=self._size,
            height=self._size,
        )

    def _row(self, number: int) -> Row:
        with self._lock:
            row = self._rows.get(number)
        if row is None:
            raise UnknownFaceError(f"there is no face number={number}; load the page again")
        return row

    def _placed(self, row: Row) -> Placed:
        data = _read_file(self._root / row.landmarks)
        try:
            points = decode_landmarks(data)
        except BadFileError:
            _refuse_changed("the landmarks file")
        return Placed(points, hashlib.sha256(row.sha256.encode() + data).hexdigest())


def _with_landmarks(row: Row, relative: str, data: bytes) -> Row:
    """The row with new points: the one place that says what a correction by hand changes in it."""
    digest = hashlib.sha256(data).hexdigest()
    return replace(row, landmarks=relative, landmarks_sha256=digest, landmark_source=LandmarkSource.MANUAL)


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        _refuse_changed("a file of this face")


def _refuse_changed(what: str) -> NoReturn:
    # No cause: its text may hold a path.
    raise ChangedError(
        f"{what} was changed by somebody else in the meantime; nothing was saved, load the face again"
    ) from None


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One save at a time among all processes that save in this folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
