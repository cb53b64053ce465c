"""The project file, the lock file and the code agree on what is needed and in which version."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("ccfexp", "strategies", "configs", "client", "server", "simulation")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
RUN = [Requirement(text) for text in PROJECT["dependencies"]]
EXTRA = [Requirement(text) for texts in PROJECT["optional-dependencies"].values() for text in texts]


def locked() -> dict[str, str]:
    """Return the exact versions: those of the lock file, and torch's, which the Makefile names."""
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pairs = [line.split("==") for line in lines if not line.startswith("#")]
    torch = re.search(r"^TORCH_VERSION := (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert torch is not None
    return {canonicalize_name(name): version for name, version in pairs} | {"torch": torch[1]}


def imported() -> set[str]:
    """Return the top-level names that the shipped packages import."""
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    assert len(files) > 20
    names: set[str] = set()
    for path in files:
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        found = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        found |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
        # A script that is started by its path imports its neighbours by their bare names.
        names |= {name.split(".")[0] for name in found if not (path.parent / f"{name}.py").is_file()}
    return names


@pytest.mark.parametrize("requirement", RUN + EXTRA, ids=lambda requirement: requirement.name)
def test_locked_version_is_within_tested_bounds(requirement: Requirement) -> None:
    """Every bound has both ends, and the lower one lets the locked version in."""
    version = locked()[canonicalize_name(requirement.name)]

    assert version in requirement.specifier
    assert {"<", ">="} == {part.operator for part in requirement.specifier}


def test_every_import_is_declared() -> None:
    """Nothing is used that is only there because something else needs it."""
    declared = {canonicalize_name(requirement.name) for requirement in RUN}
    for extra in ("ray", "photos"):
        declared |= {canonicalize_name(text.split(">")[0]) for text in PROJECT["optional-dependencies"][extra]}
    third_party = imported() - set(sys.stdlib_module_names) - set(PACKAGES)
    distributions = packages_distributions()
    undeclared = {
        name for name in third_party if not {canonicalize_name(found) for found in distributions[name]} & declared
    }

    assert third_party >= {"torch", "flwr", "hydra"}
    assert undeclared == set()


def test_no_cuda_in_the_lock() -> None:
    """The lock file serves the CPU and the CUDA build alike."""
    lines = (ROOT / "requirements.lock").read_text()

    assert not re.search(r"^(torch==|nvidia-|cuda-|triton==)", lines, re.MULTILINE)
    assert "file:" not in lines
