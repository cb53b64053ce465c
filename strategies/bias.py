"""The bias meter: how far the update that a rule applies is from the ideal sum_i p_i s_i B_i A_i.

Both sides are multiplied by the same few random vectors, so that one pass over the updates as they arrive is enough and
no m x n matrix is written: for a Gaussian vector w, E |X w|^2 is the squared Frobenius norm of X, and a difference that
is zero is measured as zero.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from strategies.aggregation import GlobalState, Wide
from strategies.products import layers_of
from strategies.stacking import Views, site_products

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from strategies.aggregation import SiteUpdate
    from strategies.products import Product

_VECTORS = 8  # per layer; with tens of layers the norms are known to a few per cent


@dataclass
class BiasMeter:
    """Watches the updates of one round.

    Attributes:
        before: the state that was sent.
        seed: of the random vectors.
    """

    before: GlobalState
    seed: int = 0
    _ideal: dict[str, Wide] = field(default_factory=dict)
    _weight: float = 0.0
    _views: Views = field(default_factory=dict)
    _drawn: dict[int, Wide] = field(default_factory=dict)

    def watching(self, updates: Iterable[SiteUpdate]) -> Iterator[SiteUpdate]:
        """Pass updates on, taking note of each. Raises WireError as `site_products`."""
        for update in updates:
            self._note(update)
            yield update
            del update  # before the next is asked for

    def _note(self, update: SiteUpdate) -> None:
        products = site_products(self.before, update, self._views)
        for index, layer in enumerate(layers_of(self.before.manifest)):
            seen = update.weight * _seen(products(layer.name), self._vectors(index, layer.inputs))
            self._ideal[layer.name] = self._ideal.get(layer.name, 0.0) + seen
        self._weight += update.weight

    def distance(self, after: GlobalState) -> float:
        """|applied - ideal| / |ideal| over all layers; 0 where both are zero."""
        difference = size = 0.0
        for index, layer in enumerate(layers_of(self.before.manifest)):
            vector_NV = self._vectors(index, layer.inputs)
            ideal_MV = self._ideal[layer.name] / self._weight
            applied_MV = _seen(layer.product(after.flat_P, after.scale), vector_NV)
            for sign, state in ((1.0, after), (-1.0, self.before)):
                if layer.name in state.residual:
                    applied_MV = applied_MV + sign * _seen(state.residual[layer.name], vector_NV)
            difference += float(np.square(applied_MV - ideal_MV).sum())
            size += float(np.square(ideal_MV).sum())
        return 0.0 if difference == size == 0 else float(np.sqrt(difference / max(size, 1e-300)))

    def _vectors(self, index: int, inputs: int) -> Wide:
        if index not in self._drawn:
            self._drawn[index] = np.random.default_rng([self.seed, index]).standard_normal((inputs, _VECTORS))
        return self._drawn[index]


def _seen(product: Product, vector_NV: Wide) -> Wide:
    return product.up_MR @ (product.down_RN @ vector_NV)
