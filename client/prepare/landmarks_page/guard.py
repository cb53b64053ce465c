"""Who may speak with the page: the browser that opened the printed address, and no other page in that browser.

The server listens on the loopback interface alone, but so can be reached by every program of this computer and, in
somebody's name, by every page that their browser shows. So each request must name this server (a page whose domain was
rebound to this computer names another), must hold the token, and must, where it changes something, come from this page.

Only `client.prepare.landmarks_page.app` imports this module, because Starlette is part of an extra.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from starlette.types import ASGIApp, Message, Receive, Scope, Send

if TYPE_CHECKING:
    from collections.abc import Iterable

LARGEST_BODY = 32_768  # bytes; 68 points need 3 000
_HOSTS = ("127.0.0.1", "localhost")
_HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


class Refused(Exception):  # noqa: N818 - an answer, not a fault
    """A request that is answered with a status and a reason."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True)
class Guard:
    """Everything that reaches the application has passed here, and every answer gets its headers here.

    Attributes:
        app: the application; gets whole bodies.
        token: what the first address holds as ``?token=`` and the cookie afterwards.
    """

    app: ASGIApp
    token: str

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return  # no lifespan, no WebSocket: the server is told to offer neither
        started = False
        cookie: list[tuple[bytes, bytes]] = []

        async def answer(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                ours = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *ours, *cookie]}
            await send(message)

        try:
            port = _checked_host(scope)
            if self._check_token(scope, port):
                cookie.append(
                    (b"set-cookie", f"{_cookie(port)}={self.token}; Path=/; HttpOnly; SameSite=Strict".encode())
                )
            if scope["method"] == "POST":
                _check_sender(scope)
                receive = _again(await _body(scope, receive))
            await self.app(scope, receive, answer)
        except Refused as refused:
            await _send_refusal(answer, refused.status, str(refused))
        except Exception:  # noqa: BLE001 - the border of the server: what passes here is logged with paths
            if not started:
                reason = "something went wrong in the program; nothing more is known here, try again"
                await _send_refusal(answer, HTTPStatus.INTERNAL_SERVER_ERROR, reason)

    def _check_token(self, scope: Scope, port: int) -> bool:
        """Refuse whoever does not have the token; returns whether it came in the address."""
        for cookie in _values(scope, b"cookie"):
            for part in cookie.split(";"):
                name, _, value = part.strip().partition("=")
                if name == _cookie(port) and self._is_token(value):
                    return False
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [])
        if scope["path"] == "/" and scope["method"] == "GET" and len(given) == 1 and self._is_token(given[0]):
            return True
        raise Refused(HTTPStatus.FORBIDDEN, "open the address that the command printed, with its token")

    def _is_token(self, text: str) -> bool:
        return secrets.compare_digest(text.encode(), self.token.encode())


def _cookie(port: int) -> str:
    """The cookie's name; browsers share cookies among the ports of a host."""
    return f"landmarks_{port}"


def _values(scope: Scope, name: bytes) -> list[str]:
    headers: Iterable[tuple[bytes, bytes]] = scope["headers"]
    return [value.decode("latin-1") for found, value in headers if found == name]


def _checked_host(scope: Scope) -> int:
    """The port that was asked for, refused where the request names another server than this."""
    port = int(scope["server"][1])
    hosts = _values(scope, b"host")
    if len(hosts) != 1 or hosts[0] not in {f"{name}:{port}" for name in _HOSTS}:
        raise Refused(HTTPStatus.MISDIRECTED_REQUEST, "this server answers to 127.0.0.1 and its port alone")
    return port


def _check_sender(scope: Scope) -> None:
    """What changes something comes from this very page, as JSON."""
    if _values(scope, b"origin") != [f"http://{_values(scope, b'host')[0]}"]:
        raise Refused(HTTPStatus.FORBIDDEN, "this request comes from another page")
    kinds = [value.partition(";")[0].strip().lower() for value in _values(scope, b"content-type")]
    if kinds != ["application/json"]:
        raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "the body must be application/json")


async def _body(scope: Scope, receive: Receive) -> bytes:
    """The whole body, read no further than its bound."""
    too_large = Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body is larger than {LARGEST_BODY} bytes")
    announced = _values(scope, b"content-length")
    if any(len(value) > 9 or not value.isdecimal() or int(value) > LARGEST_BODY for value in announced):
        raise too_large
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Refused(HTTPStatus.BAD_REQUEST, "the body is not complete")
        part: bytes = message.get("body", b"")
        body += part
        if len(body) > LARGEST_BODY:
            raise too_large
        if not message.get("more_body", False):
            return body


def _again(body: bytes) -> Receive:
    """Give a body that was read to the application."""

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


async def _send_refusal(send: Send, status: HTTPStatus, reason: str) -> None:
    body = json.dumps({"error": reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": int(status), "headers": headers})
    await send({"type": "http.response.body", "body": body})
