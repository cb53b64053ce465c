"""Aggregation strategies by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from ccfexp.errors import ConfigError, did_you_mean
from strategies.fedit import FedIT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from strategies.aggregation import SiteUpdate
    from strategies.packing import FlatArray


class Strategy(Protocol):
    """How the updates of a round become the next adapter."""

    name: str
    linear: bool  # whether the result is linear in every update, as secure aggregation requires

    def aggregate(self, sent_P: FlatArray, updates: Iterable[SiteUpdate]) -> FlatArray:
        """The next adapter from the one sent and the updates, which come sorted by site and are consumed one by one."""
        ...


STRATEGIES: dict[str, Callable[[], Strategy]] = {FedIT.name: FedIT}


def get(name: str) -> Strategy:
    """A new strategy.

    Raises:
        ConfigError: no strategy has this name.
    """
    if name not in STRATEGIES:
        known = ", ".join(sorted(STRATEGIES))
        raise ConfigError(f"federation.strategy={name!r} is unknown; known: {known}.{did_you_mean(name, STRATEGIES)}")
    return STRATEGIES[name]()
