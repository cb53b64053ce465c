"""Flex: products are summed exactly, then cut to each site's rank by their singular values.

FlexLoRA (Bai et al. 2024, arXiv:2402.11505) through compact QR and SVD (HLoRA, arXiv:2503.00813), with component p of a
product counted among the sites that have it (raFLoRA, Liu et al. 2026, arXiv:2602.13486): otherwise what only large
sites can learn is divided by everybody each round and dies out. With `residual` what the rank cannot hold is moved into
the base (FedEx-LoRA, Singhal et al. 2024, arXiv:2410.09432), and nothing is lost.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from strategies.aggregation import GlobalState, Roles, SiteUpdate, one_by_one
from strategies.products import Bank, Layer, Product, layers_of, significant
from strategies.rules import RuleOptions
from strategies.stacking import Views, site_products

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from strategies.aggregation import Wide


@dataclass(frozen=True)
class Flex:
    """Both factors are trained and sent, at whatever rank a site can afford."""

    name: ClassVar[str] = "flex"
    linear: ClassVar[bool] = False
    steady: ClassVar[bool] = False
    personal: ClassVar[bool] = False
    options: RuleOptions = field(default_factory=RuleOptions)

    def roles(self, round_number: int) -> Roles:  # noqa: ARG002 (the interface)
        """Every round alike."""
        return Roles(sent="AB", trained="AB", uploaded="AB")

    def aggregate(self, before: GlobalState, updates: Iterable[SiteUpdate], round_number: int) -> GlobalState:  # noqa: ARG002
        """The best adapter of the run's rank for the sum of the sites' products. Raises RoundError as `one_by_one`."""
        everyone = list(one_by_one(updates))
        share_KR = component_shares(everyone, layers_of(before.manifest)[0].rank)
        views: Views = {}
        products = [site_products(before, update, views) for update in everyone]
        flat_P = np.zeros(before.manifest.parameters)
        residual = dict(before.residual)
        for layer in layers_of(before.manifest):
            self._cut(before, layer, _summed(before, layer, products, share_KR), flat_P, residual)
        return replace(before.with_values(flat_P), residual=residual)

    def _cut(
        self, before: GlobalState, layer: Layer, whole: Product, flat_P: Wide, residual: dict[str, Product]
    ) -> None:
        """Write the best components of a layer's sum into the adapter, and the others, if asked for, to the base."""
        if not whole.up_MR.any():  # nothing learnt: singular vectors of zero would be arbitrary, so A stays
            layer.write(flat_P, layer.product(before.flat_P, 0.0))
            return
        layer.write(flat_P, whole.first(layer.rank), before.scale)
        width = significant(whole)  # rounding is not worth its place in a message
        if self.options.combine.residual and width > layer.rank:
            base = Bank(before.residual.get(layer.name))
            base.add(whole.first(width).after(layer.rank))
            residual[layer.name] = base.total()


def _summed(before: GlobalState, layer: Layer, products: list[Callable[[str], Product]], share_KR: Wide) -> Product:
    """The sum of the sites' products of a layer, decomposed; components that nobody has stay as they were."""
    bank = Bank()
    for product, share_R in zip(products, share_KR, strict=True):
        mine = product(layer.name)
        bank.add(Product(mine.up_MR * share_R[: mine.rank], mine.down_RN))
    unseen_R = share_KR.sum(0) == 0
    if unseen_R.any():
        kept = layer.product(before.flat_P, before.scale)
        bank.add(Product(kept.up_MR[:, unseen_R], kept.down_RN[unseen_R]))
    return bank.decomposed()


def component_shares(updates: list[SiteUpdate], rank: int) -> Wide:
    """How much component p of site k counts: p_k over the weight of all sites that have the component, [K,R]."""
    has_KR = np.array([[component < update.rank for component in range(rank)] for update in updates])
    weight_KR = has_KR * np.array([update.weight for update in updates])[:, None]
    total_R = weight_KR.sum(0)
    shares_KR: Wide = weight_KR / np.where(total_R > 0, total_R, 1.0)
    return shares_KR
