"""The two commands, as a person calls them."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ccfexp.adapter import AdapterConfig
from ccfexp.checkpoint import save_adapter
from ccfexp.data.phantom.presets import site_preset
from ccfexp.data.phantom.sites import write_site
from ccfexp.model import CCFExp
from ccfexp.privacy.audit import commands
from ccfexp.privacy.audit.__main__ import main
from ccfexp.privacy.audit.bounds import Bound
from ccfexp.privacy.audit.broken import without_noise
from ccfexp.privacy.audit.one_run import OneRunResult
from ccfexp.progress import WorkProgress

FEW = ["canaries", "--canaries=2", "--patients=1", "--steps=1", "--draws=1"]


def test_a_refuted_claim_ends_with_code_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is told of an audit that found something; that it does find it is tested where it is made."""
    asked: dict[str, object] = {}

    def found(*_: object, **given: object) -> OneRunResult:
        asked.update(given)
        return OneRunResult(1.991, Bound(2.7189, 64, 64, 128, 1e-5, 0.95), highest=3.4199, steps=20, patients=16)

    monkeypatch.setattr(commands, "audit_training", found)
    out = tmp_path / "audit.json"

    assert main([*FEW, "--break=noise", f"--out={out}"]) == 1

    assert asked["spoil"] is without_noise
    assert capsys.readouterr().out.splitlines() == [
        "mechanism        broken: no noise",
        "claimed epsilon  2.00 at delta 1e-05 (privacy loss distributions, add or remove one; 20 steps)",
        "lower bound      2.71 at 95% confidence (at most 3.41 with so many canaries)",
        "guesses          64 of 64 right, 128 canaries",
        "claim            REFUTED: the training is less private than claimed",
    ]
    record = json.loads(out.read_text())
    assert record["refuted"] is True
    assert record["asked"]["broken"] == "noise"
    assert record["bound"]["epsilon"] > record["claimed"]


def test_too_few_canaries_to_refute_anything(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(FEW) == 0

    assert "so few canaries could not refute it" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--canaries=0", "canaries=0"), ("--epsilon=0", "epsilon=0"), ("--steps=0", "steps=0"),
        ("--draws=0", "draws=0"), ("--sampling-rate=2", "sampling_rate=2"), ("--seed=-1", "--seed=-1"),
        ("--base=nobody", "nobody"), ("--rank=0", "rank=0"), ("--delta=1", "delta=1"),
        ("--learning-rate=0", "learning_rate=0"),
    ],
)  # fmt: skip
def test_impossible_arguments(argument: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*FEW, argument]) == 2

    assert message in capsys.readouterr().err


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    site = replace(site_preset("A"), subjects=4, holdout=2, sessions=1, movements=("smile_teeth",))
    return write_site(site, tmp_path_factory.mktemp("site"), 64)


def test_membership(manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, model = AdapterConfig(rank=2, alpha=4.0), CCFExp.from_base("phantom-base")
    model.attach_adapter(config, seed=1)
    generator = torch.Generator().manual_seed(2)
    state = {
        key: value + 0.01 * torch.randn(value.shape, generator=generator)
        for key, value in model.adapter_state().items()
    }
    save_adapter(tmp_path, state, model, config, {"base_sha256": model.base_sha256})
    out = tmp_path / "attack.json"

    code = main(["membership", f"--adapter={tmp_path}", f"--manifest={manifest}", "--draws=2", f"--out={out}"])

    assert code == 0
    printed, record = capsys.readouterr().out, json.loads(out.read_text())
    assert "2 trained on, 2 not" in printed
    assert "it takes 100 patients who were not trained on, and there are 2" in printed
    assert record["true_positive_rate"] is None
    assert 0 <= record["auc"]["estimate"] <= 1
    assert "P00" not in printed + out.read_text()  # nobody is named


def test_membership_without_a_held_out_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site = replace(site_preset("A"), subjects=1, holdout=0, sessions=1, movements=("smile_teeth",))
    manifest = write_site(site, tmp_path, 64)

    assert main(["membership", f"--adapter={tmp_path}", f"--manifest={manifest}"]) == 2

    assert "split=holdout" in capsys.readouterr().err


class _Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_progress_elsewhere_than_in_a_terminal_is_a_line_now_and_then() -> None:
    stream, clock = io.StringIO(), _Clock()

    with WorkProgress(10, stream=stream, clock=clock) as progress:
        for step in range(1, 11):
            clock.now = 4.0 * step
            progress.advance(1, f"step {step}")

    assert stream.getvalue().splitlines() == ["step 3 | 30%", "step 6 | 60%", "step 9 | 90%"]
