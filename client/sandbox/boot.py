"""The process in which the coordinator's app runs: shut in first, loaded then.

Started by `client.worker` as a plain script, so that the packages of the bundle (which are called `client`, `configs`
and `strategies` like the installed ones) are the only ones of these names here. It imports nothing of the installed
project but its two neighbours in this folder, and those before the app can change anything.

Order: read the setup; give up files and network for good; only then put the bundle on the path and load its app.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import tomllib
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flwr.clientapp import ClientApp

sys.path[0] = str(Path(__file__).resolve().parent)
if TYPE_CHECKING:
    from client.sandbox import frames, landlock, seccomp
else:
    import frames
    import landlock
    import seccomp

_LONGEST = 1 << 33
_NETWORK = ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo")
_PROCESSES = ("subprocess.Popen", "os.exec", "os.posix_spawn", "os.system", "os.spawn")
_READS = ("open", "os.listdir", "os.scandir")
_WRITES = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod")


def main() -> None:
    """Serve requests until the pipe is closed."""
    source, sink = _private_pipes()
    kind, body = frames.read_frame(source, _LONGEST)
    if kind != frames.SETUP:
        raise SystemExit(2)
    setup = json.loads(body)
    version = _shut_in(setup, sink)
    app = _load(Path(setup["bundle"]), setup["paths"])
    frames.write_frame(sink, frames.READY, str(version).encode())
    while True:
        try:
            kind, body = frames.read_frame(source, _LONGEST)
        except frames.FrameError:
            return
        frames.write_frame(sink, *_answer(app, setup, body))


def _private_pipes() -> tuple[int, int]:
    """Take the pipes away from standard input and output, which the app may print to."""
    source, sink = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    return source, sink


def _shut_in(setup: dict[str, Any], sink: int) -> int:
    """Leave only the named folders, and no network. Returns the version of Landlock, 0 where there is none."""
    version = landlock.restrict(setup["read"], setup["write"])
    seccomp.restrict()
    read = tuple(os.path.realpath(path) for path in (*setup["read"], *setup["write"]))
    write = tuple(os.path.realpath(path) for path in setup["write"])
    # Without the kernel's help a child process would not be held by the hook below.
    forbidden = _NETWORK if version else _NETWORK + _PROCESSES
    watched = {*_READS, *_WRITES, *forbidden}
    inside = threading.local()  # of each thread: whether this hook itself is at work
    # Kept here, out of the app's reach by name. The kernel is what holds; this is what tells.
    offence, write_frame, print_stack = _offence, frames.write_frame, traceback.print_stack

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in watched or getattr(inside, "hook", False):
            return
        inside.hook = True
        try:
            what = offence(event, arguments, read, write)
            if what:
                print_stack(limit=12)  # to the site's own log: code, no values
                write_frame(sink, frames.DENIED, what.encode())
        finally:
            inside.hook = False
        if what:
            raise PermissionError(f"{what} is not allowed at this site")

    sys.addaudithook(hook)
    return version


def _offence(event: str, arguments: tuple[Any, ...], read: Sequence[str], write: Sequence[str]) -> str:
    """What is wrong with an event, in words that name no file; empty if nothing is."""
    if event in _NETWORK:
        return frames.NETWORK
    if event in _PROCESSES:
        return frames.PROGRAM
    path = arguments[0] if arguments else None
    if isinstance(path, int) or path is None:
        return ""
    where = os.path.realpath(os.fsdecode(path))
    writes = event in _WRITES or (event == "open" and _opens_to_write(arguments))
    if any(where == root or where.startswith(root.rstrip("/") + "/") for root in (write if writes else read)):
        return ""
    if not writes and not Path(where).exists():
        return ""  # looking for a file that is not there tells nothing and is what imports do
    return frames.WRITING if writes else frames.READING


def _opens_to_write(arguments: tuple[Any, ...]) -> bool:
    mode, flags = (*arguments, None, None)[1:3]
    if isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC):
        return True
    return isinstance(mode, str) and any(sign in mode for sign in "wax+")


def _load(bundle: Path, paths: Sequence[str]) -> ClientApp:
    """The bundle's app, with the bundle before everything else on the path."""
    sys.dont_write_bytecode = True
    sys.path[:0] = [str(bundle)]
    sys.path += [path for path in paths if path not in sys.path]
    for name in ("frames", "landlock", "seccomp"):
        sys.modules.pop(name, None)
    project = tomllib.loads((bundle / "pyproject.toml").read_text(encoding="utf-8"))
    reference = project["tool"]["flwr"]["app"]["components"]["clientapp"]
    module, _, attribute = str(reference).partition(":")
    import importlib

    app: ClientApp = getattr(importlib.import_module(module), attribute)
    return app


def _answer(app: ClientApp, setup: dict[str, Any], body: bytes) -> tuple[bytes, bytes]:
    """The app's answer to a message; of a failure only its kind, and that only to this machine."""
    from flwr.app import Context, RecordDict
    from flwr.common.serde import message_from_proto, message_to_proto
    from flwr.proto.message_pb2 import Message as MessageProto
    from flwr.supercore.task_identity import TaskIdentity

    try:
        message = message_from_proto(MessageProto.FromString(body))
        metadata = message.metadata
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = metadata.run_id, metadata.dst_node_id, 0
        context = Context(metadata.run_id, metadata.dst_node_id, setup["node_config"], RecordDict(), {})
        reply = app(message, context)
        return frames.REPLY, message_to_proto(reply).SerializeToString()
    except Exception as error:  # noqa: BLE001 (the border: an app may raise anything; its text stays here)
        return frames.ERROR, type(error).__name__[:60].encode()


if __name__ == "__main__":
    main()
