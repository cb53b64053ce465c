"""A batch worked on in equal shares by several threads of one torch thread each.

At phantom size an operation is too small for torch's own threads to pay: two shares on two cores are half as fast again
as one share with two torch threads. The result does not depend on timing: every share's gradient is computed apart and
they are added in the order of the shares.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor

from ccfexp.conditioning import ExpressionFeatures, IdentityFeatures
from ccfexp.losses import Batch, CycleConfig, cycle_loss
from ccfexp.model import CCFExp

T = TypeVar("T")
S = TypeVar("S")


class Shares:
    """Runs a function on parts of a batch, one thread a part."""

    def __init__(self, count: int, pool: ThreadPoolExecutor | None) -> None:
        self.count, self._pool = count, pool

    def parts(self, size: int) -> list[slice]:
        """At most ``count`` slices of nearly equal length that cover ``size`` examples."""
        count = min(self.count, size)
        edges = [round(size * k / count) for k in range(count + 1)]
        return [slice(begin, end) for begin, end in pairwise(edges)]

    def map(self, work: Callable[[slice], T], size: int) -> list[T]:
        """``work`` of every part of ``size`` examples, in order."""
        return self.each(work, self.parts(size))

    def each(self, work: Callable[[S], T], items: Sequence[S]) -> list[T]:
        """``work`` of every item, in order."""
        if self._pool is None:
            return [work(item) for item in items]
        return list(self._pool.map(work, items))


@contextmanager
def shares(threads: int) -> Iterator[Shares]:
    """Shares for ``threads`` threads; one thread works in place, with torch's own threads as they are."""
    if threads <= 1:
        yield Shares(1, None)
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield Shares(threads, pool)
    finally:
        torch.set_num_threads(before)


def part_of(batch: Batch, part: slice) -> Batch:
    """Some examples of a batch."""
    return Batch(
        batch.target_B3HW[part],
        IdentityFeatures(*(value[part] for value in batch.identity)),
        ExpressionFeatures(*(value[part] for value in batch.expression)),
        batch.target_identity_BD[part],
        batch.target_landmark_B136[part],
        batch.target_deviation_BD[part],
        batch.person_BD[part],
    )


def losses_of(
    model: CCFExp, batch: Batch, t_B: Tensor, eps_B3HW: Tensor, config: CycleConfig
) -> Callable[[slice], Tensor]:
    """What computes the loss of each example of a part of a batch."""
    return lambda part: cycle_loss(model, part_of(batch, part), t_B[part], eps_B3HW[part], config).total_B
