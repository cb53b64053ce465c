"""The app's process, seen from the hospital's side: started for an approved bundle, asked, and ended.

It stays between messages, so that torch and the frozen base are loaded once, and ends with its bundle, its run, a
failure, or an attempt at anything that it is not allowed.
"""

from __future__ import annotations

import builtins
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import ccfexp
from ccfexp import errors
from ccfexp.errors import PolicyError
from client.logs import open_log
from client.sandbox import frames

if TYPE_CHECKING:
    from collections.abc import Callable

_BOOT = Path(__file__).parent / "sandbox" / "boot.py"
# What a program needs of its machine; nothing else of the environment is handed on.
_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "OMP_NUM_THREADS")
_PREFIXES = ("CUDA_", "NVIDIA_", "NCCL_", "HIP_", "ROCR_", "MKL_")
_SYSTEM = (
    "/usr", "/lib", "/lib64", "/bin", "/sbin", "/sys",
    # Of /proc its own process and what tells of the machine, not of other processes.
    "/proc/self", "/proc/sys", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/vmstat", "/proc/loadavg",
    "/proc/uptime", "/proc/version", "/proc/filesystems", "/proc/devices", "/proc/driver", "/proc/cgroups",
    "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/localtime", "/etc/nsswitch.conf", "/etc/gai.conf",
    "/etc/mime.types", "/etc/alternatives",
)  # fmt: skip
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "nvidia*", "dri", "kfd", "infiniband")
_START_S = 120.0


def readable_roots() -> list[str]:
    """Folders that every app may read: Python, the system's libraries, the model package. No secret may lie there."""
    prefixes = {sys.prefix, sys.base_prefix, str(Path(sys.executable).resolve().parent.parent)}
    return [*prefixes, *_SYSTEM, str(Path(ccfexp.__file__).parent), str(_BOOT.parent)]


class WorkerStoppedError(Exception):
    """The site is shutting down, or nobody waits for the answer any more."""


class WorkerFailedError(Exception):
    """The app failed, died, or took too long; the text names a kind and nothing of the data."""


@dataclass(frozen=True)
class Enclosure:
    """What an app is given.

    Attributes:
        bundle: folder of its unpacked, approved files.
        data: folders that it may read.
        cache: folder that it may write to.
        node_config: what it is told of the site.
        bench: JSON of what it needs to train (`client.workbench`).
        log: file that its output goes to.
    """

    bundle: Path
    data: tuple[Path, ...]
    cache: Path
    node_config: dict[str, str]
    bench: str
    log: Path

    def setup(self, scratch: str) -> dict[str, Any]:
        """What the process is told before it shuts itself in."""
        packages = self._packages(Path(ccfexp.__file__).parent)
        read = [*readable_roots(), str(self.bundle), str(packages), *map(str, self.data)]
        devices = [str(device) for name in _DEVICES for device in Path("/dev").glob(name)]
        return {
            "bundle": str(self.bundle),
            "paths": [str(packages)],
            "read": read,
            "write": [str(self.cache), scratch, *devices],
            "node_config": self.node_config,
        }

    def _packages(self, model: Path) -> Path:
        """A folder with nothing in it but the model package: an import lists the folders that it looks in."""
        folder = self.bundle.parent / "packages"  # beside the bundles, where no app can write
        folder.mkdir(parents=True, exist_ok=True)
        link = folder / model.name
        if link.is_symlink() and link.readlink() != model:
            link.unlink()
        if not link.is_symlink():
            link.symlink_to(model)
        return folder

    def environment(self, scratch: str) -> dict[str, str]:
        """The environment of the process."""
        kept = {key: value for key, value in os.environ.items() if key in _ENVIRONMENT or key.startswith(_PREFIXES)}
        quiet = {
            "HF_HUB_OFFLINE": "1",
            "FLWR_TELEMETRY_ENABLED": "0",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
        }
        places = {"HOME": scratch, "TMPDIR": scratch, "FLWR_HOME": scratch, "XDG_CACHE_HOME": scratch}
        return kept | quiet | places | {"CCFEXP_BENCH": self.bench}


class Worker:
    """One process for one approved bundle and one run.

    Args:
        enclosure: what it is given.
        stopped: asked several times a second; true ends whatever is waited for.

    Raises:
        WorkerFailedError: the app cannot be loaded.
        WorkerStoppedError: stopped before it was.
        PolicyError: while loading, it tried something that it is not allowed.
    """

    def __init__(self, enclosure: Enclosure, stopped: Callable[[], bool]) -> None:
        self._stopped = stopped
        enclosure.cache.mkdir(parents=True, exist_ok=True)
        # New for every process, so that nothing an app leaves behind can be in the way of the next.
        self._scratch = tempfile.mkdtemp(prefix="app-", dir=enclosure.bundle.parent)
        with open_log(enclosure.log) as log:
            # No shell and no words from outside: our own interpreter and our own file.
            self._process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-s", str(_BOOT)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=enclosure.environment(self._scratch),
                cwd=self._scratch,
                start_new_session=True,
            )
        if self._process.stdin is None or self._process.stdout is None:
            raise WorkerFailedError("no pipe")
        self._sink, self._source = self._process.stdin.fileno(), self._process.stdout.fileno()
        self._send(frames.SETUP, json.dumps(enclosure.setup(self._scratch)).encode(), _START_S)
        kind, _ = self._read(_START_S, 1024)
        if kind != frames.READY:
            self.close()
            raise WorkerFailedError("the app cannot be loaded")

    def ask(self, message: bytes, *, seconds: float, longest: int) -> bytes:
        """The app's answer to a serialised message, at most ``longest`` bytes of it.

        Raises:
            PolicyError: it tried to read, write or reach what it is not allowed; the process is ended.
            WorkerFailedError: it failed, died, took longer than ``seconds`` or answered more; the process is ended.
            WorkerStoppedError: stopped; the process is ended.
        """
        self._send(frames.REQUEST, message, seconds)
        kind, body = self._read(seconds, longest)
        if kind == frames.REPLY:
            return body
        self.close()
        raise WorkerFailedError(f"the app failed: {_kind_of(body)}")

    @property
    def alive(self) -> bool:
        """Whether the process can be asked."""
        return self._process.poll() is None

    def close(self) -> None:
        """End the process and everything that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _send(self, kind: bytes, body: bytes, seconds: float) -> None:
        end = time.monotonic() + seconds
        try:
            frames.write_frame(self._sink, kind, body, end=end, stopped=self._stopped)
        except (frames.FrameError, BrokenPipeError) as error:
            self._fail(error)

    def _read(self, seconds: float, longest: int) -> tuple[bytes, bytes]:
        try:
            kind, body = frames.read_frame(self._source, longest, end=time.monotonic() + seconds, stopped=self._stopped)
        except frames.FrameError as error:
            self._fail(error)
        if kind == frames.DENIED:
            self.close()
            what = body.decode("utf-8", "replace")
            raise PolicyError(f"the app tried {what if what in frames.OFFENCES else 'something'}; it was stopped")
        return kind, body

    def _fail(self, error: Exception) -> NoReturn:
        """End the process, because the site stops or because of the error."""
        stopped = self._stopped()
        self.close()
        if stopped:
            raise WorkerStoppedError from error
        why = "its process is gone" if isinstance(error, BrokenPipeError) else str(error)
        raise WorkerFailedError(f"no answer from the app: {why}") from error


def _kind_of(body: bytes) -> str:
    """A kind of error that Python or this project knows; an app's own words could be anything, and end in a log."""
    kind = body.decode("utf-8", "replace")
    known = isinstance(getattr(builtins, kind, None), type) or kind in errors.__all__
    return kind if known else "an error of its own"
