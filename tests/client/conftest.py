"""What the tests of a hospital's side share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from flwr.supercore.task_identity import TaskIdentity

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
