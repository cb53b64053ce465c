"""The only format that crosses the border between a hospital and the coordinator.

    coordinator -- AdapterMessage --> hospital        the adapter of this round and the client part of the configuration
    hospital    -- AdapterUpdate  --> coordinator     the change of what it trained, its weight and a few public numbers
    hospital    -- SiteHello      --> coordinator     its public site name and the largest rank that it can train

Each travels as one Flower RecordDict with one array of bytes, written by `strategies.coding`: what goes down is
float32, so that every site starts from the same bits, what comes up is in the coding of the round's terms. Encoding
cannot express anything but LoRA factors and the public fields below; decoding checks everything before use and refuses
with a WireError that says check, name=value, bound.
"""

from __future__ import annotations

import io
import math
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from strategies import coding
from strategies.messages import (
    PROTOCOL_VERSION,
    AdapterMessage,
    AdapterUpdate,
    SiteHello,
    Terms,
    UpdateBounds,
)
from strategies.packing import AdapterManifest, FlatArray, check_finite, refusal

if TYPE_CHECKING:
    from collections.abc import Mapping


__all__ = [
    "PRIVATE_METRICS",
    "PROTOCOL_VERSION",
    "PUBLIC_METRICS",
    "AdapterMessage",
    "AdapterUpdate",
    "SiteHello",
    "Terms",
    "UpdateBounds",
    "decode_hello",
    "decode_message",
    "decode_update",
    "encode_hello",
    "encode_message",
    "encode_update",
]

PUBLIC_METRICS = frozenset({"loss", "steps", "patients", "images"})  # all that a hospital says about its training
PRIVATE_METRICS = frozenset({"steps", "epsilon_run", "epsilon_total"})  # and of a private run: nothing of the data
_MAX_METRIC = 1e12
_MAX_CONFIG = 65_536  # characters of the client part of the configuration
_ARRAYS, _TERMS, _METRICS, _FLAT = "adapter", "terms", "metrics", "flat"
_T = TypeVar("_T")
_MAX_HEADER = 1024  # bytes of the .npy header before the content


def encode_message(message: AdapterMessage) -> RecordDict:
    """Raises WireError if the message breaks its own rules."""
    _check_text("client_config", message.client_config)
    return _records(
        message.terms, message.manifest, message.flat_P, "float32", {"client_config": message.client_config}
    )


def decode_message(records: RecordDict) -> AdapterMessage:
    """Check all that a hospital can check without its model; base and manifest are compared with its own later.

    Raises:
        WireError: naming the failed check.
    """
    terms, public, manifest, flat_P = _parts(records, {_ARRAYS, _TERMS}, {"client_config"}, "float32")
    client_config = _value(public, "client_config", str)
    _check_text("client_config", client_config)
    manifest.only(terms.uploaded)  # refuses a message that asks for what it does not bring
    return AdapterMessage(terms, manifest, flat_P, client_config)


def encode_update(update: AdapterUpdate) -> RecordDict:
    """Raises WireError if the update breaks its own rules."""
    _check_weight(update.weight, math.inf)
    _check_metrics(update.metrics, private=bool(update.terms.privacy))
    records = _records(
        update.terms, update.manifest, update.change_P, update.terms.coding, {"weight": float(update.weight)}
    )
    records[_METRICS] = MetricRecord({name: float(update.metrics[name]) for name in sorted(update.metrics)})
    return records


def decode_update(records: RecordDict, bounds: UpdateBounds) -> AdapterUpdate:
    """The update, if it passes every check against what was sent this round.

    Raises:
        WireError: naming the failed check.
    """
    expected = bounds.sent
    terms, public, _, change_P = _parts(
        records, {_ARRAYS, _TERMS, _METRICS}, {"weight"}, expected.terms.coding, expected.uploaded
    )
    terms.check_equal(expected.terms)
    weight = _value(public, "weight", float)
    _check_weight(weight, bounds.max_weight)
    metrics = {str(name): _number(name, value) for name, value in records.metric_records[_METRICS].items()}
    _check_metrics(metrics, private=bool(expected.terms.privacy))
    norm = float(np.linalg.norm(change_P.astype(np.float64)))
    if norm > bounds.max_update_norm:
        raise refusal("norm", "update norm", norm, f"at most {bounds.max_update_norm}")
    return AdapterUpdate(terms, expected.uploaded, change_P, weight, metrics)  # one manifest for all of a rank


def encode_hello(hello: SiteHello) -> RecordDict:
    """The records of a hello."""
    public = ConfigRecord({"protocol": PROTOCOL_VERSION, "site": hello.site, "max_rank": hello.max_rank})
    return RecordDict({_TERMS: public})


def decode_hello(records: RecordDict) -> SiteHello:
    """Raises WireError if it is not exactly a hello of this protocol."""
    public = _public_fields(records, {_TERMS}, {"protocol", "site", "max_rank"})
    return SiteHello(_value(public, "site", str), _value(public, "max_rank", int))


def _records(
    terms: Terms,
    manifest: AdapterManifest,
    flat_P: FlatArray,
    written: coding.Coding,
    extra: Mapping[str, str | float],
) -> RecordDict:
    if flat_P.dtype != np.float32:
        raise refusal("dtype", "dtype", str(flat_P.dtype), "float32")
    if flat_P.shape != (manifest.parameters,):
        raise refusal("length", "array shape", flat_P.shape, f"({manifest.parameters},)")
    check_finite(manifest, flat_P)
    data, compressed = coding.encode(flat_P, written)
    public = {item.name: getattr(terms, item.name) for item in fields(terms)}
    public |= {"alpha": float(terms.alpha), "manifest": manifest.text, "compressed": compressed} | dict(extra)
    return RecordDict(
        {_ARRAYS: ArrayRecord({_FLAT: Array(np.frombuffer(data, np.uint8))}), _TERMS: ConfigRecord(public)}
    )


def _parts(
    records: RecordDict,
    expected_records: set[str],
    more_fields: set[str],
    written: coding.Coding,
    agreed: AdapterManifest | None = None,
) -> tuple[Terms, ConfigRecord, AdapterManifest, FlatArray]:
    """Terms, public fields, manifest and numbers of a message; `agreed` is the manifest that it must have."""
    names = {item.name for item in fields(Terms)} | {"manifest", "compressed"} | more_fields
    public = _public_fields(records, expected_records, names)
    terms = _terms(public)
    text = _value(public, "manifest", str)
    manifest = AdapterManifest.parse(text)
    if manifest.text != text:  # other words for the same have room for a message
        raise refusal("manifest", "manifest", text, "canonical JSON")
    if agreed is None:
        manifest.check_rank(terms.rank)
    else:
        manifest.check_equal(agreed)
    arrays = records.array_records[_ARRAYS]
    if list(arrays) != [_FLAT]:
        raise refusal("records", "arrays", sorted(arrays), f"['{_FLAT}']")
    longest = coding.longest(written, manifest.parameters)
    data = _bytes(arrays[_FLAT], longest)
    flat_P = coding.decode(data, _value(public, "compressed", bool), written, manifest.parameters)
    check_finite(manifest, flat_P)
    return terms, public, manifest, flat_P


def _terms(public: ConfigRecord) -> Terms:
    kinds = {"round_number": int, "rank": int, "protocol": int, "alpha": float}
    values: dict[str, Any] = {item.name: _value(public, item.name, kinds.get(item.name, str)) for item in fields(Terms)}
    return Terms(**values)


def _public_fields(records: RecordDict, expected: set[str], names: set[str]) -> ConfigRecord:
    kinds = {
        _ARRAYS: set(records.array_records),
        _TERMS: set(records.config_records),
        _METRICS: set(records.metric_records),
    }
    found = {str(name) for name in records}
    if found != expected or any(name not in kinds[name] for name in expected):
        raise refusal("records", "records", sorted(found), f"{sorted(expected)} of the right kinds")
    public = records.config_records[_TERMS]
    if (protocol := _value(public, "protocol", int)) != PROTOCOL_VERSION:
        raise refusal("protocol", "protocol", protocol, f"{PROTOCOL_VERSION}")
    if unknown := sorted({str(name) for name in public} - names):
        raise refusal("fields", "unknown field", unknown[0], "only the agreed ones")
    return public


def _bytes(array: Array, longest: int) -> bytes:
    """The bytes in a serialised array. The header is read before any memory for the numbers is taken."""
    if len(array.data) > _MAX_HEADER + longest:
        raise refusal("length", "array bytes", len(array.data), f"at most {_MAX_HEADER + longest}")
    stream = io.BytesIO(array.data)
    try:
        if np.lib.format.read_magic(stream) != (1, 0):
            raise ValueError("not a version 1.0 .npy header")
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    except Exception as error:  # numpy reads it with Python's tokenizer, which raises what it likes
        raise refusal("bytes", "array", "undecodable", "a .npy array") from error
    if dtype != np.dtype("u1") or array.dtype != "uint8":
        raise refusal("dtype", "array dtype", str(dtype), "uint8")
    body = array.data[stream.tell() :]
    if not shape == array.shape == (len(body),):
        raise refusal("length", "array shape", shape, f"({len(body)},)")
    plain = io.BytesIO()
    np.lib.format.write_array_header_1_0(plain, {"descr": "|u1", "fortran_order": False, "shape": shape})
    if not array.data.startswith(plain.getvalue()) or array.stype != "numpy.ndarray":
        raise refusal("bytes", "array header", "other than numpy's", "the one that numpy writes")
    return body


def _value(public: ConfigRecord, name: str, kind: type[_T]) -> _T:
    """A public field of exactly this type (bool is not an int here)."""
    if name not in public:
        raise refusal("fields", "missing field", name, "present")
    value = public[name]
    if type(value) is not kind:
        raise refusal("fields", name, value, f"of type {kind.__name__}")
    return value


def _number(name: object, value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise refusal("metrics", str(name), value, "one number")
    return float(value)


def _check_weight(weight: float, maximum: float) -> None:
    if not (math.isfinite(weight) and 1 <= weight <= maximum):  # it counts patients
        raise refusal("weight", "weight", weight, f"1 to {maximum}")


def _check_metrics(metrics: Mapping[str, float], *, private: bool) -> None:
    allowed = PRIVATE_METRICS if private else PUBLIC_METRICS
    for name, value in metrics.items():
        if name not in allowed:
            raise refusal("metrics", "metric", name, f"one of {sorted(allowed)}")
        if not abs(value) <= _MAX_METRIC:  # larger ones could not even be averaged
            raise refusal("metrics", name, value, f"finite and at most {_MAX_METRIC:g}")


def _check_text(name: str, text: str) -> None:
    if len(text) > _MAX_CONFIG:
        raise refusal("length", f"{name} characters", len(text), f"at most {_MAX_CONFIG}")
