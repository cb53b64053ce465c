"""The mean of the sites' changes, component by component where sites have different ranks.

A site of lower rank trains the first components of the shared factors, so component p is averaged over the sites that
have it (Liu et al. 2026, arXiv:2602.13486, for products). Averaging zeros in for the others would shrink the higher
components from round to round until the federation has the rank of its smallest site.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from ccfexp.errors import RoundError
from strategies.aggregation import BLOCK, one_by_one
from strategies.packing import refusal, trained_letter

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from strategies.aggregation import SiteUpdate, Wide
    from strategies.options import CombineOptions
    from strategies.packing import AdapterManifest

_TOGETHER = 8  # blocks of different updates in memory at a time, where a centre needs all of them


def combined_change(
    manifest: AdapterManifest, scale: float, updates: Iterable[SiteUpdate], options: CombineOptions
) -> Wide:
    """The sites' changes of some factors as one.

    Args:
        manifest: those factors at the run's rank.
        scale: alpha / r of the run; a site's change of B counts by its own alpha / r over this.
        updates: sorted by site; consumed one by one, unless a robust centre needs them all.
        options: which centre.

    Returns:
        float64 [P] in the order of the manifest.

    Raises:
        RoundError: as `one_by_one`; ranks that differ where a robust centre compares number by number.
        WireError: a site's factors are not those of the manifest at its rank, or as `at_rank`.
    """
    if options.centre == "mean":
        return _weighted_mean(manifest, scale, updates)
    everyone = list(one_by_one(updates))
    if any(update.manifest != manifest or update.scale != scale for update in everyone):
        raise RoundError(f"aggregation centre={options.centre} compares number by number: every site needs one rank")
    return _robust_centre(manifest.parameters, everyone, options)


def _weighted_mean(manifest: AdapterManifest, scale: float, updates: Iterable[SiteUpdate]) -> Wide:
    total_P = np.zeros(manifest.parameters)
    scratch = np.empty(min(BLOCK, manifest.parameters))
    everywhere = 0.0  # weight of the sites that have every component
    partial: dict[int, float] = {}  # rank -> weight of the sites that have so many components
    for update in one_by_one(updates):
        if update.manifest == manifest and update.scale == scale:
            _add_whole(total_P, update, scratch)
            everywhere += update.weight
        else:
            _add_narrower(total_P, manifest, scale, update)
            partial[update.rank] = partial.get(update.rank, 0.0) + update.weight
        del update  # before the next is asked for: two would need twice the memory
    if not partial:
        total_P /= everywhere
        return total_P
    _divide_by_component(total_P, manifest, everywhere, partial)
    return total_P


def _add_whole(total_P: Wide, update: SiteUpdate, scratch: Wide) -> None:
    """Add a site's factors, times its weight. Float32 is widened first: products rounded to it would not add up."""
    for part in _blocks(len(total_P)):
        weighted = scratch[: part.stop - part.start]
        np.copyto(weighted, update.change_P[part])
        weighted *= update.weight
        total_P[part] += weighted


def _add_narrower(total_P: Wide, manifest: AdapterManifest, scale: float, update: SiteUpdate) -> None:
    """Add a site's factors to the first components of the run's."""
    start = 0
    for (name, shape), into in zip(update.manifest.entries, _tensors(total_P, manifest, update), strict=True):
        stop = start + math.prod(shape)
        change = np.asarray(update.change_P[start:stop], np.float64).reshape(shape)
        start = stop
        if trained_letter(name) == "A":
            into[: shape[0]] += update.weight * change
        else:
            into[:, : shape[1]] += update.weight * (update.scale / scale) * change


def _tensors(total_P: Wide, manifest: AdapterManifest, update: SiteUpdate) -> Iterator[Wide]:
    """Views of the run's factors, after checking that a site's are the same ones."""
    at_rank(manifest, update.rank).check_equal(update.manifest)
    start = 0
    for _, shape in manifest.entries:
        stop = start + math.prod(shape)
        yield total_P[start:stop].reshape(shape)
        start = stop


def _divide_by_component(
    total_P: Wide, manifest: AdapterManifest, everywhere: float, partial: dict[int, float]
) -> None:
    start = 0
    for name, shape in manifest.entries:
        stop = start + math.prod(shape)
        view = total_P[start:stop].reshape(shape)
        start = stop
        axis = 0 if trained_letter(name) == "A" else 1
        index_R = np.arange(shape[axis])
        weight_R = everywhere + sum(weight * (index_R < rank) for rank, weight in partial.items())
        view /= np.where(weight_R > 0, weight_R, 1.0).reshape(
            [-1 if place == axis else 1 for place in range(view.ndim)]
        )


def at_rank(manifest: AdapterManifest, rank: int) -> AdapterManifest:
    """The same factors with so many components. A base residual keeps its own.

    Raises:
        WireError: they have fewer.
    """

    def narrowed(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        letter = trained_letter(name)
        if letter is None:
            return shape
        if not 1 <= rank <= (own := shape[0] if letter == "A" else shape[1]):
            raise refusal("rank", "rank", rank, f"1 to {own}")
        return (rank, *shape[1:]) if letter == "A" else (shape[0], rank, *shape[2:])

    return type(manifest)(tuple((name, narrowed(name, shape)) for name, shape in manifest.entries))


def largest_share(taken: Sequence[tuple[float, int, float]]) -> float:
    """How far one site can move the mean: the largest factor from a change of its own to a change of the mean.

    Args:
        taken: weight, rank, and alpha / r over the run's, of every site. In the highest component that a site has the
            others are fewest, and there its share is largest.
    """
    return max(
        weight * max(1.0, ratio) / sum(other for other, having, _ in taken if having >= rank)
        for weight, rank, ratio in taken
    )


def _robust_centre(parameters: int, updates: list[SiteUpdate], options: CombineOptions) -> Wide:
    """Median, or mean without the extremes, number by number (Yin et al. 2018, arXiv:1803.01498).

    Weights do not count: a site that lies about its patients must not gain by it. The mean leaves out one site at
    either end at least, as soon as there are three: with a fifth of four, none, it would be no more than a mean.
    """
    centre_P = np.empty(parameters)
    cut = max(1, math.floor(options.trim * len(updates) + 1e-9)) if len(updates) > 2 else 0
    for part in _blocks(parameters, min(BLOCK, max(1, _TOGETHER * BLOCK // len(updates)))):
        change_KP = np.stack([update.change_P[part] for update in updates]).astype(np.float64)
        if options.centre == "median":
            centre_P[part] = np.median(change_KP, axis=0)
        else:
            change_KP.sort(axis=0)
            centre_P[part] = change_KP[cut : len(updates) - cut].mean(0)
    return centre_P


def _blocks(parameters: int, length: int = 0) -> Iterator[slice]:
    step = length or BLOCK
    for start in range(0, parameters, step):
        yield slice(start, min(start + step, parameters))


def too_long(updates: list[SiteUpdate], factor: float) -> dict[str, str]:
    """Sites whose change is longer than ``factor`` times the median of all, and why each is left out."""
    norms = {update.site: _norm(update) for update in updates}
    limit = factor * float(np.median(list(norms.values()))) if norms else 0.0
    return {
        site: f"wire check 'norm filter' failed: update norm={norm:.4g}, expected at most {limit:.4g}, "
        f"{factor:g} times the median of this round"
        for site, norm in norms.items()
        if norm > limit > 0  # where most have learnt nothing, the median says nothing of the others
    }


def _norm(update: SiteUpdate) -> float:
    parts = (np.asarray(update.change_P[part], np.float64) for part in _blocks(update.manifest.parameters))
    return math.sqrt(sum(float(part @ part) for part in parts))
