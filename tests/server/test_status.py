"""What is known without a SuperLink; with one, test_coordinator asks for the states of sites."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from ccfexp._io import atomic_write_json
from ccfexp.privacy.statement import epsilon_text
from client.app import make_app
from server import status
from simulation.engines import run_apps
from tests import toys
from tests.server.kit_tools import free_ports, make_kits
from tests.simulation.spenders import PLAN, STEPS, private, private_toy, spender


def test_sites_rounds_and_bytes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A real federation was run into the folder of runs, in which one site's reply was bad once."""
    proxy, superlink = free_ports(2)
    kits = make_kits(tmp_path, ("north", "south", "west"), port=proxy, superlink=superlink)
    kits.write_registered({"north": 7})
    app = toys.spoiled(toys.toy_app(), 1, {2}, lambda content: content.clear())
    run_apps(toys.federation(tmp_path / "runs" / "toy"), app, 3)
    atomic_write_json(tmp_path / "runs" / "toy" / "flower.json", {"run_id": 5})

    assert status.main(["--kits", str(kits.folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)

    assert found["superlink"] == "down"
    assert [(site["name"], site["state"]) for site in found["sites"]] == [
        ("north", "unknown"), ("south", "not registered"), ("west", "not registered"),
    ]  # fmt: skip
    (run,) = found["runs"]
    assert (run["name"], run["run_id"], run["rounds"], run["status"]) == ("toy", 5, 3, "unknown")
    elements = sum(tensor.numel() for tensor in toys.initial().values())
    assert 3 * 4 * elements <= run["sites"]["north"]["received_bytes"] <= 3 * (4 * elements + 1000)
    assert (run["sites"]["south"]["answered"], run["sites"]["south"]["refused"]) == (2, 1)
    assert run["sites"]["west"]["epsilon"] is None


def test_the_tables_can_be_read(tmp_path: Path) -> None:
    proxy, superlink = free_ports(2)
    kits = make_kits(tmp_path, ("north",), port=proxy, superlink=superlink)
    run_apps(toys.federation(tmp_path / "runs" / "toy"), toys.toy_app(), 3)
    text = io.StringIO()

    status.print_tables(status.status(kits), Console(file=text, width=140))

    assert "The SuperLink is down" in text.getvalue()
    assert text.getvalue().count("none") == 3  # without differential privacy


def test_what_sites_of_a_private_run_have_spent(tmp_path: Path) -> None:
    proxy, superlink = free_ports(2)
    kits = make_kits(tmp_path, ("north",), port=proxy, superlink=superlink)
    folder = tmp_path / "runs" / "toy"
    bench = spender(folder, private_toy(folder))
    run_apps(private(toys.federation(folder)), make_app(lambda: bench), 3)
    (run,) = status.status(kits).runs
    text = io.StringIO()
    status.print_tables(status.status(kits), Console(file=text, width=140))

    assert run.sites["west"].epsilon == PLAN.epsilon_after(3 * STEPS)
    assert text.getvalue().count(epsilon_text(run.sites["west"].epsilon)) == 3
