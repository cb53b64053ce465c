"""What the person at the terminal sees: a bar in a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable
from typing import Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_LINE_EVERY_SECONDS = 10.0


class RunProgress:
    """Progress of a whole run in units of work (training steps, images drawn); stages have different speeds.

    Args:
        total: units of work of the whole run.
        done: units already done by an interrupted run.
        stream: where lines go.
        clock: monotonic seconds.
    """

    def __init__(
        self, total: int, *, done: int = 0, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._total, self._done, self._first = max(total, 1), done, done
        self._stream, self._clock = stream or sys.stdout, clock
        self._started = self._last_line = clock()
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        if self._stream.isatty():
            self._bar = Progress(
                TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"),
                TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
                console=Console(file=self._stream),
            )  # fmt: skip
            self._bar.start()
            self._task = self._bar.add_task("starting", total=self._total, completed=self._done)
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def stage(self, text: str) -> None:
        """A headline: which part of the run begins."""
        if self._bar is None:
            print(text, file=self._stream, flush=True)
        else:
            self._bar.console.print(text)

    def advance(self, units: int, text: str) -> None:
        """``units`` more are done; ``text`` says what (round, site, step, loss)."""
        self._done += units
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self._done, description=text)
            return
        now = self._clock()
        if now - self._last_line >= _LINE_EVERY_SECONDS:
            self._last_line = now
            print(
                f"{text} | {100 * self._done / self._total:.0f}% | {self._left(now)} left",
                file=self._stream,
                flush=True,
            )

    def skip_to(self, units: int) -> None:
        """An earlier run has done part of this stage: count up to ``units``, without taking it for speed."""
        if self._done == self._first:  # what came before the first work (rendering, loading) says nothing of its speed
            self._started = self._clock()
        skipped = max(0, units - self._done)
        self._done += skipped
        self._first += skipped

    def _left(self, now: float) -> str:
        done_here = self._done - self._first
        if done_here <= self._total / 100:  # too little to tell: the first step also waits for features
            return "?"
        seconds = (now - self._started) / done_here * max(0, self._total - self._done)
        return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
