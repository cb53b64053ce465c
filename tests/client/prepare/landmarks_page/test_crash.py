"""A save that ends anywhere leaves a valid manifest: the old points or the new ones, and no row without a file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from client.prepare.landmarks_page import manifest_desk
from client.prepare.landmarks_page.manifest_desk import ManifestDesk
from tests.client.prepare.landmarks_page.desks import SIZE, landmark_files, read_points, read_rows

# What a save does to the disk, in its order: the new points are flushed, renamed and their folder flushed, the same for
# the manifest, and the old points are unlinked.
STEPS = ("fsync", "replace", "fsync", "fsync", "replace", "fsync", "unlink")
MANIFEST_IS_NEW = 5  # once this many steps are done

KILLED = """
import os, signal, sys
from pathlib import Path
from client.prepare.landmarks_page.manifest_desk import ManifestDesk

last, done = int(sys.argv[2]), 0
desk = ManifestDesk(Path(sys.argv[1]), int(sys.argv[3]))
placed = desk.placed(1)

def counted(real):
    def call(*arguments, **named):
        global done
        if done == last:
            os.kill(os.getpid(), signal.SIGKILL)
        done += 1
        return real(*arguments, **named)
    return call

for name in ("fsync", "replace", "unlink"):
    setattr(os, name, counted(getattr(os, name)))
desk.save(1, placed.point_682 + 1, placed.version)
print(done)
"""


class Stopped(BaseException):
    """As Ctrl-C: not one of the errors that anybody expects."""


def breaking(names: list[str], at: int, real: Callable[..., object], name: str) -> Callable[..., object]:
    """A step that is written down, and does not happen where it is the one that breaks."""

    def call(*arguments: object, **named: object) -> object:
        names.append(name)
        if len(names) == at + 1:
            raise Stopped
        return real(*arguments, **named)

    return call


@pytest.mark.parametrize("at", range(len(STEPS) + 1))
def test_an_exception_before_any_step(manifest: Path, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """What is not named by the manifest is taken away again; after the last step nothing breaks."""
    desk = ManifestDesk(manifest, SIZE)
    placed, old = desk.placed(1), read_rows(manifest)[0]
    names: list[str] = []
    with monkeypatch.context() as patch:
        for name in set(STEPS):
            patch.setattr(os, name, breaking(names, at, getattr(os, name), name))
        if at == len(STEPS):
            desk.save(1, placed.point_682 + 1, placed.version)
        else:
            with pytest.raises(Stopped):
                desk.save(1, placed.point_682 + 1, placed.version)

    assert tuple(names[: at + 1]) == STEPS[: at + 1]
    new = read_rows(manifest)[0]
    if at < MANIFEST_IS_NEW:
        assert new == old
        assert np.array_equal(read_points(manifest, new), placed.point_682)
    else:
        assert np.array_equal(read_points(manifest, new), placed.point_682 + 1)
    unnamed = landmark_files(manifest) - {row.landmarks for row in read_rows(manifest)}
    assert (
        unnamed <= {old.landmarks} if at >= MANIFEST_IS_NEW else unnamed <= landmark_files(manifest) - {old.landmarks}
    )

    again = ManifestDesk(manifest, SIZE)  # and the work goes on
    again.save(1, placed.point_682 + 2, again.placed(1).version)
    assert np.array_equal(read_points(manifest, read_rows(manifest)[0]), placed.point_682 + 2)


@pytest.mark.slow
@pytest.mark.parametrize("last", range(len(STEPS) + 1))
def test_kill_before_any_step(manifest: Path, last: int) -> None:
    """By kill -9, from which no clean-up runs."""
    before = read_points(manifest, read_rows(manifest)[0])

    command = [sys.executable, "-c", KILLED, str(manifest), str(last), str(SIZE)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)

    if last < len(STEPS):
        assert ended.returncode == -signal.SIGKILL, ended.stderr
    else:
        assert (ended.returncode, ended.stdout) == (0, f"{len(STEPS)}\n"), ended.stderr
    after = read_points(manifest, read_rows(manifest)[0])
    assert np.array_equal(after, before + (last >= MANIFEST_IS_NEW))


def test_a_disk_that_is_full_for_the_manifest_leaves_nothing_behind(
    manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new points are there already, and nothing would ever name them."""
    desk, files = ManifestDesk(manifest, SIZE), landmark_files(manifest)
    placed, before = desk.placed(1), manifest.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(manifest_desk, "write_manifest", full)
        with pytest.raises(OSError, match="No space"):
            desk.save(1, placed.point_682 + 1, placed.version)

    assert manifest.read_bytes() == before
    assert landmark_files(manifest) == files
    desk.save(1, placed.point_682 + 1, placed.version)
