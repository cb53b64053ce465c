"""The gate: what the coordinator may ask of this hospital, and what may leave it.

Everything is decided here, in the hospital's own installed package, from the hospital's own file. The app that trains
is the coordinator's code and runs elsewhere (`client.worker`); of what it answers, nothing is passed on but values that
are decoded, checked and encoded anew here, so that no other record, tensor, metric or text can slip through.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from flwr.app import MessageType, RecordDict

from ccfexp.errors import PolicyError, WireError
from strategies import wire

if TYPE_CHECKING:
    from flwr.app import Message

    from client.site import Policy


@dataclass(frozen=True)
class Standing:
    """What the gate must know of the site besides its policy.

    Attributes:
        site: its public name.
        base_sha256: of the base weights that are installed here.
        patients: who may be trained on.
        updates: rounds in which an update has left so far.
    """

    site: str
    base_sha256: str
    patients: int
    updates: int


@dataclass(frozen=True)
class Request:
    """A message that passed: for training what was sent, None for the question after the site's name."""

    sent: wire.AdapterMessage | None = None


@dataclass(frozen=True)
class Release:
    """What may leave: the records, encoded by the gate, and what the ledger says of them."""

    content: RecordDict
    facts: Mapping[str, Any]


def admit(message: Message, policy: Policy, standing: Standing) -> Request:
    """Check what the coordinator asks for.

    Raises:
        PolicyError: this hospital does not allow it.
        WireError: the message is malformed or does not fit what is installed here.
    """
    kind = message.metadata.message_type
    if kind not in policy.messages:
        raise PolicyError(f"message kind={kind[:40]!r} must be one of policy.messages={list(policy.messages)}")
    if kind == MessageType.QUERY:
        if len(message.content):
            raise WireError("wire check 'records' failed: a question must be empty")
        return Request()
    sent = wire.decode_message(message.content)
    if sent.terms.base_sha256 != standing.base_sha256:
        raise WireError(
            f"base_sha256={sent.terms.base_sha256[:12]} of the message is not this site's {standing.base_sha256[:12]}; "
            "install the base weights that the coordinator uses"
        )
    if sent.terms.rank > policy.max_rank:
        raise PolicyError(f"rank={sent.terms.rank} of the message must be at most policy.max_rank={policy.max_rank}")
    if standing.updates >= policy.max_rounds:
        raise PolicyError(
            f"updates sent={standing.updates} have reached policy.max_rounds={policy.max_rounds}; the hospital must "
            "raise it before more may leave"
        )
    if standing.patients < policy.min_patients:
        raise PolicyError(f"the site has fewer patients than its policy.min_patients={policy.min_patients}")
    if policy.max_epsilon is not None:
        raise PolicyError(
            f"policy.max_epsilon={policy.max_epsilon} asks for differential privacy and the run has none; only a "
            "private run is answered"
        )
    return Request(sent)


def name(policy: Policy, standing: Standing) -> RecordDict:
    """The answer to a question: the site's public name, and the largest rank that it can train."""
    return wire.encode_hello(wire.SiteHello(standing.site, policy.max_rank))


def release(content: RecordDict, sent: wire.AdapterMessage, policy: Policy, standing: Standing) -> Release:
    """Check what the app answered to a message and encode it anew.

    Raises:
        PolicyError: it is more than this hospital lets out.
        WireError: it is not exactly what the wire allows; the text names what was found.
    """
    bounds = wire.UpdateBounds(sent, policy.max_update_norm, max_weight=float(standing.patients))
    update = wire.decode_update(content, bounds)
    records = wire.encode_update(update)
    size = sum(len(array.data) for record in records.array_records.values() for array in record.values())
    if size > policy.max_bytes:
        raise PolicyError(f"update bytes={size} must be at most policy.max_bytes={policy.max_bytes}")
    return Release(records, _facts(update) | {"array_bytes": size})


def _facts(update: wire.AdapterUpdate) -> dict[str, Any]:
    """What the ledger says of an update: norms are those of the change, tensor by tensor."""
    change_P = update.change_P.astype(np.float64)
    norms, start = {}, 0
    for name, shape in update.manifest.entries:
        stop = start + int(np.prod(shape))
        norms[name] = round(float(np.linalg.norm(change_P[start:stop])), 6)
        start = stop
    return {
        "factors": update.terms.uploaded,
        "coding": update.terms.coding,
        "rank": update.terms.rank,
        "tensors": len(norms),
        "norm": round(float(np.linalg.norm(change_P)), 6),
        "norms": norms,
        "metrics": dict(update.metrics),
        "weight": update.weight,
        "epsilon": None,  # no differential privacy: the update is not anonymous
        "manifest_sha256": update.manifest.sha256,
    }
