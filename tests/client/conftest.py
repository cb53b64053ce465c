"""What the tests of a hospital's side share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from flwr.supercore.task_identity import TaskIdentity

from ccfexp.data.phantom.presets import SITES
from ccfexp.data.phantom.sites import write_site as write_phantoms

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def task_identity() -> Iterator[None]:
    """Flower makes messages only within a task."""
    names = [name for name in vars(TaskIdentity) if name.startswith("_") and not name.startswith("__")]
    before = {name: getattr(TaskIdentity, name) for name in names}
    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1
    yield
    for name, value in before.items():
        setattr(TaskIdentity, name, value)


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two patients of hospital A."""
    folder = tmp_path_factory.mktemp("phantoms")
    write_phantoms(replace(SITES["A"], subjects=2, sessions=1, movements=("brow_raise",)), folder, 64)
    return folder
