"""Saving points: what changes on the disk, what does not, and who else may be at it."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccfexp.data.manifest import write_manifest
from ccfexp.data.rows import LandmarkSource
from ccfexp.detection.faces import Points
from ccfexp.errors import ManifestError
from client.prepare.landmarks_page.desk import ChangedError, UnknownFaceError
from client.prepare.landmarks_page.manifest_desk import ManifestDesk
from client.prepare.landmarks_page.point_checks import RefusedPointsError
from tests.client.prepare.landmarks_page.desks import (
    PLANTED,
    SIZE,
    landmark_files,
    read_points,
    read_rows,
    with_points,
)


def save_moved(desk: ManifestDesk, number: int, dx: float = 0.5) -> None:
    """Move a corner of the mouth and save."""
    placed = desk.placed(number)
    points = placed.point_682.copy()
    points[48, 0] += dx
    desk.save(number, points, placed.version)


def test_the_desk_shows_the_manifest(manifest: Path) -> None:
    """Every row, its image to the byte, its points to the bit."""
    desk, rows = ManifestDesk(manifest, SIZE), read_rows(manifest)

    faces = desk.faces()

    assert [face.number for face in faces] == [1, 2, 3, 4]
    for face, row in zip(faces, rows, strict=True):
        assert (face.subject, face.session, face.movement) == (row.subject_id, row.session, row.movement)
        assert (face.side, face.grade, face.landmark_source) == (row.side, row.grade, row.landmark_source)
        assert (face.width, face.height) == (SIZE, SIZE)
        picture = desk.picture(face.number)
        assert hashlib.sha256(picture.data).hexdigest() == row.sha256
        assert picture.media_type == "image/png"
        assert np.array_equal(desk.placed(face.number).point_682, read_points(manifest, row))
        assert row.subject_id not in repr(face)
    assert [face.urgency for face in faces] == [0, 1, 0, 1]


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_save_changes_one_row_and_one_file(rendered: Path, data: st.DataObject) -> None:
    """Any face, any points near a face: they are on the disk in single precision, and nothing else has changed."""
    with tempfile.TemporaryDirectory() as folder:
        manifest = Path(shutil.copytree(rendered, Path(folder) / "site")) / "manifest.csv"
        desk, before = ManifestDesk(manifest, SIZE), list(read_rows(manifest))
        old_points = [read_points(manifest, row) for row in before]
        for number in data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=3)):
            placed = desk.placed(number)
            moves = st.floats(-1.5, 1.5, width=64)
            chosen = data.draw(st.dictionaries(st.integers(0, 67), st.tuples(moves, moves), max_size=8))
            points = placed.point_682.astype(np.float64)
            for index, (dx, dy) in chosen.items():
                points[index] += (dx, dy)
            old_points[number - 1] = points.astype(np.float32)

            face, saved = desk.save(number, points, placed.version)

            assert face.landmark_source == "manual"
            assert np.array_equal(saved.point_682, points.astype(np.float32))
            new = read_rows(manifest)[number - 1]
            digest = hashlib.sha256((manifest.parent / new.landmarks).read_bytes()).hexdigest()
            old = replace(before[number - 1], landmarks=new.landmarks, landmarks_sha256=digest)
            before[number - 1] = replace(old, landmark_source=LandmarkSource.MANUAL)
            assert before == list(read_rows(manifest))
            assert landmark_files(manifest) == {row.landmarks for row in before}
            for row, expected in zip(before, old_points, strict=True):
                assert np.array_equal(read_points(manifest, row), expected)


def test_names_tell_nothing_and_the_old_file_is_gone(manifest: Path) -> None:
    """32 hexadecimal digits, new ones with every save."""
    desk, old = ManifestDesk(manifest, SIZE), read_rows(manifest)[1].landmarks
    names = set()
    for _ in range(3):
        save_moved(desk, 2)
        names.add(read_rows(manifest)[1].landmarks)

    assert all(re.fullmatch(r"landmarks/[0-9a-f]{32}\.npy", name) for name in names)
    assert len(names) == 3
    assert not (manifest.parent / old).exists()
    assert len(landmark_files(manifest)) == 4


def test_whoever_asked_is_told_of_a_save_once_it_is_done(manifest: Path) -> None:
    """With the row's image and the points as stored."""
    told: list[tuple[str, Points]] = []

    def on_saved(path: str, point_682: Points) -> None:
        assert read_rows(manifest)[1].landmark_source is LandmarkSource.MANUAL
        told.append((path, point_682))

    desk = ManifestDesk(manifest, SIZE, on_saved, new_name=lambda: "0" * 32)
    save_moved(desk, 2)

    ((path, point_682),) = told
    assert path == read_rows(manifest)[1].path
    assert read_rows(manifest)[1].landmarks == f"landmarks/{'0' * 32}.npy"
    assert np.array_equal(point_682, read_points(manifest, read_rows(manifest)[1]))


def test_flags_come_first_and_go_once_a_person_has_saved(manifest: Path) -> None:
    """Those of the preparation, by the row's image, and those that the points give themselves."""
    rows = read_rows(manifest)
    crossed = read_points(manifest, rows[2])
    crossed[[37, 38, 40, 41]] = crossed[[41, 40, 38, 37]]
    write_manifest(manifest, [*rows[:2], with_points(manifest, rows[2], crossed), rows[3]])
    desk = ManifestDesk(manifest, SIZE, flags={rows[1].path: ("the detector is unsure",)})

    assert [face.flags for face in desk.faces()] == [(), ("the detector is unsure",), ("right lids cross",), ()]
    assert [face.urgency for face in desk.faces()] == [0, 2, 2, 1]
    for number in (2, 3):
        save_moved(desk, number)
    assert [face.urgency for face in desk.faces()] == [0, 0, 0, 1]
    assert [face.flags for face in desk.faces()] == [()] * 4


def test_refused_points_change_nothing(manifest: Path) -> None:
    """And the reason holds no name."""
    desk, before = ManifestDesk(manifest, SIZE), manifest.read_bytes()
    placed = desk.placed(1)
    mirrored = np.stack([SIZE - placed.point_682[:, 0], placed.point_682[:, 1]], -1)

    with pytest.raises(RefusedPointsError, match="right and left are the patient's"):
        desk.save(1, mirrored, placed.version)

    assert manifest.read_bytes() == before
    assert len(landmark_files(manifest)) == 4


def test_a_manifest_that_somebody_changed_is_not_overwritten(manifest: Path) -> None:
    """Until it is loaded again; the numbers of faces stay theirs in another order."""
    desk = ManifestDesk(manifest, SIZE)
    placed, subjects = desk.placed(1), {face.number: face.subject for face in desk.faces()}
    write_manifest(manifest, read_rows(manifest)[::-1])
    theirs = manifest.read_bytes()

    with pytest.raises(ChangedError, match=r"^the manifest was changed .* load the face again$") as refused:
        desk.save(1, placed.point_682, placed.version)

    assert PLANTED not in str(refused.value)
    assert manifest.read_bytes() == theirs
    assert len(landmark_files(manifest)) == 4
    assert [face.number for face in desk.faces()] == [4, 3, 2, 1]
    assert {face.number: face.subject for face in desk.faces()} == subjects
    desk.save(1, placed.point_682, placed.version)
    assert read_rows(manifest)[3].landmark_source is LandmarkSource.MANUAL


def test_points_that_somebody_changed_are_not_overwritten(manifest: Path) -> None:
    """By another desk, in the same file, or through another page of the same desk."""
    desk, other = ManifestDesk(manifest, SIZE), ManifestDesk(manifest, SIZE)
    placed = desk.placed(1)
    save_moved(other, 1)
    with pytest.raises(ChangedError, match="the manifest was changed"):
        desk.save(1, placed.point_682, placed.version)
    desk.faces()
    with pytest.raises(ChangedError, match="this face was changed"):
        desk.save(1, placed.point_682, placed.version)

    placed = desk.placed(2)
    with_points(manifest, read_rows(manifest)[1], placed.point_682 + 1)
    with pytest.raises(ChangedError, match="this face was changed"):
        desk.save(2, placed.point_682, placed.version)


def test_of_two_saves_at_once_one_is_refused(manifest: Path) -> None:
    """However they fall: from two desks, as two processes have them."""
    desks = [ManifestDesk(manifest, SIZE) for _ in range(2)]
    placed = desks[0].placed(1)

    def attempt(number: int) -> bool:
        try:
            desks[number % 2].save(1, placed.point_682 + number, placed.version)
        except ChangedError:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(attempt, range(1, 5)))

    assert sorted(done) == [False, False, False, True]
    assert landmark_files(manifest) == {row.landmarks for row in read_rows(manifest)}
    assert np.array_equal(
        read_points(manifest, read_rows(manifest)[0]), placed.point_682 + 1 + np.float32(done.index(True))
    )


def test_files_that_are_gone_or_altered_are_not_shown(manifest: Path) -> None:
    """In words without a path."""
    desk, rows = ManifestDesk(manifest, SIZE), read_rows(manifest)
    (manifest.parent / rows[0].landmarks).unlink()
    (manifest.parent / rows[0].path).unlink()
    (manifest.parent / rows[1].landmarks).write_bytes(b"\x93NUMPY")
    shutil.copy(manifest.parent / rows[2].path, manifest.parent / rows[1].path)

    for number in (1, 2):
        for show in (desk.placed, desk.picture):
            with pytest.raises(ChangedError) as refused:
                show(number)
            assert PLANTED not in f"{refused.value} {refused.value.__cause__}"
            assert refused.value.__suppress_context__
    with pytest.raises(UnknownFaceError, match="number=5"):
        desk.picture(5)


def test_a_manifest_that_became_unusable_says_so(manifest: Path) -> None:
    """In the words of the manifest, by row number."""
    desk, rows = ManifestDesk(manifest, SIZE), read_rows(manifest)
    (manifest.parent / rows[3].path).unlink()
    write_manifest(manifest, rows[::-1])

    with pytest.raises(ManifestError, match="row 2: image is missing"):
        desk.faces()


@pytest.mark.parametrize("linked", [False, True])
def test_a_file_that_another_row_needs_stays(manifest: Path, linked: bool) -> None:
    """Two photographs of one pose may share their landmarks, by name or by link."""
    rows = read_rows(manifest)
    shared = replace(rows[1], landmarks=rows[0].landmarks, landmarks_sha256=rows[0].landmarks_sha256)
    if linked:
        file = manifest.parent / rows[1].landmarks
        file.unlink()
        file.symlink_to(manifest.parent / rows[0].landmarks)
        shared = replace(shared, landmarks=rows[1].landmarks)
    write_manifest(manifest, [rows[0], shared, *rows[2:]])
    desk, first = ManifestDesk(manifest, SIZE), read_points(manifest, rows[0])

    save_moved(desk, 1)

    after = read_rows(manifest)
    assert np.array_equal(read_points(manifest, after[1]), first)
    assert not np.array_equal(read_points(manifest, after[0]), first)
    save_moved(desk, 2, dx=1.0)
    assert (manifest.parent / rows[0].landmarks).exists() is linked


def test_a_name_that_is_taken_is_not_written_over(manifest: Path) -> None:
    """The old points of the same face would be lost if the manifest could then not be written."""
    desk = ManifestDesk(manifest, SIZE, new_name=lambda: "f" * 32)
    save_moved(desk, 1)

    with pytest.raises(FileExistsError):
        save_moved(desk, 1)
    read_rows(manifest)


def test_saved_files_have_the_rights_of_other_files(manifest: Path) -> None:
    """No more than the user's mask allows."""
    mask = os.umask(0o077)
    try:
        save_moved(ManifestDesk(manifest, SIZE), 1)
    finally:
        os.umask(mask)

    assert (manifest.parent / read_rows(manifest)[0].landmarks).stat().st_mode & 0o777 == 0o600
