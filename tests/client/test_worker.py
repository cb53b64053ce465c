"""The closed process of the coordinator's code: what it can do, and what stops it. Every test starts a real process."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from flwr.app import Message, RecordDict
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as MessageProto
from safetensors.torch import save_file

import configs
from ccfexp.errors import PolicyError
from ccfexp.model import CCFExp
from client.approvals import files_of
from client.guard import Standing, release
from client.sandbox import landlock, seccomp
from client.site import Policy
from client.workbench import HospitalBench
from client.worker import Enclosure, Worker, WorkerFailedError, WorkerStoppedError
from configs.client_part import ClientPart
from configs.run import RunConfig
from server.bundle import build
from simulation.sites import prepare_sites
from strategies import wire
from tests.client.bundles import bundle
from tests.toys import BASE, initial

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.usefixtures("task_identity")


def request() -> bytes:
    """A round of training, serialised as the executor does it."""
    terms = wire.Terms(1, "fedit", 2, 2.0, "a" * 64, BASE)
    content = wire.encode_message(wire.AdapterMessage.of(terms, initial(), "{}"))
    return bytes(message_to_proto(Message(content, dst_node_id=7, message_type="train")).SerializeToString())


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    """Starts the process of a bundle; ends it with the test."""
    workers: list[Worker] = []

    def make(content: bytes, stopped: Callable[[], bool] = lambda: False, bench: str = "{}") -> Worker:
        folder = tmp_path / "bundle"
        for name, data in files_of(content).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        data_folder, cache = tmp_path / "data", tmp_path / "cache"
        data_folder.mkdir(exist_ok=True)
        (data_folder / "own.txt").write_text("own")
        enclosure = Enclosure(folder, (data_folder,), cache, {"site": "A"}, bench, tmp_path / "app.log")
        workers.append(Worker(enclosure, stopped))
        return workers[-1]

    yield make
    for worker in workers:
        worker.close()


def answer(worker: Worker, *, seconds: float = 60.0, longest: int = 1 << 22) -> RecordDict:
    """What the app answers to a round of training."""
    reply = worker.ask(request(), seconds=seconds, longest=longest)
    return message_from_proto(MessageProto.FromString(reply)).content


def test_an_honest_app_answers_twice_from_one_process(start: Callable[..., Worker], tmp_path: Path) -> None:
    """It stays between messages, may read the site's data, write its cache, and print."""
    own = tmp_path / "data" / "own.txt"
    cached = tmp_path / "cache" / "features.txt"
    code = f"""
import os
print("hello")
assert open({str(own)!r}).read() == "own"
open({str(cached)!r}, "a").write(f"{{os.getpid()}} ")
"""
    worker = start(bundle(code))

    for _ in range(2):
        assert set(answer(worker)) == {"adapter", "terms", "metrics"}
    first, second = cached.read_text().split()
    assert first == second
    assert "hello" in (tmp_path / "app.log").read_text()


def test_the_real_app_trains_shut_in(start: Callable[..., Worker], tmp_path: Path) -> None:
    """The bundle that is shipped, a real base, real phantoms: one round, past the gate, with nothing noted."""
    config = configs.load("tiny", [], RunConfig)
    manifest = prepare_sites(config.hospitals, config.image_size, tmp_path / "data")["A"]
    model = CCFExp.from_base(config.base)
    model.attach_adapter(config.adapter, config.seed)
    terms = wire.Terms(1, "fedit", config.adapter.rank, float(config.adapter.alpha), "a" * 64, model.base_sha256)
    part = ClientPart(config.adapter, config.train, config.seed).to_json()
    sent = wire.AdapterMessage.of(terms, model.adapter_state(), part)
    message = Message(wire.encode_message(sent), dst_node_id=7, message_type="train")
    bench = HospitalBench(
        "phantom-base", "A", str(manifest), str(tmp_path / "cache"), str(tmp_path / "memory"), "cpu", 1, config.compute
    )

    worker = start(build(), bench=bench.to_json())
    body = worker.ask(message_to_proto(message).SerializeToString(), seconds=120.0, longest=1 << 24)
    content = message_from_proto(MessageProto.FromString(body)).content
    policy = Policy(("train",), 1, 10_000_000, 25.0, 1, 256, None, None)
    released = release(content, sent, policy, Standing("A", model.base_sha256, 2, 0))
    assert released.facts["norm"] > 0


def test_the_bundle_s_packages_win_over_the_installed_ones(start: Callable[..., Worker]) -> None:
    """Its `client` is the one that runs, and no other file of the project but the model is seen."""
    code = """
import client, ccfexp, importlib.util
assert "bundle" in client.__file__, client.__file__
assert importlib.util.find_spec("ccfexp.model") is not None
"""
    assert answer(start(bundle(code)))


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("open('/etc/hostname').read()", "reading a file outside the site's data folder"),
        ("open({outside!r}).read()", "reading a file outside the site's data folder"),
        ("import os; os.listdir({parent!r})", "reading a file outside the site's data folder"),
        ("open({data!r} + '/new.txt', 'w')", "writing a file outside the site's data folder"),
        ("import os; os.remove({own!r})", "writing a file outside the site's data folder"),
        ("import os; os.rename({own!r}, {own!r} + '2')", "writing a file outside the site's data folder"),
        ("import socket; socket.create_connection(('127.0.0.1', {port}), 1)", "a network connection"),
        ("import urllib.request as u; u.urlopen('http://localhost:{port}')", "a network connection"),
    ],
)
def test_what_is_not_allowed_is_stopped_and_named(
    start: Callable[..., Worker], tmp_path: Path, code: str, what: str
) -> None:
    """The process ends, nothing is touched, and the reason names no file."""
    outside = tmp_path / "other-patient.txt"
    outside.write_text("secret")
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = code.format(
            outside=str(outside),
            parent=str(tmp_path),
            data=str(tmp_path / "data"),
            own=str(tmp_path / "data" / "own.txt"),
            port=server.getsockname()[1],
        )
        worker = start(bundle(code))
        with pytest.raises(PolicyError, match=what) as caught:
            answer(worker)

    assert not worker.alive
    assert "patient" not in str(caught.value)
    assert (tmp_path / "data" / "own.txt").read_text() == "own"
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["own.txt"]


def test_an_app_that_swallows_the_refusal_is_stopped_all_the_same(start: Callable[..., Worker], tmp_path: Path) -> None:
    """What counts is the attempt."""
    (tmp_path / "secret.txt").write_text("secret")
    code = f"""
try:
    open({str(tmp_path / "secret.txt")!r})
except Exception:
    pass
"""
    with pytest.raises(PolicyError, match="reading a file"):
        answer(start(bundle(code)))


@pytest.mark.skipif(not landlock.version(), reason="this kernel has no Landlock")
def test_the_kernel_holds_where_python_does_not_see(start: Callable[..., Worker], tmp_path: Path) -> None:
    """Compiled code and child processes do not pass Python's hook; the kernel refuses them too."""
    save_file({"x": torch.ones(2)}, tmp_path / "outside.safetensors")
    code = f"""
import subprocess
from safetensors import safe_open
try:
    safe_open({str(tmp_path / "outside.safetensors")!r}, "pt")
    raise SystemExit("the file was opened")
except OSError as error:
    print(repr(error))
done = subprocess.run(["cat", {str(tmp_path / "outside.safetensors")!r}], capture_output=True)
assert done.returncode != 0 and b"ermission" in done.stderr, done
"""
    assert answer(start(bundle(code)))


@pytest.mark.skipif(not seccomp.available(), reason="this machine's system calls are not known")
def test_no_child_of_the_app_reaches_anybody_or_outlives_it(start: Callable[..., Worker], tmp_path: Path) -> None:
    """Neither UDP nor a unix socket, no change of a file's rights, and no way out of the group that is ended."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        udp.setblocking(False)
        child = f"""
import os, socket, sys
for attempt in (
    lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', {udp.getsockname()[1]})),
    lambda: socket.socket(socket.AF_UNIX),
    lambda: os.chmod({str(tmp_path)!r}, 0o777),
    lambda: os.utime({str(tmp_path)!r}),
    os.setsid,
):
    try:
        attempt()
    except PermissionError:
        continue
    sys.exit('it went through')
"""
        code = f"""
import subprocess, sys
done = subprocess.run([sys.executable, '-c', {child!r}], capture_output=True, text=True)
assert done.returncode == 0, done.stderr
print('all refused')
"""
        assert answer(start(bundle(code)))
        with pytest.raises(BlockingIOError):
            udp.recv(1)
    assert "all refused" in (tmp_path / "app.log").read_text()


# It takes the pipe for itself and answers a byte at a time for ever.
DRIP = """
import os, time
for fd in range(3, 9):
    try: os.write(fd, b'RPLY' + (1 << 20).to_bytes(8, 'big'))
    except OSError: continue
    break
while True:
    os.write(fd, b'x'); time.sleep(0.02)
"""


@pytest.mark.parametrize(
    "code",
    [
        "import time\nwhile True: time.sleep(1)",
        DRIP,
    ],
)
def test_no_app_can_hold_up_the_site(start: Callable[..., Worker], code: str) -> None:
    """Neither the time limit nor the end of the service waits for it."""
    worker = start(bundle(code))
    began = time.monotonic()

    with pytest.raises(WorkerFailedError, match="too late"):
        answer(worker, seconds=3.0)
    assert time.monotonic() - began < 20
    assert not worker.alive


def test_an_app_that_never_reads_does_not_hold_up_the_site(start: Callable[..., Worker]) -> None:
    """Also while a large message is written to it."""
    worker = start(bundle(top="import os, time\nfor fd in range(3, 9):\n    try: os.write(fd, b'REDY' + bytes(8))\n"
                              "    except OSError: continue\n    break\ntime.sleep(60)\n"))  # fmt: skip
    began = time.monotonic()

    with pytest.raises(WorkerFailedError, match="too late"):
        worker.ask(bytes(1 << 24), seconds=2.0, longest=1024)
    assert time.monotonic() - began < 20


def test_secrets_of_the_environment_are_not_handed_on(
    start: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what a program needs of its machine is."""
    monkeypatch.setenv("HOSPITAL_PASSWORD", "secret")
    code = "import os; assert 'HOSPITAL_PASSWORD' not in os.environ and os.environ['CCFEXP_BENCH'] == '{}'"
    assert answer(start(bundle(code)))


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise ValueError('Jane Doe')", "ValueError"),
        ("import os; os._exit(3)", "gone"),
        ("import time; time.sleep(60)", "too late"),
        ("content = RecordDict({'x': ConfigRecord({'x': 'y' * (1 << 23)})})", "at most"),
    ],
)
def test_a_failing_app_ends_with_its_kind_alone(start: Callable[..., Worker], code: str, reason: str) -> None:
    """A failure, a death, silence, too long an answer: a reason without the app's own words."""
    worker = start(bundle(code))

    with pytest.raises(WorkerFailedError, match=reason) as caught:
        answer(worker, seconds=3.0)
    assert "Jane" not in str(caught.value)
    assert not worker.alive


@pytest.mark.parametrize(
    ("code", "error", "told"),
    [
        ("raise type('JaneDoe', (Exception,), {})", WorkerFailedError, "an error of its own"),
        (
            (
                "import os\nfor fd in range(3, 9):\n    try: os.write(fd, b'DENY' + bytes(7) + b'\x08Jane Doe')\n"
                "    except OSError: continue"
            ),
            PolicyError,
            "the app tried something",
        ),
    ],
)
def test_no_words_of_the_app_end_in_a_log(
    start: Callable[..., Worker], code: str, error: type[Exception], told: str
) -> None:
    """Neither the name of an error that it makes up nor a forged notice of an offence."""
    with pytest.raises(error, match=told) as caught:
        answer(start(bundle(code)))
    assert "Jane" not in str(caught.value)


def test_a_bundle_that_cannot_be_loaded_is_told(start: Callable[..., Worker]) -> None:
    """An error in its code ends the process before any message."""
    with pytest.raises(WorkerFailedError):
        start(bundle(top="import nothing_of_this_name\n"))


def test_a_bundle_that_spies_while_it_is_loaded_is_stopped(start: Callable[..., Worker]) -> None:
    """It is shut in before its first line."""
    with pytest.raises((PolicyError, WorkerFailedError)):
        start(bundle(top="open('/etc/hostname').read()\n"))


def test_a_site_that_stops_drops_the_message(start: Callable[..., Worker]) -> None:
    """Waiting ends within a moment, and so does the process."""
    asked: list[int] = []

    def stopped() -> bool:
        asked.append(1)
        return len(asked) > 30

    worker = start(bundle("import time; time.sleep(60)"), stopped)
    with pytest.raises(WorkerStoppedError):
        answer(worker, seconds=60.0)
    assert not worker.alive
