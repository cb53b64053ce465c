"""The SuperLink as the coordinator's programs see it: Flower's command line with its answers as JSON.

The command line is the only interface to a SuperLink that Flower keeps stable. Its exit code says nothing: a command
that was refused ends with 0, so every answer is read.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import ssl
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ccfexp.errors import ConfigError, RoundError
from server.kits import CONNECTION, Kits

if TYPE_CHECKING:
    from collections.abc import Mapping


_CALL_S = 120.0  # on a machine that is training
_HEALTH_S = 5.0
_HEALTH_LOOKS = 4
_CODE = re.compile(r"\[code: (\d+)\] (.*)", re.DOTALL)
_KEY_IN_USE = 23
_NO_SUCH_RUN = 16
_UNREACHABLE = re.compile(r"SuperLink.*unavailable|unavailable.*SuperLink|[Cc]onnect", re.DOTALL)


class UnreachableError(RoundError):
    """The SuperLink does not answer."""


class RefusedError(RoundError):
    """The SuperLink answers that it will not.

    Attributes:
        code: Flower's number of the reason, 0 if it gives none.
    """

    def __init__(self, message: str, code: int = 0) -> None:
        """Keep the number beside the text."""
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class RunState:
    """What Flower says of a run."""

    run_id: int
    status: str  # pending, starting, running, finished:completed, finished:failed, finished:stopped
    details: str

    @property
    def active(self) -> bool:
        """Whether it is not finished."""
        return not self.status.startswith("finished")


@dataclass(frozen=True)
class NodeState:
    """What Flower says of a registered node; times as Flower writes them, None for never."""

    node_id: int
    status: str  # registered (never connected), online, offline, unregistered
    online_at: str | None
    offline_at: str | None


@dataclass(frozen=True)
class SuperLink:
    """The SuperLink that some kits describe."""

    kits: Kits

    def alive(self) -> bool:
        """Whether it answers, with a certificate of our authority; a busy one is given some time."""
        context = ssl.create_default_context(cafile=str(self.kits.coordinator / "ca.crt"))
        port = self.kits.addresses().superlink_port
        for _ in range(_HEALTH_LOOKS):
            connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=_HEALTH_S, context=context)
            try:
                connection.request("GET", "/health")
                return connection.getresponse().status == http.client.OK
            except TimeoutError:
                continue  # somebody listens
            except (OSError, http.client.HTTPException):
                return False
            finally:
                connection.close()
        return False

    def submit(self, app: Path, run_config: Mapping[str, str | int]) -> int:
        """Start a run of the app in a folder. Returns its number. Raises UnreachableError, RefusedError."""
        with tempfile.TemporaryDirectory(prefix="run-") as folder:
            path = Path(folder) / "run.toml"
            # A JSON text is a TOML text too, and a whole number is written alike.
            lines = [f"{key} = {json.dumps(value)}\n" for key, value in run_config.items()]
            path.write_text("".join(lines), encoding="utf-8")
            return int(self._call("run", str(app), CONNECTION, "--run-config", str(path))["run-id"])

    def runs(self) -> list[RunState]:
        """All runs that it remembers. Raises UnreachableError, RefusedError."""
        return [_run_state(run) for run in self._call("ls", CONNECTION)["runs"]]

    def run(self, run_id: int) -> RunState | None:
        """One run, or None if it does not know it. Raises UnreachableError, RefusedError."""
        try:
            return _run_state(self._call("ls", CONNECTION, "--run-id", str(run_id))["runs"][0])
        except RefusedError as error:
            if error.code == _NO_SUCH_RUN:
                return None
            raise

    def stop(self, run_id: int) -> None:
        """End a run. Raises UnreachableError; RefusedError if it has ended already."""
        self._call("stop", str(run_id), CONNECTION)

    def nodes(self) -> list[NodeState]:
        """All registered nodes. Raises UnreachableError, RefusedError."""
        return [_node_state(node) for node in self._call("supernode", "list", CONNECTION)["nodes"]]

    def register(self, public_key: Path, name: str) -> int:
        """Let the holder of a key connect as a site. Returns the number of its node.

        Raises:
            ConfigError: the key is registered already.
            UnreachableError, RefusedError: as the other calls.
        """
        try:
            return int(self._call("supernode", "register", str(public_key), CONNECTION, "--name", name)["node-id"])
        except RefusedError as error:
            if error.code == _KEY_IN_USE:
                raise ConfigError(
                    f"the key in {public_key.name} is registered already, maybe for another site; every site makes "
                    "a key of its own: python -m client.keygen --site-file site.yaml"
                ) from error
            raise

    def unregister(self, node_id: int) -> None:
        """Never let a node connect again. Raises UnreachableError, RefusedError."""
        self._call("supernode", "unregister", str(node_id), CONNECTION)

    def _call(self, *words: str) -> dict[str, Any]:
        if not self.alive():
            raise UnreachableError(
                f"the SuperLink does not answer at 127.0.0.1:{self.kits.addresses().superlink_port}; "
                f"start it: bash {self.kits.coordinator / 'superlink.sh'}"
            )
        environment = os.environ | {
            "FLWR_HOME": str(self.kits.flower_home),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
        }
        program = Path(sys.executable).parent / "flwr"
        try:
            done = subprocess.run(  # noqa: S603 (words of our own)
                [str(program), *words, "--format", "json"],
                env=environment,
                capture_output=True,
                text=True,
                timeout=_CALL_S,
                check=False,
            )
        except FileNotFoundError as error:
            raise ConfigError(
                "the program flwr is not in this environment; install the project's requirements"
            ) from error
        except subprocess.TimeoutExpired as error:
            raise UnreachableError(f"the SuperLink did not answer within {_CALL_S:.0f} s; try again") from error
        return _answer(words[0], done.stdout, done.stderr)


def _answer(what: str, output: str, errors: str) -> dict[str, Any]:
    try:
        answer = json.loads(output)
    except ValueError:
        last = (errors.strip() or output.strip() or "no answer").splitlines()[-1]
        raise RefusedError(f"flwr {what} failed: {last}; the SuperLink's log may say more") from None
    if isinstance(answer, dict) and answer.get("success") is True:
        return answer
    text = str(answer.get("error-message", "")) if isinstance(answer, dict) else ""
    numbered = _CODE.search(text)
    reason = numbered[2].strip() if numbered else text.strip().rsplit("\n\n", maxsplit=1)[-1]
    if numbered is None and _UNREACHABLE.search(reason):
        raise UnreachableError(
            "the SuperLink stopped answering; start it again: superlink.sh in the coordinator's folder"
        )
    raise RefusedError(f"flwr {what} was refused: {reason or 'no reason given'}", int(numbered[1]) if numbered else 0)


def _run_state(run: Mapping[str, Any]) -> RunState:
    return RunState(int(run["run-id"]), str(run["status"]), str(run.get("status-details") or ""))


def _node_state(node: Mapping[str, Any]) -> NodeState:
    times = [None if node.get(key) in (None, "", "N/A") else str(node[key]) for key in ("online-at", "offline-at")]
    return NodeState(int(node["node-id"]), str(node["status"]), times[0], times[1])
