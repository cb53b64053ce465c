"""The study of what privacy costs: which runs it is made of, and what its table says of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from ccfexp._io import atomic_write_json
from ccfexp.errors import ConfigError
from configs import config_hash
from simulation.compare import BASE, Study, measured
from simulation.private_study import main, private_table, studies, table_file

FEW = [f"sites.{index}.subjects=2" for index in range(3)]
SMALL = [*FEW, "train.steps=1", "federation.rounds=1", "train.cycle_every=1", "evaluation.patients=2"]
SMALL += ["evaluation.sampling_steps=2", "privacy.sampling_rate=0.5", "train.batch_size=4"]


def planned(*overrides: str, folder: Path = Path("nowhere")) -> list[Study]:
    return studies(["fedit", "fedsvd"], ["none", "8", "3"], [1, 2], [*FEW, *overrides], folder)


def figures(side: float, severity: float) -> dict[str, float]:
    """Of one seed; what is not compared stays 1."""
    rest = dict.fromkeys(("severity_error", "landmark_nme", "ssim", "up_kb", "down_kb", "seconds"), 1.0)
    return rest | {"side_accuracy": side, "severity_spearman": severity}


def test_every_rule_at_every_epsilon_and_seed() -> None:
    """With the plan that its epsilon asks for; where there is none, what is overridden of privacy is left out."""
    made = planned("privacy.clipping_norm=0.5", "train.steps=2")
    cells = {(study.name, study.config.seed): study.config for study in made[1:]}

    assert made[0].name == BASE
    assert len(cells) == len(made) - 1 == 12
    assert len({study.own for study in made}) == 13
    for (name, _), config in cells.items():
        assert config.federation.strategy == name.split("-")[0]
        assert config.train.steps == 2
        plan = config.private_plan
        if name.endswith("none"):
            assert plan is None
            continue
        assert plan is not None
        assert plan.clipping_norm == 0.5
        assert plan.source == "seeded", "the table can be repeated"
        wanted = float(name.rpartition("epsilon")[2])
        assert 0.97 * wanted < plan.epsilon_after(config.steps) <= wanted


@pytest.mark.parametrize("epsilon", ["zero", "0", "-1", "nan", "inf"])
def test_an_epsilon_that_is_none(epsilon: str) -> None:
    with pytest.raises(ConfigError, match=f"epsilon='{epsilon}' must be none or a number above 0"):
        studies(["fedit"], [epsilon], [1], FEW, Path())


def test_an_unknown_rule(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--rules", "fedsdv"]) == 2
    assert "Did you mean 'fedsvd'?" in capsys.readouterr().err


def test_what_is_left_of_a_rules_own_quality() -> None:
    """Over the same rule without privacy, seed by seed; nothing where that was not measured."""
    rows = {
        "base": [figures(0.9, 0.7)],
        "fedit-none": [figures(0.8, 0.5), figures(1.0, 1.0)],
        "fedit-epsilon8": [figures(0.4, 0.5) | {"epsilon": 7.99, "noise": 0.7}, figures(1.0, 0.5)],
        "ffa-epsilon8": [figures(0.4, 0.5) | {"epsilon": 7.99, "noise": 0.7}],
    }
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in private_table(rows).splitlines()]
    head, cells = lines[0], {line[0]: dict(zip(lines[0], line, strict=True)) for line in lines[2:]}

    assert head[:3] == ["Rule", "Epsilon", "Noise multiplier"]
    assert head[-2:] == ["Side / without", "Severity / without"]
    assert cells["fedit-epsilon8"]["Side / without"] == "0.750"
    assert cells["fedit-epsilon8"]["Severity / without"] == "0.750"
    assert cells["fedit-epsilon8"]["Epsilon"] == "7.99"
    assert cells["fedit-none"]["Epsilon"] == cells["fedit-none"]["Side / without"] == "–"
    assert cells["base"]["Side / without"] == cells["ffa-epsilon8"]["Side / without"] == "–"


def test_a_part_never_takes_the_name_of_the_whole_table() -> None:
    assert table_file(["fedsvd", "ffa", "fedit"], ["3", "8", "none"]) == "table.md"
    assert table_file(["fedsvd"], ["none", "8"]) == "table-fedsvd-none-8.md"


def test_a_cell_that_was_measured_is_not_measured_again(tmp_path: Path) -> None:
    """With the same configuration; nothing is rendered or trained here."""
    cells = planned(folder=tmp_path)[1:]
    for study in cells:
        record = {"config_sha256": config_hash(study.config), "figures": figures(0.5, float(study.config.seed))}
        atomic_write_json(study.own / "figures.json", record)

    found = measured(cells)

    assert list(found) == [
        f"{rule}-{what}" for rule in ("fedit", "fedsvd") for what in ("none", "epsilon8", "epsilon3")
    ]
    assert [[seed["severity_spearman"] for seed in row] for row in found.values()] == [[1.0, 2.0]] * 6
    assert not (tmp_path / "sites").exists()


@pytest.mark.slow
def test_the_real_cells(tmp_path: Path) -> None:
    """Rendered, trained, drawn, judged; one epsilon and none."""
    words = [*SMALL, "--rules", "fedsvd", "--epsilons", "none", "8", "--seeds", "1", "--out", str(tmp_path)]
    assert main(words) == 0
    text = (tmp_path / "table-fedsvd-none-8.md").read_text("utf-8")
    private = next(line for line in text.splitlines() if line.startswith("| fedsvd-epsilon8 "))

    assert 7.9 < float(private.split("|")[2]) <= 8.0
    assert {path.name for path in (tmp_path / "fedsvd-epsilon8-seed1" / "privacy").iterdir()} == {"A", "B", "C"}
    assert not (tmp_path / "fedsvd-none-seed1" / "privacy").exists()
