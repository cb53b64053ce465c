"""Which connected node speaks for which site.

Flower's node numbers change with every connection, so a node is asked once for its public site name and everything
afterwards is ordered and recorded by that name. Where hospitals are registered, Flower knows the name that belongs to a
node's key, and a node that claims another one is not used.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from flwr.app import MessageType, RecordDict

from ccfexp.errors import RoundError, WireError
from server.exchange import Envelope, checked_content, exchange
from strategies import wire

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flwr.app import Message
    from flwr.serverapp import Grid

    from server.exchange import Patience

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Member:
    """A connected site: its node, and the largest rank that it can train."""

    node: int
    max_rank: int


class Roster:
    """The sites behind the nodes of a grid.

    Args:
        grid: where the nodes are.
        patience: how long one question may take and how often to look.
        wait_s: how long to wait for sites to connect.
    """

    def __init__(self, grid: Grid, patience: Patience, wait_s: float) -> None:
        """Start with nobody known."""
        self._grid = grid
        # A node that is gone must not hold up the others for as long as training may take.
        self._patience = replace(patience, timeout_s=min(patience.timeout_s, wait_s))
        self._wait_s = wait_s
        self._site_of_node: dict[int, wire.SiteHello | None] = {}  # None: the node gave no usable name

    def sites(self, *, wanted: int, required: int) -> dict[str, Member]:
        """Sites by name, sorted, waiting (bounded) until `wanted` sites are there.

        Two nodes that claim one name are both left out: nobody can say which of them is the hospital.

        Raises:
            RoundError: fewer than `required` sites after the wait.
        """
        # Who gave no usable name before may have been put right: with a registered key it comes back as the same node.
        self._site_of_node = {node: hello for node, hello in self._site_of_node.items() if hello is not None}
        end = time.monotonic() + self._wait_s
        while True:
            self._ask_new_nodes()
            sites = self._unambiguous()
            late = time.monotonic() >= end
            if len(sites) >= wanted or (late and len(sites) >= required):
                return sites
            if late:
                raise RoundError(
                    f"sites={len(sites)} connected after {self._wait_s:.0f} s, need at least {required}; "
                    "start the missing sites or lower federation.min_sites, then run the same command again"
                )
            self._patience.pause()

    def forget(self, sites: Iterable[str]) -> None:
        """Ask sites anew before the next round: whose reply was not used may have changed what it can train."""
        gone = set(sites)
        known = self._site_of_node.items()
        self._site_of_node = {node: hello for node, hello in known if hello is None or hello.site not in gone}

    def _ask_new_nodes(self) -> None:
        # The name under which a node's key is registered; empty where nobody registers, as in a simulation.
        registered = {node.node_id: node.name for node in self._grid.get_nodes()}
        self._site_of_node = {node: hello for node, hello in self._site_of_node.items() if node in registered}
        new = sorted(registered.keys() - self._site_of_node.keys())
        questions = (Envelope(str(node), node, RecordDict()) for node in new)
        for key, reply in exchange(self._grid, questions, MessageType.QUERY, "sites", self._patience):
            if reply is None:
                continue  # too slow or gone: asked again next time
            self._site_of_node[int(key)] = _named(reply, registered[int(key)])

    def _unambiguous(self) -> dict[str, Member]:
        named = {(hello.site, node): hello for node, hello in self._site_of_node.items() if hello is not None}
        claims = [site for site, _ in named]
        for site in sorted({site for site in claims if claims.count(site) > 1}):
            log.warning("site %s is claimed by %d nodes and not used", site, claims.count(site))
        return {
            site: Member(node, named[site, node].max_rank) for site, node in sorted(named) if claims.count(site) == 1
        }


def _named(reply: Message, registered: str) -> wire.SiteHello | None:
    """What a site says of itself; None if it names none or another than the node's key is registered for."""
    try:
        hello = wire.decode_hello(checked_content(reply))
    except WireError as error:
        log.warning("a connected node%s is not used: %s", f" of site {registered}" if registered else "", error)
        return None
    if registered and hello.site != registered:
        log.warning(
            "a connected node is not used: it says that it is site %s and its key is registered for site %s; "
            "correct the name in its site file, or register its key under the right name",
            hello.site,
            registered,
        )
        return None
    return hello
