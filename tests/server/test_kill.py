"""kill -9, the same command again: the same bits as without."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import time
from collections import Counter
from ctypes import c_int
from multiprocessing.process import BaseProcess
from multiprocessing.sharedctypes import RawValue
from pathlib import Path
from typing import Any

import pytest

from strategies.options import CombineOptions, ServerOptimiser
from tests.server import mortal

pytestmark = pytest.mark.slow
# Both ends remember something: sites what rounding left over or a factor of their own, the coordinator its momentum or
# what has been moved into the base.
ROLORA = {"strategy": "rolora", "upload": "int8", "optimiser": ServerOptimiser("momentum")}
OTHERS: dict[str, dict[str, Any]] = {
    "flex": {"strategy": "flex", "upload": "bfloat16", "combine": CombineOptions(residual=True), "ranks": (1, 2, 2)},
    "flora": {"strategy": "flora", "upload": "int8", "sites_per_round": 2},
    "fedsa": {"strategy": "fedsa", "upload": "float16", "optimiser": ServerOptimiser("adam", rate=0.1)},
}
PHASES = ("starting", "training", "between")  # two trainings
# Every run is a process of its own, forked from one that has imported all that it needs: a start costs no seconds.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.server.mortal", "strategies.options"])


def started(out_dir: Path, rounds: int, options: dict[str, Any], pause_s: float, phase: c_int) -> BaseProcess:
    """The command of the test."""
    process = FORKS.Process(target=mortal.train, args=(out_dir, rounds, options, pause_s, phase))
    process.start()
    return process


def finish(out_dir: Path, rounds: int, options: dict[str, Any], pause_s: float = 0.0) -> None:
    """Once more, to the end."""
    process = started(out_dir, rounds, options, pause_s, RawValue(c_int))
    process.join(120)
    assert process.exitcode == 0


def final_bytes(folder: Path) -> bytes:
    return (folder / "adapter.safetensors").read_bytes()


def rounds_done(folder: Path) -> int:
    state = folder / "checkpoint" / "state.json"
    return int(json.loads(state.read_text())["round"]) if state.exists() else -1


def killed(folder: Path, kills: int, options: dict[str, Any], pause_s: float, draw: random.Random) -> Counter[str]:
    """Runs of ten rounds are killed at random instants and started again; a run that ends is followed by another one.

    Returns:
        What the process was doing when it was killed, how many rounds were complete then ("rounds", how many different
        numbers of them), and how many "runs" came to their end nevertheless.
    """
    whole = folder / "whole"
    finish(whole, 1, options)  # the first start takes longer
    began = time.monotonic()
    finish(folder / "timed", 10, options, pause_s)
    round_s = (time.monotonic() - began) / 10
    finish(whole, 10, options)
    found: Counter[str] = Counter()
    run, complete = folder / "run-0", set()
    while found.total() - found["runs"] < kills:
        phase = RawValue(c_int)
        process = started(run, 10, options, pause_s, phase)
        process.join(draw.uniform(0.02, 2 * round_s))  # about every second life completes a round
        if process.exitcode is None:
            os.kill(process.pid or 0, signal.SIGKILL)
            process.join()
        if process.exitcode == -signal.SIGKILL:
            found[PHASES[phase.value]] += 1
            complete.add(rounds_done(run))
        else:  # it was through
            assert process.exitcode == 0
            assert final_bytes(run) == final_bytes(whole)
            found["runs"] += 1
            run = folder / f"run-{found['runs']}"
    finish(run, 10, options)
    assert final_bytes(run) == final_bytes(folder / "timed") == final_bytes(whole)
    found["rounds"] = len(complete)
    return found


def test_a_run_killed_twenty_times_ends_in_the_same_bits(tmp_path: Path) -> None:
    """While a site trains and while none does, in many rounds; the instants are others every time."""
    seed = time.time_ns()
    print(f"seed {seed}")  # noqa: T201 (to try it again)

    found = killed(tmp_path, 20, ROLORA, 0.05, random.Random(seed))

    print(dict(found))  # noqa: T201
    assert found["training"] >= 4
    assert found["training"] + found["between"] >= 15  # of runs that were at work; none was through
    assert found["rounds"] >= 3


@pytest.mark.parametrize("name", OTHERS)
def test_whatever_the_two_ends_remember(tmp_path: Path, name: str) -> None:
    """A base residual of mixed ranks, a draw of sites, a factor that never leaves its site."""
    found = killed(tmp_path, 6, OTHERS[name], 0.03, random.Random())

    assert found["training"] + found["between"] >= 3


def test_a_kill_wherever_a_round_touches_the_disk(tmp_path: Path) -> None:
    """At every place of the third round, in which all memories are in use: each flush, renaming and deletion."""
    done = RawValue(c_int)

    def until(folder: str, rounds: int, last: int) -> int | None:
        done.value = 0
        process = FORKS.Process(target=mortal.train_until, args=(tmp_path / folder, rounds, ROLORA, last, done))
        process.start()
        process.join(60)
        return process.exitcode

    assert until("two", 2, 0) == 0
    first = done.value
    assert until("three", 3, 0) == 0
    last = done.value
    assert last - first > 20
    for place in range(first + 1, last + 1):
        assert until(f"cut-{place}", 3, place) == -signal.SIGKILL
        assert until(f"cut-{place}", 3, 0) == 0
        assert final_bytes(tmp_path / f"cut-{place}") == final_bytes(tmp_path / "three"), place
