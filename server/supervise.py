"""Carry one run to its end: submit it, follow it, and submit it again when something on the way died.

Flower never resumes a run, ours goes on from its last checkpoint when it is started anew; so after a crash of the
SuperLink, of the ServerApp or of this program the same run is submitted once more. A run that Flower still calls
running although its ServerApp is gone (a zombie) is known by the lock on the run's folder, which the system drops with
the process.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ccfexp._io import atomic_write_json
from ccfexp.errors import CheckpointError, ConfigError, RoundError, WeightsError
from server import journal, lock
from server.deployment import LOCK, rounds_done
from server.superlink import RefusedError, RunState, UnreachableError

# A new attempt would end in the same way.
_FATAL = {error.__name__: error for error in (ConfigError, CheckpointError, WeightsError)}
_RECORD = "flower.json"


class Control(Protocol):
    """What a supervisor asks of a SuperLink."""

    def alive(self) -> bool:
        """Whether it answers."""
        ...

    def run(self, run_id: int) -> RunState | None:
        """What it says of a run; None if it does not know it."""
        ...

    def stop(self, run_id: int) -> None:
        """End a run."""
        ...


@dataclass(frozen=True)
class Pace:
    """How patient a supervisor is, in seconds.

    Attributes:
        look_s: between two looks at the journal.
        ask_s: between two questions to the SuperLink, each of which costs a second of work.
        start_s: how long a ServerApp may take to begin.
        gone_s: how long a ServerApp may be gone before its run counts as a zombie.
        first_wait_s: before the first new attempt; doubled each time.
        longest_wait_s: bound of that.
        attempts: how often in a row a run is submitted without a new round.
    """

    look_s: float = 0.5
    ask_s: float = 5.0
    start_s: float = 90.0
    gone_s: float = 15.0
    first_wait_s: float = 2.0
    longest_wait_s: float = 60.0
    attempts: int = 5


@dataclass
class Supervisor:
    """Watches over the run in one folder.

    Attributes:
        control: the SuperLink.
        submit: starts the run and returns Flower's number.
        folder: of the run.
        on_event: called with every event of the journal.
        tell: called with a line for the person who watches.
        pace: how patient it is.
    """

    control: Control
    submit: Callable[[], int]
    folder: Path
    on_event: Callable[[journal.Event], None]
    tell: Callable[[str], None]
    pace: Pace

    def carry(self) -> None:
        """Return when the run is complete.

        Raises:
            RoundError: somebody stopped it, or attempts ended again and again without a new round.
            ConfigError, CheckpointError, WeightsError: what no new attempt can mend, as the ServerApp met it.
            RefusedError: the SuperLink will not take the run.
        """
        attempts, best = 0, rounds_done(self.folder)
        while True:
            self._wait_for_superlink()
            try:
                run_id = self._attached() or self._submitted()
                reason = self._follow(run_id)
            except UnreachableError:
                continue  # it went away between two questions: waited for above
            if reason is None:
                return
            done = rounds_done(self.folder)
            attempts = 1 if done > best else attempts + 1
            best = max(best, done)
            if attempts >= self.pace.attempts:
                raise RoundError(
                    f"attempts={attempts} in a row ended without a new round after round {done} (the last: {reason}); "
                    "mend the cause and give the same command again, it goes on from there"
                )
            wait = min(self.pace.first_wait_s * 2 ** (attempts - 1), self.pace.longest_wait_s)
            self.tell(f"{reason}; trying again in {wait:.0f} s, going on after round {done}")
            time.sleep(wait)

    def _wait_for_superlink(self) -> None:
        wait, told = self.pace.look_s, False
        while not self.control.alive():
            if not told:
                self.tell("the SuperLink does not answer; waiting for it (start it again: superlink.sh)")
                told = True
            time.sleep(wait)
            wait = min(2 * wait, self.pace.longest_wait_s / 4)
        if told:
            self.tell("the SuperLink answers again")

    def _attached(self) -> int | None:
        """The number of a run that was submitted before and has not ended."""
        run_id = recorded_run(self.folder)
        if run_id is None:
            return None
        state = self.control.run(run_id)
        if state is None or not state.active:
            return None
        self.tell(f"attached to run {run_id}, which is {state.status}")
        return run_id

    def _submitted(self) -> int:
        run_id = self.submit()
        atomic_write_json(self.folder / _RECORD, {"run_id": run_id})
        self.tell(f"submitted as run {run_id}")
        return run_id

    def _follow(self, run_id: int) -> str | None:
        """Pass on what the run tells until it has ended; None if it is complete, else why it is not.

        Raises:
            UnreachableError: the SuperLink went away and came back in the middle of a question.
        """
        reader = journal.Reader(self.folder / journal.NAME)
        watch = _Watch(self.pace)
        last: journal.Event = {}
        while True:
            last = self._pass_on(reader, run_id) or last
            if watch.is_time_to_ask():
                if not self.control.alive():
                    self._wait_for_superlink()
                    watch.superlink_was_gone()
                state = self.control.run(run_id)
                # The question may have taken long: what was written meanwhile counts.
                held = lock.is_held(self.folder / LOCK)
                last = self._pass_on(reader, run_id) or last
                if state is None or not state.active:
                    return self._verdict(state, last)
                ended = last.get("kind") in ("failed", "finished")
                if watch.is_zombie(held=held) and not ended and self._stopped(run_id):
                    return "the ServerApp is gone"
            time.sleep(self.pace.look_s)

    def _pass_on(self, reader: journal.Reader, run_id: int) -> journal.Event | None:
        """Pass on what is new of this run; the last of it, None if there is nothing."""
        last = None
        for event in reader.events():
            if event.get("run_id") == run_id:
                self.on_event(event)
                last = event
        return last

    def _stopped(self, run_id: int) -> bool:
        """Whether a zombie was stopped; False if it has ended by itself meanwhile."""
        try:
            self.control.stop(run_id)
        except RefusedError:
            return False
        return True

    def _verdict(self, state: RunState | None, last: journal.Event) -> str | None:
        if state is not None and state.status == "finished:completed" and last.get("kind") == "finished":
            return None
        if last.get("kind") == "failed":
            error, reason = str(last.get("error")), str(last.get("reason"))
            if error in _FATAL:
                raise _FATAL[error](reason)
            return f"the run failed: {reason}"
        if state is None:
            return "the SuperLink has forgotten the run"
        if state.status == "finished:stopped":
            raise RoundError("somebody stopped the run; give the same command again, it goes on after its last round")
        return f"the run is {state.status}" + (f" ({state.details})" if state.details else "")


class _Watch:
    """When to ask the SuperLink, and since when the ServerApp has been missing."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._asked = time.monotonic()
        self._free_since: float | None = None
        self._grace_s = pace.start_s

    def is_time_to_ask(self) -> bool:
        if time.monotonic() - self._asked < self._pace.ask_s:
            return False
        self._asked = time.monotonic()
        return True

    def superlink_was_gone(self) -> None:
        """No ServerApp outlives its SuperLink: what holds the lock now is about to end."""
        self._grace_s = 0.0

    def is_zombie(self, *, held: bool) -> bool:
        """Whether the lock has been seen free, never held, for too long; the time between two looks says nothing."""
        now = time.monotonic()
        if held:
            self._free_since = None
            self._grace_s = min(self._grace_s, self._pace.gone_s)
            return False
        if self._free_since is None:
            self._free_since = now
        return now - self._free_since >= self._grace_s


def recorded_run(folder: Path) -> int | None:
    """Flower's number of the run that was last submitted for a folder."""
    try:
        return int(json.loads((folder / _RECORD).read_text(encoding="utf-8"))["run_id"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
