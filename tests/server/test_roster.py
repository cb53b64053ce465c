"""Which node may speak for which site."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import pytest
from flwr.app import Message
from flwr.proto.node_pb2 import NodeInfo

from ccfexp.errors import RoundError
from server.exchange import Patience
from server.roster import Member, Roster
from simulation.grid import LocalGrid
from tests import toys


class RegisteredGrid(LocalGrid):
    """The grid of this process, with names under which nodes are registered, as a SuperLink has them."""

    names: tuple[str, ...] = ()

    def get_nodes(self) -> Iterable[NodeInfo]:
        """Every node with its name."""
        return [NodeInfo(node_id=node, name=name) for node, name in zip(self.get_node_ids(), self.names, strict=True)]


def grid(*names: str) -> RegisteredGrid:
    made = RegisteredGrid(toys.toy_app(), len(names))
    made.names = names
    return made


def sites(of: LocalGrid, *, wanted: int, required: int = 1, wait_s: float = 0.1) -> dict[str, Member]:
    return Roster(of, Patience(5.0, poll_s=0.01), wait_s).sites(wanted=wanted, required=required)


def test_names_that_agree() -> None:
    assert list(sites(grid("north", "south", "west"), wanted=3)) == ["north", "south", "west"]


def test_a_grid_that_registers_nobody() -> None:
    assert list(sites(LocalGrid(toys.toy_app(), 3), wanted=3)) == ["north", "south", "west"]


def test_another_name_than_the_registered_one_is_not_used(caplog: pytest.LogCaptureFixture) -> None:
    """The second node says south, and its key is east's."""
    with caplog.at_level(logging.WARNING):
        found = sites(grid("north", "east", "west"), wanted=3, required=2)

    assert list(found) == ["north", "west"]
    (warning,) = {record.getMessage() for record in caplog.records if "not used" in record.getMessage()}
    assert "south" in warning
    assert "east" in warning


def test_nobody_takes_the_place_of_another(caplog: pytest.LogCaptureFixture) -> None:
    """Two hospitals that claim each other's names are both left out."""
    with caplog.at_level(logging.WARNING), pytest.raises(RoundError, match="sites=1"):
        sites(grid("south", "north", "west"), wanted=3, required=2)


def test_a_site_that_was_put_right_is_used_in_the_next_round() -> None:
    """With a registered key it comes back as the same node."""
    known = grid("north", "east", "west")
    roster = Roster(known, Patience(5.0, poll_s=0.01), 0.1)
    assert list(roster.sites(wanted=3, required=2)) == ["north", "west"]

    known.names = ("north", "south", "west")

    assert list(roster.sites(wanted=3, required=2)) == ["north", "south", "west"]


def test_who_was_named_is_not_asked_again() -> None:
    asked: list[int] = []

    class Counting(LocalGrid):
        def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
            listed = list(messages)
            asked.extend(message.metadata.dst_node_id for message in listed)
            return super().push_messages(listed)

    roster = Roster(Counting(toys.toy_app(), 3), Patience(5.0, poll_s=0.01), 0.1)
    for _ in range(3):
        roster.sites(wanted=3, required=3)

    assert len(asked) == 3
