"""A round's memory: linear rules hold one update at a time, and numbers on the disk give the same bits."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from strategies import averaging
from strategies.aggregation import BLOCK
from strategies.bias import BiasMeter
from strategies.options import CombineOptions
from strategies.registry import make
from strategies.rules import RuleOptions
from tests.strategies.cases import EVERY, EVERY_LINEAR, Case, bits, drawn_for
from tests.strategies.factors import RANK, Plan, Round, round_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from strategies.aggregation import SiteUpdate
    from strategies.packing import FlatArray


def one_at_a_time(drawn: Round, letters: str) -> Iterator[SiteUpdate]:
    """Updates, each asserted to be gone, numbers and all, before the next is made."""
    gone: list[weakref.ref[object]] = []
    for site in drawn.sites:
        assert all(reference() is None for reference in gone)
        update = site.update(letters)
        gone = [weakref.ref(update), weakref.ref(update.change_P)]
        yield update
        del update


@EVERY_LINEAR
@pytest.mark.parametrize("ranks", [(RANK,) * 5, (1, 3, 2, 3, 1)], ids=["one rank", "mixed ranks"])
def test_linear_rules_hold_one_update_at_a_time(case: Case, ranks: tuple[int, ...]) -> None:
    """With the bias meter between, as in a real round."""
    drawn = drawn_for(case, Plan(ranks=ranks))
    meter = BiasMeter(drawn.before)

    watched = meter.watching(one_at_a_time(drawn, case.letters))
    streamed = case.rule.aggregate(drawn.before, watched, case.number)

    assert streamed.flat_P.tobytes() == case.after(drawn).flat_P.tobytes()


@dataclass(frozen=True)
class OnDisk:
    """Numbers in a file, read a part at a time, as the coordinator keeps updates that wait."""

    path: Path
    longest: int

    def __getitem__(self, part: slice) -> FlatArray:
        assert 0 <= part.start < part.stop
        assert part.step is None
        assert part.stop - part.start <= self.longest
        numbers: FlatArray = np.fromfile(self.path, np.float32, part.stop - part.start, offset=4 * part.start)
        assert numbers.size == part.stop - part.start
        return numbers


def on_disk(updates: Iterator[SiteUpdate], folder: Path, longest: int) -> Iterator[SiteUpdate]:
    for update in updates:
        path = folder / update.site
        update.change_P[0 : update.manifest.parameters].tofile(path)
        yield replace(update, change_P=OnDisk(path, longest))


@EVERY
@pytest.mark.parametrize("ranks", [(RANK,) * 4, (3, 1, 2, 3)], ids=["one rank", "mixed ranks"])
def test_numbers_on_the_disk_give_the_same_bits(case: Case, ranks: tuple[int, ...], tmp_path: Path) -> None:
    drawn = drawn_for(case, Plan(ranks=ranks, moved=1))
    waiting = on_disk(drawn.updates(case.letters), tmp_path, BLOCK)

    found, expected = case.rule.aggregate(drawn.before, waiting, case.number), case.after(drawn)

    assert bits(found) == bits(expected)


@pytest.mark.parametrize("centre", ["median", "trimmed_mean"])
def test_robust_centres_read_a_part_of_each_update_at_a_time(
    centre: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parts of all sites together are no longer than eight blocks."""
    monkeypatch.setattr(averaging, "BLOCK", 10)
    rule = make("ffa", RuleOptions(combine=CombineOptions(centre=centre)))  # type: ignore[arg-type]
    drawn = round_of(Plan(ranks=(RANK,) * 20))

    found = rule.aggregate(drawn.before, on_disk(drawn.updates("B"), tmp_path, 4), 1)

    assert found.flat_P.tobytes() == rule.aggregate(drawn.before, drawn.updates("B"), 1).flat_P.tobytes()
