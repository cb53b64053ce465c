"""The federation's state as the checkpoint holds it, as the rules work on it, and as a site of some rank is sent it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from strategies import wire
from strategies.aggregation import GlobalState, Roles
from strategies.packing import ALLOWED_NAME, pack, trained_letter, unpack, values_sha256
from strategies.products import Product, residual_entries
from strategies.stacking import view_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from server.checkpoint import Progress

AdapterState = dict[str, torch.Tensor]


def state_of(progress: Progress, scale: float) -> GlobalState:
    """What the rules work on."""
    factors = {name: value for name, value in progress.adapter.items() if trained_letter(name) is not None}
    manifest, flat_P = pack(factors)
    memory = {name: value.numpy() for name, value in progress.memory.items()}
    return GlobalState(manifest, flat_P, scale, _residual(progress.adapter), memory)


def adapter_of(state: GlobalState) -> AdapterState:
    """The factors and what has been moved into the base, by their names."""
    residual = residual_entries(state.residual, state.manifest)
    moved = {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in residual.items()}
    return unpack(state.manifest, state.flat_P) | moved


def memory_of(state: GlobalState) -> dict[str, torch.Tensor]:
    """What the rule keeps, as tensors."""
    return {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in state.memory.items()}


@dataclass(frozen=True)
class Messages:
    """What is sent in a round, made once for every rank that a site asks for.

    Attributes:
        state: before the round.
        terms: of the round at the run's rank.
        roles: what the round does with the factors.
        client_config: what every site needs to know besides.
        keep_tail: whether what a smaller site cannot train becomes part of its base.
    """

    state: GlobalState
    terms: wire.Terms
    roles: Roles
    client_config: str
    keep_tail: bool

    def of_rank(self, rank: int) -> wire.AdapterMessage:
        """The message to a site of this rank."""
        view = view_of(self.state, rank, keep_tail=self.keep_tail)
        adapter = adapter_of(view)
        sent = {
            name: value
            for name, value in adapter.items()
            if (trained_letter(name) or self.roles.sent[0]) in self.roles.sent
        }
        # Factors that stay as they were drawn are known to the sites; those that each site has for itself are nobody's.
        known = "".join(sorted({"A", "B"} - set(self.roles.sent) - set(self.roles.trained)))
        terms = replace(
            self.terms,
            rank=rank,
            alpha=self.state.scale * rank,
            known_sha256=values_sha256(adapter, known) if known else "",
        )
        return wire.AdapterMessage.of(terms, sent, self.client_config)


def _residual(adapter: Mapping[str, torch.Tensor]) -> dict[str, Product]:
    parts: dict[str, dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float64]]]] = {}
    for name, value in adapter.items():
        match = ALLOWED_NAME.fullmatch(name)
        if match is not None and match["residual"]:
            parts.setdefault(match["layer"], {})[match["letter"]] = value.double().numpy()
    return {
        layer: Product(pair["B"].reshape(len(pair["B"]), -1), pair["A"].reshape(len(pair["A"]), -1))
        for layer, pair in parts.items()
    }
