"""The bundle's bytes depend on its source alone."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from ccfexp.errors import ConfigError
from server import bundle

PACKAGES = ("strategies", "configs", "client", "server")


@pytest.fixture(scope="module")
def original() -> bytes:
    return bundle.build()


def clone(folder: Path) -> Path:
    for package in reversed(PACKAGES):  # files are made in another order
        shutil.copytree(bundle.ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", ".gitignore"):
        shutil.copy(bundle.ROOT / name, folder / name)
    return folder


def test_the_same_source_elsewhere_gives_the_same_bytes(original: bytes, tmp_path: Path) -> None:
    """In a folder whose name Flower would refuse, with other file times and modes, beside what is no source."""
    root = clone(tmp_path / "1 clone_of (a project) whose name is far too long")
    for number, path in enumerate(sorted(root.rglob("*.py"))):
        os.utime(path, (number, number))
        path.chmod(0o600)
    (root / "runs").mkdir()
    (root / "runs" / "patients.json").write_text("{}")

    assert bundle.build(root) == original


def test_what_is_staged_is_built_by_flower_into_the_same_bytes(original: bytes) -> None:
    """`flwr run` builds from the staged folder."""
    from flwr.cli.build import build_fab_from_disk

    with bundle.staged() as stage:
        assert build_fab_from_disk(stage) == original
    assert not stage.exists()


def test_other_source_gives_other_bytes(original: bytes, tmp_path: Path) -> None:
    root = clone(tmp_path / "clone")
    path = root / "client" / "app.py"
    path.write_text(path.read_text() + "# changed\n")

    assert bundle.sha256(bundle.build(root)) != bundle.sha256(original)


def test_the_command_line_prints_the_hash(original: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "out" / "app.fab"

    assert bundle.main(["--out", str(path)]) == 0
    assert capsys.readouterr().out.split()[0] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert path.read_bytes() == original


def test_without_the_source(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="clone of the project"):
        bundle.build(tmp_path)


def test_a_listed_file_is_missing(tmp_path: Path) -> None:
    root = clone(tmp_path / "clone")
    (root / "client" / "workbench.py").unlink()

    with pytest.raises(ConfigError, match=r"workbench\.py"):
        bundle.build(root)
