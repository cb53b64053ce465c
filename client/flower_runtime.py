"""The SuperNode's local interface, as Flower's own executor uses it: take a task, read its message, answer it.

Everything of Flower that is not public stands in this file and in `client.supernode`; pyproject.toml pins
the release that it was written for. It speaks to the SuperNode of this machine alone.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
from flwr.app import Context, Error, Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.constant import SubStatus
from flwr.common.serde import message_to_proto
from flwr.proto.runtime_pb2 import AcquireTaskRequest, SendTaskHeartbeatRequest
from flwr.supercore.constant import TaskType
from flwr.supercore.heartbeat import HeartbeatSender
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.interceptors import (
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.retry import make_simple_http_retry_invoker
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supernode.runtime.run_clientapp import pull_task_input, push_message, push_task_output

if TYPE_CHECKING:
    from collections.abc import Callable

    from flwr.proto.message_pb2 import PullObjectRequest, PullObjectResponse
    from flwr.supercore.protobuf.client import ProtobufClientInterceptor

_ACQUIRE = "/flwr.proto.Runtime/AcquireTask"
_LISTENING = "0A"  # of the kernel's table of TCP sockets
_TRIES = 3  # of a call to a process on the same machine
_ARRIVAL_S = 900.0  # a message that takes longer to arrive is not worked on
_LOOK_S = 0.2  # between two looks at what has arrived


class RuntimeUnreachableError(Exception):
    """The SuperNode of this machine does not answer: it starts, stops, or is gone."""


class TaskLostError(RuntimeUnreachableError):
    """A task was taken and its message cannot be had: the SuperNode would wait for an answer for ever."""


class _Client(RuntimeHttpClient):
    """Flower's, which waits two hours for what is still on its way, whoever wants to stop."""

    given_up: Callable[[], bool]

    def PullObject(self, request: PullObjectRequest) -> PullObjectResponse:  # noqa: N802 (Flower's name)
        """A part of a message, as soon as it has arrived. Raises TaskLostError if nobody waits for it any more."""
        end = time.monotonic() + _ARRIVAL_S
        while True:
            answer = super().PullObject(request)
            if answer.object_available or not answer.object_found:
                return answer
            if self.given_up() or time.monotonic() > end:
                raise TaskLostError
            time.sleep(_LOOK_S)


@dataclass(frozen=True)
class Task:
    """One message to answer.

    Attributes:
        message: what the coordinator sent.
        context: Flower's record of this node in the run.
        run: the run's number.
        bundle: the app bundle of the run, as it came.
        lost: set when the SuperNode no longer waits for the answer.
    """

    message: Message
    context: Context
    run: int
    bundle: bytes
    _client: RuntimeHttpClient = field(repr=False)
    _heartbeat: HeartbeatSender = field(repr=False)
    lost: threading.Event = field(default_factory=threading.Event)

    def reply(self, content: RecordDict | Error) -> Message:
        """The message that answers, not sent yet."""
        return Message(content, reply_to=self.message)

    def answer(self, reply: Message) -> None:
        """Hand the answer to the SuperNode, which sends it on.

        Raises:
            RuntimeUnreachableError: it does not answer; the answer is dropped.
        """
        try:
            push_message(self._client, reply, self.context)
        except httpx.HTTPError as error:
            raise RuntimeUnreachableError from error

    def close(self, *, completed: bool) -> None:
        """Give the task back. What is said of a failure stays on this machine."""
        status = SubStatus.COMPLETED if completed else SubStatus.FAILED
        push_task_output(self._client, self.context if completed else None, status, "")
        if self._heartbeat.is_running:
            self._heartbeat.stop()
        self._client.close()


@dataclass(frozen=True)
class Runtime:
    """The local interface of the SuperNode at a port of the loopback interface.

    Attributes:
        port: where it listens.
        secret: what the SuperNode shares with its executor, so that no other user of this machine can take a task.
    """

    port: int
    secret: bytes = field(repr=False)

    def acquire(self, stop: threading.Event) -> Task | None:
        """The next task, or None while there is none; `stop` ends the wait for a message that is still arriving.

        Raises:
            RuntimeUnreachableError: the SuperNode does not answer.
            TaskLostError: it gave a task without its message; it must be started anew.
        """
        if not _listener_is_ours(self.port):
            raise RuntimeUnreachableError
        signed = SuperExecAuthHttpInterceptor(master_secret=self.secret, protected_methods={_ACQUIRE})
        client = self._client(RuntimeVersionHttpInterceptor(component_name="SuperExec"), signed)
        try:
            answer = client.AcquireTask(AcquireTaskRequest(supported_task_types={TaskType.CLIENT_APP}))
            return self._open(answer.token, stop) if answer.HasField("task") and answer.token else None
        except (httpx.HTTPError, OSError, RuntimeError, ValueError) as error:
            raise RuntimeUnreachableError from error
        finally:
            client.close()

    def _open(self, token: str, stop: threading.Event) -> Task:
        client = self._client(
            RuntimeVersionHttpInterceptor(component_name="flwr-clientapp"), RuntimeTokenHttpInterceptor(token)
        )
        lost = threading.Event()
        client.given_up = lambda: stop.is_set() or lost.is_set()
        heartbeat = HeartbeatSender(lambda: _beat(client, lost))
        heartbeat.start()
        try:
            message, context, run, fab = pull_task_input(client)
        except Exception as error:  # what came cannot be read as Flower's objects: the task is given back
            push_task_output(client, None, SubStatus.FAILED, "")
            heartbeat.stop()
            client.close()
            raise TaskLostError from error
        return Task(message, context, int(run.run_id), bytes(fab.content), client, heartbeat, lost)

    def _client(self, *interceptors: ProtobufClientInterceptor) -> _Client:
        retry = make_simple_http_retry_invoker()
        retry.max_tries = _TRIES
        # Flower's own rule sends this process an interrupt on some answers: here they only mean that a task is lost.
        retry.should_giveup = lambda error: isinstance(error, httpx.HTTPStatusError)
        return _Client.from_server_address(
            server_address=f"127.0.0.1:{self.port}",
            insecure=True,
            root_certificates=None,
            interceptors=list(interceptors),
            retry_invoker=retry,
        )


def _listener_is_ours(port: int) -> bool:
    """Whether who listens at a port of the loopback interface is a process of this user, as /proc/net/tcp says."""
    wanted = f"0100007F:{port:04X}"
    for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]:
        fields = line.split()
        if fields[1] == wanted and fields[3] == _LISTENING:
            return int(fields[7]) == os.getuid()
    return False


def _beat(client: RuntimeHttpClient, lost: threading.Event) -> bool:
    """Tell the SuperNode that its task is worked on; it says whether it still waits."""
    try:
        answer = client.SendTaskHeartbeat(SendTaskHeartbeatRequest())
    except httpx.HTTPError:
        return False
    if not answer.success:
        lost.set()
    return True


def wire_bytes(message: Message) -> int:
    """Bytes of a message as the SuperNode sends it: its envelope and every object in it."""
    objects = sum(len(item.deflate()) for item in get_all_nested_objects(message).values())
    envelope = message_to_proto(remove_content_from_message(message)), get_object_tree(message)
    return objects + sum(int(part.ByteSize()) for part in envelope)
