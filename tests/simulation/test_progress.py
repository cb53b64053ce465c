"""What a run says where no bar can be drawn: a line now and then, with share done and time left."""

from __future__ import annotations

import io

from simulation.progress import RunProgress


class Clock:
    """Seconds that pass only when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def _run(clock: Clock, *, done: int = 0, total: int = 100) -> tuple[RunProgress, io.StringIO]:
    stream = io.StringIO()
    return RunProgress(total, done=done, stream=stream, clock=clock), stream


def test_a_line_every_ten_seconds() -> None:
    """Not one for every step."""
    clock = Clock()
    progress, stream = _run(clock)

    with progress:
        for _ in range(25):
            clock.now += 1
            progress.advance(1, "round 1/2 site A step 3/16 loss 0.1234")

    assert stream.getvalue().splitlines() == [
        "round 1/2 site A step 3/16 loss 0.1234 | 10% | 2 min left",
        "round 1/2 site A step 3/16 loss 0.1234 | 20% | 80 s left",
    ]


def test_stages_are_headlines_at_once() -> None:
    """Whatever the clock says."""
    progress, stream = _run(Clock())

    with progress:
        progress.stage("federated: 6 rounds")
        progress.stage("pooled: 6 rounds")

    assert stream.getvalue() == "federated: 6 rounds\npooled: 6 rounds\n"


def test_time_left_of_a_run_that_goes_on_counts_only_its_own_work() -> None:
    """Half was done before; ten units took ten seconds here, forty are left."""
    clock = Clock()
    progress, stream = _run(clock, done=50)
    clock.now += 10

    progress.advance(10, "B alone")

    assert stream.getvalue() == "B alone | 60% | 40 s left\n"


def test_no_work_done_here_yet() -> None:
    """No rate, so no promise."""
    clock = Clock()
    progress, stream = _run(clock, done=50)
    clock.now += 11

    progress.advance(0, "already drawn")

    assert stream.getvalue() == "already drawn | 50% | ? left\n"


def test_what_comes_before_the_first_step_is_not_taken_for_its_speed() -> None:
    """A minute of rendering, then a first unit of a hundred and one that waited for features: no promise from those."""
    clock = Clock()
    progress, stream = _run(clock)
    clock.now += 60
    progress.skip_to(0)
    clock.now += 11
    progress.advance(1, "first")
    clock.now += 11
    progress.advance(10, "more")

    assert stream.getvalue() == "first | 1% | ? left\nmore | 11% | 3 min left\n"


def test_a_run_without_work_divides_by_nothing() -> None:
    """Zero units are shown as a whole."""
    clock = Clock()
    progress, stream = _run(clock, total=0)
    clock.now += 11

    progress.advance(1, "done")

    assert stream.getvalue() == "done | 100% | 0 s left\n"
