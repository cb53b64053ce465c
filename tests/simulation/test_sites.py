"""`python -m simulation.sites` writes what the simulation of the same configuration would."""

from __future__ import annotations

from pathlib import Path

import pytest

import configs
from configs.run import RunConfig
from simulation import sites


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_same_files_as_the_simulation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = configs.load("tiny", [], RunConfig)

    assert sites.main(["tiny", "--out", str(tmp_path / "written")]) == 0
    sites.prepare_sites(config.hospitals, config.image_size, tmp_path / "simulated")

    written = files(tmp_path / "written")
    assert {"A/manifest.csv", "B/manifest.csv"} <= written.keys()
    assert written == files(tmp_path / "simulated")
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["A", "B"]


def test_a_mistyped_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sites.main(["tini", "--out", str(tmp_path)]) == 2
    assert "Did you mean 'tiny'" in capsys.readouterr().err
