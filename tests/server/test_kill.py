"""kill -9 at random instants, the same command again: the same bits as without."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

RUN = """
import sys, time
from pathlib import Path
from server.federation import Hooks
from simulation.engines import run_apps
from tests import toys

out_dir = Path(sys.argv[1])
hooks = Hooks(on_round=lambda number, adapter, means: time.sleep(0.01))
run_apps(toys.federation(out_dir, rounds=60, hooks=hooks), toys.toy_app(), 3)
"""
ROOT = Path(__file__).parents[2]


def start(out_dir: Path) -> subprocess.Popen[bytes]:
    """The command of the test, in a process of its own."""
    return subprocess.Popen([sys.executable, "-W", "ignore", "-c", RUN, str(out_dir)], cwd=ROOT)


@pytest.mark.slow
def test_a_run_killed_at_random_instants_ends_in_the_same_bits(tmp_path: Path) -> None:
    """Three kills, each after the run has got somewhere, then once to the end."""
    assert start(tmp_path / "whole").wait() == 0
    instants = random.Random(time.time_ns())
    state = tmp_path / "cut" / "checkpoint" / "state.json"
    kills = 0
    for _ in range(3):
        before = state.stat().st_mtime_ns if state.exists() else 0
        process = start(tmp_path / "cut")
        while process.poll() is None and (not state.exists() or state.stat().st_mtime_ns == before):
            time.sleep(0.001)
        time.sleep(instants.uniform(0.0, 0.1))
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        process.wait()
    assert start(tmp_path / "cut").wait() == 0

    assert kills >= 2
    whole, cut = ((tmp_path / name / "adapter.safetensors").read_bytes() for name in ("whole", "cut"))
    assert cut == whole
