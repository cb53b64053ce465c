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
from client import guard
from client.site import Policy
from strategies import wire
from tests.toys import BASE, A, B, initial, write_changes

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.usefixtures("task_identity")
POLICY = Policy(("query", "train"), 10, 10_000, 5.0, 2, 4, None)
STANDING = guard.Standing("A", BASE, patients=4, updates=3)
SENT = wire.AdapterMessage.of(wire.Terms(2, "fedit", 2, 2.0, "a" * 64, BASE), initial(), "{}")


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
        (replace(POLICY, min_patients=5), STANDING, "train", PolicyError, "fewer patients than its policy"),
        (replace(POLICY, max_epsilon=8.0), STANDING, "train", PolicyError, "asks for differential privacy"),
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
