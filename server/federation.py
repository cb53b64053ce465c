"""The round loop: send the adapter, screen what comes back, aggregate, evaluate, write the checkpoint.

Flower's own loop has neither a start round nor a checkpoint, stops the whole run on one malformed reply and averages
NaN, so this one stands beside it on the same Grid. Every round is a function of (state, configuration, round number)
alone; that is why a run killed at any instant and started again ends in the same bits.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ccfexp._io import atomic_write_bytes
from ccfexp.errors import RoundError
from configs.federation import FederationConfig
from server.checkpoint import CheckpointFolder, Progress, RoundRecord, adapter_bytes
from server.exchange import Patience
from server.latecomers import Latecomers
from server.roster import Member, Roster
from server.round import Answer, OnReply, Round
from server.shelf import Shelf
from server.standing import Messages, adapter_of, memory_of, state_of
from strategies import registry, wire
from strategies.bias import BiasMeter
from strategies.central_noise import CentralNoise
from strategies.rules import Rule, RuleOptions

if TYPE_CHECKING:
    from flwr.serverapp import Grid

    from strategies.aggregation import GlobalState

OnRound = Callable[[int, dict[str, torch.Tensor], dict[str, float]], Mapping[str, float] | None]
OnComplete = Callable[[RoundRecord], None]
log = logging.getLogger(__name__)

__all__ = ["Answer", "Federation", "Hooks", "OnComplete", "OnReply", "OnRound"]


@dataclass(frozen=True)
class Hooks:
    """What may watch a federation.

    on_round(round, adapter, means) is called with every new adapter (round 0 is the initial one) before the round is
    complete; the numbers that it returns are kept in the history as that round's evaluation.
    on_reply(answer) is called for every site asked, used or refused, as the replies come.
    on_complete(record) is called when a round is safely on the disk.
    """

    on_round: OnRound | None = None
    on_reply: OnReply | None = None
    on_complete: OnComplete | None = None


@dataclass(frozen=True)
class Federation:
    """One run of the coordinator.

    Attributes:
        config: rounds, rule, limits.
        terms: of round 1 at the run's own rank; rounds and sites differ in number, factors and rank.
        initial: the adapter before training, float32.
        client_config: JSON of what the sites need (adapter, train, seed).
        out_dir: gets `checkpoint/` and, at the end, `adapter.safetensors`.
        wanted_sites: how many sites to wait for before the first round (bounded by config.wait_for_sites_s).
        patience: how long to wait for replies.
        seed: of the choice of sites and of factors that a rule draws.
        hooks: what watches.
    """

    config: FederationConfig
    terms: wire.Terms
    initial: dict[str, torch.Tensor]
    client_config: str
    out_dir: Path
    wanted_sites: int
    patience: Patience
    seed: int = 0
    hooks: Hooks = field(default_factory=Hooks)

    def run(self, grid: Grid) -> Progress:
        """Train until the last round, from the last complete one if there is any.

        Returns:
            The final adapter and the history.

        Raises:
            RoundError: a round had fewer usable updates than it needs; the next run goes on before it.
            ConfigError: the folder holds a run of another configuration.
            CheckpointError: a checkpoint is damaged or could not be written.
        """
        folder = CheckpointFolder(
            self.out_dir / "checkpoint", config_sha256=self.terms.config_sha256, base_sha256=self.terms.base_sha256
        )
        progress = folder.load()
        if progress is None:
            noise_seed = secrets.randbits(128) if self.config.central_noise else None
            first = self._evaluated(RoundRecord(0, 0.0), self.initial)
            progress = Progress(0, self.initial, (first,), noise_seed=noise_seed, run=secrets.token_hex(8))
            folder.save(progress)
        elif progress.round_number:
            log.info("going on after round %d of %d", progress.round_number, self.config.rounds)
        roster = Roster(grid, self.patience, self.config.wait_for_sites_s)
        wanted, late = max(self.wanted_sites, self.config.min_sites), Latecomers()
        while progress.round_number < self.config.rounds:
            members = roster.sites(wanted=wanted, required=self.config.min_sites)
            progress = self._round(grid, members, progress, late)
            folder.save(progress)
            roster.forget(progress.history[-1].refused)
            if self.hooks.on_complete is not None:
                self.hooks.on_complete(progress.history[-1])
            wanted = self.config.min_sites  # whoever left during the run is not waited for
        about = {"round": progress.round_number, "method": progress.method, "rank": self.terms.rank}
        about |= {"alpha": self.terms.alpha, "config_sha256": self.terms.config_sha256}
        about |= {"base_sha256": self.terms.base_sha256, "privacy": self.terms.privacy}
        atomic_write_bytes(self.out_dir / "adapter.safetensors", adapter_bytes(progress.adapter, about))
        return progress

    def _round(self, grid: Grid, members: dict[str, Member], before: Progress, late: Latecomers) -> Progress:
        started = time.monotonic()
        number = before.round_number + 1
        method = before.method or self._method(members)
        rule = self._rule(method, before)
        roles = rule.roles(number)
        terms = replace(
            self.terms, round_number=number, method=method, trained=roles.trained, uploaded=roles.uploaded,
            run=before.run,
            coding=self.config.upload,
        )  # fmt: skip
        state = state_of(before, self.terms.alpha / self.terms.rank)
        record = RoundRecord(number, 0.0)
        shelf = Shelf(self.out_dir / "waiting")
        asked = Round(
            self.config, Messages(state, terms, roles, self.client_config, self.config.combine.residual), record,
            self.patience, shelf, not rule.linear or self.config.combine.needs_all, late, self.hooks.on_reply,
        )  # fmt: skip
        updates = asked.updates(grid, self._drawn(members, number))
        meter = None if rule.personal else BiasMeter(state, number)
        try:
            after = rule.aggregate(state, updates if meter is None else meter.watching(updates), number)
        finally:
            shelf.clear()
        _check_finite(after, number)
        bias = None if meter is None else meter.distance(after)
        if bias is not None:
            log.info("round %d: the applied update is %.3g of the ideal sum away from it", number, bias)
        adapter = adapter_of(after)
        record = replace(record, seconds=round(time.monotonic() - started, 3), bias=bias)
        history = (*before.history, self._evaluated(record, adapter))
        return Progress(number, adapter, history, method, memory_of(after), before.noise_seed, before.run)

    def _method(self, members: Mapping[str, Member]) -> str:
        """The rule, chosen before the first round and kept to the last."""
        mixed = any(member.max_rank < self.terms.rank for member in members.values())
        return self.config.rule(mixed_ranks=mixed, private=bool(self.terms.privacy))

    def _rule(self, method: str, before: Progress) -> Rule:
        noise = None
        if before.noise_seed is not None:
            generator = np.random.default_rng([before.noise_seed, before.round_number + 1])
            noise = CentralNoise(self.config.central_noise, self.config.max_update_norm, generator)
        return registry.make(method, RuleOptions(self.config.combine, self.config.optimiser, self.seed, noise))

    def _drawn(self, members: dict[str, Member], number: int) -> dict[str, Member]:
        """The sites that are asked in a round: all, or as many as the configuration draws from the run's seed."""
        count = self.config.sites_per_round
        if count is None or count >= len(members):
            return members
        names = sorted(np.random.default_rng([self.seed, number]).choice(sorted(members), count, replace=False))
        return {str(name): members[str(name)] for name in names}

    def _evaluated(self, record: RoundRecord, adapter: dict[str, torch.Tensor]) -> RoundRecord:
        if self.hooks.on_round is None:
            return record
        measured = self.hooks.on_round(record.round_number, adapter, record.means())
        return replace(record, evaluation=dict(measured or {}))


def _check_finite(state: GlobalState, number: int) -> None:
    moved = all(np.isfinite(part.up_MR).all() and np.isfinite(part.down_RN).all() for part in state.residual.values())
    if not (moved and np.isfinite(state.flat_P).all()):
        raise RoundError(
            f"round {number}: the new adapter has numbers that are not finite; lower federation.optimiser.rate, "
            "federation.central_noise or federation.max_update_norm and start a new run"
        )
