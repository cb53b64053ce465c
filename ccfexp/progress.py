"""What the person at a terminal sees of long work: a bar in a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable
from typing import Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_LINE_EVERY_SECONDS = 10.0


class WorkProgress:
    """Counts units of work, by default on the error stream: a result has the other to itself.

    Args:
        total: units of work.
        done: units already done by an interrupted run.
        stream: where lines go.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        total: float,
        *,
        done: float = 0,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._total, self._done = max(total, 1), done
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
            self._bar.start()
            self._bar.update(self._bar.add_task("starting", total=self._total), completed=self._done)
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, units: float, text: str) -> None:
        """``units`` more are done; ``text`` says what (round, site, step, loss)."""
        self._done += units
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=self._done, description=text)
            return
        now = self._clock()
        if now - self._last_line >= _LINE_EVERY_SECONDS:
            self._last_line = now
            print(self._line(text, now), file=self._stream, flush=True)

    def _line(self, text: str, now: float) -> str:  # noqa: ARG002 (whoever tells the time left needs it)
        return f"{text} | {min(100.0, 100 * self._done / self._total):.0f}%"
