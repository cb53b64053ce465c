"""What the tests of the page share."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.client.prepare.landmarks_page.desks import PLANTED, write_phantoms


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of phantoms that nobody changes."""
    return write_phantoms(tmp_path_factory.mktemp("rendered")).parent


@pytest.fixture
def manifest(rendered: Path, tmp_path: Path) -> Path:
    """The manifest of a copy of those phantoms."""
    return Path(shutil.copytree(rendered, tmp_path / PLANTED)) / "manifest.csv"
