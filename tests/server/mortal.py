"""A run of the toy that is made to be killed; what it needs is importable, so that another process can run it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping
from ctypes import c_int
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ccfexp.adapter import AdapterState
from client.app import make_app
from server.federation import Hooks
from simulation.engines import run_apps
from strategies import wire
from tests import toys

STARTING, TRAINING, BETWEEN = 0, 1, 2  # what a run is doing: see PHASES of the test


@dataclass
class Unhurried(toys.ToyHospital):
    """Takes its time, and tells when it trains."""

    pause_s: float = 0.0
    phase: Any = None

    def fit(self, place: int, terms: wire.Terms, start: AdapterState) -> tuple[AdapterState, float]:
        """As ever, in more time."""
        self.phase.value = TRAINING
        time.sleep(self.pause_s)
        fitted = super().fit(place, terms, start)
        time.sleep(self.pause_s)
        self.phase.value = BETWEEN
        return fitted


def train(out_dir: Path, rounds: int, options: Mapping[str, Any], pause_s: float, phase: c_int) -> None:
    """The run of a folder, from wherever it stands."""
    torch.set_num_threads(1)
    ranks = options.get("ranks", ())
    hospital = Unhurried(ranks=ranks, folder=out_dir / "memory", pause_s=pause_s, phase=phase)
    hooks = Hooks(on_round=lambda number, adapter, means: time.sleep(pause_s))  # noqa: ARG005
    others = {name: value for name, value in options.items() if name != "ranks"}
    run_apps(toys.federation(out_dir, rounds=rounds, hooks=hooks, **others), make_app(lambda: hospital), 3)


def train_until(out_dir: Path, rounds: int, options: Mapping[str, Any], last: int, done: c_int) -> None:
    """The same, but the process kills itself where it would touch the disk for the `last`-th time.

    Args:
        out_dir: of the run.
        rounds: of the run.
        options: of the configuration.
        last: number of that time, from 1; 0 never.
        done: how often it has.
    """

    def counted(name: str) -> Callable[..., object]:
        real = getattr(os, name)

        def call(*arguments: object, **named: object) -> object:
            done.value += 1
            if done.value == last:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **named)

        return call

    for name in ("fsync", "replace", "unlink", "mkdir"):
        setattr(os, name, counted(name))
    train(out_dir, rounds, options, 0.0, c_int())
