"""Many processes and kill -9: whoever was told that a round may be trained finds it in the ledger, at its price."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from ctypes import c_int
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.sharedctypes import RawValue
from pathlib import Path
from typing import Any

import pytest

from ccfexp.privacy.accounting import Spent, epsilon
from tests.ccfexp.privacy.reference_accounting import epsilon_below
from tests.client import spender
from tests.client.spender import DELTA, budget

# Every writer is a process of its own, forked from one that has imported all that it needs.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.client.spender", "dp_accounting.pld"])


def started(work: Callable[..., None], *arguments: object, **named: object) -> tuple[BaseProcess, Connection]:
    """A writer, and what it tells."""
    told, telling = FORKS.Pipe(duplex=False)
    process = FORKS.Process(target=work, args=(*arguments[:3], telling, *arguments[3:]), kwargs=named)
    process.start()
    telling.close()
    return process, told


def all_told(told: Connection) -> list[float]:
    """Everything that a writer said before it ended, however it did."""
    said: list[Any] = []
    try:
        while True:
            said.append(told.recv())
    except (EOFError, ConnectionResetError):
        return said


def spent_in(folder: Path) -> list[Spent]:
    return [item.spent for item in budget(folder).history()]


def test_processes_share_a_budget_and_do_not_pass_it(tmp_path: Path) -> None:
    """Four runs at once, each until it is refused: together they have what one would have had, and nothing is lost."""
    limit = 8.0
    writers = [started(spender.spend, tmp_path, name * 16, 99, max_epsilon=limit) for name in "abcd"]
    told = [all_told(told) for _, told in writers]
    for process, _ in writers:
        process.join()
        assert process.exitcode == 0
    history = budget(tmp_path).history()

    assert sorted(spent for said in told for spent in said) == [
        epsilon([item.spent for item in history[: number + 1]], DELTA) for number in range(len(history))
    ]
    for name, said in zip("abcd", told, strict=True):
        assert sum(item.run[0] == name for item in history) == len(said)
    assert epsilon(spent_in(tmp_path), DELTA) <= limit
    assert len(history) > 4


def check(folder: Path, told: list[float], lives: int) -> None:
    """After a death: readable, everything told is counted, and at most one round of each life that was not told."""
    history = spent_in(folder)
    assert len(told) <= len(history) <= len(told) + lives
    assert epsilon(history, DELTA) >= max(told, default=0.0)


@pytest.mark.slow
def test_a_writer_killed_twenty_times_never_counts_less(tmp_path: Path) -> None:
    """At instants that are others every time."""
    seed = time.time_ns()
    print(f"seed {seed}")  # noqa: T201 (to try it again)
    draw = random.Random(seed)
    told: list[float] = []
    kills = 0
    for life in range(1, 200):
        process, pipe = started(spender.spend, tmp_path, f"{life:016x}", 40)
        if life % 2:
            assert pipe.poll(60)  # every other one is killed in the midst of its rounds, however slow the machine is
        process.join(draw.uniform(0.0, 1.5))
        if process.exitcode is None:
            os.kill(process.pid or 0, signal.SIGKILL)
            process.join()
            kills += 1
        told += all_told(pipe)
        check(tmp_path, told, life)
        if kills == 20:
            break
    assert kills == 20
    assert len(told) >= 10


def test_a_writer_killed_wherever_it_touches_the_disk(tmp_path: Path) -> None:
    """Each flush, renaming and opening of a file in two rounds; the next life counts what this one has reserved."""
    done = RawValue(c_int)

    def until(folder: Path, last: int) -> tuple[int | None, list[float]]:
        done.value = 0
        told, telling = FORKS.Pipe(duplex=False)
        process = FORKS.Process(target=spender.spend_until, args=(folder, 2, telling, last, done))
        process.start()
        telling.close()
        process.join(60)
        return process.exitcode, all_told(told)

    assert until(tmp_path / "whole", 0)[0] == 0
    places = done.value
    assert places > 10
    for place in range(1, places + 1):
        folder = tmp_path / f"cut-{place}"
        code, told = until(folder, place)
        assert code == -signal.SIGKILL
        check(folder, told, 1)
        code, again = until(folder, 0)
        assert code == 0
        check(folder, told + again, 1)


@pytest.mark.slow
def test_fifty_rounds_with_restarts_and_a_crash_cost_what_an_independent_computation_says(tmp_path: Path) -> None:
    """Within 1 % of it, and never below."""
    told: list[float] = []
    for run, rounds in (("a" * 16, 18), ("b" * 16, 99), ("c" * 16, 0)):
        wanted = rounds or 50 - len(spent_in(tmp_path))
        process, pipe = started(spender.spend, tmp_path, run, wanted)
        if rounds == 99:  # the crash
            told += [pipe.recv() for _ in range(12)]
            os.kill(process.pid or 0, signal.SIGKILL)
        told += all_told(pipe)
        process.join()
    history = spent_in(tmp_path)
    found = budget(tmp_path).summary(max_epsilon=None, delta=DELTA)["epsilon"]
    below = epsilon_below(history, DELTA)

    assert len(history) == 50
    assert len(told) in (49, 50)
    assert below <= found <= 1.01 * below
