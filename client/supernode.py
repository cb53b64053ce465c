"""Flower's SuperNode as `client.run` starts it: the stock program, asking for work as often as the site's file says.

``python -m client.supernode POLL_S PARENT_PID [flower-supernode's own arguments]``

It also tells its parent how many bytes it has sent besides messages, which the ledger counts by themselves.
"""

from __future__ import annotations

import sys
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    import httpx

SIGNS = "signs of life: "
_MESSAGES = ("/push-object", "/push-messages")
_TELL_S = 1.0
_TLS_RECORD, _TLS_LONGEST = 22, 1 << 14  # bytes that TLS 1.3 adds to a record, and the longest one (RFC 8446, 5.2)


def envelope_bytes(request: httpx.Request) -> int:
    """What a request adds to the messages: first line and headers, TLS, and the body of one that carries no message."""
    first = len(request.method) + len(request.url.raw_path) + len("  HTTP/1.1\r\n")
    headers = sum(len(name) + len(value) + len(": \r\n") for name, value in request.headers.raw)
    body = int(request.headers.get("content-length", 0))
    sealing = _TLS_RECORD * (1 + -(-body // _TLS_LONGEST))
    return first + headers + len("\r\n") + sealing + (0 if request.url.path.endswith(_MESSAGES) else body)


def _count_requests() -> None:
    """Tell the parent every second, in a line, how many bytes went out besides messages."""
    import httpx

    send = httpx.HTTPTransport.handle_request
    sent, told = 0, 0.0

    def handle(transport: httpx.HTTPTransport, request: httpx.Request) -> httpx.Response:
        nonlocal sent, told
        sent += envelope_bytes(request)
        if time.monotonic() - told > _TELL_S:
            told = time.monotonic()
            sys.stderr.write(f"{SIGNS}{sent}\n")
            sys.stderr.flush()
        return send(transport, request)

    vars(httpx)["HTTPTransport"].handle_request = handle


def forget_what_cannot_arrive(supernode: ModuleType) -> None:
    """Drop the task of a message whose run ends while the message arrives.

    Flower's program creates the task first and forgets it on any error but this one, which is no `Exception`: the task
    then stays, without a message, for as long as the program runs.
    """
    from flwr.supercore.run import RunNotRunningException

    def failing(step: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any) -> Any:  # noqa: ANN401 (Flower's)
            try:
                return step(*given)
            except RunNotRunningException:
                raise RuntimeError("the run has ended") from None

        return call

    receive = vars(supernode)["_pull_and_store_message"]

    def receive_or_forget(**given: Any) -> int | None:  # noqa: ANN401
        steps = {name: failing(given[name]) for name in ("pull_object", "confirm_message_received")}
        return cast("int | None", receive(**given | steps))

    vars(supernode)["_pull_and_store_message"] = receive_or_forget


def main() -> None:
    """Start the SuperNode; it ends with its parent."""
    poll_s, parent = float(sys.argv[1]), int(sys.argv[2])
    from flwr.supercore.app_utils import start_parent_process_monitor
    from flwr.supernode import start_client_internal
    from flwr.supernode.cli.flower_supernode import flower_supernode

    def sleep(seconds: float) -> None:
        time.sleep(min(seconds, poll_s))

    # Flower pauses three seconds whenever there is no message, which is most of what a short round costs.
    vars(start_client_internal)["time"] = SimpleNamespace(sleep=sleep)
    forget_what_cannot_arrive(start_client_internal)
    _count_requests()
    sys.argv = ["flower-supernode", *sys.argv[3:]]
    start_parent_process_monitor(parent)
    flower_supernode()


if __name__ == "__main__":
    main()
