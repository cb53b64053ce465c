"""In whatever order replies arrive, they are combined in that of the sites' names, and wait on the disk till then."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
from flwr.app import Message

from client.app import make_app
from server.federation import Answer, Hooks
from simulation.grid import LocalGrid
from strategies import registry
from tests import toys
from tests.server.grids import Shuffled

SITES = ("a", "b", "c", "d", "e")


@pytest.mark.parametrize("rule", sorted(registry.RULES))
def test_the_order_of_arrival_does_not_change_a_bit(tmp_path: Path, rule: str) -> None:
    """Sums of floating-point numbers depend on their order, so theirs is that of the names."""
    finals, orders = set(), set()
    for seed in range(4):
        hospital, heard = toys.ToyHospital(SITES), list[str]()
        hooks = Hooks(on_reply=lambda answer, heard=heard: heard.append(answer.site))  # type: ignore[misc]
        plan = toys.federation(tmp_path / f"{seed}", strategy=rule, upload="int8", rounds=2, wanted=5, hooks=hooks)
        progress = plan.run(Shuffled(make_app(lambda bench=hospital: bench), 5, seed))  # type: ignore[misc]
        assert list(progress.history[2].weights) == list(SITES)
        orders.add(tuple(heard))
        finals.add((tmp_path / f"{seed}" / "adapter.safetensors").read_bytes())
    assert len(orders) == 4
    assert len(finals) == 1


class Backwards(LocalGrid):
    """The last site answers first."""

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return super().pull_messages([message_id for message_id in message_ids if message_id in self._waiting][-1:])


@pytest.mark.parametrize("rule", ["fedit", "flora"])
def test_early_updates_wait_on_the_disk_and_are_gone_afterwards(tmp_path: Path, rule: str) -> None:
    """Also those of a round that an interrupted run left."""
    waiting = tmp_path / "waiting"
    waiting.mkdir(parents=True)
    (waiting / "nobody.f4").touch()
    seen: list[set[str]] = []

    def look(answer: Answer) -> None:  # noqa: ARG001 (the interface)
        seen.append({path.name for path in waiting.iterdir()} if waiting.exists() else set())

    toys.federation(tmp_path, rounds=2, strategy=rule, hooks=Hooks(on_reply=look)).run(Backwards(toys.toy_app(), 3))

    assert seen == [set(), {"west.f4"}, {"south.f4", "west.f4"}] * 2
    assert not waiting.exists()
