"""The SuperNode's local interface, against a port that answers as one of them would, or as somebody else."""

from __future__ import annotations

import http.server
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from flwr.proto.message_pb2 import PullObjectRequest, PullObjectResponse

from client.flower_runtime import Runtime, RuntimeUnreachableError, TaskLostError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def answering(status: int, body: bytes = b"") -> Iterator[int]:
    """A port that answers every call with a status."""

    class Door(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Door)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield int(server.server_address[1])
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("status", [401, 403, 404, 500])
def test_no_answer_of_a_port_ends_the_site(status: int) -> None:
    """Flower's own client sends its process an interrupt on 401, and raises past every handler on 403."""
    interrupted: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: interrupted.append(number))
    try:
        with answering(status, b"no") as port, pytest.raises(RuntimeUnreachableError):
            Runtime(port, b"secret").acquire(threading.Event())
        time.sleep(0.2)
    finally:
        signal.signal(signal.SIGINT, before)
    assert interrupted == []


def test_rubbish_is_no_task() -> None:
    """What is not Flower's is not worked on."""
    with answering(200, b"\xff\xfe\x00rubbish") as port, pytest.raises(RuntimeUnreachableError):
        Runtime(port, b"secret").acquire(threading.Event())


def test_nobody_there_is_told_at_once() -> None:
    """While the SuperNode starts, nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = int(server.getsockname()[1])
    with pytest.raises(RuntimeUnreachableError):
        Runtime(port, b"secret").acquire(threading.Event())


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_another_user_cannot_pose_as_the_supernode() -> None:
    """A listener that belongs to somebody else is not spoken to."""
    code = (
        "import os, socket, sys\nos.setuid(65534)\ns = socket.create_server(('127.0.0.1', 0))\n"
        "print(s.getsockname()[1], flush=True)\ns.settimeout(30)\n"
        "try:\n    s.accept(); print('spoken to', flush=True)\nexcept TimeoutError: pass\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        with pytest.raises(RuntimeUnreachableError):
            Runtime(port, b"secret").acquire(threading.Event())
        process.kill()
        assert process.stdout.read() == ""


def test_a_message_that_does_not_arrive_is_waited_for_until_the_site_stops() -> None:
    """Flower's own client would wait for two hours, and the site could not be stopped."""
    stop = threading.Event()
    on_its_way = PullObjectResponse(object_found=True, object_available=False).SerializeToString()
    with answering(200, on_its_way) as port:
        client = Runtime(port, b"secret")._client()
        client.given_up = stop.is_set
        threading.Timer(0.5, stop.set).start()
        began = time.monotonic()
        with pytest.raises(TaskLostError):
            client.PullObject(PullObjectRequest(object_id="0" * 64))
    assert 0.5 <= time.monotonic() - began < 10
