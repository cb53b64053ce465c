"""The shared shape of a benchmark: bounds, alternation, medians, output and exit status."""

from __future__ import annotations

import json
from itertools import count
from typing import TYPE_CHECKING

import pytest

from benchmarks._harness import Result, alternate, main

if TYPE_CHECKING:
    from collections.abc import Callable


class Machine:
    """A machine whose clock moves only by the work done on it, each run of a side taking its next time."""

    def __init__(self) -> None:
        """Start at zero."""
        self.now = 0.0
        self.order: list[str] = []

    def side(self, name: str, *seconds: float) -> Callable[[], None]:
        """Work that takes ``seconds`` in turn, the last of them for ever."""
        runs = count()

        def work() -> None:
            self.order.append(name)
            self.now += seconds[min(next(runs), len(seconds) - 1)]

        return work

    def clock(self) -> float:
        """The time now."""
        return self.now


def test_sides_alternate_and_the_first_changes() -> None:
    """Neither side always finds the caches that the other has warmed."""
    machine = Machine()

    alternate(machine.side("a", 1), machine.side("b", 1), repeats=3, warm_up=0, clock=machine.clock)

    assert machine.order == ["a", "b", "b", "a", "a", "b"]


def test_medians_without_the_warm_up() -> None:
    """One slow start and one hiccup leave no trace."""
    machine = Machine()
    first, second = machine.side("a", 100, 2, 2, 50), machine.side("b", 90, 1, 30, 1)

    # Runs of a after the first: 2, 2, 50; of b: 1, 30, 1.
    assert alternate(first, second, repeats=3, clock=machine.clock) == (2, 1)
    assert len(machine.order) == 8


def test_no_repeats_are_refused() -> None:
    """The error names the value."""
    with pytest.raises(ValueError, match="repeats=0"):
        alternate(lambda: None, lambda: None, repeats=0)


@pytest.mark.parametrize(
    ("ratio", "bound", "at_most", "within"),
    [(1.05, 1.05, True, True), (1.051, 1.05, True, False), (0.9, 1.05, True, True), (40.0, 40.0, False, True),
     (39.9, 40.0, False, False), (float("nan"), 1.0, True, False), (float("inf"), 1.0, False, False)],
)  # fmt: skip
def test_bounds(ratio: float, bound: float, at_most: bool, within: bool) -> None:
    """The bound itself is within; what is no number is not."""
    assert Result("x", ratio, bound, at_most).within is within


@pytest.mark.parametrize(
    ("argv", "ratio", "status"), [([], 2.0, 0), (["--check"], 2.0, 1), (["--check"], 1.0, 0), ([], 1.0, 0)]
)
def test_status_and_last_line(argv: list[str], ratio: float, status: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Only --check fails, and the last line is JSON in either case."""
    result = Result("wire", ratio, 1.05, rows=(("raw", "100 bytes"), ("on the wire", "105 bytes")))

    assert main(lambda: result, about="What is compared", argv=argv) == status

    lines = capsys.readouterr().out.splitlines()
    assert json.loads(lines[-1]) == {"name": "wire", "ratio": ratio, "bound": 1.05}
    assert lines[0] == "What is compared"
    assert "raw          100 bytes" in lines
    assert any("bound <= 1.05" in line for line in lines)


def test_a_ratio_that_is_no_number_is_null(capsys: pytest.CaptureFixture[str]) -> None:
    """The last line stays JSON, and the check fails."""
    assert main(lambda: Result("x", float("nan"), 1.0), about="", argv=["--check"]) == 1

    assert json.loads(capsys.readouterr().out.splitlines()[-1])["ratio"] is None


def test_arguments_are_read_before_anything_is_measured() -> None:
    """A mistyped option costs no minutes."""
    with pytest.raises(SystemExit) as stopped:
        main(lambda: pytest.fail("measured"), about="", argv=["--chek"])

    assert stopped.value.code == 2
