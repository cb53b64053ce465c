"""The shared shape of a benchmark: print a table, end with one line of JSON."""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclass(frozen=True)
class Result:
    """A measured ratio and the bound that it is claimed to keep.

    Attributes:
        name: the benchmark's, as in ``python -m benchmarks.NAME``.
        ratio: first side over second side.
        bound: the limit of the claim.
        at_most: whether ``ratio <= bound`` is the claim; else ``ratio >= bound``.
        rows: (label, text) of the table, among them both sides.
        also: further claims of the same run.
    """

    name: str
    ratio: float
    bound: float
    at_most: bool = True
    rows: tuple[tuple[str, str], ...] = ()
    also: tuple[Result, ...] = ()

    @property
    def within(self) -> bool:
        """Whether every claim holds; a ratio that is no number keeps no bound."""
        return self._holds and all(other.within for other in self.also)

    @property
    def _holds(self) -> bool:
        if not math.isfinite(self.ratio):
            return False
        return self.ratio <= self.bound if self.at_most else self.ratio >= self.bound

    @property
    def verdict(self) -> str:
        """The ratio, its bound, and whether it is kept."""
        sign = "<=" if self.at_most else ">="
        return f"{self.ratio:.4g} (bound {sign} {self.bound:g}: {'within' if self._holds else 'OUT OF BOUNDS'})"

    @property
    def table(self) -> str:
        """The rows and the ratio, in two columns."""
        rows = (*self.rows, ("ratio", self.verdict), *((other.name, other.verdict) for other in self.also))
        width = max(len(label) for label, _ in rows)
        return "\n".join(f"{label:<{width}}  {text}" for label, text in rows)

    @property
    def json_line(self) -> str:
        """Name, ratio and bound; a ratio that is not finite is null, because JSON has no word for it."""
        return json.dumps(self.facts | ({"also": [other.facts for other in self.also]} if self.also else {}))

    @property
    def facts(self) -> dict[str, object]:
        """Name, ratio and bound, for JSON."""
        ratio = self.ratio if math.isfinite(self.ratio) else None
        return {"name": self.name, "ratio": ratio, "bound": self.bound}


def main(measure: Callable[[], Result], *, about: str, argv: Sequence[str] | None = None) -> int:
    """Run a benchmark from the command line; the exit status: 1 with ``--check`` out of bounds, else 0.

    ``about`` says in a line what is compared.  ``measure`` is called once, after the arguments are read.
    """
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--check", action="store_true", help="exit with status 1 where the ratio is out of bounds")
    options = parser.parse_args(argv)
    result = measure()
    print(about)
    print(result.table)
    print(result.json_line, flush=True)
    return 1 if options.check and not result.within else 0
