"""What has left this hospital and what was stopped: ``python -m client.ledger --site A``.

Every entry stands on the disk before what it tells of is sent, in a hash-chained file (`client.chain`). After a crash
the ledger may hold a message that was never sent; never the other way round.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ccfexp.errors import CCFExpError
from client.chain import Chain
from client.shown import printable
from client.site import add_site_arguments, chosen_site

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from client.chain import Entry
    from client.site import Site

UPDATE, NAME, REFUSED, STOPPED, FAILED, DROPPED = "update", "name", "refused", "stopped", "failed", "dropped"
ENDED = "service ended"


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
        run["last"] = entry.time
    totals = {name: sum(run[name] for run in runs.values()) for name in ("bytes", "signs")}
    return {"entries": len(entries), **totals, "runs": dict(runs)}


def _print(site: Site, entries: Sequence[Entry], console: Console) -> None:
    columns = ("time (UTC)", "kind", "run", "round", "bytes", "norm", "epsilon", "what")
    table = Table(*columns, title=f"egress of site {site.name}")
    for entry in entries:
        facts = entry.facts
        norm = f"{facts['norm']:.4g}" if "norm" in facts else ""
        epsilon = str(facts["epsilon"] or "none") if "epsilon" in facts else ""
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
    except CCFExpError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if chosen.json:
        print(json.dumps({"entries": [vars(entry) for entry in entries], "summary": summary(entries)}, indent=2))
    else:
        _print(site, entries, Console())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
