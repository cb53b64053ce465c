"""A preparation that is killed at any instant: the same command goes on, and the manifest was whole all the time."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from client.prepare.place import Place
from tests.client.prepare.clinic import Clinic, shots, write_table


def start(clinic: Clinic) -> subprocess.Popen[bytes]:
    """The command as a process group of its own."""
    command = [sys.executable, "-m", "client.prepare", "--site-file", str(clinic.site.path)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)


def beside(place: Place) -> int:
    """Files of the data set, half-written ones too."""
    return sum(1 for path in place.data.rglob("*") if path.is_file())


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_at_random_instants_it_goes_on(tmp_path: Path) -> None:
    """Six kills of the whole group, then a run to the end: every photograph once, nothing beside them."""
    clinic, draw = Clinic.at(tmp_path), random.Random(3)
    first, more = shots(3), shots(16, first=900)
    clinic.settings(source=str(write_table(clinic.inbox / "table.csv", first)), processes=2)
    assert clinic.prepare() == 0
    before = clinic.manifest().rows
    write_table(clinic.inbox / "table.csv", [*first, *more])
    whole = start(clinic)
    begin = time.monotonic()
    whole.communicate(timeout=240)
    seconds = time.monotonic() - begin
    assert len(clinic.manifest().rows) == len(first) + len(more)

    again = Clinic.at(tmp_path / "again")
    again.settings(source=str(clinic.inbox / "table.csv"), processes=2)
    for _ in range(6):
        process = start(again)
        time.sleep(draw.uniform(0.3, seconds * 0.9))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if again.site.manifest.exists():
            again.manifest()  # whole, or it raises
    assert again.prepare() == 0
    rows = again.manifest().rows
    assert len(rows) == len(first) + len(more)
    assert beside(again.place) == 2 * len(rows) + 1
    assert again.prepare("--check") == 0
    assert len(before) == len(first)
