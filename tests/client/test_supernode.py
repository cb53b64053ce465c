"""What the SuperNode counts of its own requests."""

from __future__ import annotations

import httpx

from client.supernode import envelope_bytes


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
