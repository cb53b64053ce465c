"""Products U D of two thin matrices, one for each layer; the m x n matrix is written out only where it is smaller.

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
_ROWS = 64  # of a matrix that are added to at a time


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
    return _signed(left_ML @ u_LS, values_S, v_SK @ right_NK.T)


def _signed(left_MS: Wide, values_S: Wide, down_SN: Wide) -> Product:
    """With signs that do not depend on how the decomposition was made; writes over its arguments."""
    sign_S = np.where(-down_SN.min(1) > down_SN.max(1), -1.0, 1.0)
    down_SN *= sign_S[:, None]
    left_MS *= values_S * sign_S
    return Product(left_MS, down_SN)


def significant(product: Product) -> int:
    """How many components of a decomposed product are more than rounding (as `numpy.linalg.matrix_rank` judges)."""
    values_R = np.linalg.norm(product.up_MR, axis=0)
    size = max(len(product.up_MR), product.down_RN.shape[1])
    return int(np.count_nonzero(values_R > values_R.max() * size * np.finfo(np.float64).eps))


class Bank:
    """A sum of products in no more room than twice the matrix, however many are added.

    Factors are kept side by side; those that would take more room than the m x n matrix are added up in one instead,
    which is exact, and quicker than decomposing them again and again.
    """

    def __init__(self, start: Product | None = None) -> None:
        """Begin with nothing, or with a product."""
        self._parts: list[Product] = []
        self._matrix_MN: Wide | None = None
        if start is not None:
            self.add(start)

    def add(self, product: Product) -> None:
        """Add a product to the sum."""
        self._parts.append(product)
        outputs, inputs = len(product.up_MR), product.down_RN.shape[1]
        if sum(part.rank for part in self._parts) * (outputs + inputs) > outputs * inputs:
            self._add_up()

    def total(self) -> Product:
        """The sum: as wide as what was added, and no wider than the layer."""
        if self._matrix_MN is None:
            return stacked(self._parts)
        self._add_up()
        outputs, inputs = self._matrix_MN.shape
        if outputs <= inputs:
            return Product(np.eye(outputs), self._matrix_MN)
        return Product(self._matrix_MN, np.eye(inputs))

    def decomposed(self) -> Product:
        """The sum by its singular values, as `decomposed`."""
        if self._matrix_MN is None:
            return decomposed(stacked(self._parts))
        self._add_up()
        return _signed(*np.linalg.svd(self._matrix_MN, full_matrices=False))

    def _add_up(self) -> None:
        if not self._parts:
            return
        whole = stacked(self._parts)
        self._parts = []
        if self._matrix_MN is None:
            self._matrix_MN = np.zeros((len(whole.up_MR), whole.down_RN.shape[1]))
        for start in range(0, len(whole.up_MR), _ROWS):
            rows = slice(start, start + _ROWS)
            self._matrix_MN[rows] += whole.up_MR[rows] @ whole.down_RN


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
