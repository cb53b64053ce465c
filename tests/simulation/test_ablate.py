"""The comparison of the method's switches: each variant changes one thing, and the command ends in a table."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs import to_dict
from simulation.ablate import config_of, main, table_file, variants


def differences(one: object, other: object, at: str = "") -> set[str]:
    """Dotted keys at which two plain trees differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        found = [differences(one[key], other[key], f"{at}.{key}" if at else str(key)) for key in one]
        return {key for part in found for key in part}
    return {at} if one != other else set()


@pytest.mark.parametrize("variant", sorted(set(variants()) - {"published"}))
def test_a_variant_changes_one_thing(variant: str) -> None:
    corrected, changed = (to_dict(config_of(name, [])) for name in ("corrected", variant))
    assert len(differences(corrected, changed)) == 1


def test_published_changes_what_the_others_change() -> None:
    """All published switches together, and the published weight of the landmark term."""
    corrected, published = (to_dict(config_of(name, [])) for name in ("corrected", "published"))
    assert differences(corrected, published) == {
        "adapter.targets", "train.expression_from", "train.cycle.landmark_weight", "train.cycle.expression_weight",
        "train.cycle.estimate_from", "train.cycle.second_image", "train.cycle.clip", "train.cycle.trust_by_signal",
    }  # fmt: skip


def test_an_unknown_variant(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["hard_clop"]) == 2
    said = capsys.readouterr().err
    assert "unknown variant='hard_clop'. Did you mean 'hard_clip'?" in said
    assert "an override is written key=value" in said


def test_a_table_of_some_variants_never_takes_the_place_of_the_whole() -> None:
    every = ["corrected", *variants()]
    assert table_file(every) == "table.md"
    assert table_file(["corrected", "one_pass", "averaged"]) == "table-averaged-one_pass.md"
    assert table_file(["corrected"]) == "table-corrected.md"
    names = {table_file([name for name in every if name != left]) for left in variants()}
    assert len(names) == len(variants())
    assert all(len(name) < 255 and name != "table.md" for name in names)


def test_what_cannot_be_is_told_before_anything_is_rendered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluation.sampling_steps=1001", "--runs", str(tmp_path / "runs")]) == 2
    assert "sampling steps=1001 must lie in" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("raised", "code", "told"),
    [
        (KeyboardInterrupt(), 130, "interrupted; the same command goes on"),
        (OSError(28, "No space left on device"), 2, "the disk refused: No space left on device"),
    ],
)
def test_an_interrupted_comparison_ends_in_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    raised: BaseException,
    code: int,
    told: str,
) -> None:
    def stop(*_: object) -> None:
        raise raised

    monkeypatch.setattr("simulation.ablate.score_variant", stop)
    assert main(["one_pass", "evaluation.patients=1", "--runs", str(tmp_path)]) == code
    assert told in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_ends_in_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two variants, really trained and drawn; the same command again trains nothing and says the same."""
    small = ["train.steps=1", "federation.rounds=1", "evaluation.patients=2", "evaluation.bootstrap=10", "threads=1"]
    small += [f"sites.{place}.subjects=2" for place in range(3)]
    command = ["averaged", "one_pass", *small, "--runs", str(tmp_path)]
    assert main(command) == 0
    file = tmp_path / "corrected" / table_file(["averaged", "one_pass"])
    first = file.read_text(encoding="utf-8")
    rows = [line.split("|")[1].strip() for line in first.splitlines()]
    assert rows == ["variant", "---", "corrected", "averaged", "one_pass"]
    assert "12 cases of 2 people" in capsys.readouterr().out
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    assert any("pictures" in path.parts for path in written)
    assert main(command) == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")} == written
    assert file.read_text(encoding="utf-8") == first
    assert not (tmp_path / "corrected/table.md").exists()
