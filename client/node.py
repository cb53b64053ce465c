"""The SuperNode as a process of `client.run`: started, watched, restarted for as long as the site runs.

Its own lines go to a file; what an operator must know of them is told in a sentence. Flower's SuperNode ends by itself
when the coordinator does not know it (any more), so that it is started again with growing pauses.
"""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from client.logs import open_log
from client.site import Site
from client.supernode import SIGNS

log = logging.getLogger(__name__)
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 2.0, 60.0
_STOP_S = 15.0
_LONGEST_SILENCE_S = 150.0  # it says every 30 s that it is there, whatever it works on
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
# What Flower says, and what it means to an operator.
_MEANINGS = (
    ("[code: 2001]", "the coordinator wants every site registered; send it this site's .pub file"),
    ("[code: 2004]", "the coordinator does not know this site's key, has revoked it, or sees it connected already"),
    ("certificate verify failed", "the coordinator's certificate is refused; see the checks (--check)"),
    ("SSL/TLS handshake error", "the secure connection cannot be made; see the checks (--check)"),
    (" detected a", "the coordinator runs another release of Flower; both need the one that requirements.lock names"),
)


@dataclass
class Node:
    """The SuperNode of a site.

    Attributes:
        site: whose.
        secret: file that it shares with the executor.
    """

    site: Site
    secret: Path
    _process: subprocess.Popen[str] | None = None
    _pause_s: float = _FIRST_PAUSE_S
    _next_start: float = 0.0
    _away_since: datetime | None = None
    _connected: threading.Event = field(default_factory=threading.Event)
    _gave_up: bool = False
    _last_sign: float = 0.0  # of the monotonic clock
    _signs: dict[int, int] = field(default_factory=dict)  # process -> bytes sent besides messages
    _signs_taken: int = 0

    def keep_running(self) -> None:
        """Start the process if it is not there and its pause is over; call this every now and then."""
        process = self._process
        if process is not None:
            if process.poll() is None:
                if self._stuck():
                    self.renew()
                return
            self._process = None
            self._plan_next_start()
        if time.monotonic() >= self._next_start:
            self._start()

    def renew(self) -> None:
        """End a process that waits for what will not come; `keep_running` starts another."""
        log.warning("the SuperNode does nothing any more; it is started anew")
        self.stop()
        self._plan_next_start()

    def _plan_next_start(self) -> None:
        if self._connected.is_set():  # it had worked: the next start may come soon
            self._pause_s = _FIRST_PAUSE_S
        self._next_start = time.monotonic() + self._pause_s
        log.warning("the connection has ended; trying again in %.0f s", self._pause_s)
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
        self._connected.clear()

    def stop(self) -> None:
        """End the process as it asks to be ended, and by force if it does not listen."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _stuck(self) -> bool:
        """Whether the process lives and does nothing: Flower's gives up on some errors without ending."""
        silent = time.monotonic() - self._last_sign > _LONGEST_SILENCE_S
        return self._gave_up or (self._connected.is_set() and silent)

    def take_signs(self) -> int:
        """Bytes sent besides messages since the last call: requests for work and what messages are wrapped in."""
        total = sum(self._signs.values())
        taken, self._signs_taken = total - self._signs_taken, total
        return taken

    def command(self) -> list[str]:
        """The stock SuperNode's arguments, with ours before them."""
        file = self.site.file
        return [
            sys.executable, "-m", "client.supernode", str(file.poll_s), str(os.getpid()),
            "--superlink", file.superlink,
            "--root-certificates", str(self.site.root_certificate),
            "--auth-supernode-private-key", str(self.site.private_key),
            "--isolation", "process", "--superexec-auth-secret-file", str(self.secret),
            "--host", "127.0.0.1", "--port", str(file.port),
            "--node-config", f'site="{self.site.name}"',
        ]  # fmt: skip

    def _start(self) -> None:
        quiet = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1", "PYTHONUNBUFFERED": "1"}
        home = self.site.work / "flwr"
        self._gave_up, self._last_sign = False, time.monotonic()
        self._process = subprocess.Popen(  # noqa: S603 (our own interpreter; the site's file is the hospital's own)
            self.command(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            env=os.environ | quiet | {"FLWR_HOME": str(home)},
            start_new_session=True,  # Ctrl-C in the terminal is ours to hand on
        )
        threading.Thread(target=self._listen, args=(self._process,), daemon=True).start()

    def _listen(self, process: subprocess.Popen[str]) -> None:
        path = self.site.work / "logs" / "supernode.log"
        with open_log(path) as file:
            for line in process.stdout or ():
                text = _COLOURS.sub("", line).rstrip()
                if text.startswith(SIGNS):
                    self._last_sign = time.monotonic()
                    self._signs[process.pid] = int(text.removeprefix(SIGNS))
                    continue
                file.write(f"{text}\n".encode())
                self._understand(text)

    def _understand(self, line: str) -> None:
        if "SuperNode ID:" in line or "Connection successful after" in line:
            self._connected.set()
            self._away_since = None
            log.info("connected to the coordinator; waiting for work")
        elif "Connection attempt failed, retrying in" in line:
            if self._away_since is None:
                self._away_since = datetime.now(UTC)
            since = self._away_since.astimezone().strftime("%H:%M:%S")
            wait = line.rpartition("retrying in ")[2]
            log.warning("the coordinator has not answered since %s; next try in %s", since, wait)
        elif "Giving up reconnection" in line:
            self._gave_up = True
        else:
            for sign, meaning in _MEANINGS:
                if sign in line:
                    log.error("%s", meaning)
