"""The gate: what may be asked of a hospital, and what may leave it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st

from ccfexp.errors import PolicyError, WireError
from ccfexp.privacy.plan import PrivacyConfig
from client import guard
from client.budget import Receipt
from client.site import Policy
from strategies import wire
from tests.client.rounds import PLAN, STEPS, TERMS, asked_for
from tests.toys import BASE, A, B, write_changes

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.usefixtures("task_identity")
POLICY = Policy(("query", "train"), 10, 10_000, 5.0, 2, 4, None, None)
STANDING = guard.Standing("A", BASE, patients=4, updates=3)
SENT = asked_for()
PRIVATE = asked_for(PLAN)
DECLARED = replace(STANDING, declared_patients=5)
RECEIPT = Receipt(0.7, 1.9, 1e-3, 1e-4, STEPS, "patients", "patient", "e" * 64)


def asked(content: RecordDict, kind: str = "train") -> Message:
    """A message of the coordinator."""
    return Message(content, dst_node_id=7, message_type=kind)


def trained(change: float = 0.1, metrics: dict[str, float] | None = None, weight: float = 4.0) -> RecordDict:
    """The records of an update that changes every number by as much."""
    changes = {name: torch.full(tensor.shape, change) for name, tensor in SENT.state().items()}
    return wire.encode_update(wire.AdapterUpdate.of(SENT.terms, changes, weight, metrics or {"loss": 0.5}))


def test_training_within_the_policy_is_admitted() -> None:
    """And a question after the name too."""
    request = guard.admit(asked(wire.encode_message(SENT)), POLICY, STANDING)

    assert request.sent is not None
    assert request.sent.terms == SENT.terms
    assert guard.admit(asked(RecordDict(), "query"), POLICY, STANDING).sent is None
    assert wire.decode_hello(guard.name(POLICY, STANDING)) == wire.SiteHello("A", 4)


@pytest.mark.parametrize(
    ("policy", "standing", "kind", "error", "message"),
    [
        (replace(POLICY, messages=("query",)), STANDING, "train", PolicyError, "message kind='train'"),
        (POLICY, STANDING, "evaluate", PolicyError, "message kind='evaluate'"),
        (POLICY, STANDING, "train.secretly", PolicyError, "message kind="),
        (replace(POLICY, max_rounds=3), STANDING, "train", PolicyError, "updates sent=3 have reached"),
        (replace(POLICY, max_rank=1), STANDING, "train", PolicyError, "rank=2 of the message must be at most"),
        (
            replace(POLICY, min_patients=5),
            STANDING,
            "train",
            PolicyError,
            "patients=4 are fewer than policy",
        ),
        (replace(POLICY, max_epsilon=8.0, delta=1e-3), STANDING, "train", PolicyError, "asks for differential privacy"),
        (POLICY, replace(STANDING, base_sha256="c" * 64), "train", WireError, "install the base weights"),
    ],
)
def test_what_the_hospital_does_not_allow_is_refused(
    policy: Policy, standing: guard.Standing, kind: str, error: type[Exception], message: str
) -> None:
    """Whatever the run says."""
    with pytest.raises(error, match=message):
        guard.admit(asked(wire.encode_message(SENT), kind), policy, standing)


def test_a_question_with_something_in_it_is_refused() -> None:
    """There is nothing to answer to it."""
    with pytest.raises(WireError, match="must be empty"):
        guard.admit(asked(wire.encode_message(SENT), "query"), POLICY, STANDING)


def test_an_update_leaves_as_the_gate_encodes_it() -> None:
    """The same numbers, and for the ledger what changed, tensor by tensor."""
    released = guard.release(trained(), SENT, POLICY, STANDING)
    update = wire.decode_update(released.content, wire.UpdateBounds(SENT, 5.0, 4.0))
    norms = {A: 0.1 * np.sqrt(12), B: 0.1 * np.sqrt(12)}

    assert torch.equal(update.state()[A], torch.full((2, 6), 0.1))
    assert released.facts["tensors"] == 2
    assert released.facts["norms"] == pytest.approx(norms, rel=1e-5)
    assert released.facts["norm"] == pytest.approx(0.1 * np.sqrt(24), rel=1e-5)
    assert released.facts["epsilon"] is None
    assert released.facts["metrics"] == {"loss": 0.5}


def _with(change: Callable[[RecordDict], None]) -> RecordDict:
    content = trained()
    change(content)
    return content


def _set_term(name: str, value: str | float) -> Callable[[RecordDict], None]:
    def change(content: RecordDict) -> None:
        content.config_records["terms"][name] = value

    return change


def _extra_tensor(content: RecordDict) -> None:
    content["adapter"] = ArrayRecord(
        {"flat": content.array_records["adapter"]["flat"], "face": Array(np.zeros((64, 64), np.float32))}
    )


def _image_in_the_adapter(content: RecordDict) -> None:
    write_changes(content, np.zeros(3 * 64 * 64))


def _not_finite(content: RecordDict) -> None:
    write_changes(content, np.where(np.arange(24) == 3, np.nan, 0.1))


@pytest.mark.parametrize(
    "change",
    [
        _extra_tensor,
        _image_in_the_adapter,
        _not_finite,
        lambda content: content.update({"more": ArrayRecord({"x": Array(np.zeros(3, np.float32))})}),
        lambda content: content.update({"more": ConfigRecord({"patient": "Jane Doe"})}),
        lambda content: content.update({"metrics": MetricRecord({"loss": 0.5, "first_patient": 1.0})}),
        lambda content: content.update({"metrics": MetricRecord({"loss": [0.5, 0.6]})}),
        lambda content: content.update({"metrics": MetricRecord({"loss": float("nan")})}),
        _set_term("manifest", '[["patients.lora_A.weight",[2,6]],["x.lora_B.weight",[6,2]]]'),
        _set_term("round_number", 3),
        _set_term("weight", 5.0),
        _set_term("weight", float("inf")),
        _set_term("base_sha256", "c" * 64),
    ],
)
def test_anything_else_is_stopped(change: Callable[[RecordDict], None]) -> None:
    """Another tensor, another record, another metric, another name, another round, a weight above the patients."""
    with pytest.raises((WireError, PolicyError)):
        guard.release(_with(change), SENT, POLICY, STANDING)


def test_fields_that_nobody_asked_for_do_not_leave() -> None:
    """A text beside the agreed fields may be found or not: it is not in what the gate encodes."""
    content = _with(_set_term("note", "Jane Doe"))
    try:
        released = guard.release(content, SENT, POLICY, STANDING)
    except (WireError, PolicyError):
        return
    assert "note" not in released.content.config_records["terms"]
    assert "Jane" not in str(released.content.config_records["terms"])


def test_norm_and_bytes_are_bounded() -> None:
    """By the hospital, not by the run."""
    with pytest.raises(WireError, match="update norm"):
        guard.release(trained(10.0), SENT, POLICY, STANDING)
    with pytest.raises(PolicyError, match=r"update bytes=\d+ must be at most policy.max_bytes=100"):
        guard.release(trained(), SENT, replace(POLICY, max_bytes=100), STANDING)


@given(
    names=st.dictionaries(st.text(min_size=1, max_size=20), st.floats(allow_nan=True, allow_infinity=True), max_size=4)
)
def test_no_metric_but_the_listed_ones_ever_leaves(names: dict[str, float]) -> None:
    """Whatever an app invents."""
    content = trained()
    content["metrics"] = MetricRecord(dict(names))
    try:
        released = guard.release(content, SENT, POLICY, STANDING)
    except (WireError, PolicyError):
        return
    assert set(released.content.metric_records["metrics"]) <= wire.PUBLIC_METRICS


def test_a_private_round_is_admitted_with_its_cost() -> None:
    """Whether it can be paid is another question."""
    request = guard.admit(asked(wire.encode_message(PRIVATE)), replace(POLICY, max_epsilon=1.0, delta=1e-3), DECLARED)

    assert request.cost is not None
    assert request.cost.plan == PLAN
    assert (request.cost.run, request.cost.round_number, request.cost.steps) == (TERMS.run, 2, STEPS)
    assert guard.admit(asked(wire.encode_message(SENT)), POLICY, STANDING).cost is None


@pytest.mark.parametrize(
    ("plan", "standing", "max_epsilon", "message"),
    [
        (replace(PLAN, source="seeded"), DECLARED, None, "privacy.source=seeded must be secure"),
        (replace(PLAN, unit="image", images_per_patient=1), DECLARED, 1.0, "privacy.unit=image must be patient"),
        (PLAN, STANDING, None, "declared_patients=null must be a number"),
    ],
)
def test_a_plan_that_promises_too_little_is_refused(
    plan: PrivacyConfig, standing: guard.Standing, max_epsilon: float | None, message: str
) -> None:
    """Noise that can be taken away, another unit than the policy's, a weight that follows who comes and goes."""
    policy = replace(POLICY, max_epsilon=max_epsilon, delta=1e-3)
    with pytest.raises(PolicyError, match=message):
        guard.admit(asked(wire.encode_message(asked_for(plan))), policy, standing)


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (replace(PRIVATE, terms=TERMS), "check 'privacy'"),
        (replace(SENT, terms=PRIVATE.terms), "check 'privacy'"),
        (replace(PRIVATE, terms=asked_for(replace(PLAN, noise_multiplier=9.0)).terms), "check 'privacy'"),
        (replace(PRIVATE, terms=replace(TERMS, privacy=PRIVATE.terms.privacy + " ")), "check 'privacy'"),
        (asked_for(PrivacyConfig(epsilon=3.0)), "calibrate it first"),
        (asked_for(PLAN, steps=1_000_001), "steps=1000001 must lie in"),
        (replace(PRIVATE, client_config="{}"), "check 'client_config'"),
        (replace(PRIVATE, client_config="no JSON"), "check 'client_config'"),
        (replace(PRIVATE, client_config=PRIVATE.client_config.replace("1.5", "0.01")), "check 'client_config'"),
    ],
)
def test_a_plan_that_is_told_in_two_ways_or_has_no_cost_is_refused(sent: wire.AdapterMessage, message: str) -> None:
    """What is counted is what is trained with."""
    with pytest.raises(WireError, match=message):
        guard.admit(asked(wire.encode_message(sent)), POLICY, DECLARED)


def private(metrics: dict[str, float], weight: float = 5.0) -> RecordDict:
    """What an app answers to a private round."""
    content = trained(weight=weight)
    content["metrics"] = MetricRecord(dict(metrics))
    content.config_records["terms"]["privacy"] = PRIVATE.terms.privacy
    return content


def test_a_private_update_leaves_with_what_it_has_cost() -> None:
    """The declared number of patients, the steps, and two figures that the gate adds itself."""
    released = guard.release(private({"steps": STEPS}), PRIVATE, POLICY, DECLARED, RECEIPT)
    update = wire.decode_update(released.content, wire.UpdateBounds(PRIVATE, 5.0, 5.0))

    assert update.weight == 5.0
    assert update.metrics == {"steps": STEPS, "epsilon_run": 0.7, "epsilon_total": 1.9}
    expected = {"epsilon": 0.7, "epsilon_total": 1.9, "delta": 1e-3, "delta_total": 1e-4, "unit": "patient"}
    assert {name: released.facts[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("metrics", "weight"),
    [
        ({"steps": STEPS}, 4.0),  # how many there are
        ({"steps": STEPS}, 6.0),
        ({"steps": STEPS - 1}, 5.0),
        ({"steps": STEPS + 1}, 5.0),
        ({}, 5.0),
        ({"steps": STEPS, "loss": 0.5}, 5.0),
        ({"steps": STEPS, "patients": 4}, 5.0),
        ({"steps": STEPS, "epsilon_run": 0.7}, 5.0),  # not the app's to say
    ],
)
def test_nothing_of_the_data_leaves_beside_a_private_update(metrics: dict[str, float], weight: float) -> None:
    """No loss, no number of patients, no other weight, no other steps than were paid for."""
    with pytest.raises(WireError):
        guard.release(private(metrics, weight), PRIVATE, POLICY, DECLARED, RECEIPT)


def test_a_private_round_leaves_with_a_receipt_or_not_at_all() -> None:
    """And an ordinary one has none."""
    with pytest.raises(PolicyError, match="must have been paid for"):
        guard.release(private({"steps": STEPS}), PRIVATE, POLICY, DECLARED)
    with pytest.raises(PolicyError, match="must have been paid for"):
        guard.release(trained(), SENT, POLICY, DECLARED, RECEIPT)
