"""How the numbers of an adapter's change (trained minus sent, float32 [P]) become bytes, and back.

    float32     4 bytes a value     as they are
    float16     2 bytes             IEEE 754 binary16; at most 65504, step 2^-24 below 2^-14
    bfloat16    2 bytes             the upper half of a float32; its range, 8 significant bits
    int8        33 bytes for 32     MXINT8: 32 codes and one power of two, code/64 * 2^(byte - 127)

Rounding and writing are two steps. `representable` rounds, at random and without bias, so that the mean over hospitals
and rounds loses nothing but noise; `encode` only writes and refuses what it would have to round. What is decoded can
therefore be encoded again, by a hospital's gate that trusts no bytes but its own, to the same values and the same plain
bytes. Powers of two as scales are what makes this hold for int8: dividing by one is exact.

MXINT8: OCP Microscaling Formats (MX) Specification 1.0, 2023. Its code -128 is unused here, so codes are symmetric.
Of the many ways to write a block the only one accepted has the smallest scale: byte 0 and codes 0 for a block of zeros,
else a byte of 7 to 254 with a code of at least +-64 unless the byte is 7. Byte 7 is the step 2^-126, so that a scale is
never subnormal; smaller changes are rounded to a multiple of it, as always without bias.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Final, Literal, get_args

import numpy as np
import numpy.typing as npt

from strategies.packing import MAX_PARAMETERS, FlatArray, refusal

if TYPE_CHECKING:
    from ccfexp.errors import WireError

Coding = Literal["float32", "float16", "bfloat16", "int8"]
CODINGS: Final[tuple[Coding, ...]] = get_args(Coding)
BLOCK: Final = 32  # values that share a scale

_LARGEST: Final[dict[Coding, float]] = {
    "float32": float(np.finfo(np.float32).max),
    "float16": 65504.0,
    "bfloat16": 255 * 2.0**120,
    "int8": 127 * 2.0**121,
}
_WIDTH: Final[dict[Coding, int]] = {"float32": 4, "float16": 2, "bfloat16": 2}  # bytes a value
_MANTISSA: Final[dict[Coding, int]] = {"float16": 10, "bfloat16": 7}  # stored bits
_SMALLEST_NORMAL: Final[dict[Coding, float]] = {"float16": 2.0**-14, "bfloat16": 2.0**-126}
_FIRST_BYTE, _LAST_BYTE = 7, 254  # of a block that is not zero
_BYTE_OF_ONE = 127 + 6  # the byte of the step 1: E8M0 is biased by 127, and MXINT8 codes count sixty-fourths
_PAYS = 95  # per cent of the plain bytes that compressed bytes may have

_Bytes = npt.NDArray[np.uint8]
_Codes = npt.NDArray[np.int8]


def longest(coding: Coding, parameters: int) -> int:
    """The largest number of bytes of `parameters` encoded values, which is also their number when not compressed.

    Raises:
        WireError: a coding that does not exist, or a number of parameters that no adapter has.
    """
    if coding not in CODINGS:
        raise refusal("coding", "coding", coding, f"one of {', '.join(CODINGS)}")
    if not 1 <= parameters <= MAX_PARAMETERS:
        raise refusal("length", "parameters", parameters, f"1 to {MAX_PARAMETERS}")
    if coding == "int8":
        return _blocks(parameters) * (1 + BLOCK)
    return parameters * _WIDTH[coding]


def representable(change_P: FlatArray, coding: Coding, random: np.random.Generator) -> FlatArray:
    """The change, float32 [P], each value rounded at random to one of its two neighbours in the coding.

    The mean over `random` is the value itself, to 2^-24 of the distance of the neighbours; a value that the coding has
    is returned as it is (for int8, which has one zero, -0 becomes 0). float32 changes nothing and draws nothing.

    Raises:
        WireError: not float32 [P], not finite, or beyond the largest value of the coding.
    """
    _check_values(change_P, coding)
    if coding == "float32":
        return change_P.copy()
    if coding != "int8":
        return _rounded(change_P, _spacing(change_P, coding), random)
    block_BK = _padded(change_P)
    step_B = _step(_scale_bytes(np.abs(block_BK).max(axis=1)))
    rounded_BK = _rounded(block_BK, step_B[:, None], random)
    rounded_BK += np.float32(0)  # -0 becomes 0
    return rounded_BK.reshape(-1)[: change_P.size]


def encode(value_P: FlatArray, coding: Coding) -> tuple[bytes, bool]:
    """The bytes of float32 [P] and whether they are compressed, which is so when it saves a twentieth or more.

    The same values give the same bytes; for int8, -0 is written as 0.

    Raises:
        WireError: not float32 [P], not finite, beyond the largest value of the coding, or between two of its values.
    """
    _check_values(value_P, coding)
    plain = _int8_bytes(value_P) if coding == "int8" else _float_bytes(value_P, coding)
    # The numbers are noise: nothing repeats but zeros, and what is gained is gained by the entropy code. Looking for
    # runs alone is several times faster than looking for any repetition, and the result is no longer.
    packer = zlib.compressobj(level=1, strategy=zlib.Z_RLE)
    packed = packer.compress(plain) + packer.flush()
    return (packed, True) if _pays(len(packed), len(plain)) else (plain, False)


def decode(data: bytes, compressed: bool, coding: Coding, parameters: int) -> FlatArray:
    """The float32 [P], P = `parameters`, in foreign bytes; fresh, writable and finite.

    Encoding them gives the same plain bytes again. What the compressor makes of these is not compared, since another
    version of it may write other bytes or decide otherwise; compressed bytes must save a twentieth, and no more is
    unpacked than the values need.

    Raises:
        WireError: bytes that `encode` cannot have made.
    """
    expected = longest(coding, parameters)
    plain = _unpacked(data, expected) if compressed else data
    if len(plain) != expected:
        raise refusal("length", f"{coding} bytes", len(plain), f"{expected}")
    value_P = _int8_values(plain, parameters) if coding == "int8" else _float_values(plain, coding, parameters)
    if not np.isfinite(value_P).all():
        raise refusal("finite", f"{coding} values", "NaN or infinite", "finite values only")
    return value_P


# --- rounding ---------------------------------------------------------------------------------------------------------


def _rounded(value: FlatArray, step: FlatArray, random: np.random.Generator) -> FlatArray:
    """The values rounded to a multiple of their step: up with the probability of the part of a step that is left over.

    Steps are powers of two, so that every operation but the draw is exact (a quotient too small for float32 counts as
    0). Magnitudes are rounded, not values, because the part left over of a tiny negative value would be rounded itself,
    to a whole step.
    """
    steps = np.abs(value)
    steps /= step
    whole = np.floor(steps)
    steps -= whole  # the part left over, in [0, 1)
    whole += random.random(value.shape, np.float32) < steps
    whole *= step
    return np.copysign(whole, value, out=whole)


def _spacing(value_P: FlatArray, coding: Coding) -> FlatArray:
    """The distance to the next larger magnitude in float16 or bfloat16: a power of two by value, float32 [P]."""
    # A float32 without its sign and mantissa bits is the power of two at or below its magnitude.
    power_P = (value_P.view(np.uint32) & np.uint32(0x7F800000)).view(np.float32)
    np.maximum(power_P, np.float32(_SMALLEST_NORMAL[coding]), out=power_P)
    power_P *= np.float32(2.0 ** -_MANTISSA[coding])
    return power_P


def _check_values(value_P: FlatArray, coding: Coding) -> None:
    """Raises WireError unless these are finite float32 [P] in the range of the coding."""
    if value_P.dtype != np.float32 or value_P.ndim != 1:
        raise refusal("dtype", "values", f"{value_P.dtype} of shape {value_P.shape}", "float32 [P]")
    longest(coding, value_P.size)
    if not np.isfinite(value_P).all():
        raise refusal("finite", "values", "NaN or infinite", "finite values only")
    largest = max(float(value_P.max()), -float(value_P.min()))
    if largest > _LARGEST[coding]:
        raise refusal("range", f"largest {coding} magnitude", largest, f"at most {_LARGEST[coding]:.8g}")


def _inexact(coding: Coding, count: int) -> WireError:
    return refusal("coding", f"values between two of {coding}", count, "0; round with `representable` first")


# --- float32, float16, bfloat16 ---------------------------------------------------------------------------------------


def _float_bytes(value_P: FlatArray, coding: Coding) -> bytes:
    """Byte planes, lowest bytes first, so that the bytes with the exponents, which resemble each other, are together.

    Raises WireError if a value would have to be rounded.
    """
    if coding == "float32":
        word_P: npt.NDArray[np.generic] = value_P.astype("<f4")
        back_P = value_P
    elif coding == "float16":
        with np.errstate(all="ignore"):  # what is lost is found below
            word_P = value_P.astype("<f2")
        back_P = word_P.astype(np.float32)
    else:
        bit_P = value_P.view(np.uint32)
        word_P = (bit_P >> 16).astype("<u2")
        back_P = (bit_P & np.uint32(0xFFFF0000)).view(np.float32)
    if inexact := int(np.count_nonzero(back_P != value_P)):
        raise _inexact(coding, inexact)
    return word_P.view(np.uint8).reshape(value_P.size, _WIDTH[coding]).T.tobytes()


def _float_values(plain: bytes, coding: Coding, parameters: int) -> FlatArray:
    """Float32 [P] from byte planes of the right length; NaN and infinite as written."""
    plane_WP = np.frombuffer(plain, np.uint8).reshape(_WIDTH[coding], parameters)
    byte_P = plane_WP.T.copy().reshape(-1)
    if coding == "float32":
        return byte_P.view("<f4").astype(np.float32, copy=False)
    if coding == "float16":
        with np.errstate(invalid="ignore"):  # a signalling NaN; it is refused later
            return byte_P.view("<f2").astype(np.float32)
    return (byte_P.view("<u2").astype(np.uint32) << 16).view(np.float32)


# --- int8 -------------------------------------------------------------------------------------------------------------


def _blocks(parameters: int) -> int:
    return -(-parameters // BLOCK)


def _padded(value_P: FlatArray) -> FlatArray:
    """Float32 [B, 32], the last block filled with zeros."""
    block_BK = np.zeros((_blocks(value_P.size), BLOCK), np.float32)
    block_BK.reshape(-1)[: value_P.size] = value_P
    return block_BK


def _scale_bytes(peak_B: FlatArray) -> _Bytes:
    """The scale byte of blocks with these largest magnitudes: the smallest with which 127 steps are enough."""
    fraction_B, power_B = np.frexp(peak_B)  # peak = fraction * 2^power, 1/2 <= fraction < 1; exact, unlike a logarithm
    byte_B = power_B - 7 + (fraction_B > np.float32(127 / 128)) + _BYTE_OF_ONE
    return np.where(peak_B == 0, 0, np.maximum(byte_B, _FIRST_BYTE)).astype(np.uint8)


def _step(byte_B: _Bytes) -> FlatArray:
    """What the code 1 is worth, float32 [B], normal numbers; for a block of zeros anything."""
    power_B = np.maximum(byte_B, _FIRST_BYTE).astype(np.int32) - _BYTE_OF_ONE
    return np.ldexp(np.float32(1), power_B)


def _int8_bytes(value_P: FlatArray) -> bytes:
    """The scale bytes of all blocks, then their codes. Raises WireError if a value would have to be rounded."""
    block_BK = _padded(value_P)
    byte_B = _scale_bytes(np.abs(block_BK).max(axis=1))
    step_B1 = _step(byte_B)[:, None]
    code_BK = (block_BK / step_B1).astype(np.int8)
    # The product, not the quotient, is compared: a quotient may be too small for float32 and look like a code of 0.
    if inexact := int(np.count_nonzero(np.multiply(code_BK, step_B1, dtype=np.float32) != block_BK)):
        raise _inexact("int8", inexact)
    return byte_B.tobytes() + code_BK.tobytes()


def _int8_values(plain: bytes, parameters: int) -> FlatArray:
    """Float32 [P] from bytes of the right length. Raises WireError unless they are the canonical ones."""
    blocks = _blocks(parameters)
    byte_B = np.frombuffer(plain, np.uint8, blocks)
    code_BK = np.frombuffer(plain, np.int8, offset=blocks).reshape(blocks, BLOCK)
    _check_blocks(byte_B, code_BK)
    if code_BK.reshape(-1)[parameters:].any():
        raise refusal("padding", "codes after the last value", "not zero", "0")
    value_BK = code_BK.astype(np.float32)
    value_BK *= _step(byte_B)[:, None]
    return value_BK.reshape(-1)[:parameters]


def _check_blocks(byte_B: _Bytes, code_BK: _Codes) -> None:
    """Raises WireError unless every code and scale byte is allowed and every block has the smallest scale."""
    if code_BK.min() == -128:
        raise refusal("code", "int8 code", -128, "-127 to 127")
    possible_B = (byte_B == 0) | ((byte_B >= _FIRST_BYTE) & (byte_B <= _LAST_BYTE))
    if not possible_B.all():
        worst = int(byte_B[np.argmin(possible_B)])
        raise refusal("scale", "scale byte", worst, f"0 or {_FIRST_BYTE} to {_LAST_BYTE}")
    peak_B = np.abs(code_BK).max(axis=1).astype(np.float32)
    smallest_B = _scale_bytes(peak_B * _step(byte_B))
    if (wrong_B := smallest_B != byte_B).any():
        first = int(np.argmax(wrong_B))
        raise refusal(
            "scale", "scale byte", int(byte_B[first]), f"{int(smallest_B[first])}, the smallest for its codes"
        )


# --- compression ------------------------------------------------------------------------------------------------------


def _pays(packed: int, plain: int) -> bool:
    return 100 * packed <= _PAYS * plain


def _unpacked(data: bytes, expected: int) -> bytes:
    """The plain bytes; never more than `expected` + 1 of them. Raises WireError if they are not one whole stream."""
    if not _pays(len(data), expected):
        raise refusal("length", "compressed bytes", len(data), f"at most {_PAYS} % of {expected}")
    stream = zlib.decompressobj()
    try:
        # One byte of room is left, so that the stream can be read to its end and a longer one shows.
        plain = stream.decompress(data, expected + 1)
    except zlib.error as error:
        raise refusal("bytes", "compressed bytes", "undecodable", "a zlib stream") from error
    if len(plain) != expected or not stream.eof or stream.unused_data:
        raise refusal("bytes", "compressed bytes", "too short or too long", f"one zlib stream of {expected} bytes")
    return plain
