"""What the parallel engine does beside running: it reports to nobody, and asks Ray for what it needs."""

from __future__ import annotations

import os
import threading
from typing import Any

import pytest
from flwr.supercore import telemetry

from configs.federation import EngineConfig
from simulation.ray_engine import run_on_ray, tell_nobody

VARIABLES = ("FLWR_TELEMETRY_ENABLED", "RAY_USAGE_STATS_ENABLED")


@pytest.mark.parametrize(("asked", "told"), [(None, "0"), ("1", "1")])
def test_no_run_is_reported_unless_the_environment_asks_for_it(
    asked: str | None, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where Flower was imported before, with its own default."""
    monkeypatch.setattr(telemetry, "FLWR_TELEMETRY_ENABLED", "1")
    for name in VARIABLES:
        monkeypatch.setenv(name, asked or "")
        if asked is None:
            monkeypatch.delenv(name)

    tell_nobody()

    assert {os.environ[name] for name in VARIABLES} == {told} == {telemetry.FLWR_TELEMETRY_ENABLED}


def test_a_worker_that_dies_is_started_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flower keeps the dead one in its pool; without this it fails site after site to the end of the run."""
    pytest.importorskip("ray")
    asked: dict[str, Any] = {}
    monkeypatch.setattr("flwr.simulation.run_simulation", lambda *_, **named: asked.update(named))

    run_on_ray(None, None, 3, EngineConfig(client_cpus=2), threading.Event())  # type: ignore[arg-type]

    resources = {"num_cpus": 2, "num_gpus": 0.0, "max_restarts": -1}
    assert asked["backend_config"] == {"client_resources": resources}
