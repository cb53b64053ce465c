"""Products U D of two thin matrices, one for each layer of the model, without ever writing the m x n matrix out.

A linear layer's factors are A [r,n] and B [m,r]; a convolution's A [r,c,k,k] is read as [r, c k k] and its B [m,r,1,1]
as [m,r]: the same algebra holds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from strategies.packing import ALLOWED_NAME, AdapterManifest, FlatArray, refusal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Wide = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Product:
    """U D: float64 [m,r] and [r,n]."""

    up_MR: Wide
    down_RN: Wide

    @property
    def rank(self) -> int:
        """r, the width of the product; its true rank may be lower."""
        return int(self.up_MR.shape[1])

    def first(self, rank: int) -> Product:
        """The first components."""
        return Product(self.up_MR[:, :rank], self.down_RN[:rank])

    def after(self, rank: int) -> Product:
        """All components but the first."""
        return Product(self.up_MR[:, rank:], self.down_RN[rank:])


@dataclass(frozen=True)
class Layer:
    """Where a layer's two factors stand in a flat array, and their sizes."""

    name: str
    down: slice
    up: slice
    outputs: int
    rank: int
    inputs: int

    def product(self, flat_P: FlatArray | Wide, scale: float = 1.0) -> Product:
        """Scale B A."""
        down_RN = np.asarray(flat_P[self.down], np.float64).reshape(self.rank, self.inputs)
        up_MR = np.asarray(flat_P[self.up], np.float64).reshape(self.outputs, self.rank)
        return Product(scale * up_MR, down_RN)

    def write(self, flat_P: Wide, product: Product, scale: float = 1.0) -> None:
        """Put a product of the layer's rank, or of a lower one, into a flat array; the rest of the layer becomes 0."""
        up_MR, down_RN = np.zeros((self.outputs, self.rank)), np.zeros((self.rank, self.inputs))
        up_MR[:, : product.rank], down_RN[: product.rank] = product.up_MR / scale, product.down_RN
        flat_P[self.up], flat_P[self.down] = up_MR.ravel(), down_RN.ravel()


@lru_cache(maxsize=32)
def layers_of(manifest: AdapterManifest) -> tuple[Layer, ...]:
    """The layers of a manifest that holds both factors of each, sorted by name.

    Raises:
        WireError: a factor without its partner, or partners of different rank.
    """
    places: dict[str, dict[str, tuple[slice, tuple[int, ...]]]] = {}
    start = 0
    for name, shape in manifest.entries:
        stop = start + math.prod(shape)
        match = ALLOWED_NAME.fullmatch(name)
        if match is not None and not match["residual"]:
            places.setdefault(match["layer"], {})[match["letter"]] = (slice(start, stop), shape)
        start = stop
    return tuple(_layer(name, pair) for name, pair in sorted(places.items()))


def _layer(name: str, pair: dict[str, tuple[slice, tuple[int, ...]]]) -> Layer:
    if pair.keys() != {"A", "B"}:
        raise refusal("names", f"factors of {name}", sorted(pair), "A and B")
    (down, down_shape), (up, up_shape) = pair["A"], pair["B"]
    # By its place and never by its size: a layer may be as wide as the rank.
    rank = down_shape[0]
    if len(up_shape) < 2 or up_shape[1] != rank or math.prod(up_shape[2:]) != 1:
        raise refusal("shapes", f"shape of B of {name}", up_shape, f"(outputs, {rank}) as A has rank {rank}")
    return Layer(name, down, up, up_shape[0], rank, math.prod(down_shape[1:]))


def stacked(products: Iterable[Product]) -> Product:
    """The sum of products as one: [U_1 U_2 ..] over [D_1; D_2; ..]."""
    parts = list(products)
    return Product(np.concatenate([part.up_MR for part in parts], 1), np.concatenate([part.down_RN for part in parts]))


def decomposed(product: Product) -> Product:
    """The same matrix by its singular values: U = left vectors times singular values, D = right vectors, best first.

    Through two thin QR decompositions and the SVD of the small product of their triangles, which equals the SVD of the
    whole matrix. Signs are fixed (the largest entry of a right vector is positive). The width becomes min(m, n, r).
    """
    left_ML, up_LR = np.linalg.qr(product.up_MR)
    right_NK, down_KR = np.linalg.qr(product.down_RN.T)
    u_LS, values_S, v_SK = np.linalg.svd(up_LR @ down_KR.T, full_matrices=False)
    down_SN = v_SK @ right_NK.T
    largest_S = np.abs(down_SN).argmax(1)
    sign_S = np.where(np.take_along_axis(down_SN, largest_S[:, None], 1)[:, 0] < 0, -1.0, 1.0)
    return Product(left_ML @ u_LS * (values_S * sign_S), down_SN * sign_S[:, None])


class Bank:
    """A sum of products that grows no wider than twice the layer: it is decomposed, without loss, when it would."""

    def __init__(self, start: Product | None = None) -> None:
        """Begin with nothing, or with a product."""
        self._parts = [] if start is None or not start.rank else [start]

    def add(self, product: Product) -> None:
        """Add a product to the sum."""
        self._parts.append(product)
        width = sum(part.rank for part in self._parts)
        limit = min(len(product.up_MR), product.down_RN.shape[1])
        if width > 2 * limit:
            self._parts = [decomposed(stacked(self._parts))]

    def total(self) -> Product:
        """The sum, as wide as what was added, or decomposed where that is wider than the layer."""
        whole = stacked(self._parts)
        return decomposed(whole) if whole.rank > min(len(whole.up_MR), whole.down_RN.shape[1]) else whole


def residual_entries(residual: Mapping[str, Product], manifest: AdapterManifest) -> dict[str, FlatArray]:
    """The tensors of a base residual by their names on the wire, float32, in the shapes of the layers' factors."""
    shapes = dict(manifest.entries)
    tensors = {}
    for layer, product in residual.items():
        down, up = shapes[f"{layer}.lora_A.weight"], shapes[f"{layer}.lora_B.weight"]
        rank = product.rank
        tensors[f"{layer}.lora_A.residual.weight"] = product.down_RN.astype(np.float32).reshape(rank, *down[1:])
        tensors[f"{layer}.lora_B.residual.weight"] = product.up_MR.astype(np.float32).reshape(up[0], rank, *up[2:])
    return tensors
