"""What happens in a run, one line of JSON each, written by the ServerApp and followed by `python -m server.run`.

Flower carries nothing from a running ServerApp to the person who started it but its log; this file carries what that
person needs, reasons of failure among it. Only public things are written: names of sites, their public numbers, sizes.
Sites of a private run tell no loss; instead "epsilon_run" and "epsilon_total" stand in their metrics, and the largest
"epsilon_run" is the "epsilon" of the round.

    {"kind": "started", "run_id": 7, "rounds": 4, "after": 0, ...}
    {"kind": "site", "run_id": 7, "round": 1, "site": "A", "refused": null, "seconds": 9.1, "metrics": {"loss": 0.2}}
    {"kind": "round", "run_id": 7, "round": 1, "sites": ["A", "B"], "refused": {}, "loss": 0.2, "bias": 1e-8, ...}
    {"kind": "failed", "run_id": 7, "error": "RoundError", "reason": "..."}    or    {"kind": "finished", ...}
"""

from __future__ import annotations

import datetime as dt
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ccfexp._io import canonical_json
from ccfexp.errors import CCFExpError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from server.checkpoint import RoundRecord
    from server.federation import Answer

NAME = "progress.jsonl"
Event = dict[str, Any]


@dataclass(frozen=True)
class Journal:
    """Writes the events of one of Flower's runs; every one is on the disk when the call returns."""

    path: Path
    run_id: int

    def started(self, *, config_sha256: str, rounds: int, after: int) -> None:
        """The ServerApp works in the folder and goes on after round `after`."""
        self._write("started", {"config_sha256": config_sha256, "rounds": rounds, "after": after})

    def site(self, answer: Answer) -> None:
        """What became of one site in one round."""
        values = {"round": answer.round_number, "site": answer.site, "refused": answer.refused}
        sizes = {"seconds": answer.seconds, "bytes": answer.received_bytes, "metrics": dict(answer.metrics)}
        self._write("site", values | sizes)

    def round(self, record: RoundRecord) -> None:
        """A round is complete and on the disk."""
        values = {"round": record.round_number, "sites": sorted(record.weights), "refused": record.refused}
        told = {"loss": record.means().get("loss"), "epsilon": record.epsilon(), "bias": record.bias}
        self._write("round", values | told | {"seconds": record.seconds})

    def failed(self, error: BaseException) -> None:
        """The ServerApp ends. Only our own errors are quoted: they name neither files nor secrets."""
        reason = str(error) if isinstance(error, CCFExpError) else "the log of the SuperLink says more"
        self._write("failed", {"error": type(error).__name__, "reason": reason})

    def finished(self, rounds: int) -> None:
        """The last round is complete and the adapter is written."""
        self._write("finished", {"round": rounds})

    def _write(self, kind: str, values: Event) -> None:
        at = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        line = canonical_json({"kind": kind, "at": at, "run_id": self.run_id} | values) + "\n"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(descriptor, line.encode())  # one call, so that lines of two writers never mix
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class Reader:
    """Reads the events that were added since the last look.

    Args:
        path: of the journal; need not be there yet.
    """

    def __init__(self, path: Path) -> None:
        """Begin at the first event."""
        self._path = path
        self._offset = 0

    def events(self) -> Iterator[Event]:
        """Whole lines only; what is being written now comes the next time, what is no event is passed over."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        for line in whole.splitlines():
            try:
                event = json.loads(line)
            except ValueError:
                continue  # cut off when a machine lost its power
            if isinstance(event, dict) and "kind" in event:
                yield event
