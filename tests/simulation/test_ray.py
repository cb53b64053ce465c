"""Flower's own runtime, with its parallel workers, ends in the in-process engine's adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from ccfexp.errors import RoundError
from client.app import make_app
from configs.federation import EngineConfig
from simulation.engines import run_apps
from tests import toys

if TYPE_CHECKING:
    from pathlib import Path

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
