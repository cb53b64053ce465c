"""The shared shape of a benchmark: bounds, output and exit status."""

from __future__ import annotations

import json

import pytest

from benchmarks._harness import Result, main


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
