"""What a site got of the federation's state, and the product that it made of it."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from strategies.averaging import at_rank
from strategies.packing import trained_letter
from strategies.products import Product, layers_of, stacked

if TYPE_CHECKING:
    from collections.abc import Callable

    from strategies.aggregation import GlobalState, SiteUpdate
    from strategies.packing import AdapterManifest


Views = dict[tuple[int, float], "GlobalState"]


def view_of(state: GlobalState, rank: int, scale: float | None = None, *, keep_tail: bool = False) -> GlobalState:
    """What a site of a lower rank gets: the first components.

    Args:
        state: the federation's.
        rank: the site's, at most the run's.
        scale: the site's alpha / r; the run's if None. B is written so that the product is the same.
        keep_tail: whether the components that the site cannot train are part of its base (they are left out if not).

    Raises:
        WireError: as `at_rank`.
    """
    own = state.scale if scale is None else scale
    layers = layers_of(state.manifest)
    if own == state.scale and all(layer.rank == rank for layer in layers):
        return state
    manifest = at_rank(state.manifest, rank)
    flat_P = np.zeros(manifest.parameters)
    residual = dict(state.residual)
    for layer, narrow in zip(layers, layers_of(manifest), strict=True):
        product = layer.product(state.flat_P, state.scale)
        narrow.write(flat_P, product.first(rank), own)
        if keep_tail and layer.rank > rank:
            tail = product.after(rank)
            residual[layer.name] = stacked([residual[layer.name], tail]) if layer.name in residual else tail
    return replace(state, manifest=manifest, flat_P=flat_P.astype(np.float32), scale=own, residual=residual)


def site_products(before: GlobalState, update: SiteUpdate, views: Views) -> Callable[[str], Product]:
    """The site's trained products, alpha / r folded in, by layer; what it did not upload is as it was sent.

    Args:
        before: the federation's state that was sent.
        update: of the site.
        views: of this state, kept between calls: sites of one rank got the same.

    Raises:
        WireError: the update's factors are not those that the site got, or as `at_rank`.
    """
    key = (update.rank, update.scale)
    if key not in views:
        views[key] = view_of(before, *key)
    view = views[key]
    letters = {trained_letter(name) or "" for name in update.manifest.names}
    view.manifest.only("".join(letters)).check_equal(update.manifest)
    places = {layer.name: layer for layer in layers_of(view.manifest)}
    uploaded = _places(update.manifest)

    def product(name: str) -> Product:
        layer = places[name]
        sent = layer.product(view.flat_P)
        parts = {"A": sent.down_RN, "B": sent.up_MR}
        for letter, values in parts.items():
            place = uploaded.get(f"{name}.lora_{letter}.weight")
            if place is not None:
                parts[letter] = values + np.asarray(update.change_P[place], np.float64).reshape(values.shape)
        return Product(update.scale * parts["B"], parts["A"])

    return product


@lru_cache(maxsize=32)
def _places(manifest: AdapterManifest) -> dict[str, slice]:
    """Where each tensor stands; one table for all sites of a rank."""
    found, start = {}, 0
    for name, shape in manifest.entries:
        stop = start + math.prod(shape)
        found[name] = slice(start, stop)
        start = stop
    return found
