"""What is written is read bit for bit, what is rounded is right in the mean, and foreign bytes are refused."""

from __future__ import annotations

import math
import re
import tracemalloc
import zlib
from typing import TYPE_CHECKING, TypeAlias
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ccfexp.errors import WireError
from strategies.coding import BLOCK, CODINGS, Coding, decode, encode, longest, representable
from strategies.packing import MAX_PARAMETERS, FlatArray

if TYPE_CHECKING:
    from collections.abc import Callable

Rounding: TypeAlias = "Callable[[FlatArray, Coding, np.random.Generator], FlatArray]"

ROUNDED: tuple[Coding, ...] = ("float16", "bfloat16", "int8")
TORCH: dict[Coding, torch.dtype] = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
LARGEST: dict[Coding, float] = {coding: float(torch.finfo(dtype).max) for coding, dtype in TORCH.items()}
LARGEST["int8"] = 127 / 64 * 2**127
SMALLEST: dict[Coding, float] = {"float32": 2**-149, "float16": 2**-24, "bfloat16": 2**-133, "int8": 2**-126}


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def normal(parameters: int, scale: float = 1e-4) -> FlatArray:
    return (random().standard_normal(parameters) * scale).astype(np.float32)


def unpacked(data: bytes, compressed: bool) -> bytes:
    return zlib.decompress(data) if compressed else data


def changes(coding: Coding) -> st.SearchStrategy[FlatArray]:
    """Arrays of 1 to 100 values of any magnitude that the coding has, zeros and subnormals among them."""
    anything = st.floats(-LARGEST[coding], LARGEST[coding], width=32)
    return arrays.arrays(np.float32, st.integers(1, 100), elements=st.one_of(anything, st.floats(-1, 1, width=32)))


def steps(value_P: FlatArray, coding: Coding) -> np.ndarray:
    """The distance of the two neighbours of each value, float64 [P], computed one by one."""
    if coding == "int8":
        found: list[float] = []
        for start in range(0, value_P.size, BLOCK):
            step = SMALLEST["int8"]
            while np.abs(value_P[start : start + BLOCK]).max() > 127 * step:
                step *= 2
            found += [step] * BLOCK
        return np.array(found[: value_P.size])
    bits = {"float32": 24, "float16": 11, "bfloat16": 8}[coding]
    return np.array([max(2.0 ** (math.frexp(float(value))[1] - bits), SMALLEST[coding]) for value in value_P])


# --- there and back ---------------------------------------------------------------------------------------------------


@given(st.sampled_from(CODINGS), st.data(), st.integers(0, 2**32 - 1))
@settings(max_examples=300, deadline=None)
def test_a_rounded_change_comes_back_bit_for_bit(coding: Coding, data: st.DataObject, seed: int) -> None:
    change_P = data.draw(changes(coding))
    value_P = representable(change_P, coding, random(seed))
    written, compressed = encode(value_P, coding)

    back_P = decode(written, compressed, coding, change_P.size)

    assert back_P.dtype == np.float32
    assert back_P.tobytes() == value_P.tobytes()
    assert encode(back_P, coding) == (written, compressed)
    assert representable(value_P, coding, random(seed + 1)).tobytes() == value_P.tobytes()


@given(st.sampled_from(CODINGS), st.data(), st.integers(0, 2**32 - 1))
@settings(max_examples=300, deadline=None)
def test_a_value_is_rounded_to_one_of_its_two_neighbours(coding: Coding, data: st.DataObject, seed: int) -> None:
    change_P = data.draw(changes(coding))

    value_P = representable(change_P, coding, random(seed))

    assert (np.abs(value_P.astype(np.float64) - change_P) < steps(change_P, coding)).all()
    if coding in TORCH:
        assert torch.from_numpy(value_P).to(TORCH[coding]).float().numpy().tobytes() == value_P.tobytes()
    if coding == "float32":
        assert value_P.tobytes() == change_P.tobytes()


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("parameters", [1, 31, 32, 33, 1000])
def test_results_are_fresh_and_inputs_left_alone(coding: Coding, parameters: int) -> None:
    change_P = normal(2 * parameters)[::2]  # values need not lie side by side
    before = change_P.tobytes()
    value_P = representable(change_P, coding, random())
    back_P = decode(*encode(value_P[::-1][::-1], coding), coding, parameters)
    value_P += 1
    back_P += 1

    assert change_P.tobytes() == before
    assert back_P.tobytes() == value_P.tobytes()


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("bound", [LARGEST, SMALLEST])
def test_the_largest_and_the_smallest_value_come_back(coding: Coding, bound: dict[Coding, float]) -> None:
    value_P = np.array([bound[coding], -bound[coding], 0], np.float32)

    assert representable(value_P, coding, random()).tobytes() == value_P.tobytes()
    assert decode(*encode(value_P, coding), coding, 3).tobytes() == value_P.tobytes()


@pytest.mark.parametrize(
    ("coding", "plain"),
    [
        ("float32", "00 00 00 00  00 00 00 00  80 80 40 80  3f bf 40 3f"),  # planes, lowest bytes first
        ("float16", "00 00 00 00  3c bc 42 3c"),
        ("bfloat16", "80 80 40 80  3f bf 40 3f"),
    ],
)
def test_the_layout_of_floats(coding: Coding, plain: str) -> None:
    assert unpacked(*encode(np.array([1, -1, 3, 1], np.float32), coding)) == bytes.fromhex(plain)


def test_the_layout_of_int8_is_that_of_the_specification() -> None:
    value_P = np.zeros(70, np.float32)
    value_P[:3] = 1, -0.5, 127 / 64  # a block whose scale is 1: byte 127, codes in sixty-fourths
    value_P[64] = -128 / 64  # more than 127/64: the next scale, byte 128

    plain = unpacked(*encode(value_P, "int8"))

    assert plain == bytes([127, 0, 128, 64, 256 - 32, 127]).ljust(3 + 64, b"\0") + bytes([256 - 64]).ljust(32, b"\0")


# --- right in the mean ------------------------------------------------------------------------------------------------


def nearest(change_P: FlatArray, coding: Coding, _: np.random.Generator) -> FlatArray:
    step_P = steps(change_P, coding)
    nearest_P: FlatArray = (np.rint(change_P / step_P) * step_P).astype(np.float32)
    return nearest_P


def worst_sigma(rounding: Rounding, change_P: FlatArray, coding: Coding, draws: int = 500) -> float:
    """The largest deviation of a value's mean over draws; one sigma of a draw is half a step, the most it can be."""
    generator = random(7)
    mean_P = np.mean([rounding(change_P, coding, generator) for _ in range(draws)], axis=0, dtype=np.float64)
    sigma_P = steps(change_P, coding) / 2 / math.sqrt(draws)
    return float(np.max(np.abs(mean_P - change_P) / sigma_P))


@pytest.mark.parametrize("coding", ROUNDED)
@pytest.mark.parametrize("scale", [1e-39, 1e-6, 1e-4, 1e3])  # subnormal float32, subnormal float16, usual, large
def test_rounding_is_right_in_the_mean_where_the_nearest_value_is_not(coding: Coding, scale: float) -> None:
    change_P = normal(200, scale)

    assert worst_sigma(representable, change_P, coding) < 5
    if scale > SMALLEST[coding]:  # else the nearest value, 0, is wrong by too little for so few draws
        assert worst_sigma(nearest, change_P, coding) > 20


@pytest.mark.parametrize("coding", ROUNDED)
def test_a_change_far_below_a_step_survives_in_the_mean(coding: Coding) -> None:
    change_P = np.full(BLOCK * 10_000, -SMALLEST[coding] / 64, np.float32)

    step_P = representable(change_P, coding, random()) / SMALLEST[coding]

    assert set(np.unique(step_P)) == {-1, 0}
    assert step_P.mean(dtype=np.float64) == pytest.approx(-1 / 64, abs=5 / 8 / math.sqrt(change_P.size))
    assert not nearest(change_P, coding, random()).any()  # however many hospitals sent it


@pytest.mark.parametrize("coding", ROUNDED)
@pytest.mark.parametrize("draw", [0, 1 - 2**-24])  # the least and the largest that there are
def test_no_draw_moves_a_value_that_the_coding_has_or_leaves_its_range(coding: Coding, draw: float) -> None:
    generator = Mock(spec=np.random.Generator)
    generator.random.side_effect = lambda shape, _: np.full(shape, draw, np.float32)
    largest = np.float32(LARGEST[coding])
    value_P = np.array([largest, -largest, 0, np.nextafter(largest, np.float32(0))], np.float32)

    rounded_P = representable(value_P, coding, generator)

    assert rounded_P[:3].tobytes() == value_P[:3].tobytes()
    assert (rounded_P[3] == largest) == (draw == 0)


@pytest.mark.parametrize("coding", ROUNDED)
def test_the_generator_decides_the_rounding(coding: Coding) -> None:
    first, again, other = (representable(normal(1000), coding, random(seed)).tobytes() for seed in (1, 1, 2))

    assert first == again
    assert first != other


# --- size -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("coding", "ratio"), [("float32", 1), ("float16", 0.5), ("bfloat16", 0.5), ("int8", 0.27)])
def test_the_size_is_bounded_by_the_coding(coding: Coding, ratio: float) -> None:
    value_P = representable(normal(1000), coding, random())

    assert len(encode(value_P, coding)[0]) <= longest(coding, 1000) <= ratio * 4 * 1000


@pytest.mark.parametrize("coding", CODINGS)
def test_compression_is_kept_only_where_it_pays(coding: Coding) -> None:
    zeros, zeros_compressed = encode(np.zeros(BLOCK * 1000, np.float32), coding)
    codes_BK = random().integers(-127, 128, (1000, BLOCK)).astype(np.float32)
    codes_BK[:, 0] = 64
    noise, noise_compressed = encode(codes_BK.ravel(), "int8")

    assert zeros_compressed
    assert len(zeros) < longest(coding, BLOCK * 1000) / 50
    assert not noise_compressed
    assert len(noise) == longest("int8", BLOCK * 1000)
    assert len(zlib.compress(noise, 1)) < len(noise)  # a little is to be gained: too little


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_refused(coding: Coding, value: float) -> None:
    value_P = np.array([0, value, 1], np.float32)

    for attempt in (lambda: representable(value_P, coding, random()), lambda: encode(value_P, coding)):
        with pytest.raises(WireError, match="check 'finite' failed: values='NaN or infinite', expected"):
            attempt()


@pytest.mark.parametrize("coding", ROUNDED)
@pytest.mark.parametrize("sign", [1, -1])
def test_a_value_beyond_the_coding_is_refused_and_the_bound_named(coding: Coding, sign: int) -> None:
    value_P = np.array([0, sign * np.nextafter(np.float32(LARGEST[coding]), np.float32(np.inf))], np.float32)
    bound = re.escape(f"expected at most {LARGEST[coding]:.8g}")

    for attempt in (lambda: representable(value_P, coding, random()), lambda: encode(value_P, coding)):
        with pytest.raises(WireError, match=f"check 'range' failed: largest {coding} magnitude=.*, {bound}$"):
            attempt()


@pytest.mark.parametrize("coding", ROUNDED)
@pytest.mark.parametrize("values", [[1 + 2**-20], [2**-149], [1, 2**-149], [2.0**127, 2**-20, 2**-149]])
def test_a_value_between_two_of_the_coding_cannot_be_encoded(coding: Coding, values: list[float]) -> None:
    value_P = np.array(values, np.float32)[-2:]

    with pytest.raises(WireError, match=f"check 'coding' failed: values between two of {coding}="):
        encode(value_P, coding)


@pytest.mark.parametrize(
    "values", [np.zeros(3), np.zeros(3, np.float16), np.zeros((3, 1), np.float32), np.zeros(3, ">f4")]
)
def test_only_flat_float32_can_be_encoded(values: np.ndarray) -> None:
    with pytest.raises(WireError, match="check 'dtype'"):
        encode(values, "int8")
    with pytest.raises(WireError, match="check 'dtype'"):
        representable(values, "float32", random())


def test_what_no_adapter_has_is_refused() -> None:
    with pytest.raises(WireError, match="check 'coding' failed: coding='float64'"):
        longest("float64", 1)  # type: ignore[arg-type]
    for parameters in (-1, 0, MAX_PARAMETERS + 1):
        with pytest.raises(WireError, match="check 'length' failed: parameters="):
            decode(b"", False, "float32", parameters)


P = 40  # a whole block and eight values of the next
PLAIN = bytes([127, 120, 64, *range(31), 1, 100, 255, 2, 3, 4, 5, 156]) + bytes(24)
ZEROS = zlib.compress(bytes(len(PLAIN)))


def changed(position: int, value: int) -> bytes:
    return PLAIN[:position] + bytes([value]) + PLAIN[position + 1 :]


def floats(coding: Coding, high: int, low: int) -> bytes:
    """Zeros and one value with these two highest bytes."""
    plain = bytearray(longest(coding, P))
    plain[-P], plain[-2 * P] = high, low
    return bytes(plain)


WRONG: dict[str, tuple[str, bytes, bool, Coding]] = {
    "nothing": ("length", b"", False, "int8"),
    "cut short": ("length", PLAIN[:-1], False, "int8"),
    "one byte more": ("length", PLAIN + b"\0", False, "int8"),
    "of another coding": ("length", bytes(2 * P), False, "float32"),
    "code -128": ("code", changed(5, 128), False, "int8"),
    "scale byte of NaN": ("scale", changed(0, 255), False, "int8"),
    "scale byte of a subnormal": ("scale", changed(0, 6), False, "int8"),
    "scale byte 0 for codes": ("scale", changed(0, 0), False, "int8"),
    "a scale for zeros": ("scale", PLAIN[:34] + bytes(32), False, "int8"),
    "twice the smallest scale": ("scale", changed(2, 63), False, "int8"),
    "padding": ("padding", changed(len(PLAIN) - 1, 1), False, "int8"),
    "float32 NaN": ("finite", floats("float32", 0x7F, 0xC0), False, "float32"),
    "float32 signalling NaN": ("finite", floats("float32", 0x7F, 0xA0), False, "float32"),
    "float32 infinite": ("finite", floats("float32", 0xFF, 0x80), False, "float32"),
    "no zlib": ("bytes", b"\x00garbage", True, "int8"),
    "nothing as zlib": ("bytes", b"", True, "int8"),
    "a stream cut short": ("bytes", ZEROS[:-1], True, "int8"),
    "a stream with a wrong checksum": ("bytes", ZEROS[:-1] + b"\xff", True, "int8"),
    "a stream with something after it": ("bytes", ZEROS + b"\0", True, "int8"),
    "two streams": ("bytes", zlib.compress(bytes(33)) * 2, True, "int8"),
    "a stream of too few bytes": ("bytes", zlib.compress(bytes(len(PLAIN) - 1)), True, "int8"),
    "a stream of too many bytes": ("bytes", zlib.compress(bytes(len(PLAIN) + 1)), True, "int8"),
    "a stream that does not pay": ("length", zlib.compress(PLAIN, 0), True, "int8"),
    "a sound stream of wrong codes": ("code", zlib.compress(bytes([127, 0]) + b"\x80" * 64), True, "int8"),
}


def test_the_bytes_that_the_refusals_start_from_are_sound() -> None:
    assert decode(PLAIN, False, "int8", P)[0] == 1
    assert not decode(ZEROS, True, "int8", P).any()
    assert decode(floats("float32", 0x3F, 0x80), False, "float32", P)[0] == 1


@pytest.mark.parametrize("case", WRONG)
def test_wrong_bytes_are_refused_by_the_check_they_break(case: str) -> None:
    check, data, compressed, coding = WRONG[case]

    with pytest.raises(WireError, match=f"wire check '{check}' failed: .*=.*, expected"):
        decode(data, compressed, coding, P)


@pytest.mark.parametrize("coding", ["float16", "bfloat16"])
def test_of_all_patterns_of_sixteen_bits_the_finite_ones_are_read(coding: Coding) -> None:
    pattern_P = np.arange(65536, dtype=np.uint16)
    expected_P = torch.from_numpy(pattern_P.view(np.int16)).view(TORCH[coding]).float().numpy()
    finite_P = np.isfinite(expected_P)
    plain = pattern_P[finite_P].astype("<u2").view(np.uint8).reshape(-1, 2).T.tobytes()

    assert decode(plain, False, coding, len(plain) // 2).tobytes() == expected_P[finite_P].tobytes()
    assert np.count_nonzero(~finite_P) == {"float16": 2048, "bfloat16": 256}[coding]
    for pattern in pattern_P[~finite_P]:
        with pytest.raises(WireError, match="check 'finite'"):
            decode(pattern.astype("<u2").tobytes(), False, coding, 1)


@pytest.mark.parametrize("coding", CODINGS)
def test_a_bomb_takes_no_more_memory_than_the_values(coding: Coding) -> None:
    bomb = zlib.compress(bytes(50_000_000))
    parameters = 2 * len(bomb)  # so that its length is no reason to refuse it
    tracemalloc.start()
    try:
        with pytest.raises(WireError, match="check 'bytes'"):
            decode(bomb, True, coding, parameters)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert most < 2 * longest(coding, parameters) + 100_000  # and the decompressor's own window


@given(st.sampled_from(CODINGS), st.integers(1, 70), st.booleans(), st.data())
@settings(max_examples=400, deadline=None)
def test_no_bytes_break_the_decoder(coding: Coding, parameters: int, compressed: bool, data: st.DataObject) -> None:
    size = longest(coding, parameters)
    sent = data.draw(st.one_of(st.binary(max_size=300), st.binary(min_size=size, max_size=size)))
    sent = zlib.compress(sent) if data.draw(st.booleans()) else sent
    try:
        value_P = decode(sent, compressed, coding, parameters)
    except WireError:
        return

    assert value_P.shape == (parameters,)
    assert np.isfinite(value_P).all()
    assert unpacked(*encode(value_P, coding)) == unpacked(sent, compressed)


@given(st.integers(1, 70), st.data())
@settings(max_examples=400, deadline=None)
def test_int8_is_read_if_and_only_if_it_would_be_written(parameters: int, data: st.DataObject) -> None:
    scale, code = st.sampled_from([0, 6, 7, 8, 127, 254, 255]), st.sampled_from([0, 0, 0, 1, 63, 64, -1, -64, -127])
    blocks = -(-parameters // BLOCK)
    scales = data.draw(st.lists(scale, min_size=blocks, max_size=blocks))
    codes = np.zeros((blocks, BLOCK), np.int8)
    codes.reshape(-1)[:parameters] = data.draw(st.lists(code, min_size=parameters, max_size=parameters))
    plain = bytes(scales) + codes.tobytes()
    sound = all(
        (byte == 0 and peak == 0) or (byte == 7 and peak > 0) or (7 < byte < 255 and peak >= 64)
        for byte, peak in zip(scales, np.abs(codes).max(axis=1), strict=True)
    )
    try:
        value_P = decode(plain, False, "int8", parameters)
    except WireError:
        assert not sound
        return

    assert sound
    assert unpacked(*encode(value_P, "int8")) == plain
