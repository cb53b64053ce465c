"""A whole deployment on loopback: SuperLink, the real proxy, hospitals in processes and folders of their own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from client.approvals import Approvals
from client.chain import Entry
from client.ledger import EgressLedger
from client.site import Site, load_site
from server import bundle, provision, register
from server.kits import Addresses, Kits
from server.superlink import SuperLink
from tests.server.kit_tools import free_ports

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
PROGRAMS = Path(sys.executable).parent
ROOT = Path(__file__).resolve().parents[2]
WAIT_S = 240.0  # on a busy machine


class Relay:
    """Passes connections on to a port, counts the bytes of each direction, and can be cut."""

    def __init__(self, target: int) -> None:
        self.sent = self.received = 0
        self._target, self._open = target, True
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """End all connections and take no new ones."""
        self._open = False
        for pair in self._pairs:
            for end in pair:
                end.close()
        self._pairs.clear()

    def mend(self) -> None:
        """Take connections again."""
        self._open = True

    def close(self) -> None:
        """End for good."""
        self.cut()
        self._server.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            if not self._open:
                near.close()
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                near.close()
                continue
            self._pairs.append((near, far))
            threading.Thread(target=self._pass, args=(near, far, "sent"), daemon=True).start()
            threading.Thread(target=self._pass, args=(far, near, "received"), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, counter: str) -> None:
        try:
            while data := source.recv(1 << 16):
                setattr(self, counter, getattr(self, counter) + len(data))
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@dataclass
class Stage:
    """All that runs, so that it can be ended."""

    folder: Path
    kits: Kits
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str, command: Sequence[str]) -> None:
        """Start a program with a home of its own."""
        home = self.folder / f"home-{name}"
        home.mkdir(exist_ok=True)
        with (self.folder / f"{name}.txt").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                command, env=self.environment(home), stdout=log, stderr=log, cwd=ROOT, start_new_session=True
            )

    def call(self, *words: str) -> str:
        """Run one of the project's programs to its end; returns what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", *words],
            env=self.environment(self.folder),
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=False,
            cwd=ROOT,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def environment(self, home: Path) -> dict[str, str]:
        """As a service has it: little."""
        kept = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG", "OMP_NUM_THREADS")}
        return kept | {"HOME": str(home), "TMPDIR": str(self.folder / "tmp"), "PYTHONWARNINGS": "ignore"}

    def end(self, name: str, number: signal.Signals = signal.SIGTERM) -> None:
        """Send a signal to a program, and wait; what a hospital's program started must end by itself."""
        process = self.processes.pop(name)
        if name.startswith("site"):
            process.send_signal(number)
        else:
            os.killpg(process.pid, number)
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def log(self, name: str) -> str:
        """What a program printed."""
        return (self.folder / f"{name}.txt").read_text(encoding="utf-8", errors="replace")

    def wait(self, what: str, condition: Callable[[], object], seconds: float = WAIT_S) -> None:
        """Until something holds; fails with the end of every log if it does not in time."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                names = [path.stem for path in self.folder.glob("*.txt")]
                logs = "\n".join(f"--- {name}\n{self.log(name)[-3000:]}" for name in names)
                pytest.fail(f"waited {seconds:.0f} s for {what}\n{logs}")
            time.sleep(0.2)

    def start_superlink(self) -> None:
        """The SuperLink as the coordinator starts it."""
        self.start("superlink", ["/bin/bash", str(self.kits.coordinator / "superlink.sh")])
        self.wait("the SuperLink", SuperLink(self.kits).alive)

    def start_proxy(self) -> None:
        """The proxy as the coordinator starts it."""
        self.start("proxy", [str(NGINX), "-p", str(self.kits.coordinator), "-c", "nginx.conf"])

    def site(self, name: str) -> Site:
        """A hospital by its kit."""
        return load_site(None, self.kits.folder / name / "site.yaml")

    def settle_site(
        self,
        name: str,
        manifest: Path,
        *,
        approve: bool = True,
        registered: bool = True,
        max_rank: int = 16,
        **changed: object,
    ) -> Site:
        """What a hospital does with its kit before it starts."""
        path = self.kits.folder / name / "site.yaml"
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        values |= {"manifest": str(manifest), "port": free_ports(1)[0], "poll_s": 0.5, "threads": 1} | changed
        values["policy"]["max_rank"] = max_rank
        path.write_text(yaml.safe_dump(values), encoding="utf-8")
        self.call("client.keygen", "--site-file", str(path))
        if approve:
            kit = self.kits.folder / name / "bundle.fab"
            self.call("client.run", "--site-file", str(path), "--approve", str(kit), "--yes", "--by", f"IT of {name}")
        if registered:
            register.register(self.kits, name, path.parent / "keys" / f"{name}.pub")
        return self.site(name)

    def start_site(self, name: str) -> None:
        """The hospital's own program."""
        path = self.kits.folder / name / "site.yaml"
        self.start(f"site-{name}", [sys.executable, "-m", "client.run", "--site-file", str(path)])

    def connected(self, name: str) -> bool:
        """Whether the hospital's program has said so since it was started."""
        return "connected to the coordinator" in self.log(f"site-{name}").rpartition("─┘")[2]

    def start_run(self, name: str, overrides: Sequence[str]) -> None:
        """The coordinator's own program."""
        command = [sys.executable, "-m", "server.run", "--kits", str(self.kits.folder), "--config", name, *overrides]
        self.start("run", command)

    def finish_run(self, seconds: float = 600.0) -> int:
        """Wait for the run's end; its exit code."""
        process = self.processes["run"]
        self.wait("the end of the run", lambda: process.poll() is not None, seconds)
        return int(self.processes.pop("run").returncode)

    def events(self, run: str) -> list[Mapping[str, object]]:
        """The run's journal so far."""
        path = self.folder / "runs" / run / "progress.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        return [json.loads(line) for line in lines]

    def rounds(self, run: str) -> list[int]:
        """Numbers of the rounds that are complete."""
        return [int(str(event["round"])) for event in self.events(run) if event["kind"] == "round"]

    def ledger(self, name: str) -> list[Entry]:
        """A hospital's ledger, every link checked."""
        return EgressLedger.of(self.site(name)).chain.entries()

    def approvals(self, name: str) -> Approvals:
        """A hospital's approvals."""
        return Approvals.of(self.site(name))


@contextmanager
def deployment(folder: Path, sites: Sequence[str]) -> Iterator[Stage]:
    """Kits, a SuperLink and a proxy; everything is ended afterwards."""
    (folder / "tmp").mkdir(parents=True)
    proxy, superlink = free_ports(2)
    data = bundle.build()
    addresses = Addresses(("127.0.0.1",), proxy, superlink, str(folder / "runs"), str(PROGRAMS), bundle.sha256(data))
    stage = Stage(folder, provision.provision(tuple(sites), folder / "kits", addresses, data, 30))
    try:
        stage.start_superlink()
        stage.start_proxy()
        yield stage
    finally:
        for name in list(stage.processes):
            if name.startswith("site"):
                stage.end(name)
        for name in list(stage.processes):
            stage.end(name, signal.SIGKILL)
