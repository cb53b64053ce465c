"""One hospital: ``python -m client.run --site A`` checks that all is ready, connects, and works until it is stopped.

    --check             stop after the checks
    --approve BUNDLE    show what a bundle would run and what changed since the last one, then ask
    --withdraw HASH     a bundle may no longer run

Ctrl-C or SIGTERM ends it: a message that is worked on is dropped, one that is being handed over is finished.
"""

from __future__ import annotations

import argparse
import fcntl
import getpass
import logging
import os
import pydoc
import secrets
import signal
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ccfexp.errors import CCFExpError, ConfigError, LedgerError
from client.approvals import Approvals
from client.site import add_site_arguments, chosen_site

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from client.checks import Readiness
    from client.site import Site

log = logging.getLogger(__name__)
_LOOK_S = 0.1  # between two looks for work


def serve(site: Site, readiness: Readiness, stop: threading.Event) -> int:
    """Work until `stop` is set; returns the exit code, 1 where the ledger cannot be written any more.

    Raises:
        ConfigError: another process works for this site.
    """
    from client.executor import Executor
    from client.flower_runtime import Runtime, RuntimeUnreachableError, TaskLostError
    from client.node import Node

    logging.getLogger("flwr").setLevel(logging.CRITICAL)  # what matters of its lines `Node` says
    with _alone(site):
        secret = _new_secret(site.work / "runtime.secret")
        node = Node(site, secret)
        runtime = Runtime(site.file.port, secret.read_bytes())
        executor = Executor(site, runtime, readiness.base_sha256, readiness.cohort, node.take_signs, stop)
        try:
            while not stop.is_set():
                node.keep_running()
                try:
                    busy = executor.step()
                except TaskLostError:
                    busy = False
                    node.renew()
                except RuntimeUnreachableError:
                    busy = False  # it starts, or the node is being restarted
                if not busy:
                    stop.wait(_LOOK_S)
        except LedgerError as error:
            log.error("%s", error)  # noqa: TRY400 (the text says it all)
            return 1
        finally:
            executor.close()
            node.stop()
            log.info("stopped")
        executor.finish()
    return 0


@contextmanager
def _alone(site: Site) -> Iterator[None]:
    with (site.work / "run.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"site={site.name} is served by another process on this machine; stop that one first"
            ) from None
        yield


def _new_secret(path: Path) -> Path:
    """A new secret between SuperNode and executor, readable by this user alone."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(secrets.token_bytes(32))
    return path


def approve(site: Site, wanted: str, who: str, *, ask: bool) -> int:
    """Show a bundle's changes and, if the operator agrees, write the approval down; returns the exit code."""
    approvals = Approvals.of(site)
    bundle = approvals.find(wanted)
    changes = approvals.changes(bundle)
    if ask and sys.stdout.isatty():
        pydoc.pager(changes)
    else:
        print(changes)
    try:
        agreed = not ask or input(f"May this run at site {site.name}, approved by {who}? Type yes: ").strip() == "yes"
    except EOFError:  # nobody is there to answer
        agreed = False
    if not agreed:
        print("not approved")
        return 1
    print(f"approved {approvals.approve(bundle, who)} by {who}")
    return 0


def _checked(site: Site) -> Readiness:
    from rich.console import Console

    from client.checks import examine

    readiness = examine(site)
    Console(soft_wrap=not sys.stdout.isatty()).print(readiness.table(site.name))
    return readiness


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m client.run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_site_arguments(parser)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true", help="stop after the checks")
    what.add_argument("--approve", metavar="BUNDLE", help="a .fab file, or the hash of a bundle that was refused")
    what.add_argument("--withdraw", metavar="HASH", help="the whole hash of an approved bundle")
    parser.add_argument("--by", default=None, help="who approves or withdraws (default: the name of this user)")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code: 2 where something is not ready."""
    chosen = _arguments().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", force=True)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    os.environ.update({"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1", "HF_HUB_OFFLINE": "1"})
    try:
        site = chosen_site(chosen)
        site.work.mkdir(mode=0o700, parents=True, exist_ok=True)
        who = chosen.by or getpass.getuser()
        if chosen.approve:
            return approve(site, chosen.approve, who, ask=not chosen.yes)
        if chosen.withdraw:
            Approvals.of(site).withdraw(chosen.withdraw, who)
            print(f"withdrawn {chosen.withdraw} by {who}")
            return 0
        readiness = _checked(site)
        if not readiness.ready:
            print("not ready: mend what the table says and give the same command again", file=sys.stderr)
            return 2
        if chosen.check:
            return 0
        return serve(site, readiness, _stop_on_signals())
    except CCFExpError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: the work folder refuses: {error.strerror}; mend its rights or free the disk", file=sys.stderr)
        return 2


def _stop_on_signals() -> threading.Event:
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    return stop


if __name__ == "__main__":
    raise SystemExit(main())
