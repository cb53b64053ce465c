"""What a run leaves behind, whatever base it ran on and whatever its hospitals told."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from ccfexp import weights
from ccfexp.model import EncoderNames
from configs import load
from configs.run import RunConfig
from server.checkpoint import Progress, RoundRecord
from simulation.outputs import _facts, _write_tensorboard
from simulation.stages import FEDERATED, Outcome, Plan
from tests.ccfexp import tiny


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
