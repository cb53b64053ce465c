"""A Flower Grid inside this process: the same ServerApp and ClientApp without network, daemons or workers.

It is the default engine because it starts in seconds, shares one loaded base between all sites, runs the sites in the
order in which they were written to and so is deterministic. A message is worked on when its reply is asked for; a round
therefore holds one reply at a time, however many sites there are.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from flwr.app import Context, Error, Message, RecordDict
from flwr.serverapp import Grid

# Outside Flower's own runtimes there is no public way to give a process the identity that `Message` asks for, nor to
# number a message. Both are done in `_identify` and `_number` alone; flwr is pinned below 1.42 because of them.
from flwr.supercore.task_identity import TaskIdentity

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flwr.app import UserConfig
    from flwr.clientapp import ClientApp
    from flwr.supercore.run import Run

_RUN_ID = 1
_SERVER = 1
_FIRST_NODE = 1001
_RAISED = 2  # the code that Flower gives to an exception in a ClientApp


class LocalGrid(Grid):
    """Runs one ClientApp for `nodes` virtual sites in this process.

    Args:
        client_app: handles every message, with its site's own context.
        nodes: how many sites; site k has partition-id k.
    """

    def __init__(self, client_app: ClientApp, nodes: int) -> None:
        """Give every site its context."""
        _identify()
        self._client_app = client_app
        self._contexts = {_FIRST_NODE + index: _context(_FIRST_NODE + index, index, nodes) for index in range(nodes)}
        self._waiting: dict[str, Message] = {}  # message id -> message, in the order of sending
        self._numbers = itertools.count(1)
        self._run: Run | None = None

    def set_run(self, run: Run) -> None:
        """Set the run; nothing here depends on it."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run. Raises RuntimeError if none was set."""
        if self._run is None:
            raise RuntimeError("no run was set on this grid")
        return self._run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A message; the same as the constructor."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """All virtual sites; none ever leaves."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Take messages; each is worked on when its reply is pulled."""
        message_ids = []
        for message in messages:
            message_id = f"message-{next(self._numbers)}"
            _number(message, message_id)
            self._waiting[message_id] = message
            message_ids.append(message_id)
        return message_ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Work on the first of these messages and return its reply; nothing if none of them is waiting."""
        wanted = set(message_ids)
        following = next((message_id for message_id in self._waiting if message_id in wanted), None)
        if following is None:
            return []
        return [self._reply(self._waiting.pop(following))]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:  # noqa: ARG002 (nothing is late here)
        """All replies, in the order of the messages."""
        message_ids = list(self.push_messages(messages))
        return [reply for message_id in message_ids for reply in self.pull_messages([message_id])]

    def _reply(self, message: Message) -> Message:
        node = message.metadata.dst_node_id
        try:
            reply = self._client_app(message, self._contexts[node])
        except Exception as error:  # noqa: BLE001 (the border of a site: as in Flower, its failure is a reply)
            reply = Message(Error(_RAISED, type(error).__name__), reply_to=message)
        _number(reply, f"reply-{next(self._numbers)}")
        return reply


def _context(node: int, partition: int, nodes: int) -> Context:
    # The two keys that Flower's own simulation gives to a virtual site.
    config: UserConfig = {"partition-id": partition, "num-partitions": nodes}
    return Context(run_id=_RUN_ID, node_id=node, node_config=config, state=RecordDict(), run_config={})


def _identify() -> None:
    """Private to Flower: the identity from which `Message` fills its metadata."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = _RUN_ID, _SERVER, 1


def _number(message: Message, message_id: str) -> None:
    """Private to Flower: the number of a message, which its grids set when they send it."""
    message.metadata.__dict__["_message_id"] = message_id
