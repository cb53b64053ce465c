"""The run of a real deployment on the grid of this process: alone in its folder, and every end is in the journal."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file

import configs
from ccfexp.errors import RoundError
from client.app import make_app
from client.workbench import BenchPlan, SiteSource, Workbench
from configs.run import RunConfig
from server import journal, lock
from server.deployment import LOCK, Deployment, rounds_done
from simulation.federate import run_federation
from simulation.grid import LocalGrid
from simulation.sites import prepare_sites
from tests import toys

SMALL = ["train.steps=1", "federation.rounds=1", "federation.wait_for_sites_s=0.2", "threads=1", "name=small"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the run named small."""
    monkeypatch.setenv("CCFEXP_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs" / "small"


@pytest.fixture
def config() -> RunConfig:
    return configs.load("tiny", SMALL, RunConfig)


def events(folder: Path) -> list[journal.Event]:
    return list(journal.Reader(folder / journal.NAME).events())


def test_too_few_sites_are_told_in_the_journal(folder: Path, config: RunConfig) -> None:
    with pytest.raises(RoundError, match="sites=1"):
        Deployment(config, run_id=3).run(LocalGrid(toys.toy_app(), 1))

    started, failed = events(folder)
    assert (started["kind"], started["rounds"], started["after"]) == ("started", 1, 0)
    assert (failed["kind"], failed["error"], failed["run_id"]) == ("failed", "RoundError", 3)
    assert "sites=1 connected" in failed["reason"]
    assert not lock.is_held(folder / LOCK)


def test_a_second_serverapp_waits_and_then_says_why_not(folder: Path, config: RunConfig) -> None:
    with (
        lock.held(folder / LOCK, 0.0, "a test"),
        pytest.raises(RoundError, match="another ServerApp has worked"),
    ):
        Deployment(config, run_id=4, lock_wait_s=0.2).run(LocalGrid(toys.toy_app(), 2))

    (failed,) = events(folder)
    assert (failed["kind"], failed["run_id"]) == ("failed", 4)


@pytest.mark.slow
def test_the_adapter_is_that_of_the_simulation(folder: Path, config: RunConfig, tmp_path: Path) -> None:
    """Same configuration, same images, same bits; and peft's form of it is written too."""
    manifests = prepare_sites(config.hospitals, config.image_size, tmp_path / "sites")
    sources = tuple(SiteSource(name, manifests[name]) for name in sorted(manifests))
    bench = Workbench(BenchPlan(config.base, sources, tmp_path / "memory", None, "cpu", config.compute, config.threads))

    progress = Deployment(config, run_id=5, wanted_sites=2).run(LocalGrid(make_app(lambda: bench), 2))
    simulated = run_federation(config, manifests, tmp_path / "simulated")

    assert rounds_done(folder) == 1
    assert progress.adapter.keys() == simulated.adapter.keys()
    assert all(progress.adapter[name].equal(simulated.adapter[name]) for name in progress.adapter)
    name = "adapter.safetensors"
    assert (folder / name).read_bytes() == (tmp_path / "simulated" / name).read_bytes()
    assert load_file(folder / "adapter" / "adapter_model.safetensors")
    assert [event["kind"] for event in events(folder)] == ["started", "site", "site", "round", "finished"]
