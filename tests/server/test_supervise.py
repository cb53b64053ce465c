"""What a supervisor does when something dies: real files and locks, and a SuperLink whose words are written here."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ccfexp._io import atomic_write_json
from ccfexp.errors import ConfigError, RoundError
from server import journal, lock
from server.checkpoint import RoundRecord
from server.deployment import LOCK
from server.superlink import RefusedError, RunState, UnreachableError
from server.supervise import Pace, Supervisor, recorded_run

QUICK = Pace(look_s=0.01, ask_s=0.02, start_s=0.3, gone_s=0.1, first_wait_s=0.01, longest_wait_s=0.04, attempts=3)


Work = Callable[["WrittenSuperLink", int], None]


@dataclass
class WrittenSuperLink:
    """Answers what the test says; `work` is what the ServerApp of each submission does."""

    folder: Path
    work: list[Work]
    up: list[bool] = field(default_factory=list)  # what it answers next, True when nothing is left
    states: dict[int, RunState | None] = field(default_factory=dict)
    stopped: list[int] = field(default_factory=list)

    def alive(self) -> bool:
        return self.up.pop(0) if self.up else True

    def run(self, run_id: int) -> RunState | None:
        return self.states.get(run_id)

    def stop(self, run_id: int) -> None:
        self.stopped.append(run_id)
        self.states[run_id] = RunState(run_id, "finished:stopped", "")

    def submit(self) -> int:
        run_id = len(self.states) + 1
        self.states[run_id] = RunState(run_id, "running", "")
        self.work.pop(0)(self, run_id)
        return run_id

    def diary(self, run_id: int) -> journal.Journal:
        return journal.Journal(self.folder / journal.NAME, run_id)

    def complete_round(self, run_id: int, number: int) -> None:
        atomic_write_json(self.folder / "checkpoint" / "state.json", {"round": number})
        self.diary(run_id).round(RoundRecord(number, 1.0, {"A": 1.0}, {"A": {"loss": 0.5}}))


def completes(superlink: WrittenSuperLink, run_id: int) -> None:
    superlink.complete_round(run_id, 2)
    superlink.diary(run_id).finished(2)
    superlink.states[run_id] = RunState(run_id, "finished:completed", "")


def fails(superlink: WrittenSuperLink, run_id: int) -> None:
    superlink.diary(run_id).failed(RoundError("round 1: usable updates=1, need at least 2"))
    superlink.states[run_id] = RunState(run_id, "finished:failed", "exit code 1")


def fails_after_a_round(superlink: WrittenSuperLink, run_id: int) -> None:
    superlink.complete_round(run_id, run_id)
    fails(superlink, run_id)


def is_killed(superlink: WrittenSuperLink, run_id: int) -> None:
    """Flower goes on calling it running, and nobody holds the lock."""


def cannot_be_submitted(superlink: WrittenSuperLink, run_id: int) -> None:
    del superlink.states[run_id]
    raise UnreachableError("gone")


def supervisor(superlink: WrittenSuperLink, told: list[str], events: list[journal.Event] | None = None) -> Supervisor:
    heard = [] if events is None else events
    return Supervisor(superlink, superlink.submit, superlink.folder, heard.append, told.append, QUICK)


def test_a_run_that_completes(tmp_path: Path) -> None:
    superlink, told, events = WrittenSuperLink(tmp_path, [completes]), list[str](), list[journal.Event]()

    supervisor(superlink, told, events).carry()

    assert [event["kind"] for event in events] == ["round", "finished"]
    assert recorded_run(tmp_path) == 1
    assert told == ["submitted as run 1"]


def test_a_failed_run_is_submitted_again_and_the_reason_is_told(tmp_path: Path) -> None:
    superlink, told = WrittenSuperLink(tmp_path, [fails, completes]), list[str]()

    supervisor(superlink, told).carry()

    assert any("usable updates=1" in line for line in told)
    assert told[-1] == "submitted as run 2"


def test_it_gives_up_after_several_attempts_without_a_new_round(tmp_path: Path) -> None:
    superlink = WrittenSuperLink(tmp_path, [fails] * 9)

    with pytest.raises(RoundError, match=r"attempts=3 .*usable updates=1"):
        supervisor(superlink, []).carry()
    assert len(superlink.work) == 6


def test_a_new_round_starts_the_count_anew(tmp_path: Path) -> None:
    work: list[Work] = [fails, fails, fails_after_a_round, fails, completes]
    superlink = WrittenSuperLink(tmp_path, work)

    supervisor(superlink, []).carry()

    assert superlink.work == []


def test_what_no_attempt_can_mend_is_not_tried_again(tmp_path: Path) -> None:
    def refuses(superlink: WrittenSuperLink, run_id: int) -> None:
        superlink.diary(run_id).failed(ConfigError("this run folder is of another configuration"))
        superlink.states[run_id] = RunState(run_id, "finished:failed", "")

    superlink = WrittenSuperLink(tmp_path, [refuses, completes])

    with pytest.raises(ConfigError, match="another configuration"):
        supervisor(superlink, []).carry()
    assert len(superlink.work) == 1


def test_a_zombie_is_stopped_and_its_run_submitted_again(tmp_path: Path) -> None:
    superlink, told = WrittenSuperLink(tmp_path, [is_killed, completes]), list[str]()

    supervisor(superlink, told).carry()

    assert superlink.stopped == [1]
    assert any("the ServerApp is gone" in line for line in told)


def test_a_serverapp_at_work_is_no_zombie(tmp_path: Path) -> None:
    """It holds the lock for longer than any patience here, says nothing, and completes."""
    superlink = WrittenSuperLink(tmp_path, [])

    def works(superlink: WrittenSuperLink, run_id: int) -> None:
        def inner() -> None:
            with lock.held(tmp_path / LOCK, 1.0, "a test"):
                time.sleep(0.8)
                completes(superlink, run_id)

        threading.Thread(target=inner).start()

    superlink.work.append(works)
    supervisor(superlink, []).carry()

    assert superlink.stopped == []


class SlowSuperLink(WrittenSuperLink):
    """Answers a question with what was true when it was asked, after the patience for a missing ServerApp."""

    def run(self, run_id: int) -> RunState | None:
        state = super().run(run_id)
        time.sleep(2 * QUICK.gone_s)
        return state


def test_a_run_that_ends_during_a_slow_question_is_no_zombie(tmp_path: Path) -> None:
    """The lock was held at the question before, and is free when the answer comes: it is simply complete."""
    superlink, told, events = SlowSuperLink(tmp_path, []), list[str](), list[journal.Event]()

    def works(superlink: WrittenSuperLink, run_id: int) -> None:
        def inner() -> None:
            with lock.held(tmp_path / LOCK, 1.0, "a test"):
                time.sleep(3 * QUICK.gone_s)
                superlink.complete_round(run_id, 2)
                superlink.diary(run_id).finished(2)
            time.sleep(3 * QUICK.gone_s)  # what a loaded machine needs until Flower knows
            superlink.states[run_id] = RunState(run_id, "finished:completed", "")

        threading.Thread(target=inner).start()

    superlink.work.append(works)
    supervisor(superlink, told, events).carry()

    assert superlink.stopped == []
    assert told == ["submitted as run 1"]
    assert [event["kind"] for event in events] == ["round", "finished"]


def test_a_zombie_that_ended_by_itself_is_judged_by_its_status(tmp_path: Path) -> None:
    class Refusing(WrittenSuperLink):
        def stop(self, run_id: int) -> None:
            self.states[run_id] = RunState(run_id, "finished:failed", "No heartbeat received")
            raise RefusedError("run is already finished", 18)

    superlink, told = Refusing(tmp_path, [is_killed, completes]), list[str]()

    supervisor(superlink, told).carry()

    assert any("No heartbeat" in line for line in told)


def test_after_an_outage_the_run_is_known_to_be_dead_at_once(tmp_path: Path) -> None:
    def dies(superlink: WrittenSuperLink, _: int) -> None:
        superlink.up = [False, False, True]

    superlink, told = WrittenSuperLink(tmp_path, [dies, completes]), list[str]()

    began = time.monotonic()
    supervisor(superlink, told).carry()

    assert time.monotonic() - began < QUICK.start_s
    assert superlink.stopped == [1]
    assert "the SuperLink answers again" in told


def test_a_superlink_without_memory_gets_the_run_anew(tmp_path: Path) -> None:
    def forgotten(superlink: WrittenSuperLink, run_id: int) -> None:
        superlink.states[run_id] = RunState(run_id, "running", "")
        threading.Timer(0.05, lambda: superlink.states.update({run_id: None})).start()

    superlink, told = WrittenSuperLink(tmp_path, [forgotten, completes]), list[str]()

    supervisor(superlink, told).carry()

    assert any("forgotten the run" in line for line in told)


def test_a_submission_that_fails_on_the_way_is_no_attempt(tmp_path: Path) -> None:
    superlink = WrittenSuperLink(tmp_path, [*[cannot_be_submitted] * 5, completes])

    supervisor(superlink, []).carry()

    assert superlink.work == []


def test_a_run_that_is_under_way_is_attached_to(tmp_path: Path) -> None:
    superlink, told, events = WrittenSuperLink(tmp_path, []), list[str](), list[journal.Event]()
    atomic_write_json(tmp_path / "flower.json", {"run_id": 41})
    superlink.states[41] = RunState(41, "running", "")
    superlink.diary(40).finished(9)  # of an earlier run
    threading.Timer(0.1, lambda: completes(superlink, 41)).start()

    supervisor(superlink, told, events).carry()

    assert told == ["attached to run 41, which is running"]
    assert {event["run_id"] for event in events} == {41}


def test_a_run_that_somebody_stopped_stays_stopped(tmp_path: Path) -> None:
    def is_stopped(superlink: WrittenSuperLink, run_id: int) -> None:
        superlink.stop(run_id)

    superlink = WrittenSuperLink(tmp_path, [is_stopped, completes])

    with pytest.raises(RoundError, match="somebody stopped"):
        supervisor(superlink, []).carry()
    assert len(superlink.work) == 1


def test_a_refused_submission_is_told(tmp_path: Path) -> None:
    def refuse() -> int:
        raise RefusedError("flwr run was refused: Invalid run configuration.", 15)

    superlink = WrittenSuperLink(tmp_path, [])
    with pytest.raises(RefusedError, match="Invalid"):
        Supervisor(superlink, refuse, tmp_path, lambda _: None, lambda _: None, QUICK).carry()
