"""What the SuperNode counts of its own requests, and what it forgets."""

from __future__ import annotations

import time
from types import SimpleNamespace

import httpx
import pytest
from flwr.app import RecordDict
from flwr.app.message import make_message
from flwr.app.metadata import Metadata
from flwr.supercore.inflatable.inflatable_object import get_object_tree
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.run import Run, RunNotRunningException
from flwr.supernode import start_client_internal
from flwr.supernode.nodestate import NodeStateFactory

from client.supernode import envelope_bytes, forget_what_cannot_arrive


def test_a_request_for_work_is_counted_whole() -> None:
    """First line, headers, body, and two records of TLS around them."""
    request = httpx.Request("POST", "https://a.example:8443/v1/fleet/pull-messages", content=b"x" * 40)
    written = b"POST /v1/fleet/pull-messages HTTP/1.1\r\n"
    written += b"".join(name + b": " + value + b"\r\n" for name, value in request.headers.raw) + b"\r\n" + b"x" * 40

    assert envelope_bytes(request) == len(written) + 2 * 22


def test_of_a_message_only_the_wrapping_is_counted() -> None:
    """Its content stands in the ledger's entry of the message."""
    small = httpx.Request("POST", "https://a.example/v1/fleet/push-object", content=b"")
    large = httpx.Request("POST", "https://a.example/v1/fleet/push-object", content=b"x" * (3 << 14))

    assert envelope_bytes(large) - envelope_bytes(small) == 3 * 22 + len(str(3 << 14)) - 1


def test_a_task_whose_run_ends_while_its_message_arrives_is_dropped() -> None:
    """Flower's own loop would keep it for ever, and with it everybody who waits for the message."""
    objects = ObjectStoreFactory()
    state = NodeStateFactory(objects).state()
    state.set_node_id(1)
    state.store_run(Run.create_empty(7))
    message = make_message(Metadata(7, "", 9, 1, "", "1", time.time(), 60.0, "train"), RecordDict())
    message.metadata.__dict__["_message_id"] = message.object_id
    supernode = SimpleNamespace(_pull_and_store_message=vars(start_client_internal)["_pull_and_store_message"])
    forget_what_cannot_arrive(supernode)  # type: ignore[arg-type]

    def ended(*_: object) -> bytes:
        raise RunNotRunningException

    run = supernode._pull_and_store_message(
        state=state, object_store=objects.store(), node_config={}, receive=lambda: (message, get_object_tree(message)),
        get_run=pytest.fail, get_fab=pytest.fail, pull_object=ended, confirm_message_received=pytest.fail,
        trusted_entities=None,
    )  # fmt: skip

    assert run is None
    assert [task.status.sub_status for task in state.get_tasks(run_ids=[7])] == ["failed"]
    assert state.get_messages_legacy() == []
