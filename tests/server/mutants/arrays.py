"""Spoiled numbers: the bytes of the array, the values in them, and their compression."""

from __future__ import annotations

import random
import zlib

import numpy as np
from flwr.app import Array

from strategies.coding import longest
from tests.server.mutants.sample import MUTATORS, WIDTH, Sample, long_text, mutator, some_bytes

__all__ = ["MUTATORS"]

# --- the bytes of the array -------------------------------------------------------------------------------------------


@mutator("length")
def body_of_another_length(sample: Sample, draw: random.Random) -> None:
    """The header still says the old one."""
    data, start = sample.array.data, len(sample.array.data) - len(sample.body)
    place = draw.randrange(start, len(data))
    if draw.random() < 0.5:
        sample.put_data(data[:place] + some_bytes(draw, 16) + data[place:])
    else:
        sample.put_data(data[:place] + data[min(len(data), place + draw.randint(1, 16)) :])


@mutator("length", "bytes")
def more_or_less_than_the_values_need(sample: Sample, draw: random.Random) -> None:
    """Under a true header: not compressed, only one length is right; compressed, the stream does not end at the end."""
    body, compressed = sample.body, sample.public["compressed"]
    changed = body + some_bytes(draw, 40) if draw.random() < 0.5 else body[: -draw.randint(1, len(body) - 1)]
    sample.put_body(changed, compressed=compressed)


@mutator("bytes")
def another_magic(sample: Sample, draw: random.Random) -> None:
    """One of the eight bytes that are the same in every file of this version."""
    data = bytearray(sample.array.data)
    data[draw.randrange(8)] ^= draw.randint(1, 255)
    sample.put_data(bytes(data))


@mutator("bytes", "dtype", "length")
def another_header(sample: Sample, draw: random.Random) -> None:
    """The header says other numbers than bytes, or another shape than the length of what follows, or nothing."""
    body = sample.body
    size = len(body)
    shapes = [
        (size + draw.randint(1, 99),),
        (size - draw.randint(1, size),),
        (1, size),
        (size, 1),
        (),
        (-size,),
        (10**12,),
    ]
    descr = "|u1"
    shape: tuple[int, ...] = (size,)
    if draw.random() < 0.5:
        descr = draw.choice(["<f4", ">f4", "|i1", "|b1", "|S1", "|O", "<u2", "<c16", "|V1", "no"])
    else:
        shape = draw.choice(shapes)
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}"
    junk = draw.choice(["(" * 90, "[" * 500, "{'descr':", "__import__('os')", "'" * 99, "{}", "\x00" * 20, "9" * 900])
    header = (junk if draw.random() < 0.3 else text).encode() + b"\n"
    sample.put_data(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + body)


@mutator("bytes")
def no_array_at_all(sample: Sample, draw: random.Random) -> None:
    """The first byte is not that of the magic; also nothing, and the beginning of a header."""
    other = bytes([draw.choice([byte for byte in range(256) if byte != 0x93])]) + some_bytes(draw, 200)
    sample.put_data(draw.choice([other, b"", sample.array.data[: draw.randint(1, 60)]]))


@mutator("dtype")
def an_array_that_says_it_holds_something_else(sample: Sample, draw: random.Random) -> None:
    kind = draw.choice(["float32", "int8", "object", "", "uint8 ", long_text(draw)])
    sample.put_array(Array(kind, sample.array.shape, "numpy.ndarray", sample.array.data))


@mutator("dtype")
def numbers_instead_of_bytes(sample: Sample, draw: random.Random) -> None:
    kind = draw.choice([np.float64, np.float32, np.float16, np.int8, np.int64, np.bool_])
    sample.put_array(Array(np.ones(draw.randint(0, sample.manifest.parameters // 8), kind)))


@mutator("length")
def oversize(sample: Sample, draw: random.Random) -> None:
    """Longer than the longest header and the longest body together."""
    size = longest(sample.terms.coding, sample.manifest.parameters) + 1024 + draw.choice([1, 100, 1_000_000])
    sample.put_body(bytes(size), compressed=draw.random() < 0.5)


# --- the numbers ------------------------------------------------------------------------------------------------------


@mutator("finite")
def not_a_number(sample: Sample, draw: random.Random) -> None:
    """NaN of any payload, or infinite: all bits of the exponent are set."""
    words = sample.values
    exponent, rest = {"float32": (0x7F800000, 31), "float16": (0x7C00, 15), "bfloat16": (0x7F80, 15)}[
        sample.terms.coding
    ]
    bits = words.view(f"<u{words.itemsize}")
    for place in draw.sample(range(bits.size), draw.randint(1, 5)):
        bits[place] = exponent | draw.getrandbits(rest + 1)
    sample.put_values(words)


@mutator("norm")
def far_away(sample: Sample, draw: random.Random) -> None:
    """The norm is that of P values of at least the largest norm each."""
    size = sample.manifest.parameters
    sign_P = np.array(draw.choices([-1.0, 1.0], k=size), np.float32)
    value_P = sign_P * np.float32(2.0 ** draw.randint(11, 15))  # every coding has these powers of two
    if sample.terms.coding == "int8":
        blocks = -(-size // 32)
        codes = np.zeros(blocks * 32, np.int8)
        codes[:size] = 64 * sign_P.astype(np.int8)
        sample.put_body(bytes([draw.randint(140, 250)]) * blocks + codes.tobytes(), compressed=False)
    elif sample.terms.coding == "bfloat16":
        sample.put_values((value_P.view(np.uint32) >> 16).astype("<u2"))
    else:
        sample.put_values(value_P.astype(WIDTH[sample.terms.coding]))


@mutator("code", "scale", "padding")
def a_block_that_is_not_canonical(sample: Sample, draw: random.Random) -> None:
    """A code that is not used, a scale that is not used or not the smallest, or a code after the last value."""
    size = sample.manifest.parameters
    blocks = -(-size // 32)
    plain = np.frombuffer(sample.plain, np.uint8).copy()
    scales, codes = plain[:blocks], plain[blocks:].view(np.int8).reshape(blocks, 32)
    block = draw.randrange(blocks - 1)  # a whole one
    case = draw.randrange(5)
    if case == 0:
        codes[block, draw.randrange(32)] = -128
    elif case == 1:
        scales[block] = draw.choice([1, 2, 3, 4, 5, 6, 255])
    elif case == 2:  # zeros have the byte 0
        codes[block], scales[block] = 0, draw.randint(7, 254)
    elif case == 3:  # half of these would be enough
        codes[block] = np.clip(codes[block], -63, 63)
        codes[block, 0], scales[block] = draw.randint(1, 63), draw.randint(8, 254)
    else:
        assert size % 32
        codes[-1, draw.randrange(size % 32, 32)] = draw.choice([-1, 1])
    sample.put_body(plain.tobytes(), compressed=False)


# --- compression ------------------------------------------------------------------------------------------------------


@mutator("bytes", "length")
def another_stream(sample: Sample, draw: random.Random) -> None:
    """Of zeros, which would be valid, but too many or too few of them, twice, with an end, or of another kind."""
    size = longest(sample.terms.coding, sample.manifest.parameters)
    whole = zlib.compress(bytes(size), draw.randint(1, 9))
    raw = zlib.compressobj(wbits=-15)
    gzip = zlib.compressobj(wbits=31)
    dictionary = zlib.compressobj(zdict=bytes(64))
    streams = [
        zlib.compress(bytes(size + draw.choice([1, 7, 1_000, 1_000_000, 20_000_000]))),  # a bomb
        zlib.compress(bytes(size - draw.randint(1, size))),
        whole + whole,
        whole + some_bytes(draw, 9),
        whole[: -draw.randint(1, len(whole))],
        zlib.compress(bytes(size), 0),  # stored: saves nothing
        raw.compress(bytes(size)) + raw.flush(),
        gzip.compress(bytes(size)) + gzip.flush(),
        dictionary.compress(bytes(size)) + dictionary.flush(),
    ]
    sample.put_body(draw.choice(streams), compressed=True)


@mutator("bytes")
def a_damaged_stream(sample: Sample, draw: random.Random) -> None:
    """Of zeros, with another checksum at its end, or one other bit in the header, which counts modulo 31."""
    data = bytearray(zlib.compress(bytes(longest(sample.terms.coding, sample.manifest.parameters))))
    if draw.random() < 0.5:
        data[draw.randrange(-4, 0)] ^= draw.randint(1, 255)
    else:
        data[draw.randrange(2)] ^= 1 << draw.randrange(8)
    sample.put_body(bytes(data), compressed=True)


@mutator("length")
def compressed_after_all(sample: Sample, draw: random.Random) -> None:
    """The field says the opposite: plain bytes are too long for compressed ones, and these too short for plain ones."""
    if draw.random() < 0.5:
        sample.put_body(sample.plain, compressed=True)
    else:
        size = longest(sample.terms.coding, sample.manifest.parameters)
        sample.put_body(zlib.compress(bytes(size)), compressed=False)
