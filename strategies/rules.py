"""What every rule has in common: its facts, its options, and the step that averages factors."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar, Protocol

from strategies.averaging import combined_change, largest_share
from strategies.central_noise import CentralNoise
from strategies.optimisers import server_step
from strategies.options import CombineOptions, ServerOptimiser
from strategies.packing import trained_letter

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from strategies.aggregation import GlobalState, Roles, SiteUpdate
    from strategies.packing import AdapterManifest


@dataclass(frozen=True)
class RuleOptions:
    """What a rule is made with.

    Attributes:
        combine: how changes become one.
        optimiser: what is made of their mean.
        seed: of the factors that a rule draws anew.
        noise: what the coordinator adds to the mean change; only a rule that is linear in the uploads may have it.
    """

    combine: CombineOptions = field(default_factory=CombineOptions)
    optimiser: ServerOptimiser = field(default_factory=ServerOptimiser)
    seed: int = 0
    noise: CentralNoise | None = None


class Rule(Protocol):
    """How the updates of a round become the next state.

    Attributes:
        name: in a configuration.
        linear: in the uploads, as secure aggregation and noise on the sum require.
        steady: the factors keep their basis from round to round, so that what a site or the coordinator remembers of
            them (rounding errors, momentum) stays meaningful.
        personal: each site keeps a factor to itself, so that there is no model of the whole federation.
    """

    name: ClassVar[str]
    linear: ClassVar[bool]
    steady: ClassVar[bool]
    personal: ClassVar[bool]

    def roles(self, round_number: int) -> Roles:
        """What a round does with the factors."""
        ...

    def aggregate(self, before: GlobalState, updates: Iterable[SiteUpdate], round_number: int) -> GlobalState:
        """The state after a round. Updates come sorted by site; a linear rule takes them one at a time."""
        ...


def averaged(before: GlobalState, letters: str, updates: Iterable[SiteUpdate], options: RuleOptions) -> GlobalState:
    """The state after adding the combined change of some factors. Raises RoundError as `combined_change`."""
    taken: list[tuple[float, int, float]] = []
    change_P = combined_change(
        before.manifest.only(letters), before.scale, _noting(updates, before.scale, taken), options.combine
    )
    if options.noise is not None:
        change_P = options.noise.added_to(change_P, largest_share(taken))
    step_P, memory = server_step(change_P, letters, options.optimiser, before.memory)
    flat_P = before.flat_P.copy()
    for whole, part in places(before.manifest, letters):
        flat_P[whole] += step_P[part]  # in double precision, rounded once
    return replace(before, flat_P=flat_P, memory=memory)


def _noting(updates: Iterable[SiteUpdate], scale: float, taken: list[tuple[float, int, float]]) -> Iterator[SiteUpdate]:
    """Pass updates on, taking note of what their share depends on."""
    for update in updates:
        taken.append((update.weight, update.rank, update.scale / scale))
        yield update
        del update


@lru_cache(maxsize=32)
def places(manifest: AdapterManifest, letters: str) -> tuple[tuple[slice, slice], ...]:
    """Where the factors of some letters stand in a flat array of all, and in one of themselves; neighbours as one."""
    found: list[tuple[slice, slice]] = []
    start = length = 0
    for name, shape in manifest.entries:
        size = math.prod(shape)
        if trained_letter(name) in set(letters):
            here = (slice(start, start + size), slice(length, length + size))
            if found and found[-1][0].stop == start:
                first, second = found.pop()
                here = (slice(first.start, start + size), slice(second.start, length + size))
            found.append(here)
            length += size
        start += size
    return tuple(found)
