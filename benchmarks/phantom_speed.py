"""Images per CPU second at 112 pixels over the 40 that are promised, on one core."""

from __future__ import annotations

import itertools
import statistics
import sys
import time
from typing import TYPE_CHECKING

from benchmarks._harness import Result, main
from ccfexp.data.phantom.expression import HOUSE_BRACKMANN, MOVEMENTS, Palsy
from ccfexp.data.phantom.render import Phantom

if TYPE_CHECKING:
    from ccfexp.data.phantom.identity import Identity

PROMISED = 40.0  # images per CPU second
SIZE, PEOPLE, REPEATS = 112, 4, 5


def render_all(phantom: Phantom, people: list[Identity], size: int) -> int:
    """One photograph for each person and movement, grades in turn; the number of them."""
    grades = itertools.cycle(HOUSE_BRACKMANN)
    for seed, (person, movement) in enumerate(itertools.product(people, MOVEMENTS)):
        phantom.render(person, movement, palsy=Palsy.of_grade(next(grades), "left"), seed=seed, size=size)
    return len(people) * len(MOVEMENTS)


def measure() -> Result:
    """Median over repeats; CPU seconds of this process, so that other work on the machine does not count."""
    phantom = Phantom()
    started = time.process_time()
    people = [phantom.identity(seed) for seed in range(PEOPLE)]
    set_up = (time.process_time() - started) / PEOPLE
    render_all(phantom, people[:1], SIZE)  # compiles, or loads what was compiled before
    rates = []
    for _ in range(REPEATS):
        started = time.process_time()
        count = render_all(phantom, people, SIZE)
        rates.append(count / (time.process_time() - started))
    rate = statistics.median(rates)
    rows = (
        ("images", f"{REPEATS} x {count} at {SIZE} px"),
        ("measured", f"{rate:.1f} images per CPU second ({min(rates):.1f} to {max(rates):.1f})"),
        ("promised", f"{PROMISED:.0f} images per CPU second"),
        ("a new person", f"{1000 * set_up:.0f} ms, once (not in the rate)"),
    )
    return Result("phantom_speed", rate / PROMISED, 1.0, at_most=False, rows=rows)


if __name__ == "__main__":
    sys.exit(main(measure, about="Phantom photographs per CPU second over the promised 40"))
