"""The round loop: send the adapter, screen what comes back, aggregate, evaluate, write the checkpoint.

Flower's own loop has neither a start round nor a checkpoint, stops the whole run on one malformed reply and averages
NaN, so this one stands beside it on the same Grid. Every round is a function of (adapter, configuration, round number)
alone; that is why a run killed at any instant and started again ends in the same bits.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from flwr.app import MessageType

from ccfexp._io import atomic_write_bytes
from ccfexp.errors import RoundError, WireError
from configs.federation import FederationConfig
from server.checkpoint import CheckpointFolder, Progress, RoundRecord, adapter_bytes
from server.exchange import Envelope, Patience, array_bytes, checked_content, exchange, in_order
from server.roster import Roster
from strategies import registry, wire
from strategies.aggregation import SiteUpdate
from strategies.packing import unpack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flwr.app import Message
    from flwr.serverapp import Grid

OnRound = Callable[[int, dict[str, torch.Tensor], dict[str, float]], Mapping[str, float] | None]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """What became of one site in one round; all of it is public."""

    round_number: int
    site: str
    refused: str | None  # why its reply is not used
    seconds: float  # since the round began
    received_bytes: int  # of the arrays in its reply
    metrics: Mapping[str, float]  # empty if refused


OnReply = Callable[[Answer], None]
OnComplete = Callable[[RoundRecord], None]


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
        config: rounds, strategy, limits.
        terms: of round 1; every round has the same but for its number.
        initial: the adapter before training, float32.
        client_config: JSON of what the sites need (adapter, train, seed).
        out_dir: gets `checkpoint/` and, at the end, `adapter.safetensors`.
        wanted_sites: how many sites to wait for before the first round (bounded by config.wait_for_sites_s).
        patience: how long to wait for replies.
        hooks: what watches.
    """

    config: FederationConfig
    terms: wire.Terms
    initial: dict[str, torch.Tensor]
    client_config: str
    out_dir: Path
    wanted_sites: int
    patience: Patience
    hooks: Hooks = field(default_factory=Hooks)

    def run(self, grid: Grid) -> Progress:
        """Train until the last round, from the last complete one if there is any.

        Returns:
            The final adapter and the history.

        Raises:
            RoundError: a round had fewer than config.min_sites usable updates; the next run goes on before it.
            ConfigError: the folder holds a run of another configuration; an unknown strategy.
            CheckpointError: a checkpoint is damaged or could not be written.
        """
        registry.get(self.config.strategy)  # an unknown name is refused before anything is sent
        folder = CheckpointFolder(
            self.out_dir / "checkpoint", config_sha256=self.terms.config_sha256, base_sha256=self.terms.base_sha256
        )
        progress = folder.load()
        if progress is None:
            progress = Progress(0, self.initial, (self._evaluated(RoundRecord(0, 0.0), self.initial),))
            folder.save(progress)
        elif progress.round_number:
            log.info("going on after round %d of %d", progress.round_number, self.config.rounds)
        roster = Roster(grid, self.patience, self.config.wait_for_sites_s)
        wanted = max(self.wanted_sites, self.config.min_sites)
        while progress.round_number < self.config.rounds:
            progress = self._round(grid, roster.sites(wanted=wanted, required=self.config.min_sites), progress)
            folder.save(progress)
            if self.hooks.on_complete is not None:
                self.hooks.on_complete(progress.history[-1])
            wanted = self.config.min_sites  # whoever left during the run is not waited for
        about = {"round": progress.round_number, "method": self.terms.method, "rank": self.terms.rank}
        about |= {"alpha": self.terms.alpha, "config_sha256": self.terms.config_sha256}
        about |= {"base_sha256": self.terms.base_sha256}
        atomic_write_bytes(self.out_dir / "adapter.safetensors", adapter_bytes(progress.adapter, about))
        return progress

    def _round(self, grid: Grid, sites: dict[str, int], before: Progress) -> Progress:
        started = time.monotonic()
        number = before.round_number + 1
        sent = wire.AdapterMessage.of(replace(self.terms, round_number=number), before.adapter, self.client_config)
        record = RoundRecord(number, 0.0)
        updates = self._usable_updates(grid, sites, sent, record)
        flat_P = registry.get(self.config.strategy).aggregate(sent.flat_P, updates)
        adapter = unpack(sent.manifest, flat_P)
        record = replace(record, seconds=round(time.monotonic() - started, 3))
        return Progress(number, adapter, (*before.history, self._evaluated(record, adapter)))

    def _usable_updates(
        self, grid: Grid, sites: dict[str, int], sent: wire.AdapterMessage, record: RoundRecord
    ) -> Iterator[SiteUpdate]:
        """Updates that pass every check, sorted by site; fills `record` and fails at the end if they are too few."""
        content = wire.encode_message(sent)  # one content for all: it costs memory once
        envelopes = (Envelope(site, node, content) for site, node in sites.items())
        bounds = wire.UpdateBounds(sent, self.config.max_update_norm, self.config.max_weight)
        number = sent.terms.round_number
        arrivals = exchange(grid, envelopes, MessageType.TRAIN, str(number), self.patience)
        began = time.monotonic()
        screened = ((site, self._screened(site, reply, bounds, record, began)) for site, reply in arrivals)
        for site, outcome in in_order(list(sites), screened):
            if isinstance(outcome, str):
                record.refused[site] = outcome
                continue
            record.weights[site] = outcome.weight
            record.metrics[site] = dict(outcome.metrics)
            yield SiteUpdate(site, outcome.flat_P, outcome.weight)
        if len(record.weights) < self.config.min_sites:
            reasons = "; ".join(f"{site}: {reason}" for site, reason in record.refused.items()) or "no other site"
            raise RoundError(
                f"round {number}: usable updates={len(record.weights)}, need at least {self.config.min_sites} "
                f"({reasons}); repair the sites and run the same command again, it goes on after round {number - 1}"
            )

    def _screened(
        self, site: str, reply: Message | None, bounds: wire.UpdateBounds, record: RoundRecord, began: float
    ) -> wire.AdapterUpdate | str:
        """The update in a reply, or why it is not used."""
        number, received = record.round_number, array_bytes(reply)
        record.received_bytes[site] = received
        outcome: wire.AdapterUpdate | str
        try:
            outcome = wire.decode_update(checked_content(reply), bounds)
        except WireError as error:
            outcome = str(error)
            log.warning("round %d: the reply of site %s is not used: %s", number, site, outcome)
        if self.hooks.on_reply is not None:
            seconds = round(time.monotonic() - began, 3)
            if isinstance(outcome, str):
                self.hooks.on_reply(Answer(number, site, outcome, seconds, received, {}))
            else:
                self.hooks.on_reply(Answer(number, site, None, seconds, received, outcome.metrics))
        return outcome

    def _evaluated(self, record: RoundRecord, adapter: dict[str, torch.Tensor]) -> RoundRecord:
        if self.hooks.on_round is None:
            return record
        measured = self.hooks.on_round(record.round_number, adapter, record.means())
        return replace(record, evaluation=dict(measured or {}))
