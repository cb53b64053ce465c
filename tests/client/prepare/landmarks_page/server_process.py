"""The real server in a process of its own, as the command runs it."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SERVED = """
import sys
from pathlib import Path
from client.prepare.landmarks_page.app import serve
from client.prepare.landmarks_page.manifest_desk import ManifestDesk

serve(ManifestDesk(Path(sys.argv[1]), int(sys.argv[2])), 0)
print("ended")
"""


@dataclass(frozen=True)
class Served:
    """A running server: its process, the line that it printed, the address in it with the token."""

    process: subprocess.Popen[str]
    line: str
    address: str

    @property
    def origin(self) -> str:
        """The address without the token."""
        return self.address.partition("/?")[0]

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str, str]:
        """Send a signal; returns the exit code and what was printed and complained of since."""
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=30)
        return self.process.returncode, out, err


@contextlib.contextmanager
def served(manifest: Path, size: int) -> Iterator[Served]:
    """Serve a manifest at any free port."""
    command = [sys.executable, "-c", SERVED, str(manifest), str(size)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            address = re.search(r"http://127\.0\.0\.1:\d+/\?token=[\w-]{43}", line)
            assert address is not None, process.communicate(timeout=30)
            yield Served(process, line, address[0])
        finally:
            process.kill()
