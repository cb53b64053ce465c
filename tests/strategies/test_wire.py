"""Only a sound adapter passes the border, and a refusal says which check failed."""

from __future__ import annotations

import dataclasses
import io
import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ccfexp.errors import WireError
from strategies import wire
from strategies.packing import AdapterManifest, pack, unpack

if TYPE_CHECKING:
    from collections.abc import Callable

TERMS = wire.Terms(round_number=3, method="fedit", rank=2, alpha=4.0, config_sha256="a" * 64, base_sha256="b" * 64)
NAMES = ("mid.to_q.lora_A.weight", "mid.to_q.lora_B.weight", "down.0.conv1.lora_A.weight", "down.0.conv1.lora_B.weight")


def adapter(value: float = 0.5) -> dict[str, torch.Tensor]:
    shapes = ((2, 3), (4, 2), (2, 3, 1, 1), (5, 2, 1, 1))
    return {name: torch.full(shape, value) for name, shape in zip(NAMES, shapes, strict=True)}


SENT = wire.AdapterMessage.of(TERMS, adapter(), '{"seed":1}')
BOUNDS = wire.UpdateBounds(SENT, max_update_norm=10.0, max_weight=100.0)


def update(value: float = 1.0, weight: float = 8.0) -> wire.AdapterUpdate:
    return wire.AdapterUpdate.of(TERMS, adapter(value), weight, {"loss": 0.25, "steps": 4})


def with_terms(records: RecordDict, **changes: object) -> RecordDict:
    records["terms"] = ConfigRecord({**records.config_records["terms"], **changes})  # type: ignore[dict-item]
    return records


def with_array(records: RecordDict, array: Array, name: str = "flat") -> RecordDict:
    records["adapter"] = ArrayRecord({name: array})
    return records


@given(
    arrays.arrays(np.float32, st.integers(1, 40), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)),
    st.floats(1, 1e6),
)
@settings(max_examples=60, deadline=None)
def test_an_update_comes_back_bit_for_bit(values_P: np.ndarray, weight: float) -> None:
    state = {"block.conv.lora_B.weight": torch.from_numpy(values_P.copy()).reshape(-1, 1)}
    sent = wire.AdapterMessage.of(TERMS, state, "{}")
    records = wire.encode_update(wire.AdapterUpdate.of(TERMS, state, weight, {"loss": 1.5}))

    back = wire.decode_update(records, wire.UpdateBounds(sent, max_update_norm=1e40, max_weight=1e6))

    assert back.change_P.tobytes() == values_P.tobytes()
    assert (back.terms, back.weight, back.metrics) == (TERMS, weight, {"loss": 1.5})
    assert back.state()["block.conv.lora_B.weight"].shape == (values_P.size, 1)


def test_a_message_comes_back_bit_for_bit() -> None:
    back = wire.decode_message(wire.encode_message(SENT))

    assert back.terms == TERMS
    assert back.client_config == '{"seed":1}'
    assert back.manifest.sha256 == SENT.manifest.sha256
    assert all(torch.equal(back.state()[name], tensor) for name, tensor in adapter().items())


def test_a_message_survives_flowers_own_serialisation() -> None:
    from flwr.supercore.inflatable import inflatable_object as flower

    records = wire.encode_update(update())
    array = records.array_records["adapter"]["flat"]
    chunks = dict(array.slice_array())
    inflated = Array.inflate(array.deflate(), chunks)

    assert flower is not None
    assert inflated.data == array.data


def test_the_wire_costs_one_array_however_many_tensors() -> None:
    generator = torch.Generator().manual_seed(0)
    state = {f"block.{index:03d}.lora_A.weight": torch.randn(8, 64, generator=generator) for index in range(256)}
    records = wire.encode_update(wire.AdapterUpdate.of(TERMS, state, 1.0))
    public = records.config_records["terms"]
    size = len(records.array_records["adapter"]["flat"].data) + sum(len(str(value)) for value in public.values())

    assert len(records.array_records["adapter"]) == 1
    assert size / (256 * 8 * 64 * 4) <= 1.05


@pytest.mark.parametrize(
    "name",
    [
        "unet.conv_in.weight",
        "lora_A.weight",
        "x.lora_A.bias",
        "x.lora_C.weight",
        "x/../y.lora_A.weight",
        "x.lora_A.weight\n",
    ],
)
def test_a_name_outside_the_allow_list_cannot_be_encoded(name: str) -> None:
    with pytest.raises(WireError, match="check 'names'"):
        wire.AdapterUpdate.of(TERMS, {**adapter(), name: torch.zeros(1)}, 1.0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int32])
def test_only_float32_can_be_encoded(dtype: torch.dtype) -> None:
    with pytest.raises(WireError, match="check 'dtype'"):
        wire.AdapterUpdate.of(TERMS, {NAMES[0]: torch.zeros(2, 3, dtype=dtype)}, 1.0)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_cannot_be_encoded(value: float) -> None:
    with pytest.raises(WireError, match=r"check 'finite'.*mid.to_q.lora_B.weight"):
        wire.AdapterUpdate.of(TERMS, {**adapter(), NAMES[1]: torch.full((4, 2), value)}, 1.0)


@pytest.mark.parametrize("weight", [0.0, -1.0, math.nan, math.inf, 100.5])
def test_a_weight_out_of_bounds_is_refused(weight: float) -> None:
    with pytest.raises(WireError, match=r"check 'weight' failed: weight="):
        wire.decode_update(with_terms(wire.encode_update(update()), weight=weight), BOUNDS)


def test_a_public_number_that_is_not_allowed_cannot_be_encoded() -> None:
    with pytest.raises(WireError, match="check 'metrics'"):
        wire.encode_update(dataclasses.replace(update(), metrics={"patient_17": 1.0}))


def npy(values: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, values)
    return stream.getvalue()


P = SENT.manifest.parameters
FLAT = np.frombuffer(np.ones(P, np.float32).tobytes(), np.uint8)
OPEN_HEADER = b"\x93NUMPY\x01\x00\x0a\x00{'descr':\n"  # Python's tokenizer, which reads it, raises an error of its own
HUGE = npy(FLAT).replace(f"({4 * P},)".encode(), b"(99999999999,)"[: len(f"({4 * P},)") + 20])


def plain(records: RecordDict, values: np.ndarray) -> RecordDict:
    """The same update with other bytes, not compressed."""
    planes = values.astype(np.float32).view(np.uint8).reshape(-1, 4).T  # as `strategies.coding` writes them
    return with_terms(with_array(records, Array(np.frombuffer(planes.tobytes(), np.uint8))), compressed=False)


def as_bytes(data: bytes) -> Array:
    return Array("uint8", (4 * P,), "numpy.ndarray", data)


CHANGES: dict[str, tuple[str, Callable[[RecordDict], RecordDict]]] = {
    "older round": ("round", lambda r: with_terms(r, round_number=2)),
    "other protocol": ("protocol", lambda r: with_terms(r, protocol=1)),
    "protocol is not a number": ("fields", lambda r: with_terms(r, protocol="1")),
    "other method": ("method", lambda r: with_terms(r, method="fedsvd")),
    "other rank": ("rank", lambda r: with_terms(r, rank=4)),
    "other alpha": ("alpha", lambda r: with_terms(r, alpha=8.0)),
    "alpha NaN": ("alpha", lambda r: with_terms(r, alpha=math.nan)),
    "other configuration": ("hash", lambda r: with_terms(r, config_sha256="c" * 64)),
    "other base": ("hash", lambda r: with_terms(r, base_sha256="c" * 64)),
    "hash is no hash": ("hash", lambda r: with_terms(r, base_sha256="../../etc")),
    "other factors": ("factors", lambda r: with_terms(r, trained="B", uploaded="B")),
    "no such factors": ("factors", lambda r: with_terms(r, uploaded="C")),
    "other coding": ("coding", lambda r: with_terms(r, coding="int8")),
    "no such coding": ("coding", lambda r: with_terms(r, coding="pickle")),
    "compressed is text": ("fields", lambda r: with_terms(r, compressed="yes")),
    "compressed after all": ("length", lambda r: with_terms(r, compressed=False)),
    "manifest is no JSON": ("manifest", lambda r: with_terms(r, manifest="[[")),
    "manifest is deep": ("manifest", lambda r: with_terms(r, manifest="[" * 60_000)),
    "manifest with text sizes": ("manifest", lambda r: with_terms(r, manifest='[["a.lora_A.weight",["2"]]]')),
    "weight is text": ("fields", lambda r: with_terms(r, weight="8")),
    "weight is bool": ("fields", lambda r: with_terms(r, weight=True)),
    "two arrays": ("records", lambda r: _set(r, "adapter", ArrayRecord({"flat": Array(FLAT), "more": Array(FLAT)}))),
    "array of another name": ("records", lambda r: with_array(r, Array(FLAT), "weights")),
    "one more record": ("records", lambda r: _set(r, "photographs", ConfigRecord({"x": 1}))),
    "no metrics": ("records", lambda r: RecordDict({name: r[name] for name in ("adapter", "terms")})),
    "records of the wrong kind": ("records", lambda r: _set(r, "adapter", ConfigRecord({"x": 1}))),
    "metric not allowed": ("metrics", lambda r: _set(r, "metrics", MetricRecord({"age": 3.0}))),
    "metric NaN": ("metrics", lambda r: _set(r, "metrics", MetricRecord({"loss": math.nan}))),
    "metric list": ("metrics", lambda r: _set(r, "metrics", MetricRecord({"loss": [1.0, 2.0]}))),
    "garbage bytes": ("bytes", lambda r: with_array(r, as_bytes(b"\x00garbage"))),
    "cut short": ("length", lambda r: with_array(r, as_bytes(npy(FLAT)[:-1]))),
    "one number more": ("length", lambda r: plain(r, np.ones(P + 1, np.float32))),
    "wrong shape": ("length", lambda r: with_array(r, Array(FLAT.reshape(1, 4 * P)))),
    "a header that lies": ("length", lambda r: with_array(r, as_bytes(HUGE))),
    "a header without end": ("bytes", lambda r: with_array(r, as_bytes(OPEN_HEADER))),
    "very long": ("length", lambda r: plain(r, np.ones(P + 5000, np.float32))),
    "numbers instead of bytes": ("dtype", lambda r: with_array(r, Array(np.ones(P, np.float32)))),
    "NaN": ("finite", lambda r: plain(r, np.where(np.arange(P) == 4, np.nan, 1).astype(np.float32))),
    "infinite": ("finite", lambda r: plain(r, np.full(P, np.inf, np.float32))),
    "norm": ("norm", lambda r: plain(r, np.full(P, 100, np.float32))),
}


def _set(records: RecordDict, name: str, record: ArrayRecord | ConfigRecord | MetricRecord) -> RecordDict:
    records[name] = record
    return records


@pytest.mark.parametrize("case", CHANGES)
def test_a_damaged_update_is_refused_by_the_check_it_breaks(case: str) -> None:
    check, change = CHANGES[case]

    with pytest.raises(WireError, match=f"wire check '{check}' failed: .*=.*, expected"):
        wire.decode_update(change(wire.encode_update(update())), BOUNDS)


@pytest.mark.parametrize(
    ("check", "state"),
    [
        ("names", {NAMES[0]: torch.zeros(2, 3)}),
        ("names", {**adapter(), "extra.lora_A.weight": torch.zeros(1)}),
        ("shapes", {**adapter(), NAMES[0]: torch.zeros(3, 2)}),
    ],
)
def test_an_update_with_other_tensors_is_refused(check: str, state: dict[str, torch.Tensor]) -> None:
    records = wire.encode_update(wire.AdapterUpdate.of(TERMS, state, 1.0))

    with pytest.raises(WireError, match=f"check '{check}'"):
        wire.decode_update(records, BOUNDS)


@given(st.binary(max_size=300))
@settings(max_examples=100, deadline=None)
def test_no_bytes_break_the_decoder(data: bytes) -> None:
    records = with_array(wire.encode_update(update()), as_bytes(data))

    with pytest.raises(WireError):
        wire.decode_update(records, BOUNDS)


@given(st.text(max_size=80))
@settings(max_examples=100, deadline=None)
def test_no_text_breaks_the_manifest(text: str) -> None:
    with pytest.raises(WireError):
        AdapterManifest.parse(text)


def test_a_refusal_never_repeats_a_long_foreign_text() -> None:
    with pytest.raises(WireError) as refused:
        wire.decode_update(with_terms(wire.encode_update(update()), base_sha256="x" * 5000), BOUNDS)

    assert len(str(refused.value)) < 300


def test_packing_sorts_names_whatever_the_order_of_the_state() -> None:
    state = adapter()
    manifest, flat_P = pack(state)
    other_manifest, other_P = pack(dict(reversed(state.items())))

    assert manifest == other_manifest
    assert manifest.names == tuple(sorted(NAMES))
    assert flat_P.tobytes() == other_P.tobytes()


def test_unpacked_tensors_are_fresh() -> None:
    manifest, flat_P = pack(adapter())
    unpack(manifest, flat_P)[NAMES[0]].zero_()

    assert (flat_P == 0.5).all()


def test_hello_round_trip_and_refusals() -> None:
    assert wire.decode_hello(wire.encode_hello(wire.SiteHello("site-A", 4))) == wire.SiteHello("site-A", 4)
    with pytest.raises(WireError, match="check 'rank'"):
        wire.SiteHello("A", 0)
    with pytest.raises(WireError, match="check 'site'"):
        wire.SiteHello("../patients")
    with pytest.raises(WireError, match="check 'protocol'"):
        wire.decode_hello(RecordDict({"terms": ConfigRecord({"protocol": 7, "site": "A"})}))
    with pytest.raises(WireError, match="check 'records'"):
        wire.decode_hello(RecordDict())


@pytest.mark.parametrize(
    ("extra", "rank"),
    [
        ({}, 1),
        ({"mid.to_q.lora_A.residual.weight": (300, 3), "mid.to_q.lora_B.residual.weight": (4, 300)}, 2),
    ],
)
def test_a_message_whose_tensors_are_not_of_its_rank_is_refused(extra: dict[str, tuple[int, ...]], rank: int) -> None:
    """Nor is a base residual larger than any rule makes one."""
    state = adapter() | {name: torch.zeros(shape) for name, shape in extra.items()}
    records = wire.encode_message(wire.AdapterMessage.of(dataclasses.replace(TERMS, rank=rank), state, "{}"))

    with pytest.raises(WireError, match="check 'rank'"):
        wire.decode_message(records)


@pytest.mark.parametrize("value", [1e13, -1.7e308])
def test_a_public_number_that_could_not_be_averaged_is_refused(value: float) -> None:
    with pytest.raises(WireError, match="check 'metrics'"):
        wire.encode_update(dataclasses.replace(update(), metrics={"loss": value}))
