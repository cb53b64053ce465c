"""Replies that no site may send: every way of spoiling one is invalid by how it is made, whatever is drawn.

Each mutator takes a sample (a valid reply) and a generator, spoils the reply and is listed with the checks that may
find it. What it says about itself is the proof that no valid reply can come out.
"""

from __future__ import annotations

import io
import random
import string
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from strategies import wire
from strategies.packing import AdapterManifest

WIDTH = {"float32": "<f4", "float16": "<f2", "bfloat16": "<u2"}
MAX_WEIGHT, MAX_NORM = 1000.0, 1000.0


@dataclass
class Sample:
    """A valid reply, to be spoiled; `manifest` is what it uploads."""

    records: RecordDict
    terms: wire.Terms
    manifest: AdapterManifest

    @property
    def public(self) -> dict[str, Any]:
        """Its public fields, a copy."""
        return dict(self.records.config_records["terms"])

    @property
    def array(self) -> Array:
        """Its numbers."""
        return self.records.array_records["adapter"]["flat"]

    @property
    def body(self) -> bytes:
        """The bytes after the header of the array."""
        stream = io.BytesIO(self.array.data)
        return bytes(np.load(stream).tobytes())

    @property
    def plain(self) -> bytes:
        """These, not compressed."""
        return zlib.decompress(self.body) if self.public["compressed"] else self.body

    @property
    def values(self) -> np.ndarray:
        """The numbers of a float coding as words of that coding."""
        word = np.dtype(WIDTH[self.terms.coding])
        planes = np.frombuffer(self.plain, np.uint8).reshape(word.itemsize, -1)
        return planes.T.copy().reshape(-1).view(word)

    def put_terms(self, **changes: object) -> None:
        """Other public fields."""
        self.records["terms"] = ConfigRecord({**self.public, **changes})  # type: ignore[dict-item]

    def put_array(self, array: Array) -> None:
        """Another array."""
        self.records["adapter"] = ArrayRecord({"flat": array})

    def put_data(self, data: bytes) -> None:
        """Other bytes, header and all, of an array that says the same of itself."""
        self.put_array(Array("uint8", self.array.shape, "numpy.ndarray", data))

    def put_body(self, body: bytes, *, compressed: bool) -> None:
        """Other bytes under a header that is true."""
        self.put_array(Array(np.frombuffer(body, np.uint8)))
        self.put_terms(compressed=compressed)

    def put_values(self, words: np.ndarray) -> None:
        """Other numbers of a float coding, whatever they are."""
        planes = words.view(np.uint8).reshape(-1, words.itemsize).T
        self.put_body(planes.tobytes(), compressed=False)


Mutator = Callable[[Sample, random.Random], None]
MUTATORS: dict[str, tuple[frozenset[str], Mutator]] = {}  # filled by arrays.py and fields.py


def mutator(*checks: str) -> Callable[[Mutator], Mutator]:
    """List a mutator with the checks that may find what it does."""

    def listed(function: Mutator) -> Mutator:
        MUTATORS[function.__name__] = frozenset(checks), function
        return function

    return listed


def some_bytes(draw: random.Random, at_most: int) -> bytes:
    """Between one and so many random bytes."""
    return draw.randbytes(draw.randint(1, at_most))


def long_text(draw: random.Random) -> str:
    """What ends in no log: long, with line breaks and signs that move a terminal's cursor."""
    return "".join(draw.choices(string.printable + "\x1b\x00äß患者", k=draw.choice([300, 3_000, 70_000])))
