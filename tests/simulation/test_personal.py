"""Models of a federation that has none of the whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from client.memory import SiteMemory
from server.checkpoint import Progress
from simulation.personal import adapters_of
from tests.toys import A, B, initial

if TYPE_CHECKING:
    from pathlib import Path


def test_a_site_of_lower_rank_has_its_components_and_zeros(tmp_path: Path) -> None:
    """The shared A, and a B whose product with it is the site's own."""
    own = torch.arange(6.0).reshape(6, 1)
    SiteMemory(tmp_path / "memory" / ("a" * 16) / "north").remember("personal", 3, {B: own})

    found = adapters_of(Progress(3, initial(), (), "fedsa", run="a" * 16), tmp_path)

    assert list(found) == ["north"]
    assert torch.equal(found["north"][A], initial()[A])
    assert torch.equal(found["north"][B] @ initial()[A], own @ initial()[A][:1])


def test_any_other_rule_has_one_model(tmp_path: Path) -> None:
    assert list(adapters_of(Progress(3, initial(), (), "rolora"), tmp_path)) == [""]
