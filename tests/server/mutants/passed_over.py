"""Replies that no site's encoder writes, though their numbers are right."""

from __future__ import annotations

import random

from flwr.app import Array

from tests.server.mutants.sample import Mutator, Sample


def one_more_field(sample: Sample, draw: random.Random) -> None:
    """Which nobody asked for."""
    sample.put_terms(**{f"patient_{draw.randint(1, 99)}": "a name"})


def a_note_in_the_header(sample: Sample, draw: random.Random) -> None:
    """Python's tokenizer takes it for a comment."""
    text = sample.array.data[10 : -len(sample.body)].rstrip() + f"# a name {draw.random()}\n".encode()
    sample.put_data(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + sample.body)


def another_shape_beside_the_array(sample: Sample, draw: random.Random) -> None:
    """Flower's own fields are not those of the header."""
    shape, kind = draw.choice([((draw.randint(0, 99),), "numpy.ndarray"), (sample.array.shape, "a name")])
    sample.put_array(Array("uint8", shape, kind, sample.array.data))


def a_manifest_in_other_words(sample: Sample, draw: random.Random) -> None:
    """The same JSON with spaces, or a letter written as its number."""
    text = sample.manifest.text
    sample.put_terms(manifest=draw.choice([text.replace(",", " , "), text.replace("layer", r"\u006cayer")]))


PASSED_OVER: dict[str, Mutator] = {
    function.__name__: function
    for function in (
        one_more_field,
        a_note_in_the_header,
        another_shape_beside_the_array,
        a_manifest_in_other_words,
    )
}
