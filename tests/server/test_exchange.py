"""Replies are known by the message that they answer and used in the order of the sites."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from flwr.app import Error, Message, MessageType, RecordDict
from hypothesis import given
from hypothesis import strategies as st

from ccfexp.errors import RoundError, WireError
from server.exchange import Envelope, Patience, checked_content, exchange, in_order
from server.roster import Roster
from simulation.grid import LocalGrid
from tests import toys

if TYPE_CHECKING:
    from collections.abc import Iterable


@given(st.permutations(["a", "b", "c", "d", "e"]))
def test_arrivals_come_out_in_the_order_of_the_keys(arrived: list[str]) -> None:
    """Whatever the order in which they came."""
    assert list(in_order(["a", "b", "c", "d", "e"], [(key, key.upper()) for key in arrived], str)) == list(
        zip("abcde", "ABCDE", strict=True)
    )


def test_what_comes_early_is_put_away_until_its_turn() -> None:
    """And only that."""
    arrivals = [(key, key.upper()) for key in "cab"]
    assert dict(in_order(list("abc"), arrivals, lambda value: f"kept {value}")) == {"a": "A", "b": "B", "c": "kept C"}


def test_what_arrives_in_order_is_not_held() -> None:
    """Memory for one: each is out before the next is taken."""
    taken: list[str] = []

    def arrivals() -> Iterable[tuple[str, int]]:
        for key in "abc":
            taken.append(key)
            yield key, 1

    first, *_ = next(iter(in_order(list("abc"), arrivals(), int))), taken
    assert first == ("a", 1)
    assert taken == ["a"]


def test_a_message_that_cannot_be_delivered_has_no_reply() -> None:
    """And does not shift the replies of the others."""

    class Lossy(LocalGrid):
        def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
            return super().push_messages([message for message in messages if message.metadata.dst_node_id != 1002])

    grid = Lossy(toys.toy_app(), 3)
    envelopes = [Envelope(f"node-{node}", node, RecordDict()) for node in (1001, 1002, 1003)]

    replies = dict(exchange(grid, envelopes, MessageType.QUERY, "1", Patience(5.0)))

    assert replies["node-1002"] is None
    assert [replies[key].content["terms"]["site"] for key in ("node-1001", "node-1003")] == ["north", "west"]  # type: ignore[union-attr]


def test_an_error_reply_is_shortened_and_made_printable() -> None:
    """A site's text goes to a log and a file."""
    grid = LocalGrid(toys.toy_app(), 1)
    (message_id,) = grid.push_messages([Message(RecordDict(), 1001, MessageType.QUERY)])
    question = grid._waiting[message_id]
    reply = Message(Error(7, "\x1b[31m" + "x" * 5000), reply_to=question)

    with pytest.raises(WireError, match=r"error=7.*the site says:  \[31mx+$") as refused:
        checked_content(reply)
    assert len(str(refused.value)) < 500


def test_a_stopped_wait_raises() -> None:
    """Not silence."""
    patience = Patience(1.0)
    patience.stop.set()

    with pytest.raises(RoundError, match="same command again"):
        patience.pause()


def test_a_known_node_is_not_asked_again() -> None:
    """A round costs no message for finding the sites."""
    asked: list[int] = []

    class Counting(LocalGrid):
        def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
            kept = list(messages)
            asked.extend(message.metadata.dst_node_id for message in kept)
            return super().push_messages(kept)

    roster = Roster(Counting(toys.toy_app(), 3), Patience(5.0), wait_s=1.0)
    first = roster.sites(wanted=3, required=3)
    second = roster.sites(wanted=2, required=2)

    assert first == second
    assert {site: member.node for site, member in first.items()} == {"north": 1001, "south": 1002, "west": 1003}
    assert sorted(asked) == [1001, 1002, 1003]


def test_a_node_that_leaves_is_forgotten_and_one_that_joins_is_asked() -> None:
    """Flower gives a reconnected site another node number."""

    class Changing(LocalGrid):
        here: tuple[int, ...] = (1001, 1002)

        def get_node_ids(self) -> Iterable[int]:
            return self.here

    grid = Changing(toys.toy_app(), 3)
    roster = Roster(grid, Patience(5.0), wait_s=1.0)
    before = roster.sites(wanted=2, required=2)
    grid.here = (1003, 1002)

    assert list(before) == ["north", "south"]
    assert list(roster.sites(wanted=2, required=2)) == ["south", "west"]
