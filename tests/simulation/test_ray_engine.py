"""What the parallel engine does beside running: it reports to nobody."""

from __future__ import annotations

import os

import pytest
from flwr.supercore import telemetry

from simulation.ray_engine import tell_nobody

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
