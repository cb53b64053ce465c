"""What a rule promises of a whole run: who trains what, and what never travels."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Message, MessageType
from flwr.clientapp import ClientApp

from ccfexp.adapter import AdapterState
from ccfexp.errors import RoundError
from server.federation import Hooks
from simulation.grid import LocalGrid
from strategies import registry, wire
from strategies.packing import trained_letter
from tests import toys
from tests.server.runs import StoppedError, added, app_of, bits, final_bytes, interrupted, stopping_at

WIDE = toys.initial(width=12, rank=8)


# --- mixed ranks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", sorted(registry.RULES))
def test_sites_of_three_ranks_train_together(tmp_path: Path, rule: str) -> None:
    """Each at its own, under every rule, towards the mean of what they fit."""
    hospital = toys.ToyHospital(ranks=(2, 4, 200), first=WIDE, steps=10)
    plan = toys.federation(tmp_path, rounds=10, strategy=rule, start=WIDE, alpha=8.0, upload="bfloat16")

    progress = plan.run(LocalGrid(app_of(hospital), 3))

    for record in progress.history[1:]:
        assert record.ranks == {"north": 2, "south": 4, "west": 8}
        assert list(record.weights) == list(toys.SITES)
        for site, rank in record.ranks.items():
            start = hospital.starts[site, record.round_number]
            assert (start[toys.A].shape, start[toys.B].shape) == ((rank, 12), (12, rank))
    assert progress.adapter[toys.A].shape == (8, 12)
    if rule == "fedsa":  # every site ends with a model of its own
        losses = [record.means()["loss"] for record in progress.history[1:]]
        assert losses[-1] < 0.5 * losses[0]
    else:
        target = torch.eye(12) * torch.tensor([4.0, 4.0] + [0.0] * 10) + 0.1 * (0 * 1 + 1 * 2 + 2 * 3) / 6
        assert (added(progress.adapter) - target).norm() < 0.75 * target.norm()
        assert progress.adapter[toys.B][:, 4:].any() == (rule != "flora")  # which begins anew every round


def test_auto_chooses_for_the_ranks_of_the_first_round_and_stays_with_it(tmp_path: Path) -> None:
    """The small site is away when the run goes on: a run does not change its rule."""
    hospital = toys.ToyHospital(ranks=(1, 2, 2))
    with pytest.raises(StoppedError):
        toys.federation(tmp_path, strategy="auto", hooks=stopping_at(2)).run(LocalGrid(app_of(hospital), 3))
    hospital.ranks = (2, 2, 2)

    progress = toys.federation(tmp_path, strategy="auto").run(LocalGrid(app_of(hospital), 3))

    assert progress.method == "flex"
    assert [record.ranks.get("north") for record in progress.history] == [None, 1, 2, 2]
    equal = toys.federation(tmp_path / "equal", strategy="auto", rounds=1).run(LocalGrid(toys.toy_app(), 3))
    assert equal.method == "rolora"


# --- what each rule keeps to itself -----------------------------------------------------------------------------------


class Listening(LocalGrid):
    """Remembers what goes either way."""

    def __init__(self, app: ClientApp, nodes: int) -> None:
        super().__init__(app, nodes)
        self.sent: list[wire.AdapterMessage] = []
        self.received: list[Message] = []

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        kept = list(messages)
        self.sent += [
            wire.decode_message(one.content) for one in kept if one.metadata.message_type == MessageType.TRAIN
        ]
        return super().push_messages(kept)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        replies = list(super().pull_messages(message_ids))
        self.received += [reply for reply in replies if reply.metadata.message_type == MessageType.TRAIN]
        return replies


@pytest.mark.parametrize(("rule", "down", "up"), [("ffa", "B", "B"), ("fedsa", "A", "A"), ("fedsvd", "AB", "B")])
def test_a_factor_that_a_rule_does_not_send_is_nowhere_on_the_wire(
    tmp_path: Path, rule: str, down: str, up: str
) -> None:
    """Neither by name nor by size nor, either way, any number of it."""
    hospital = toys.ToyHospital()
    grid = Listening(app_of(hospital), 3)

    progress = toys.federation(tmp_path, strategy=rule).run(grid)

    assert len(grid.sent) == len(grid.received) == 9
    for message, reply in zip(grid.sent, grid.received, strict=True):
        assert {trained_letter(name) for name in message.manifest.names} == set(down)
        update = wire.decode_update(reply.content, wire.UpdateBounds(message, 1e9, 1e9))
        assert {trained_letter(name) for name in update.manifest.names} == set(up)
        assert message.flat_P.size == 12 * len(down)
        assert update.change_P.size == 12 * len(up)
    travelled = np.concatenate([message.flat_P for message in grid.sent])
    if rule == "ffa":
        assert bits(progress.adapter[toys.A]) == bits(toys.initial()[toys.A])
        assert not set(toys.initial()[toys.A].ravel().tolist()) & set(travelled.tolist())
    if rule == "fedsa":
        own = {value for end in hospital.ends.values() for value in end[toys.B].ravel().tolist()}
        assert len(own) > 50
        assert not own & set(travelled.tolist())
        assert not progress.adapter[toys.B].any()


def test_another_agreed_factor_is_refused_by_the_site(tmp_path: Path) -> None:
    """A site of another seed or release would train another model than the rest."""
    hospital = toys.ToyHospital(first=toys.initial() | {toys.A: toys.initial()[toys.A] * 1.0000001})

    with pytest.raises(RoundError, match=r"usable updates=0.*error=101.*known_sha256=[0-9a-f]{12} of the message"):
        toys.federation(tmp_path, strategy="ffa").run(LocalGrid(app_of(hospital), 3))


@pytest.mark.parametrize("upload", ["float32", "int8"])
def test_a_personal_factor_survives_a_restart_and_a_repeated_round(tmp_path: Path, upload: str) -> None:
    """A site goes on with the B with which its last complete round ended."""
    options: dict[str, Any] = {"rounds": 4, "strategy": "fedsa", "upload": upload}
    hospital, undisturbed = toys.ToyHospital(), toys.ToyHospital()

    interrupted(tmp_path / "cut", hospital, 3, **options)
    toys.federation(tmp_path / "whole", **options).run(LocalGrid(app_of(undisturbed), 3))

    assert len(hospital.calls) == 15
    assert len(undisturbed.calls) == 12
    for site in toys.SITES:
        assert bits(hospital.starts[site, 4][toys.B]) == bits(hospital.ends[site, 3][toys.B])
        assert bits(hospital.ends[site, 4][toys.B]) == bits(undisturbed.ends[site, 4][toys.B])
    own = [undisturbed.ends[site, 4][toys.B] for site in toys.SITES]
    assert not torch.equal(own[0], own[1])
    assert final_bytes(tmp_path / "cut") == final_bytes(tmp_path / "whole")


@pytest.mark.parametrize("upload", ["float32", "int8"])
def test_the_frozen_factor_of_rolora_is_the_same_everywhere_to_the_last_bit(tmp_path: Path, upload: str) -> None:
    """At every site, after every round, and at the coordinator."""
    hospital = toys.ToyHospital()
    seen: dict[int, AdapterState] = {}
    hooks = Hooks(on_round=lambda number, adapter, means: seen.update({number: adapter}))  # noqa: ARG005

    toys.federation(tmp_path, rounds=6, strategy="rolora", upload=upload, hooks=hooks).run(
        LocalGrid(app_of(hospital), 3)
    )

    for number in range(1, 7):
        frozen, moving = (toys.A, toys.B) if number % 2 else (toys.B, toys.A)
        held = {bits(hospital.ends[site, number][frozen]) for site in toys.SITES}
        assert held == {bits(seen[number - 1][frozen])} == {bits(seen[number][frozen])}
        assert len({bits(hospital.ends[site, number][moving]) for site in toys.SITES}) == 3
        assert len({bits(hospital.starts[site, number][moving]) for site in toys.SITES}) == 1
