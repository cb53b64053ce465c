"""One process at a time, until the system says that the other one is gone."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from ccfexp.errors import RoundError
from server import lock

HOLD = """
import pathlib, sys, time
from server import lock
with lock.held(pathlib.Path(sys.argv[1]), 0, "a test"):
    print(flush=True)
    time.sleep(60)
"""


def test_free_then_held_then_free(tmp_path: Path) -> None:
    path = tmp_path / "run" / "lock"

    assert not lock.is_held(path)
    with lock.held(path, 0.0, "a test"):
        assert lock.is_held(path)
    assert not lock.is_held(path)


def test_the_second_waits_a_bounded_time(tmp_path: Path) -> None:
    path = tmp_path / "lock"

    with lock.held(path, 0.0, "a test"):
        began = time.monotonic()
        with pytest.raises(RoundError, match="another program has worked"), lock.held(path, 0.3, "another program"):
            pass
        assert 0.3 <= time.monotonic() - began < 5.0


def test_a_killed_process_gives_it_back(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        assert lock.is_held(path)
    finally:
        process.kill()
        process.communicate()

    with lock.held(path, 5.0, "a killed process"):
        pass
