"""FLoRA: products are stacked, not averaged (Wang et al. 2024, arXiv:2409.05976).

[B_1 .. B_K] times [p_1 A_1; ..; p_K A_K] is sum_i p_i B_i A_i for any ranks, exactly: the oracle that the other rules
are held against. The sum goes into the base and every site starts anew from a fresh A and B = 0, which costs it the
first steps of each round. What has gone into the base so far is sent whole, so that a site that was away needs no past.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from strategies.aggregation import GlobalState, Roles, SiteUpdate, one_by_one
from strategies.products import Bank, Product, layers_of
from strategies.rules import RuleOptions
from strategies.stacking import Views, site_products

if TYPE_CHECKING:
    from collections.abc import Iterable

    from strategies.aggregation import Wide


@dataclass(frozen=True)
class FLoRA:
    """Both factors are trained and sent; nothing is lost and nothing is kept warm."""

    name: ClassVar[str] = "flora"
    linear: ClassVar[bool] = False
    steady: ClassVar[bool] = False
    personal: ClassVar[bool] = False
    options: RuleOptions = field(default_factory=RuleOptions)

    def roles(self, round_number: int) -> Roles:  # noqa: ARG002 (the interface)
        """Every round alike."""
        return Roles(sent="AB", trained="AB", uploaded="AB")

    def aggregate(self, before: GlobalState, updates: Iterable[SiteUpdate], round_number: int) -> GlobalState:
        """The sum of the sites' products in the base, and a fresh adapter. Raises RoundError as `one_by_one`."""
        everyone = list(one_by_one(updates))
        total = sum(update.weight for update in everyone)
        views: Views = {}
        products = [site_products(before, update, views) for update in everyone]
        residual = dict(before.residual)
        for layer in layers_of(before.manifest):
            bank = Bank(before.residual.get(layer.name))
            for update, product in zip(everyone, products, strict=True):
                mine = product(layer.name)
                bank.add(Product(update.weight / total * mine.up_MR, mine.down_RN))
            residual[layer.name] = bank.total()
        fresh_P = self._fresh(before, round_number + 1)
        return replace(before.with_values(fresh_P), residual=residual)

    def _fresh(self, before: GlobalState, round_number: int) -> Wide:
        """A as peft draws it (uniform within 1 / sqrt(inputs)), B = 0: a function of the seed and the round."""
        generator = np.random.default_rng([self.options.seed, round_number])
        flat_P = np.zeros(before.manifest.parameters)
        for layer in layers_of(before.manifest):
            bound = 1 / np.sqrt(layer.inputs)
            flat_P[layer.down] = generator.uniform(-bound, bound, layer.rank * layer.inputs)
        return flat_P
