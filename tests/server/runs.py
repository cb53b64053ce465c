"""Whole runs of the toy, interrupted ones among them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.clientapp import ClientApp

from ccfexp.adapter import AdapterState
from client.app import make_app
from server.checkpoint import Progress
from server.federation import Hooks
from simulation.grid import LocalGrid
from tests import toys


class StoppedError(Exception):
    """The coordinator dies."""


def app_of(hospital: toys.ToyHospital) -> ClientApp:
    return make_app(lambda: hospital)


def stopping_at(number: int) -> Hooks:
    """The run ends while a round is evaluated: its sites have trained, and it is not on the disk."""

    def stop(round_number: int, adapter: AdapterState, means: Mapping[str, float]) -> None:  # noqa: ARG001
        if round_number == number:
            raise StoppedError

    return Hooks(on_round=stop)


def interrupted(folder: Path, hospital: toys.ToyHospital, number: int, **options: Any) -> Progress:  # noqa: ANN401
    """A run whose coordinator dies in a round, started again with other processes at the sites."""
    nodes = len(hospital.sites)
    with pytest.raises(StoppedError):
        toys.federation(folder, wanted=nodes, hooks=stopping_at(number), **options).run(
            LocalGrid(app_of(hospital), nodes)
        )
    restarted = toys.ToyHospital(hospital.sites, ranks=hospital.ranks, first=hospital.first, folder=hospital.folder)
    restarted.starts, restarted.ends, restarted.calls = hospital.starts, hospital.ends, hospital.calls
    return toys.federation(folder, wanted=nodes, **options).run(LocalGrid(app_of(restarted), nodes))


def final_bytes(folder: Path) -> bytes:
    return (folder / "adapter.safetensors").read_bytes()


def bits(value: torch.Tensor) -> bytes:
    return value.numpy().tobytes()


def added(state: AdapterState, scale: float = 1.0) -> torch.Tensor:
    """What an adapter adds to its layer, float64."""
    moved = state[toys.B_MOVED].double() @ state[toys.A_MOVED].double() if toys.A_MOVED in state else 0.0
    return moved + scale * state[toys.B].double() @ state[toys.A].double()
