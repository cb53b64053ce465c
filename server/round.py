"""One round at the coordinator: who is asked, what each is sent, which replies are used."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from flwr.app import MessageType, RecordDict

from ccfexp.errors import RoundError, WireError
from configs.federation import FederationConfig
from server.checkpoint import RoundRecord
from server.exchange import Envelope, Patience, array_bytes, checked_content, exchange, in_order, shown
from server.latecomers import Latecomers
from server.shelf import Shelf
from server.standing import Messages
from strategies import wire
from strategies.aggregation import SiteUpdate
from strategies.averaging import too_long

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flwr.app import Message
    from flwr.serverapp import Grid

    from server.roster import Member


log = logging.getLogger(__name__)
_MAX_REASON = 400  # characters of a refusal; what a site says itself is a part of it


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


@dataclass(frozen=True)
class Round:
    """Asks the sites and hands on the updates that pass every check.

    Attributes:
        config: limits and weighting.
        messages: what is sent, by rank.
        record: filled with what becomes of every site.
        patience: how long to wait.
        shelf: where updates wait for their turn.
        gather: whether the rule needs all updates together; else each is handed on as soon as it is its turn.
        late: who had not answered when the rounds before ended.
        on_reply: called for every site asked, used or refused, as the replies come.
    """

    config: FederationConfig
    messages: Messages
    record: RoundRecord
    patience: Patience
    shelf: Shelf
    gather: bool
    late: Latecomers = field(default_factory=Latecomers)
    on_reply: OnReply | None = None
    _sent: dict[int, tuple[wire.AdapterMessage, RecordDict]] = field(default_factory=dict)

    def updates(self, grid: Grid, members: Mapping[str, Member]) -> Iterator[SiteUpdate]:
        """Usable updates, sorted by site.

        Raises:
            RoundError: at the end, if there were too few.
            CheckpointError: an update could not be kept on the disk.
        """
        members = self._of_equal_rank(members)
        needed = self._needed(len(members))
        members = self._not_busy(grid, members, needed)
        rank = self.messages.terms.rank
        self.record.ranks.update({site: min(member.max_rank, rank) for site, member in members.items()})
        envelopes = (Envelope(site, member.node, self._content(site)) for site, member in members.items())
        number = self.record.round_number
        # A reply that is refused does not count: it must not end the wait for those that would be used.
        arrivals = exchange(
            grid, envelopes, MessageType.TRAIN, str(number), self._patience(),
            enough=lambda: len(self.record.metrics) >= needed, left_behind=self.late.note,
        )  # fmt: skip
        began = time.monotonic()
        screened = ((site, self._screened(site, reply, began)) for site, reply in arrivals)
        usable = self._used(in_order(list(members), screened, self._kept))
        yield from self._gathered(usable) if self.gather else usable
        if len(self.record.weights) < needed:
            reasons = "; ".join(f"{site}: {reason}" for site, reason in self.record.refused.items()) or "no other site"
            raise RoundError(
                f"round {number}: usable updates={len(self.record.weights)}, need at least {needed} "
                f"({reasons}); repair the sites and run the same command again, it goes on after round {number - 1}"
            )

    def _of_equal_rank(self, members: Mapping[str, Member]) -> Mapping[str, Member]:
        """The sites that can be compared number by number, where the centre does so; the others are not asked."""
        rank, centre = self.messages.terms.rank, self.config.combine.centre
        if centre == "mean":
            return members
        for site, member in members.items():
            if member.max_rank < rank:
                reason = f"not asked: combine.centre={centre} needs rank {rank} of every site, and it trains at most "
                self.record.refused[site] = f"{reason}{member.max_rank}; raise its policy.max_rank"
        return {site: member for site, member in members.items() if member.max_rank >= rank}

    def _not_busy(self, grid: Grid, members: Mapping[str, Member], needed: int) -> Mapping[str, Member]:
        """The sites that do not work on an earlier round any more."""
        free = self.late.free(grid, members, needed)
        self.record.refused.update(
            {site: "not asked: it still works on an earlier round" for site in members if site not in free}
        )
        return free

    def _needed(self, asked: int) -> int:
        share = self.config.min_fraction * asked
        return max(self.config.min_sites, math.ceil(share - 1e-9))  # 0.55 of 100 is 55, and 55.00000000000001 in binary

    def _patience(self) -> Patience:
        # Where sites queue for one machine, the last of them has not begun when enough have answered.
        if self.config.grace_s is None or math.isinf(self.patience.timeout_s):
            return self.patience
        return replace(self.patience, grace_s=self.config.grace_s)

    def _content(self, site: str) -> RecordDict:
        """What a site is sent; one content for all of one rank, so that it costs memory once."""
        rank = self.record.ranks[site]
        if rank not in self._sent:
            message = self.messages.of_rank(rank)
            self._sent[rank] = message, wire.encode_message(message)
        _, content = self._sent[rank]
        self.record.sent_bytes[site] = sum(
            len(array.data) for arrays in content.array_records.values() for array in arrays.values()
        )
        return content

    def _screened(self, site: str, reply: Message | None, began: float) -> SiteUpdate | str:
        """The update in a reply, or why it is not used."""
        number, received = self.record.round_number, array_bytes(reply)
        self.record.received_bytes[site] = received
        sent, _ = self._sent[self.record.ranks[site]]
        bounds = wire.UpdateBounds(sent, self.config.max_update_norm, self.config.max_weight)
        outcome: SiteUpdate | str
        metrics: Mapping[str, float] = {}
        try:
            update = _read(reply, bounds)
        except WireError as error:
            outcome = shown(str(error), _MAX_REASON)
            log.warning("round %d: the reply of site %s is not used: %s", number, site, outcome)
        else:
            metrics = update.metrics
            self.record.metrics[site] = dict(metrics)
            terms = sent.terms
            outcome = SiteUpdate(
                site, self._weight(update), update.manifest, update.change_P, terms.rank, self.messages.state.scale
            )
        if self.on_reply is not None:
            reason = outcome if isinstance(outcome, str) else None
            self.on_reply(Answer(number, site, reason, round(time.monotonic() - began, 3), received, metrics))
        return outcome

    def _weight(self, update: wire.AdapterUpdate) -> float:
        if self.config.weighting == "equal":
            return 1.0
        return min(update.weight, self.config.weight_cap or math.inf)

    def _kept(self, outcome: SiteUpdate | str) -> SiteUpdate | str:
        return outcome if isinstance(outcome, str) else self.shelf.put(outcome)

    def _used(self, outcomes: Iterator[tuple[str, SiteUpdate | str]]) -> Iterator[SiteUpdate]:
        for site, outcome in outcomes:
            if isinstance(outcome, str):
                self.record.refused[site] = outcome
                continue
            self.record.weights[site] = outcome.weight
            yield outcome
            del outcome  # before the next is waited for: two would need twice the memory

    def _gathered(self, usable: Iterator[SiteUpdate]) -> Iterator[SiteUpdate]:
        """All updates, on the disk, but those that the norm filter leaves out."""
        everyone = [self.shelf.put(update) if isinstance(update.change_P, np.ndarray) else update for update in usable]
        dropped = too_long(everyone, self.config.combine.norm_filter) if self.config.combine.norm_filter else {}
        for site, reason in dropped.items():
            log.warning("round %d: the reply of site %s is not used: %s", self.record.round_number, site, reason)
            self.record.refused[site] = reason
            del self.record.weights[site]
            del self.record.metrics[site]
        yield from (update for update in everyone if update.site not in dropped)


def _read(reply: Message | None, bounds: wire.UpdateBounds) -> wire.AdapterUpdate:
    """The update in a reply. Raises WireError for whatever else it may be."""
    try:
        return wire.decode_update(checked_content(reply), bounds)
    except WireError:
        raise
    except Exception as error:  # the border: whatever a reply is made of, the round goes on without it
        raise WireError(
            f"wire check 'reply' failed: content={type(error).__name__}, expected an update that can be read"
        ) from error
