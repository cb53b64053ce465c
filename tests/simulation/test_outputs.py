"""What a run leaves behind, whatever base it ran on and whatever its hospitals told."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ccfexp import weights
from ccfexp.errors import LedgerError
from ccfexp.model import EncoderNames
from ccfexp.privacy.statement import statement
from client.app import make_app
from configs import load
from configs.run import RunConfig
from server.checkpoint import Progress, RoundRecord
from simulation.grid import LocalGrid
from simulation.outputs import _facts, _panels, _privacy, _write_tensorboard, privacy_of
from simulation.spending import LEDGERS
from simulation.stages import FEDERATED, Outcome, Plan
from tests import toys
from tests.ccfexp import tiny
from tests.simulation.spenders import PLAN, STEPS, private, private_toy, spender


def history(*records: RoundRecord) -> Progress:
    return Progress(len(records) - 1, {"lora_A": torch.zeros(3)}, (RoundRecord(0, 0.0), *records))


def test_the_facts_of_a_base_whose_encoders_lie_beside_it(tmp_path: Path) -> None:
    """Each named network once, by the hash of its file or of the shipped weights."""
    names = EncoderNames("identity.safetensors", "face.safetensors", "phantom-landmark", neutral="identity.safetensors")
    model = tiny.model(replace(tiny.TINY, encoders=names))
    model.folder = tmp_path
    for name in ("identity", "face"):
        (tmp_path / f"{name}.safetensors").write_bytes(name.encode())
    scorer: Any = SimpleNamespace(model=model)
    plan = Plan(load("tiny", [], RunConfig), tmp_path, "command")
    outcome = Outcome(plan, {}, (), {}, scorer, histories={FEDERATED: history()})

    assert _facts(outcome).encoder_sha256 == {
        "identity.safetensors": hashlib.sha256(b"identity").hexdigest(),
        "face.safetensors": hashlib.sha256(b"face").hexdigest(),
        "phantom-landmark": weights.sha256("phantom-landmark"),
    }


def test_a_hospital_that_tells_no_loss_costs_nobody_the_run(tmp_path: Path) -> None:
    record = RoundRecord(1, 0.0, metrics={"A": {"loss": 0.5}, "B": {"patients": 3.0}})
    _write_tensorboard({FEDERATED: history(record)}, tmp_path)
    (file,) = (tmp_path / FEDERATED).glob("events.*")
    assert b"training_loss/A" in file.read_bytes()
    assert b"training_loss/B" not in file.read_bytes()


def private_outcome(folder: Path) -> Outcome:
    """What the toy's sites come to in a private run of three rounds, with the ledgers that they leave."""
    bench = spender(folder, private_toy(folder))
    progress = private(toys.federation(folder)).run(LocalGrid(make_app(lambda: bench), len(toys.SITES)))
    return outcome_of(folder, progress, "+privacy=patient", manifests=dict(bench.manifests) | {"absent": folder})


def outcome_of(folder: Path, progress: Progress, *overrides: str, manifests: dict[str, Path]) -> Outcome:
    scorer: Any = None
    plan = Plan(load("tiny", overrides, RunConfig), folder, "command")
    return Outcome(plan, manifests, (), {}, scorer, histories={FEDERATED: progress})


def test_what_was_spent_is_read_from_the_sites_own_ledgers(tmp_path: Path) -> None:
    """A site that was never asked has none. The numbers that a program reads say the same as the page."""
    outcome = private_outcome(tmp_path)
    facts, told = privacy_of(outcome), _privacy(outcome)

    assert facts is not None
    spent = PLAN.epsilon_after(3 * STEPS)
    assert facts.epsilons == {"absent": None} | dict.fromkeys(toys.SITES, spent)
    assert facts.largest == spent
    assert told is not None
    assert told["plan"]["noise_multiplier"] == facts.plan.noise_multiplier
    assert told["sites"]["north"] == {"epsilon": spent, "statement": statement("north", spent, facts.plan)}


def test_a_ledger_that_was_altered_is_not_reported(tmp_path: Path) -> None:
    outcome = private_outcome(tmp_path)
    (ledger,) = (tmp_path / LEDGERS / "north").glob("*.jsonl")
    ledger.write_text(ledger.read_text().replace('"steps":5', '"steps":1'))

    with pytest.raises(LedgerError):
        privacy_of(outcome)


def test_an_ordinary_run_has_no_facts_of_privacy(tmp_path: Path) -> None:
    outcome = outcome_of(tmp_path, history(), manifests={"A": tmp_path})
    assert privacy_of(outcome) is None
    assert _privacy(outcome) is None


def test_curves_of_what_sites_tell(tmp_path: Path) -> None:
    """Of a private run what was spent, of another one the loss; no empty axes."""
    ordinary = history(RoundRecord(1, 0.0, metrics={"A": {"loss": 0.5}}))
    panels = _panels({FEDERATED: ordinary})
    assert [panel.y_label for panel in panels] == ["denoising loss", "cycle loss"]

    panels = _panels(private_outcome(tmp_path).histories)
    assert [panel.y_label for panel in panels] == ["denoising loss", "epsilon"]
    assert [curve.last for curve in panels[1].curves] == [PLAN.epsilon_after(3 * STEPS)] * 3


def test_what_was_spent_stands_in_tensorboard(tmp_path: Path) -> None:
    _write_tensorboard(private_outcome(tmp_path).histories, tmp_path / "board")
    (file,) = (tmp_path / "board" / FEDERATED).glob("events.*")
    assert b"epsilon/north" in file.read_bytes()
    assert b"training_loss" not in file.read_bytes()
