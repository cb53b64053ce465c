"""Flower's own runtime, with its parallel workers, ends in the in-process engine's adapter."""

from __future__ import annotations

import functools
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from ccfexp.adapter import AdapterState
from ccfexp.errors import RoundError
from client.app import make_app
from configs.federation import EngineConfig
from simulation.engines import run_apps
from strategies import wire
from strategies.options import ServerOptimiser
from tests import toys

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.filterwarnings("ignore"),  # Ray's own, in its threads and at its end
]
pytest.importorskip("ray")


def test_both_engines_give_the_same_adapter(tmp_path: Path) -> None:
    """The same seeds, the same order of the mean, whichever worker was faster."""
    here = run_apps(toys.federation(tmp_path / "local"), make_app(toys.make_toy), 3)
    there = run_apps(toys.federation(tmp_path / "ray", wait_s=60.0), make_app(toys.make_toy), 3, ray=EngineConfig())

    assert [list(record.weights) for record in there.history] == [list(record.weights) for record in here.history]
    for name, tensor in here.adapter.items():
        torch.testing.assert_close(there.adapter[name], tensor, rtol=1e-5, atol=1e-6)


def test_a_hundred_sites_take_part_on_ray(tmp_path: Path) -> None:
    """None is left out because the nodes were still registering."""
    plan = toys.federation(tmp_path, rounds=2, wanted=100, min_sites=100, wait_s=120.0)

    progress = run_apps(plan, make_app(toys.make_hundred), 100, ray=EngineConfig())

    assert [len(record.weights) for record in progress.history] == [0, 100, 100]


def test_a_failed_round_ends_the_runtime_with_its_error(tmp_path: Path) -> None:
    """Neither silence nor a hanging worker."""
    plan = toys.federation(tmp_path, rounds=1, min_sites=4, wait_s=2.0)

    with pytest.raises(RoundError, match=r"sites=\d connected after 2 s, need at least 4"):
        run_apps(plan, make_app(toys.make_toy), 3, ray=EngineConfig())


@dataclass
class Doomed(toys.ToyHospital):
    """The process that trains the second site in round 2 is killed, once."""

    def fit(self, place: int, terms: wire.Terms, start: AdapterState) -> tuple[AdapterState, float]:
        """Train, and die of it while there is a sign to."""
        fitted = super().fit(place, terms, start)
        sign = self.folder / "doomed"
        if (place, terms.round_number) == (1, 2) and sign.exists():
            sign.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return fitted


def make_doomed(folder: Path) -> Doomed:
    """In whichever process: what sites remember is on the disk."""
    return Doomed(folder=folder)


def test_a_site_that_is_killed_fails_its_round_and_the_same_call_goes_on(tmp_path: Path) -> None:
    """To the bits of a run that nobody disturbed, with what both ends remember."""
    options: dict[str, Any] = {
        "strategy": "rolora", "upload": "int8", "optimiser": ServerOptimiser("momentum"), "min_sites": 3, "wait_s": 60,
    }  # fmt: skip
    memory = tmp_path / "memory"
    memory.mkdir()
    (memory / "doomed").touch()
    app = make_app(functools.partial(make_doomed, memory))

    with pytest.raises(RoundError, match=r"round 2: usable updates=\d, need at least 3 .*same command again"):
        run_apps(toys.federation(tmp_path / "cut", **options), app, 3, ray=EngineConfig())
    resumed = run_apps(toys.federation(tmp_path / "cut", **options), app, 3, ray=EngineConfig())
    run_apps(toys.federation(tmp_path / "whole", **options), toys.toy_app(), 3)

    assert not (memory / "doomed").exists()
    assert [list(record.weights) for record in resumed.history[1:]] == [list(toys.SITES)] * 3
    cut, whole = ((tmp_path / name / "adapter.safetensors").read_bytes() for name in ("cut", "whole"))
    assert cut == whole
