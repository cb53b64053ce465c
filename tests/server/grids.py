"""Grids on which things happen to the replies, as on a real network."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Sequence

from flwr.app import Message, MessageType
from flwr.clientapp import ClientApp

from simulation.grid import LocalGrid
from tests import toys

Script = Callable[[str, int, Message], Iterable[Message]]  # site, round, reply -> what is delivered
_FIRST_NODE = 1001


class Scripted(LocalGrid):
    """What comes back from training is what a script makes of each reply; names come back as they are."""

    def __init__(self, app: ClientApp, script: Script, sites: Sequence[str] = toys.SITES) -> None:
        super().__init__(app, len(sites))
        self._sites = sites
        self._script = script

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The next reply, or nothing, or more than one."""
        delivered: list[Message] = []
        for reply in super().pull_messages(message_ids):
            if reply.metadata.message_type == MessageType.TRAIN:
                site = self._sites[reply.metadata.src_node_id - _FIRST_NODE]
                delivered += self._script(site, int(reply.metadata.group_id), reply)
            else:
                delivered.append(reply)
        return delivered


class Slow(Scripted):
    """Replies of some sites come after some seconds; every reply that has come is there to be pulled."""

    def __init__(self, app: ClientApp, seconds: dict[str, float], sites: Sequence[str] = toys.SITES) -> None:
        super().__init__(app, self._put_off, sites)
        self._seconds = seconds
        self._on_the_way: list[tuple[float, Message]] = []

    def _put_off(self, site: str, number: int, reply: Message) -> Iterable[Message]:  # noqa: ARG002 (the interface)
        self._on_the_way.append((time.monotonic() + self._seconds.get(site, 0.0), reply))
        return []

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Whatever is there."""
        wanted = list(message_ids)
        names = [reply for _ in wanted for reply in super(Slow, self).pull_messages(wanted)]
        now = time.monotonic()
        arrived = [reply for due, reply in self._on_the_way if due <= now]
        self._on_the_way = [(due, reply) for due, reply in self._on_the_way if due > now]
        return names + arrived


class Shuffled(LocalGrid):
    """Sites answer in an order that nobody knows."""

    def __init__(self, app: ClientApp, nodes: int, seed: int) -> None:
        super().__init__(app, nodes)
        self._random = random.Random(seed)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The reply of any of the sites."""
        waiting = [message_id for message_id in message_ids if message_id in self._waiting]
        return super().pull_messages(self._random.sample(waiting, min(1, len(waiting))))
