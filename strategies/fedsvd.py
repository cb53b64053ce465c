"""FedSVD: B is trained and averaged, then the product gets a new orthonormal A (Lee et al. 2025, arXiv:2505.12805).

The mean of B is exact as in FFA. After it BA = U S V^T is written as B = U S, A = V^T: the product, and so the model,
stays the same, while A moves towards what was learnt and has orthonormal rows, which bounds the gradient of B and the
noise that a private run must add. A follows from the sum alone, so the rule is linear in the uploads and costs no
privacy. r m numbers up, r(m + n) down.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from strategies.aggregation import GlobalState, Roles, SiteUpdate
from strategies.products import decomposed, layers_of
from strategies.rules import RuleOptions, averaged

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True)
class FedSVD:
    """Only B is trained and sent back; a new A goes out with every round."""

    name: ClassVar[str] = "fedsvd"
    linear: ClassVar[bool] = True
    steady: ClassVar[bool] = False
    personal: ClassVar[bool] = False
    options: RuleOptions = field(default_factory=RuleOptions)

    def roles(self, round_number: int) -> Roles:  # noqa: ARG002 (the interface)
        """Every round alike."""
        return Roles(sent="AB", trained="B", uploaded="B")

    def aggregate(self, before: GlobalState, updates: Iterable[SiteUpdate], round_number: int) -> GlobalState:  # noqa: ARG002
        """The mean of B in a new basis. Raises RoundError as `combined_change`."""
        return refactored(averaged(before, "B", updates, self.options))


def refactored(state: GlobalState) -> GlobalState:
    """The same products with orthonormal A, sorted by singular value; a layer whose B is zero keeps its A."""
    flat_P = state.flat_P.astype(np.float64)
    for layer in layers_of(state.manifest):
        product = layer.product(state.flat_P)
        # A layer narrower than the rank has no r orthonormal rows: its factors stay.
        if product.up_MR.any() and layer.rank <= min(layer.outputs, layer.inputs):
            layer.write(flat_P, decomposed(product))
    return state.with_values(flat_P)
