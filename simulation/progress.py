"""Progress of a whole run: which part of it begins, and how long it will still take."""

import sys
import time
from collections.abc import Callable
from typing import TextIO

from ccfexp.progress import WorkProgress


class RunProgress(WorkProgress):
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
        super().__init__(total, done=done, stream=stream or sys.stdout, clock=clock)
        self._first: float = done
        self._started = self._last_line

    def stage(self, text: str) -> None:
        """A headline: which part of the run begins."""
        if self._bar is None:
            print(text, file=self._stream, flush=True)
        else:
            self._bar.console.print(text)

    def skip_to(self, units: int) -> None:
        """An earlier run has done part of this stage: count up to ``units``, without taking it for speed."""
        if self._done == self._first:  # what came before the first work (rendering, loading) says nothing of its speed
            self._started = self._clock()
        skipped = max(0, units - self._done)
        self._done += skipped
        self._first += skipped

    def _line(self, text: str, now: float) -> str:
        return f"{text} | {100 * self._done / self._total:.0f}% | {self._left(now)} left"

    def _left(self, now: float) -> str:
        done_here = self._done - self._first
        if done_here <= self._total / 100:  # too little to tell: the first step also waits for features
            return "?"
        seconds = (now - self._started) / done_here * max(0, self._total - self._done)
        return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
