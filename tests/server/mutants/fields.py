"""Spoiled public fields, records and metrics."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord

from strategies import wire
from strategies.coding import CODINGS
from tests.server.mutants.sample import MAX_WEIGHT, MUTATORS, Sample, long_text, mutator

__all__ = ["MUTATORS"]

# --- the public fields ------------------------------------------------------------------------------------------------

_HASHES = ("config_sha256", "base_sha256", "known_sha256")


@mutator("round", "method", "rank", "alpha", "factors", "coding", "protocol", "hash")
def other_terms(sample: Sample, draw: random.Random) -> None:
    """One field is not what was sent."""
    other: dict[str, list[object]] = {
        "round_number": [-1, 0, 1, 3, 10**6, 10**7, 2**62],
        "method": ["fedit", "ffa", "fedsvd", "rolora", "flora", "flex", "fedsa", "fedavg", "", "Über", long_text(draw)],
        "rank": [-1, 0, 1, 3, 256, 257, 2**40],
        "alpha": [0.0, -2.0, 2.0 + 2**-50, 1e300, math.nan, math.inf],
        "trained": ["", "A", "B", "AB", "BA", "C", "ab", long_text(draw)],
        "uploaded": ["", "A", "B", "AB", "BA", "C", "ab", long_text(draw)],
        "coding": [*CODINGS, "", "pickle", long_text(draw)],
        "protocol": [-1, 0, 1, 3, 2**31],
    }
    digest = "".join(draw.choices("0123456789abcdef", k=64))
    other |= {name: [digest, digest.upper() + "A", digest[:-1], "../../etc", long_text(draw)] for name in _HASHES}
    name = draw.choice(sorted(other))
    different = [value for value in other[name] if value != sample.public[name]]
    sample.put_terms(**{name: draw.choice(different)})


@mutator("fields")
def a_field_of_another_type(sample: Sample, draw: random.Random) -> None:
    """Also one that Python holds to be equal: 1.0, True."""
    name, value = draw.choice(sorted(sample.public.items()))
    others: list[object] = [True, 1, 1.0, "1", b"1", [1], [1.0], ["1"], [], long_text(draw), long_text(draw).encode()]
    sample.put_terms(**{name: draw.choice([other for other in others if type(other) is not type(value)])})


@mutator("fields")
def a_field_is_missing(sample: Sample, draw: random.Random) -> None:
    public = sample.public
    del public[draw.choice(sorted(public))]
    sample.records["terms"] = ConfigRecord(public)


@mutator("weight")
def a_weight_that_no_site_has(sample: Sample, draw: random.Random) -> None:
    weights = [0.0, -0.0, -1.0, -1e-300, math.nan, math.inf, -math.inf, math.nextafter(MAX_WEIGHT, math.inf), 1e308]
    sample.put_terms(weight=draw.choice(weights))


@mutator("names", "shapes")
def another_manifest(sample: Sample, draw: random.Random) -> None:
    """Well-formed, and not what is to come back."""
    entries = [(name, list(shape)) for name, shape in sample.manifest.entries]
    place = draw.randrange(len(entries))
    name, shape = entries[place]
    axis = draw.randrange(len(shape))
    case = draw.randrange(7)
    if case == 0:
        entries = [*entries, draw.choice(entries)]  # twice
    elif case == 1:
        entries = entries[:place] + entries[place + 1 :]
    elif case == 2:
        names = ["aaa.lora_A.weight", "conv_in.weight", "patient_17", "layer.lora_C.weight", "x" * 300, long_text(draw)]
        names += [f"{name[:-7]}.residual.weight", "l" * 188 + ".lora_A.weight", f"{name}\n"]
        entries[place] = (draw.choice(names), shape)
    elif case == 3:
        entries.append(("zzz.lora_B.weight", [1]))
    elif case == 4:
        shape[axis] += draw.choice([1, -1, 7, -shape[axis], -2 * shape[axis], 10**15])
    elif case == 5:
        entries[place] = (name, [*shape, 1])
    else:
        entries[place] = (name, [math.prod(shape)])
    sample.put_terms(manifest=json.dumps(entries, separators=(",", ":")))


@mutator("manifest", "names", "shapes", "reply")
def no_manifest(sample: Sample, draw: random.Random) -> None:
    """A text that does not hold the names of the agreed tensors once each, each with a list of whole numbers."""
    name = sample.manifest.names[0]
    texts = ["", "[[", "{}", "[]", "null", "1", "[" * 60_000, "[[]]", "[[1,[2]]]", "NaN", f'[["{name}"]]', '{"a":[2]}']
    texts += [f'[["{name}",[{"9" * 4000},{"9" * 4000}]]]']  # a product too long for Python to write down
    texts += [f'[["{name}",[{size}]]]' for size in ("true", "2.0", '"2"', "1e3", "[2]", "null", "9" * 5000, "Infinity")]
    sample.put_terms(manifest=draw.choice([*texts, long_text(draw), sample.manifest.text[: -draw.randint(1, 9)]]))


# --- records and metrics ----------------------------------------------------------------------------------------------

_RECORDS: tuple[Callable[[], ArrayRecord | ConfigRecord | MetricRecord], ...] = (
    lambda: ArrayRecord({"flat": Array(np.zeros(3, np.uint8))}),
    lambda: ConfigRecord({"note": "x"}),
    lambda: MetricRecord({"loss": 1.0}),
    ArrayRecord,
    ConfigRecord,
    MetricRecord,
)


@mutator("records")
def one_more_record(sample: Sample, draw: random.Random) -> None:
    name = draw.choice(["photographs", "adapter2", "", "Adapter", long_text(draw)])
    sample.records[name] = draw.choice(_RECORDS)()


@mutator("records")
def one_record_less(sample: Sample, draw: random.Random) -> None:
    del sample.records[draw.choice(["adapter", "terms", "metrics"])]


@mutator("records")
def another_kind_of_record(sample: Sample, draw: random.Random) -> None:
    kinds = {"adapter": (1, 2, 4, 5), "terms": (0, 2, 3, 5), "metrics": (0, 1, 3, 4)}
    name = draw.choice(sorted(kinds))
    sample.records[name] = _RECORDS[draw.choice(kinds[name])]()


@mutator("records")
def other_arrays(sample: Sample, draw: random.Random) -> None:
    """None, two, or one of another name."""
    flat, more = sample.array, draw.choice(["a", "z", "weights", long_text(draw)])
    arrays = draw.choice([{}, {more: flat}, {"flat": flat, more: flat}, {more: flat, "flat": flat}])
    sample.records["adapter"] = ArrayRecord(arrays)


@mutator("records")
def nothing(sample: Sample, draw: random.Random) -> None:  # noqa: ARG001 (the interface)
    sample.records.clear()


@mutator("metrics")
def numbers_that_are_not_public(sample: Sample, draw: random.Random) -> None:
    """Of another name, not finite, or many instead of one; beside those that are allowed, or alone."""
    kept = dict(sample.records.metric_records["metrics"]) if draw.random() < 0.5 else {}
    secret: dict[str, Any] = {
        draw.choice(["patient_17", "age", "", "Loss", long_text(draw)]): draw.choice([1, 1.5, [1.0]])
    }
    odd: dict[str, Any] = {
        draw.choice(sorted(wire.PUBLIC_METRICS)): draw.choice([math.nan, math.inf, [1.0], [2, 3], []])
    }
    sample.records["metrics"] = MetricRecord(kept | draw.choice([secret, odd]))
