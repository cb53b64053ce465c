"""Messages out, replies in, through nothing but the public push and pull of Flower's Grid.

Replies are handed on as they arrive, so that a round needs memory for the replies in hand and not for all sites.
"""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass, field
from threading import Event
from typing import TYPE_CHECKING, TypeVar

from flwr.app import DEFAULT_TTL, Message, RecordDict

from ccfexp.errors import RoundError, WireError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from flwr.serverapp import Grid

log = logging.getLogger(__name__)
_T = TypeVar("_T")
# Flower's own numbers: the message, or the reply to it, outlived its time; the node went offline.
_LOST = (3, 4, 5)
_AT_ONCE = 4  # replies in memory before the first of them is dealt with
_MAX_REASON = 300  # characters of a site's error text that are kept


@dataclass(frozen=True)
class Envelope:
    """One message to send: the key by which its reply is known, the node and the content (which may be shared)."""

    key: str
    node: int
    content: RecordDict


@dataclass(frozen=True)
class Patience:
    """How long to wait for replies, how often to look, and a bell that ends the wait."""

    timeout_s: float  # infinite in a simulation
    poll_s: float = 0.2
    stop: Event = field(default_factory=Event)
    grace_s: float = math.inf  # once enough have answered, how much longer the others are waited for

    def pause(self) -> None:
        """Wait until the next look. Raises RoundError if the run was stopped."""
        if self.stop.wait(self.poll_s):
            raise RoundError("the run was stopped; the last complete round is kept, run the same command again")


def exchange(
    grid: Grid,
    envelopes: Iterable[Envelope],
    message_type: str,
    group_id: str,
    patience: Patience,
    enough: Callable[[], bool] = lambda: False,
    left_behind: Callable[[str, str, float], None] = lambda _message, _key, _expires: None,
) -> Iterator[tuple[str, Message | None]]:
    """Send all, then yield (key, reply) in the order of arrival; (key, None) for what has not come in time.

    The time to live of a message is the timeout, so that a site that was too slow does not go on answering old rounds.
    `enough` is asked after each reply has been dealt with: only who dealt with it knows whether it counts.
    """
    ttl = min(patience.timeout_s, DEFAULT_TTL)
    open_keys: dict[str, str] = {}  # message id -> key
    unsent: list[str] = []
    for envelope in envelopes:
        message = Message(envelope.content, envelope.node, message_type, ttl=ttl, group_id=group_id)
        # One at a time: a grid that cannot deliver a message leaves out its id, and then nobody knows whose it was.
        message_ids = list(grid.push_messages([message]))
        if message_ids:
            open_keys[message_ids[0]] = envelope.key
        else:
            unsent.append(envelope.key)
    sent_at = time.monotonic()
    end = sent_at + patience.timeout_s
    while open_keys and time.monotonic() < end:
        replies = 0
        for reply in _pulled(grid, list(open_keys)):
            replies += 1
            # By the message that it answers: an error raised for a lost node does not carry the node's number.
            key = open_keys.pop(reply.metadata.reply_to_message_id, None)
            if key is None:
                log.warning("a second or unasked reply is not used")
                continue
            yield key, reply
            if enough():
                end = min(end, time.monotonic() + patience.grace_s)
        if not replies and open_keys:
            patience.pause()
    for message_id, key in open_keys.items():
        left_behind(message_id, key, sent_at + ttl)
    for key in [*unsent, *open_keys.values()]:
        yield key, None


def _pulled(grid: Grid, message_ids: Sequence[str]) -> Iterator[Message]:
    """Replies that are there, a few at a time: Flower's Grid hands on none before it has all that it was asked for."""
    for start in range(0, len(message_ids), _AT_ONCE):
        yield from grid.pull_messages(message_ids[start : start + _AT_ONCE])


def checked_content(reply: Message | None) -> RecordDict:
    """The records of a reply.

    Raises:
        WireError: there is no reply, or the site reported an error (its text is shortened and made printable).
    """
    if reply is None or (reply.has_error() and reply.error.code in _LOST):
        raise WireError("wire check 'reply' failed: reply=None, expected one in time; the site is offline or too slow")
    if reply.has_error():
        reason = shown(str(reply.error.reason), _MAX_REASON)
        raise WireError(
            f"wire check 'reply' failed: error={reply.error.code}, expected an update; the site says: {reason}"
        )
    return reply.content


def shown(text: str, longest: int) -> str:
    """Foreign text for a log: short, and on one line."""
    return "".join(sign if sign.isprintable() else " " for sign in text[:longest])


def array_bytes(reply: Message | None) -> int:
    """How many bytes the arrays of a reply hold; 0 for one that did not come or reports an error."""
    if reply is None or reply.has_error():
        return 0
    return sum(len(array.data) for record in reply.content.array_records.values() for array in record.values())


def in_order(
    keys: Sequence[str], arrivals: Iterable[tuple[str, _T]], keep: Callable[[_T], _T]
) -> Iterator[tuple[str, _T]]:
    """The arrivals, one for each key, in the order of the keys; of an early one `keep` of it is held until its turn."""
    held: dict[str, _T] = {}
    turn = iter(keys)
    following = next(turn, None)
    for key, value in arrivals:
        held[key] = value if key == following else keep(value)
        while following is not None and following in held:
            yield following, held.pop(following)
            following = next(turn, None)
