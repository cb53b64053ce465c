"""Processes that reserve from a privacy ledger and are made to be killed, importable for another process."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from ctypes import c_int
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

from ccfexp.errors import PolicyError
from client.budget import Budget
from tests.client.rounds import PLAN, cost

SUBJECTS = tuple(f"patient-{number}" for number in range(40))
PLANS = (PLAN, replace(PLAN, sampling_rate=0.1, noise_multiplier=1.0))
DELTA = 1e-3


def budget(folder: Path) -> Budget:
    """The ledger of the tests."""
    return Budget.of(folder, "A", "patients", "patient")


def spend(
    folder: Path, run: str, rounds: int, told: Connection, *, steps: int = 16, max_epsilon: float | None = None
) -> None:
    """Reserve so many rounds, or until no more fits, and tell epsilon after each as soon as it is known."""
    for number in range(1, rounds + 1):
        asked = cost(f"{run[:-1]}{number % 2}", number, PLANS[number % 2], steps)  # a run has one plan
        try:
            receipt = budget(folder).reserve(asked, SUBJECTS, max_epsilon=max_epsilon, delta=DELTA)
        except PolicyError:
            break
        told.send(receipt.epsilon_total)
    told.close()


def spend_until(folder: Path, rounds: int, told: Connection, last: int, done: c_int) -> None:
    """The same, but the process kills itself where it would touch the disk for the ``last``-th time; 0: never."""

    def counted(name: str) -> Callable[..., object]:
        real = getattr(os, name)

        def call(*arguments: object, **named: object) -> object:
            done.value += 1
            if done.value == last:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **named)

        return call

    for name in ("fsync", "replace", "open"):
        setattr(os, name, counted(name))
    spend(folder, "c" * 16, rounds, told)
