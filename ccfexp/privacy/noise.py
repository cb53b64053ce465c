"""Where sampling and noise come from: a cryptographic generator, or a seed where nobody is hurt.

Whoever can repeat the noise can take it away again, and whoever knows who was sampled gets no less than was sent. So
neither may come from a seed that others know, and neither is ever written down.

What no generator mends: a normal number on a computer is one of finitely many, with gaps that depend on what it is
added to (Mironov 2012, CCS; Holohan & Braghin 2021, arXiv:2107.10138). Each number here is the sum of four independent
ones, divided by two, which makes the gaps of one useless to an observer; it is a defence and no proof, and the claimed
epsilon is that of the exact mechanism.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

if TYPE_CHECKING:
    from collections.abc import Sequence

Numbers = npt.NDArray[np.float64]
_TOGETHER = 4  # normal numbers that one is made of
_ONE = np.float64(1.0).view(np.uint64)  # the bits of 1.0
_BLOCK = 1 << 15  # numbers made at a time: the cache holds what they are made of


class Source(Protocol):
    """Independent random numbers."""

    def uniform(self, count: int) -> Numbers:
        """Numbers in [0, 1), multiples of 2^-52."""
        ...

    def normal(self, count: int) -> Numbers:
        """Standard normal numbers."""
        ...


class SecureSource:
    """AES-256 in counter mode, with a key that the operating system draws anew for every call.

    As good as the operating system's own numbers and quicker. Nothing is kept from call to call, so two processes that
    were one can never draw the same.
    """

    def uniform(self, count: int) -> Numbers:
        """52 random bits each."""
        stream = Cipher(algorithms.AES(os.urandom(32)), modes.CTR(bytes(16))).encryptor().update(bytes(8 * count))
        bits = np.frombuffer(stream, np.uint64) >> np.uint64(12)
        return (bits | _ONE).view(np.float64) - 1.0  # as the fraction of a number between 1 and 2

    def normal(self, count: int) -> Numbers:
        """Sums of four by Box and Muller's method, divided by two."""
        made = np.empty(count)
        for start in range(0, count, _BLOCK):
            part = made[start : start + _BLOCK]
            part[:] = self._box_muller(_TOGETHER * len(part)).reshape(_TOGETHER, -1).sum(0) / _TOGETHER**0.5
        return made

    def _box_muller(self, count: int) -> Numbers:
        """An even number of standard normal ones."""
        first, second = self.uniform(count).reshape(2, -1)
        radius = np.sqrt(-2 * np.log(1 - first))  # of numbers in (0, 1]
        second *= 2 * np.pi
        # Moved by one, so that no two of the four that make a number come of the same pair.
        return np.concatenate([radius * np.cos(second), np.roll(radius * np.sin(second), 1)])


class SeededSource:
    """The same numbers for the same seed: for tests and simulations of phantoms, never for patients."""

    def __init__(self, seed: Sequence[int]) -> None:
        self._random = np.random.default_rng(list(seed))

    def uniform(self, count: int) -> Numbers:
        """The next numbers of the seed's stream."""
        return self._random.random(count)

    def normal(self, count: int) -> Numbers:
        """The next numbers of the seed's stream."""
        return self._random.standard_normal(count)
