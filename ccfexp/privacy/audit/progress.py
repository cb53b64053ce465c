"""What the person at the terminal sees of an audit: a bar in a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable
from typing import Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_LINE_EVERY_SECONDS = 10.0


class AuditProgress:
    """Counts work, on the error stream: the result alone goes to the other.

    Args:
        total: units of work.
        stream: where lines go.
        clock: monotonic seconds.
    """

    def __init__(
        self, total: float, *, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._total, self._done = max(total, 1.0), 0.0
        self._stream, self._clock = stream or sys.stderr, clock
        self._last_line = clock()
        self._bar: Progress | None = None

    def __enter__(self) -> Self:
        if self._stream.isatty():
            self._bar = Progress(
                TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"),
                TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
                console=Console(file=self._stream),
            )  # fmt: skip
            self._bar.add_task("starting", total=self._total)
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, units: float, text: str) -> None:
        """``units`` more are done; ``text`` says what is being done."""
        self._done += units
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=self._done, description=text)
            return
        now = self._clock()
        if now - self._last_line >= _LINE_EVERY_SECONDS:
            self._last_line = now
            share = min(100.0, 100 * self._done / self._total)
            print(f"{text} | {share:.0f}%", file=self._stream, flush=True)
