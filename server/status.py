"""Where the federation stands: the sites, the runs, and what each site has answered.

    python -m server.status --kits kits/            two tables
    python -m server.status --kits kits/ --json     the same for a program

What is on the disk is shown also while the SuperLink is down. The column epsilon holds what a site says that it has
spent of its privacy budget in a run, "none" where it trains without differential privacy.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from ccfexp.errors import CCFExpError
from ccfexp.privacy.statement import epsilon_text
from server import lock
from server.deployment import LOCK
from server.kits import Kits
from server.superlink import NodeState, RunState, SuperLink, UnreachableError
from server.supervise import recorded_run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_UNKNOWN = "unknown"  # the SuperLink is down


@dataclass(frozen=True)
class SiteStatus:
    """A site that has a kit."""

    name: str
    node: int | None  # None: not registered
    state: str  # not registered, registered (never connected), online, offline; unknown while the SuperLink is down
    last_seen: str | None  # "now" while it is online


@dataclass(frozen=True)
class SiteInRun:
    """What a site has done in a run."""

    answered: int  # rounds in which its update was used
    refused: int
    received_bytes: int
    epsilon: float | None  # None: without differential privacy


@dataclass(frozen=True)
class RunStatus:
    """A run's folder, and what Flower says of it."""

    name: str
    run_id: int | None
    status: str
    rounds: int
    sites: dict[str, SiteInRun]


@dataclass(frozen=True)
class Status:
    """All of it."""

    superlink: str  # up or down
    sites: tuple[SiteStatus, ...]
    runs: tuple[RunStatus, ...]


def status(kits: Kits) -> Status:
    """Look once. Raises ConfigError if the kits cannot be read."""
    superlink = SuperLink(kits)
    nodes: list[NodeState] | None = None
    runs: list[RunState] | None = None
    try:
        nodes, runs = superlink.nodes(), superlink.runs()
    except UnreachableError:
        nodes = runs = None
    folders = sorted(path.parent.parent for path in Path(kits.addresses().runs).glob("*/checkpoint/state.json"))
    return Status(
        superlink="down" if nodes is None else "up",
        sites=_sites(kits, nodes),
        runs=tuple(_run(folder, runs) for folder in folders),
    )


def _sites(kits: Kits, nodes: Sequence[NodeState] | None) -> tuple[SiteStatus, ...]:
    registered = kits.registered()
    by_id = {node.node_id: node for node in nodes or []}
    rows = []
    for name in sorted({*kits.sites(), *registered}):
        number = registered.get(name)
        node = None if number is None else by_id.get(number)
        if number is None:
            rows.append(SiteStatus(name, None, "not registered", None))
        elif node is None:
            # A SuperLink that has lost its database does not know the nodes that we remember.
            rows.append(SiteStatus(name, number, _UNKNOWN if nodes is None else "forgotten by the SuperLink", None))
        else:
            seen = "now" if node.status == "online" else node.offline_at or node.online_at
            rows.append(SiteStatus(name, number, node.status, seen))
    return tuple(rows)


def _run(folder: Path, runs: Sequence[RunState] | None) -> RunStatus:
    state = json.loads((folder / "checkpoint" / "state.json").read_text(encoding="utf-8"))
    run_id = recorded_run(folder)
    told = next((run.status for run in runs or [] if run.run_id == run_id), _UNKNOWN)
    if told == "running" and not lock.is_held(folder / LOCK):
        told = "running, but its ServerApp is starting or gone"
    return RunStatus(folder.name, run_id, told, int(state["round"]), _sites_of(state["history"]))


def _sites_of(history: Sequence[Mapping[str, Any]]) -> dict[str, SiteInRun]:
    names = sorted({name for record in history for name in [*record["weights"], *record["refused"]]})
    rows = {}
    for name in names:
        spent = [record["metrics"].get(name, {}).get("epsilon_run") for record in history]
        rows[name] = SiteInRun(
            answered=sum(name in record["weights"] for record in history),
            refused=sum(name in record["refused"] for record in history),
            received_bytes=sum(record.get("received_bytes", {}).get(name, 0) for record in history),
            epsilon=max((value for value in spent if value is not None), default=None),
        )
    return rows


def print_tables(found: Status, console: Console) -> None:
    """Both tables."""
    if found.superlink == "down":
        console.print("The SuperLink is down: connections and the state of runs are unknown.")
    sites = Table("site", "registered as node", "state", "last seen", title="Sites", title_justify="left")
    for site in found.sites:
        sites.add_row(site.name, str(site.node or "-"), site.state, site.last_seen or "-")
    console.print(sites)
    runs = Table("run", "status", "rounds", "site", "answered", "refused", "received", "epsilon", title="Runs",
                 title_justify="left")  # fmt: skip
    for run in found.runs:
        first = [run.name, run.status, str(run.rounds)]
        for name, own in run.sites.items() or [("-", SiteInRun(0, 0, 0, None))]:
            epsilon = "none" if own.epsilon is None else epsilon_text(own.epsilon)
            numbers = [str(own.answered), str(own.refused), f"{own.received_bytes / 1e6:.1f} MB", epsilon]
            runs.add_row(*first, name, *numbers)
            first = ["", "", ""]
    console.print(runs)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code (0 done, 2 refused)."""
    parser = argparse.ArgumentParser(
        prog="python -m server.status", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kits", type=Path, default=Path("kits"), help="folder of the kits (default kits)")
    parser.add_argument("--json", action="store_true", help="for a program")
    chosen = parser.parse_args(arguments)
    try:
        found = status(Kits.open(chosen.kits))
    except CCFExpError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if chosen.json:
        print(json.dumps(asdict(found), indent=2))
    else:
        print_tables(found, Console())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
