"""Federations of a few small layers, and what their rules should do by dense matrices in double precision.

Nothing here calls the code under test for a number: names are sorted, factors packed and products multiplied by hand,
so that an expectation never shares a mistake with what it is compared with.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from strategies.aggregation import GlobalState, SiteUpdate
from strategies.packing import AdapterManifest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

Wide = npt.NDArray[np.float64]
Factors = dict[str, Wide]  # tensor name -> values in the tensor's own shape
Dense = dict[str, Wide]  # layer name -> m x n

# Layer -> (m, shape of one input row of A). At rank 3: square, non-square either way, a convolution, and layers as
# wide as the rank on one side or on both, where a rule that tells A from B by its size goes wrong.
SHAPES: dict[str, tuple[int, tuple[int, ...]]] = {
    "a.square": (6, (6,)),
    "b.wide": (4, (9,)),
    "c.tall": (8, (5,)),
    "d.convolution": (5, (2, 3, 3)),
    "e.both_rank": (3, (3,)),
    "f.outputs_rank": (3, (7,)),
    "g.pointwise": (4, (3, 1, 1)),
}
RANK = 3


def names_of(layer: str) -> tuple[str, str]:
    """Of A and B."""
    return f"{layer}.lora_A.weight", f"{layer}.lora_B.weight"


def manifest_of(factors: Mapping[str, Wide]) -> AdapterManifest:
    return AdapterManifest(tuple((name, factors[name].shape) for name in sorted(factors)))


def flat(factors: Mapping[str, Wide]) -> npt.NDArray[np.float32]:
    return np.concatenate([factors[name].ravel() for name in sorted(factors)]).astype(np.float32)


def unflat(manifest: AdapterManifest, flat_P: npt.NDArray[np.float32] | Wide) -> Factors:
    found, start = {}, 0
    for name, shape in manifest.entries:
        stop = start + int(np.prod(shape))
        found[name] = np.asarray(flat_P[start:stop], np.float64).reshape(shape)
        start = stop
    assert start == len(flat_P)
    return found


def rounded(factors: Mapping[str, Wide]) -> Factors:
    """As single precision holds them."""
    return {name: value.astype(np.float32).astype(np.float64) for name, value in factors.items()}


def letter(name: str) -> str:
    return name.split(".lora_")[1][0]


def cut(factors: Mapping[str, Wide], rank: int, ratio: float = 1.0) -> Factors:
    """The first components, with B written for another alpha / r."""
    return {
        name: value[:rank].copy() if letter(name) == "A" else ratio * value[:, :rank] for name, value in factors.items()
    }


def dense(factors: Mapping[str, Wide], scale: float = 1.0) -> Dense:
    """Scale B A of every layer."""
    found = {}
    for name in factors:
        if letter(name) == "A":
            layer = name.removesuffix(".lora_A.weight")
            down, up = (factors[part] for part in names_of(layer))
            found[layer] = scale * up.reshape(len(up), -1) @ down.reshape(len(down), -1)
    return found


def summed(parts: Sequence[tuple[float, Dense]]) -> Dense:
    """A weighted sum, with weights as they are."""
    return {layer: np.sum([weight * part[layer] for weight, part in parts], axis=0) for layer in parts[0][1]}


def applied(state: GlobalState) -> Dense:
    """All that a state adds to the base W0: its residual and its adapter."""
    total = dense(unflat(state.manifest, state.flat_P), state.scale)
    for layer, product in state.residual.items():
        total[layer] = total[layer] + product.up_MR @ product.down_RN
    return total


def distance(found: Dense, expected: Dense) -> float:
    """Relative, over all layers together."""
    assert found.keys() == expected.keys()
    off = sum(float(np.square(found[layer] - expected[layer]).sum()) for layer in expected)
    size = sum(float(np.square(expected[layer]).sum()) for layer in expected)
    return float(np.sqrt(off / size)) if size else float(np.sqrt(off))


@dataclass(frozen=True)
class Site:
    """One hospital: what it was sent and what it made of it.

    Attributes:
        sent: first components of the state, B written for its alpha / r.
        change: of every factor, as single precision holds it; a rule uploads a part.
    """

    name: str
    weight: float
    rank: int
    scale: float
    sent: Factors
    change: Factors

    def trained(self, letters: str = "AB") -> Factors:
        """Its factors after a round in which only some were trained."""
        return {
            name: value + (self.change[name] if letter(name) in letters else 0.0) for name, value in self.sent.items()
        }

    def product(self, letters: str = "AB") -> Dense:
        return dense(self.trained(letters), self.scale)

    def update(self, letters: str = "AB") -> SiteUpdate:
        part = {name: value for name, value in self.change.items() if letter(name) in letters}
        return SiteUpdate(self.name, self.weight, manifest_of(part), flat(part), self.rank, self.scale)


@dataclass(frozen=True)
class Round:
    """The state before a round, and the sites that take part, sorted by name."""

    before: GlobalState
    sites: tuple[Site, ...]

    @property
    def factors(self) -> Factors:
        return unflat(self.before.manifest, self.before.flat_P)

    def updates(self, letters: str = "AB") -> Iterator[SiteUpdate]:
        return (site.update(letters) for site in self.sites)

    def shares(self) -> Wide:
        weight_K = np.array([site.weight for site in self.sites])
        shares_K: Wide = weight_K / weight_K.sum()
        return shares_K

    def ideal(self, letters: str = "AB") -> Dense:
        """sum_i p_i s_i B_i A_i."""
        parts = zip(self.shares(), self.sites, strict=True)
        return summed([(float(share), site.product(letters)) for share, site in parts])

    def by_component(self, letters: str = "AB") -> Dense:
        """The sum with component p shared among the sites that have it, one dyad after another."""
        total = dense({name: 0 * value for name, value in self.factors.items()})
        for layer in total:
            for component in range(max(site.rank for site in self.sites)):
                having = [site for site in self.sites if site.rank > component]
                weight = sum(site.weight for site in having)
                for site in having:
                    down, up = (site.trained(letters)[name] for name in names_of(layer))
                    dyad = np.outer(up[:, component].ravel(), down[component].ravel())
                    total[layer] += site.weight / weight * site.scale * dyad
        return total

    def renamed(self, order: Sequence[int]) -> Round:
        """The same hospitals under other names, so that they come in another order."""
        names = [site.name for site in self.sites]
        sites = [replace(self.sites[place], name=name) for place, name in zip(order, names, strict=True)]
        return replace(self, sites=tuple(sites))


@dataclass(frozen=True)
class Plan:
    """What a round is drawn with; every field a plain value, so that a failing example can be read.

    Attributes:
        ranks: of the sites.
        weights: of the sites; 1, 2, 3 .. if empty.
        scales: alpha / r of the sites; the run's for all if empty.
        size: of the changes.
        zero_up: whether B is zero before the round, as in a run's first.
        moved: width of what was moved into the base before; 0 for nothing.
    """

    seed: int = 0
    ranks: tuple[int, ...] = (RANK, RANK, RANK)
    weights: tuple[float, ...] = ()
    scales: tuple[float, ...] = ()
    scale: float = 2.0
    rank: int = RANK
    size: float = 0.5
    zero_up: bool = False
    moved: int = 0
    shapes: Mapping[str, tuple[int, tuple[int, ...]]] = field(default_factory=lambda: SHAPES)


def drawn(shapes: Mapping[str, tuple[int, tuple[int, ...]]], rank: int, random: np.random.Generator) -> Factors:
    """Factors of every layer."""
    found: Factors = {}
    for layer, (outputs, inputs) in shapes.items():
        down, up = names_of(layer)
        found[down] = random.standard_normal((rank, *inputs))
        found[up] = random.standard_normal((outputs, rank, *(1 for _ in inputs[1:])))
    return rounded(found)


def round_of(plan: Plan) -> Round:
    """The round of a plan."""
    from strategies.products import Product

    random = np.random.default_rng(plan.seed)
    factors = drawn(plan.shapes, plan.rank, random)
    if plan.zero_up:
        factors = {name: np.zeros_like(value) if letter(name) == "B" else value for name, value in factors.items()}
    residual = {
        layer: Product(random.standard_normal((m, plan.moved)), random.standard_normal((plan.moved, int(np.prod(n)))))
        for layer, (m, n) in plan.shapes.items()
        if plan.moved
    }
    before = GlobalState(manifest_of(factors), flat(factors), plan.scale, residual)
    count = len(plan.ranks)
    weights = plan.weights or tuple(float(place + 1) for place in range(count))
    scales = plan.scales or (plan.scale,) * count
    sites = []
    for place, (rank, weight, scale) in enumerate(zip(plan.ranks, weights, scales, strict=True)):
        sent = rounded(cut(factors, rank, plan.scale / scale))
        change = {name: plan.size * value for name, value in drawn(plan.shapes, rank, random).items()}
        sites.append(Site(f"site-{place:02d}", weight, rank, scale, sent, rounded(change)))
    return Round(before, tuple(sites))


@st.composite
def plans(
    draw: st.DrawFn,
    *,
    same_ranks: bool = False,
    same_scales: bool = False,
    most: int = 5,
    zero_up: bool | None = None,
    moved: int | None = 0,
) -> Plan:
    """Rounds of 1 to `most` sites with unequal weights, ranks and alphas."""
    count = draw(st.integers(1, most))
    each = st.just(RANK) if same_ranks else st.integers(1, RANK)
    scale = draw(st.sampled_from([0.5, 1.0, 2.0, 16 / 3]))
    scales = st.just(scale) if same_scales else st.sampled_from([0.25, 1.0, 2.0, 8 / 3])
    return Plan(
        seed=draw(st.integers(0, 2**32 - 1)),
        ranks=tuple(draw(st.lists(each, min_size=count, max_size=count))),
        weights=tuple(draw(st.lists(st.floats(0.1, 500.0), min_size=count, max_size=count))),
        scales=tuple(draw(st.lists(scales, min_size=count, max_size=count))),
        scale=scale,
        zero_up=draw(st.booleans()) if zero_up is None else zero_up,
        moved=draw(st.integers(0, 2)) if moved is None else moved,
    )
