"""A site that works on an earlier round is left in peace until it has answered, or need not any more."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from server.latecomers import Latecomers
from server.roster import Member

if TYPE_CHECKING:
    from flwr.serverapp import Grid

MEMBERS = {site: Member(node, 8) for node, site in enumerate(("north", "south", "west"))}


class Answers:
    """A grid on which the listed messages have been answered."""

    def __init__(self, *answered: str) -> None:
        self.answered = answered

    def pull_messages(self, message_ids: list[str]) -> list[Any]:
        return [
            SimpleNamespace(metadata=SimpleNamespace(reply_to_message_id=message))
            for message in message_ids
            if message in self.answered
        ]


def asked(late: Latecomers, needed: int, *answered: str) -> list[str]:
    return list(late.free(cast("Grid", Answers(*answered)), MEMBERS, needed))


def test_a_busy_site_is_not_asked_until_it_has_answered() -> None:
    late = Latecomers()
    late.note("m1", "south", time.monotonic() + 60)

    assert asked(late, 2) == ["north", "west"]
    assert asked(late, 2, "m1") == list(MEMBERS)
    assert asked(late, 2) == list(MEMBERS)


def test_a_message_that_has_expired_keeps_nobody_busy() -> None:
    late = Latecomers()
    late.note("m1", "south", time.monotonic() - 1)

    assert asked(late, 2) == list(MEMBERS)


def test_all_are_asked_where_too_few_are_free() -> None:
    late = Latecomers()
    late.note("m1", "south", time.monotonic() + 60)

    assert asked(late, 3) == list(MEMBERS)
