"""What every aggregation rule works on: the federation's state, what a site got of it, and what came back.

A site's update is the *change* of the factors that it uploads: a difference is small, so it can be rounded coarsely,
and what a site did not train cannot differ. alpha / r is folded into B before anything is combined and out again for
the receiver: rules that forget it average updates of different size (as NVFlare's and FlexLoRA's published code do).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from ccfexp.errors import RoundError
from strategies.packing import AdapterManifest, FlatArray
from strategies.products import Product

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Wide = npt.NDArray[np.float64]
BLOCK = 1 << 18  # numbers worked on at a time, 2 MB in double precision: few calls, and the cache still holds them


class Numbers(Protocol):
    """Float32 numbers in memory or on disk, of which a part can be read."""

    def __getitem__(self, part: slice) -> FlatArray:
        """A copy or view of a part."""
        ...


@dataclass(frozen=True)
class Roles:
    """What a round does with the factors; each a string of the letters A and B.

    Attributes:
        sent: the coordinator sends them; what it does not send the sites know already.
        trained: a site trains them, everything else is frozen.
        uploaded: a site sends their change back.
    """

    sent: str
    trained: str
    uploaded: str


@dataclass(frozen=True)
class GlobalState:
    """What the coordinator knows of the model.

    Attributes:
        manifest: names and shapes of the adapter's factors at the run's rank.
        flat_P: their values.
        scale: alpha / r, the same for every rank: a site with fewer ranks gets as much smaller an alpha.
        residual: products that the rule has moved into the base, by layer (scale 1).
        memory: what else the rule or the server optimiser keeps from round to round.
    """

    manifest: AdapterManifest
    flat_P: FlatArray
    scale: float
    residual: Mapping[str, Product] = field(default_factory=dict)
    memory: Mapping[str, Wide] = field(default_factory=dict)

    def with_values(self, flat_P: Wide) -> GlobalState:
        """The same with other values of the factors."""
        return replace(self, flat_P=flat_P.astype(np.float32))


@dataclass(frozen=True)
class SiteUpdate:
    """One hospital's screened update.

    Attributes:
        site: its public name.
        weight: its public weight.
        manifest: the uploaded factors at the site's own rank.
        change_P: trained minus sent, in the manifest's order.
        rank: the site's.
        scale: the site's alpha / r.
    """

    site: str
    weight: float
    manifest: AdapterManifest
    change_P: Numbers
    rank: int
    scale: float


def one_by_one(updates: Iterable[SiteUpdate]) -> Iterator[SiteUpdate]:
    """The updates, each checked as it is taken and let go before the next is asked for.

    Raises:
        RoundError: no update, a site twice or out of order, a weight that is not finite and above 0.
    """
    last_site = ""
    for update in updates:
        if update.site <= last_site:
            raise RoundError(f"updates must come once each, sorted by site: site={update.site!r} after {last_site!r}")
        if not (math.isfinite(update.weight) and update.weight > 0):
            raise RoundError(f"weight={update.weight!r} of site {update.site!r} must be finite and above 0")
        last_site = update.site
        yield update
        del update
    if not last_site:
        raise RoundError("updates=0 to average, need at least 1; see the refusals of this round for the reasons")
