"""The simulation as a person runs it: one command, to the report, through kills and mistakes."""

from __future__ import annotations

import html
import json
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import equal

from ccfexp import weights
from ccfexp.model import OFFICIAL, config_to_json
from configs import load
from configs.run import RunConfig
from simulation.run import main

ROOT = Path(__file__).parents[2]


def command(out: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "simulation.run", "tiny", *words, "--out", str(out)]


def adapter(out: Path) -> dict[str, object]:
    return dict(load_file(out / "adapter" / "adapter_model.safetensors"))


@pytest.mark.e2e
def test_the_tiny_run_ends_in_a_report(tmp_path: Path) -> None:
    done = subprocess.run(command(tmp_path), cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert "federated" in done.stdout
    report = (tmp_path / "report.html").read_text("utf-8")
    assert "not evidence about patients" in report
    metrics = json.loads((tmp_path / "metrics.json").read_text("utf-8"))
    assert set(metrics["rounds"]) == {"federated", "A", "B", "pooled"}
    for key in ("side_accuracy", "severity_spearman", "landmark_nme", "ssim"):
        models = metrics["comparison"]["metrics"][key]["models"]
        assert set(models) == {"federated", "base", "best local", "pooled", "true target"}
        assert all({"low", "high"} <= set(value) for value in models.values())
    assert list((tmp_path / "tensorboard" / "federated").glob("events.*"))
    assert json.loads((tmp_path / "config.json").read_text("utf-8"))["name"] == "tiny"
    assert (tmp_path / "adapter" / "adapter_config.json").is_file()


@pytest.mark.e2e
def test_a_private_run_ends_in_a_report_that_says_what_it_cost(tmp_path: Path) -> None:
    done = subprocess.run(
        command(tmp_path, "+privacy=patient", "privacy.sampling_rate=0.5"),
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert "differential privacy per patient: epsilon 8.00" in done.stdout
    metrics = json.loads((tmp_path / "metrics.json").read_text("utf-8"))
    report = html.unescape((tmp_path / "report.html").read_text("utf-8"))
    for site in ("A", "B"):
        told = metrics["privacy"]["sites"][site]
        assert 7.5 < told["epsilon"] <= 8.0
        assert told["statement"] in report
        assert [set(record["sites"][site]) for record in metrics["rounds"]["federated"][1:]] == [
            {"steps", "epsilon_run", "epsilon_total"}
        ] * 2
    assert "loss" in metrics["rounds"]["pooled"][1]["sites"]["pooled"], "trained without differential privacy"
    assert "without differential privacy" in report
    with safe_open(str(tmp_path / "adapter.safetensors"), "np") as file:
        assert json.loads(json.loads(file.metadata()["ccfexp"])["privacy"]) == metrics["privacy"]["plan"]


@pytest.mark.e2e
@pytest.mark.timeout(900)  # five runs, one after another, on a machine that may be busy
def test_killed_at_random_instants_it_ends_in_the_same_adapter(tmp_path: Path) -> None:
    longer = ("train.steps=4", "federation.rounds=4")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    started = time.monotonic()
    subprocess.run(command(whole, *longer), cwd=ROOT, capture_output=True, check=True)
    seconds = time.monotonic() - started
    seed = time.time_ns()
    luck = random.Random(seed)
    for _ in range(3):
        process = subprocess.Popen(
            command(broken, *longer), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(luck.uniform(0.2, 0.9) * seconds)
        process.kill()
        process.wait()
    done = subprocess.run(command(broken, *longer), cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, f"seed={seed}: {done.stderr}"
    expected, found = adapter(whole), adapter(broken)
    assert set(expected) == set(found)
    assert all(equal(expected[name], found[name]) for name in expected), f"seed={seed}"  # type: ignore[arg-type]


def test_a_mistyped_key_is_told_with_the_nearest_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train.batch_sise=4"]) == 2
    assert "Did you mean 'batch_size'?" in capsys.readouterr().err


def test_an_impossible_value_is_told_with_its_bound(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train.batch_size=0"]) == 2
    said = capsys.readouterr().err
    assert "batch_size=0" in said
    assert ">= 1" in said


def test_a_dry_run_prints_the_configuration_and_the_time_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"

    assert main(["--dry-run", "seed=7", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert '"seed": 7' in said
    assert "minutes" in said
    assert not out.exists()


def test_a_dry_run_says_what_would_be_promised(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tiny", "--dry-run"]) == 0
    assert "no differential privacy: the updates are not anonymous" in capsys.readouterr().out
    assert main(["tiny", "+privacy=patient", "privacy.epsilon=3", "--dry-run"]) == 0
    assert "differential privacy per patient: epsilon 3.00 at delta 1e-05 after 4 steps" in capsys.readouterr().out


def test_a_folder_of_another_configuration_is_refused_and_left_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "config.json").write_text('{"name": "another"}', encoding="utf-8")

    assert main(["tiny", "--out", str(tmp_path)]) == 2
    assert "another configuration" in capsys.readouterr().err
    assert (tmp_path / "config.json").read_text(encoding="utf-8") == '{"name": "another"}'
    assert not (tmp_path / "sites").exists()


def test_an_unknown_device_is_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"

    assert main(["tiny", "--device", "abacus", "--out", str(out)]) == 2
    assert "device='abacus'" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize("dry", [["--dry-run"], []], ids=["dry", "run"])
@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("image_size=48", "image_size=48 must be 64, the size of the base"),
        ("evaluation.sampling_steps=1001", "steps=1001 must lie in"),
        ("base=none.safetensors", "the base file given as a path does not exist"),
        ("base=phantom-bse", "Did you mean 'phantom-base'?"),
        ("federation.strategy=fedavg", "fedavg"),
        ("expected_minutes=-3", "expected_minutes=-3.0 must be > 0"),
        ("seed", "'seed' is no configuration (known: "),
        ("privacy.noise_multiplier=0.01", "privacy.noise_multiplier=0.01 must lie in [0.2, 1000]"),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_rendered(
    word: str, told: str, dry: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert main(["tiny", word, *dry, "--out", str(out)]) == 2
    assert told in capsys.readouterr().err
    assert not out.exists()


def test_a_base_of_a_size_that_the_evaluators_do_not_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An imported base draws 112 pixels: refused at once, from the header of its file alone."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(save({}, {"model": config_to_json(OFFICIAL)}))
    assert main(["tiny", f"base={path}", "image_size=112", "--dry-run"]) == 2
    assert "image_size=112 must be 64, the size that the evaluators of a simulation read" in capsys.readouterr().err


def test_the_estimated_time_grows_with_the_work(capsys: pytest.CaptureFixture[str]) -> None:
    """Four times the work takes four times as long; a change that is no work changes nothing."""

    def minutes(*words: str) -> float:
        assert main(["--dry-run", *words]) == 0
        said = capsys.readouterr().out
        return float(said.rpartition(": ")[2].removesuffix(" minutes\n"))

    usual = minutes()
    assert usual == load("default", [], RunConfig).expected_minutes
    assert minutes("seed=3") == usual
    longer = minutes("train.steps=120", "evaluation.patients=384")
    assert longer == pytest.approx(4 * usual, rel=0.03)
    assert minutes("evaluation.baselines=false") < 0.6 * usual


def test_two_configurations_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["default", "full"]) == 2
    assert "at most one" in capsys.readouterr().err


def test_a_damaged_data_set_is_told_row_by_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything is trained; the rows are numbered, files and people are not named."""
    from simulation.sites import prepare_sites

    config = load("tiny", [], RunConfig)
    manifests = prepare_sites(config.hospitals, config.image_size, tmp_path / "sites")
    images = sorted((manifests["A"].parent / "images").iterdir())
    images[0].unlink()
    images[1].write_bytes(b"no image")

    assert main(["tiny", "--out", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert {"row 2", "row 4"} == {line.split(":")[0].strip() for line in said.splitlines() if line.startswith("  row")}
    assert "site A" in said
    assert images[0].name not in said
    assert not (tmp_path / "checkpoint").exists()


def test_an_altered_weight_file_is_refused_with_both_hashes_and_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "package"
    shutil.copytree(ROOT / "ccfexp" / "assets", copy / "assets")
    file = copy / "assets" / "weights" / "phantom-base.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    monkeypatch.setattr(weights, "files", lambda _: copy)

    assert main(["tiny", "--out", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert "phantom-base.safetensors" in said
    assert "expected sha256=" in said
    assert "found sha256=" in said
    assert "restore it" in said
