"""Sites that had not answered when a round ended: they are left in peace until they have, or need not any more.

Flower hands a site its oldest message first. One that is asked anew in every round while it still works on an old
message would be late for ever.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flwr.serverapp import Grid

    from server.roster import Member

log = logging.getLogger(__name__)


@dataclass
class Latecomers:
    """Messages that were still unanswered at the end of their round."""

    _open: dict[str, tuple[str, float]] = field(default_factory=dict)  # message id -> site, when it expires

    def note(self, message_id: str, site: str, expires: float) -> None:
        """A message is left behind; `expires` is of the monotonic clock."""
        self._open[message_id] = (site, expires)

    def free(self, grid: Grid, members: Mapping[str, Member], needed: int) -> dict[str, Member]:
        """The sites that may be asked: those that work on nothing older, or all where those are too few."""
        for reply in grid.pull_messages(list(self._open)) if self._open else ():
            if self._open.pop(reply.metadata.reply_to_message_id, None) is not None:
                log.info("a reply to an earlier round is not used")
        now = time.monotonic()
        self._open = {message: late for message, late in self._open.items() if late[1] > now}
        busy = {site for site, _ in self._open.values()}
        free = {site: member for site, member in members.items() if site not in busy}
        return free if len(free) >= needed else dict(members)
