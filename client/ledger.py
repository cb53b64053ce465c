"""What has left this hospital, what was stopped, and what privacy it has cost: ``python -m client.ledger --site A``.

Every entry stands on the disk before what it tells of is sent, in a hash-chained file (`client.chain`). After a crash
the ledger may hold a message that was never sent; never the other way round.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from ccfexp.errors import CCFExpError
from client.budget import Budget
from client.chain import Chain
from client.shown import printable, rounded_up
from client.site import add_site_arguments, chosen_site

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from client.chain import Entry
    from client.site import Site

UPDATE, NAME, REFUSED, STOPPED, FAILED, DROPPED = "update", "name", "refused", "stopped", "failed", "dropped"
ENDED = "service ended"
ASSUMED = "{unit}s are sampled and noise is drawn as the model package that is installed here does"


@dataclass(frozen=True)
class EgressLedger:
    """The egress ledger of a site."""

    chain: Chain

    @classmethod
    def of(cls, site: Site) -> EgressLedger:
        """The ledger in the site's work folder."""
        return cls(Chain(site.work / "egress.jsonl"))

    def record(self, kind: str, facts: Mapping[str, Any]) -> None:
        """Write an entry down. Raises LedgerError if it cannot be; then nothing may be sent."""
        self.chain.append(kind, facts)

    def updates(self) -> int:
        """Rounds in which an update has left, over all runs. Raises LedgerError if the file was altered."""
        return sum(entry.kind == UPDATE for entry in self.chain.entries())


def summary(entries: Sequence[Entry]) -> dict[str, Any]:
    """Totals by run, as JSON can express them: bytes of messages, and of the signs of life around them."""
    runs: dict[str, dict[str, Any]] = defaultdict(
        lambda: {"updates": 0, "bytes": 0, "signs": 0, "withheld": 0, "epsilon": None}
    )
    for entry in entries:
        run = runs[str(entry.facts.get("run", ""))]
        run["updates"] += entry.kind == UPDATE
        run["withheld"] += entry.kind in (REFUSED, STOPPED, FAILED, DROPPED)
        run["bytes"] += int(entry.facts.get("bytes", 0))
        run["signs"] += int(entry.facts.get("signs", 0))
        if entry.kind == UPDATE and (cost := entry.facts.get("epsilon")) is not None:
            run["epsilon"] = max(cost, run["epsilon"] or 0.0)
        run["last"] = entry.time
    totals = {name: sum(run[name] for run in runs.values()) for name in ("bytes", "signs")}
    return {"entries": len(entries), **totals, "runs": dict(runs)}


def spending(site: Site, entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """What private rounds have cost, for every data set and unit of the site, as JSON can express it.

    Raises:
        LedgerError: a privacy ledger was altered, or lacks what the egress ledger tells of.
    """
    policy = site.policy
    own = Budget.of(site.work, site.name, site.file.data_set, "patient")
    found = []
    for budget in dict.fromkeys([own, *Budget.all_of(site.work, site.name)]):
        budget.confirm(EgressLedger.of(site).chain.entries)
        limit = policy.max_epsilon if budget.unit == "patient" else None
        uncovered = sum(entry.kind == UPDATE and entry.facts.get("unit") != budget.unit for entry in entries)
        assumed = ASSUMED.format(unit=budget.unit)
        found.append(
            budget.summary(max_epsilon=limit, delta=policy.delta) | {"uncovered": uncovered, "assumes": assumed}
        )
    return found


def _print_spending(spent: Mapping[str, Any], console: Console) -> None:
    title = f"privacy of data set {spent['data_set']}, per {spent['unit']}"
    table = Table(*(Column(name, no_wrap=True) for name in ("run", "rounds", "steps", "epsilon", "delta")), "rule")
    table.title, table.box = title, box.SIMPLE
    for name, run in spent["runs"].items():
        cells = (name, f"{run['rounds']}", f"{run['steps']:,}", rounded_up(run["epsilon"]), f"{run['delta']:g}")
        table.add_row(*cells, ", ".join(run["methods"]))
    if spent["runs"]:
        console.print(table)
    limit, at = spent["max_epsilon"], "" if spent["delta"] is None else f" at delta={spent['delta']:g}"
    left = (
        "no limit is set"
        if limit is None
        else f"{math.floor(spent['remaining'] * 1000) / 1000:.12g} of {limit:.12g} left"
    )
    console.print(
        f"{title}: epsilon={rounded_up(spent['epsilon'])}{at} by {spent['rounds']} rounds; {left}.\nCounted by "
        f"{spent['accountant']} {spent['unit']}; never less than it is if {spent['assumes']}. Updates that this does "
        f"not cover: {spent['uncovered']}."
    )


def _print(site: Site, entries: Sequence[Entry], console: Console) -> None:
    whole = ("time (UTC)", "kind", "run", "round", "bytes", "norm", "epsilon")  # whatever the width of the terminal
    table = Table(*(Column(name, no_wrap=True) for name in whole), "what", box=box.SIMPLE, padding=0)
    table.title = f"egress of site {site.name}"
    for entry in entries:
        facts = entry.facts
        norm = f"{facts['norm']:.4g}" if "norm" in facts else ""
        cost = facts.get("epsilon")
        epsilon = "" if "epsilon" not in facts else "none" if cost is None else rounded_up(cost)
        what = facts.get("reason") or (f"{facts['tensors']} tensors" if "tensors" in facts else "")
        time, run = entry.time[:19].replace("T", " "), str(facts.get("run", ""))[:8]
        size = f"{facts.get('bytes', 0):,}"
        cells = (time, entry.kind, run, str(facts.get("round", "")), size, norm, epsilon, str(what))
        table.add_row(*(Text(printable(cell)) for cell in cells))  # some of it is what others have sent
    console.print(table)
    total = summary(entries)
    sent = sum(entry.kind == UPDATE for entry in entries)
    left, allowed = max(0, site.policy.max_rounds - sent), site.policy.max_rounds
    last = f", last hash {entries[-1].hash[:16]}" if entries else ""
    console.print(
        f"{sent} updates of {allowed} allowed, {left} left; {total['bytes']:,} bytes of messages, {total['signs']:,} "
        f"of requests for work around them. Chain of {total['entries']} entries intact{last}."
    )
    console.print("Updates with epsilon 'none' are not anonymous: a model trained on faces can remember faces.")


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code, 1 where the ledger was altered."""
    parser = argparse.ArgumentParser(prog="python -m client.ledger", description=__doc__)
    add_site_arguments(parser)
    parser.add_argument("--json", action="store_true", help="every entry and the totals as JSON")
    chosen = parser.parse_args(arguments)
    try:
        site = chosen_site(chosen)
        entries = EgressLedger.of(site).chain.entries()
        spent = spending(site, entries)
    except CCFExpError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if chosen.json:
        told = {"entries": [vars(entry) for entry in entries], "summary": summary(entries), "privacy": spent}
        print(json.dumps(told, indent=2))
    else:
        console = Console()
        _print(site, entries, console)
        for ledger in spent:
            _print_spending(ledger, console)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
