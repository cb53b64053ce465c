"""The gate: what the coordinator may ask of this hospital, and what may leave it.

Everything is decided here, in the hospital's own installed package, from the hospital's own file. The app that trains
is the coordinator's code and runs elsewhere (`client.worker`); of what it answers, nothing is passed on but values that
are decoded, checked and encoded anew here, so that no other record, tensor, metric or text can slip through.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from flwr.app import MessageType, RecordDict

from ccfexp.errors import ConfigError, PolicyError, WireError
from client.spending import Cost
from configs.client_part import ClientPart, plan_text
from strategies import wire

if TYPE_CHECKING:
    from flwr.app import Message

    from ccfexp.privacy.plan import PrivacyConfig
    from client.budget import Receipt
    from client.site import Policy


@dataclass(frozen=True)
class Standing:
    """What the gate must know of the site besides its policy.

    Attributes:
        site: its public name.
        base_sha256: of the base weights that are installed here.
        patients: who may be trained on.
        updates: rounds in which an update has left so far.
        declared_patients: the number that the hospital gives in public, None if it gives none.
    """

    site: str
    base_sha256: str
    patients: int
    updates: int
    declared_patients: int | None = None


@dataclass(frozen=True)
class Request:
    """A message that passed.

    Attributes:
        sent: what training starts from; None for the question after the site's name.
        cost: of a private round, which must be paid before anything is trained; None: the round is not private.
    """

    sent: wire.AdapterMessage | None = None
    cost: Cost | None = None


@dataclass(frozen=True)
class Release:
    """What may leave: the records, encoded by the gate, and what the ledger says of them."""

    content: RecordDict
    facts: Mapping[str, Any]


def admit(message: Message, policy: Policy, standing: Standing) -> Request:
    """Check what the coordinator asks for; whether it can be paid is for `client.budget` to say.

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
        raise PolicyError(
            f"training patients={standing.patients} are fewer than policy.min_patients={policy.min_patients}; add "
            "patients or lower the limit"
        )
    return Request(sent, _cost(sent, policy, standing))


def _cost(sent: wire.AdapterMessage, policy: Policy, standing: Standing) -> Cost | None:
    """What a private round costs, None for another. Raises as `admit`."""
    try:
        part = ClientPart.from_json(sent.client_config)
        plan = part.privacy
        if plan is not None:
            plan.spent(part.train.steps)  # calibrated, and steps that can be counted
    except ConfigError as error:
        raise WireError(f"wire check 'client_config' failed: {error}") from error
    if sent.terms.privacy != plan_text(plan):
        raise WireError("wire check 'privacy' failed: the plan of the terms must be that of the client configuration")
    if plan is None:
        if policy.max_epsilon is not None:
            raise PolicyError(
                f"policy.max_epsilon={policy.max_epsilon} asks for differential privacy and the run has none; only a "
                "private run is answered"
            )
        return None
    _check_plan(plan, policy, standing)
    terms = sent.terms
    return Cost(terms.run, terms.round_number, terms.method, terms.config_sha256, plan, part.train.steps)


def _check_plan(plan: PrivacyConfig, policy: Policy, standing: Standing) -> None:
    """Raises PolicyError where a plan's promise is not one that this hospital can make."""
    if plan.source != "secure":
        raise PolicyError(
            f"privacy.source={plan.source} must be secure at a hospital: who knows the seed can take the noise away; "
            "the coordinator must change the run"
        )
    if policy.max_epsilon is not None and plan.unit != "patient":
        raise PolicyError(
            f"privacy.unit={plan.unit} must be patient with policy.max_epsilon={policy.max_epsilon}, which is counted "
            "for whole patients; the coordinator must change the run"
        )
    if standing.declared_patients is None:
        raise PolicyError(
            "declared_patients=null must be a number for private runs: it is their weight, whoever comes or goes; "
            "declare one in the site file"
        )


def name(policy: Policy, standing: Standing) -> RecordDict:
    """The answer to a question: the site's public name, and the largest rank that it can train."""
    return wire.encode_hello(wire.SiteHello(standing.site, policy.max_rank))


def release(
    content: RecordDict,
    sent: wire.AdapterMessage,
    policy: Policy,
    standing: Standing,
    receipt: Receipt | None = None,
) -> Release:
    """Check what the app answered to a message and encode it anew.

    Args:
        content: the answer.
        sent: the message, as it was admitted.
        policy: the hospital's limits.
        standing: as the message was admitted with.
        receipt: of a private round that was paid for.

    Raises:
        PolicyError: it is more than this hospital lets out.
        WireError: it is not exactly what the wire allows; the text names what was found.
    """
    if bool(sent.terms.privacy) != (receipt is not None):
        raise PolicyError("a private round, and no other, must have been paid for; nothing of it leaves")
    patients = standing.patients if receipt is None else standing.declared_patients
    bounds = wire.UpdateBounds(sent, policy.max_update_norm, max_weight=float(patients or 1))
    update = wire.decode_update(content, bounds)
    if receipt is not None:
        update = _private(update, standing, receipt)
    records = wire.encode_update(update)
    size = sum(len(array.data) for record in records.array_records.values() for array in record.values())
    if size > policy.max_bytes:
        raise PolicyError(f"update bytes={size} must be at most policy.max_bytes={policy.max_bytes}")
    return Release(records, _facts(update) | _privacy(receipt) | {"array_bytes": size})


def _private(update: wire.AdapterUpdate, standing: Standing, receipt: Receipt) -> wire.AdapterUpdate:
    """An update beside which nothing but public numbers leaves: what was declared, what was paid.

    Raises:
        WireError: the app says anything else.
    """
    if update.weight != standing.declared_patients:
        raise WireError(f"wire check 'weight' failed: weight must be declared_patients={standing.declared_patients}")
    if dict(update.metrics) != {"steps": receipt.steps}:
        raise WireError(
            f"wire check 'metrics' failed: metrics must be steps={receipt.steps}, as paid for, and no other"
        )
    spent = {"epsilon_run": receipt.epsilon_run, "epsilon_total": receipt.epsilon_total}
    return replace(update, metrics=dict(update.metrics) | spent)


def _privacy(receipt: Receipt | None) -> dict[str, Any]:
    """What the ledger says of an update's privacy."""
    if receipt is None:
        return {"epsilon": None}  # no differential privacy: the update is not anonymous
    names = ("epsilon_total", "delta", "delta_total", "unit")
    return {"epsilon": receipt.epsilon_run} | {name: getattr(receipt, name) for name in names}


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
        "manifest_sha256": update.manifest.sha256,
    }
