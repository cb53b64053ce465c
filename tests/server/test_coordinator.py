"""The coordinator's side as it is deployed: a SuperLink, the proxy before it, and stock SuperNodes of two hospitals."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ccfexp.errors import ConfigError
from server import bundle, provision, register
from server.kits import Addresses, Kits
from server.status import status
from server.superlink import SuperLink, UnreachableError
from tests.server.kit_tools import free_ports, make_key

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
PROGRAMS = Path(sys.executable).parent
OPEN_S = 120.0  # a busy machine

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(900),
    pytest.mark.skipif(NGINX is None, reason="nginx is not installed"),
]


@dataclass
class Stage:
    """Everything that runs, so that it can be ended."""

    folder: Path
    kits: Kits
    environment: dict[str, str]
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str, command: list[str]) -> None:
        home = self.folder / f"home-{name}"
        home.mkdir(exist_ok=True)
        environment = self.environment | {"HOME": str(home), "FLWR_HOME": str(home / "flwr")}
        with (self.folder / f"{name}.txt").open("ab") as log:
            # A session of its own: what it starts ends with it.
            self.processes[name] = subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, cwd=home, start_new_session=True
            )

    def end(self, name: str, number: signal.Signals) -> None:
        process = self.processes.pop(name)
        os.killpg(process.pid, number)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.txt").read_text(errors="replace")[-3000:]

    def wait(self, what: str, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + OPEN_S
        while not condition():
            if time.monotonic() > end:
                logs = "\n".join(f"--- {name}\n{self.log(name)}" for name in self.processes)
                pytest.fail(f"waited {OPEN_S:.0f} s for {what}\n{logs}")
            time.sleep(0.5)

    def request(self, method: str, path: str) -> int:
        """The status of a request to the proxy, or 0 if it does not answer."""
        context = ssl.create_default_context(cafile=str(self.kits.coordinator / "ca.crt"))
        connection = http.client.HTTPSConnection("127.0.0.1", self.kits.addresses().port, timeout=10, context=context)
        try:
            connection.request(method, path)
            return connection.getresponse().status
        except OSError:
            return 0
        finally:
            connection.close()

    def flower(self, *words: str) -> dict[str, object]:
        """Flower's command line pointed at the proxy, as somebody outside would try it."""
        home = self.folder / "outside"
        home.mkdir(exist_ok=True)
        port, ca = self.kits.addresses().port, self.kits.coordinator / "ca.crt"
        (home / "config.toml").write_text(
            f'[superlink]\ndefault = "door"\n'
            f'[superlink.door]\naddress = "127.0.0.1:{port}"\nroot-certificates = "{ca}"\n'
        )
        done = subprocess.run(
            [str(PROGRAMS / "flwr"), *words, "--format", "json"],
            env=self.environment | {"FLWR_HOME": str(home), "HOME": str(home)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        answer: dict[str, object] = json.loads(done.stdout)
        return answer


def start_superlink(stage: Stage) -> None:
    stage.start("superlink", ["/bin/bash", str(stage.kits.coordinator / "superlink.sh")])
    stage.wait("the SuperLink", SuperLink(stage.kits).alive)


def start_node(stage: Stage, site: str, private: Path, port: int) -> None:
    address, ca = f"127.0.0.1:{stage.kits.addresses().port}", stage.kits.folder / site / "ca.crt"
    command = [str(PROGRAMS / "flower-supernode"), "--superlink", address, "--root-certificates", str(ca)]
    command += ["--auth-supernode-private-key", str(private), "--port", str(port), "--max-retries", "3"]
    stage.start(f"node-{site}", [*command, "--node-config", f'site="{site}"'])


def state_of(stage: Stage, site: str) -> str:
    return next(row.state for row in status(stage.kits).sites if row.name == site)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    proxy, superlink = free_ports(2)
    data = bundle.build()
    addresses = Addresses(("127.0.0.1",), proxy, superlink, str(tmp_path / "runs"), str(PROGRAMS), bundle.sha256(data))
    kits = provision.provision(("A", "B"), tmp_path / "kits", addresses, data, 30)
    environment = os.environ | {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
    environment["PATH"] = f"{PROGRAMS}:{environment['PATH']}"
    stage = Stage(tmp_path, kits, environment)
    try:
        yield stage
    finally:
        for name in list(stage.processes):
            stage.end(name, signal.SIGKILL)


def test_the_coordinators_side(stage: Stage, tmp_path: Path) -> None:
    """Two registered hospitals connect through the door, nobody gets further, and a crash forgets nobody."""
    kits = stage.kits
    start_superlink(stage)
    stage.start("proxy", [str(NGINX), "-p", str(kits.coordinator), "-c", "nginx.conf"])
    stage.wait("the proxy", lambda: stage.request("GET", "/") == 403)
    keys = {site: make_key(tmp_path, site) for site in ("A", "B")}
    stranger, _ = make_key(tmp_path, "stranger")
    node_port, other_port = free_ports(2)

    # Registration: one site one key, one key one site.
    node = register.register(kits, "A", keys["A"][1])
    with pytest.raises(ConfigError, match="registered already"):
        register.register(kits, "B", keys["A"][1])
    assert kits.registered() == {"A": node}
    assert state_of(stage, "A") == "registered"

    # A registered hospital comes through the proxy; one that is not registered does not.
    start_node(stage, "A", keys["A"][0], node_port)
    stage.wait("site A", lambda: state_of(stage, "A") == "online")
    start_node(stage, "B", stranger, other_port)
    stage.wait("the stranger's end", lambda: stage.processes["node-B"].poll() is not None)
    stage.processes.pop("node-B")
    assert "Failed to activate SuperNode" in stage.log("node-B")

    # Nothing but what a node needs is forwarded, however the path is written.
    for path in ("/v1/control/list-runs", "/v1/runtime/acquire-task", "/health", "/docs"):
        assert stage.request("POST", path) == 403
    for path in (
        "register-node",
        "unregister-node",
        "/register-node",
        "../control/list-runs",
        "%2e%2e/control/list-runs",
    ):
        assert stage.request("POST", f"/v1/fleet/{path}") == 403
    assert stage.request("POST", "/v1/fleet/activate-node") not in (0, 403, 502)
    _, public = make_key(tmp_path, "intruder")
    with bundle.staged() as app:
        for words in (("ls",), ("run", str(app)), ("supernode", "register", str(public)), ("stop", "1")):
            answer = stage.flower(*words)
            assert answer["success"] is False
            assert "403" in str(answer)

    # The SuperLink dies: the door says so, and the new one knows the hospital, which comes back by itself.
    stage.end("superlink", signal.SIGKILL)
    stage.wait("the proxy's word", lambda: stage.request("POST", "/v1/fleet/activate-node") in (502, 503, 504))
    with pytest.raises(UnreachableError):
        register.register(kits, "B", keys["B"][1])
    start_superlink(stage)
    assert [item.node_id for item in SuperLink(kits).nodes()] == [node]
    stage.wait("site A again", lambda: state_of(stage, "A") == "online")
    register.register(kits, "B", keys["B"][1])
    start_node(stage, "B", keys["B"][0], other_port)
    stage.wait("site B", lambda: state_of(stage, "B") == "online")

    # Whose key is revoked is shut out, and the key stays so.
    register.revoke(kits, "A")
    assert state_of(stage, "A") == "not registered"
    with pytest.raises(ConfigError, match="registered already"):
        register.register(kits, "A", keys["A"][1])
    stage.end("node-A", signal.SIGTERM)
    start_node(stage, "A", keys["A"][0], node_port)
    stage.wait("the end of A", lambda: stage.processes["node-A"].poll() is not None)
