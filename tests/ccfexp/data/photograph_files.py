"""Files as cameras, scanners and ill-wishers make them, built byte by byte where no library would write them."""

from __future__ import annotations

import io
import struct
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ccfexp.data.photographs import decode_photograph

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy.typing as npt

    Array = npt.NDArray[np.float64]

ADOBE_RGB = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))  # chromaticities, Adobe RGB (1998), 4.3.1.2
DISPLAY_P3 = ((0.68, 0.32), (0.265, 0.69), (0.15, 0.06))  # SMPTE EG 432-1, with the white point of sRGB
SRGB = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))  # IEC 61966-2-1
ADOBE_GAMMA = 563 / 256
_D65, _D50 = np.array([0.95047, 1.0, 1.08883]), np.array([0.9642, 1.0, 0.8249])
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def corners(width: int = 96, height: int = 64) -> npt.NDArray[np.uint8]:
    """A picture whose four quarters tell every turn and mirror image apart."""
    image_HW3 = np.zeros((height, width, 3), np.uint8)
    image_HW3[: height // 2, : width // 2] = (230, 30, 30)
    image_HW3[: height // 2, width // 2 :] = (30, 200, 30)
    image_HW3[height // 2 :, : width // 2] = (30, 30, 220)
    image_HW3[height // 2 :, width // 2 :] = (128, 128, 128)
    return image_HW3


def encode(image: Image.Image | npt.NDArray[np.uint8], kind: str, **options: object) -> bytes:
    """The bytes of a file that Pillow writes, or pillow-heif for HEIF."""
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    file = io.BytesIO()
    if kind == "HEIF":
        from pillow_heif import from_pillow

        from_pillow(image).save(file, **options)
    else:
        image.save(file, kind, **options)
    return file.getvalue()


def oriented(orientation: int) -> bytes:
    """EXIF that says how the pixels are turned."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


def png(image_HWC: npt.NDArray[Any], colour: int, extra: tuple[tuple[bytes, bytes], ...] = ()) -> bytes:
    """A PNG of 8 or 16 bits with further chunks before the pixels; colour type as in the standard."""
    height, width = image_HWC.shape[:2]
    bits = image_HWC.dtype.itemsize * 8
    rows = image_HWC.astype(image_HWC.dtype.newbyteorder(">")).reshape(height, -1)
    packed = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    chunks = ((b"IHDR", header), *extra, (b"IDAT", packed), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, data) for kind, data in chunks)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def chunks_of(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The chunks of a PNG file, each with its checksum compared."""
    at = 8
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        kind, content = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        assert chunk(kind, content) == data[at : at + 12 + length]
        yield kind, content
        at += 12 + length


def tiff(entries: dict[int, tuple[int, int, bytes]], pixels: bytes) -> bytes:
    """A little-endian TIFF of one directory: tag -> (type, count, four bytes of value); pixels begin at byte 8."""
    at = 8 + len(pixels)
    directory = struct.pack("<H", len(entries)) + b"".join(
        struct.pack("<HHI", tag, kind, count) + value.ljust(4, b"\0") for tag, (kind, count, value) in entries.items()
    )
    return b"II*\0" + struct.pack("<I", at) + pixels + directory + b"\0\0\0\0"


def to_xyz(primaries: tuple[tuple[float, float], ...]) -> Array:
    """Linear RGB of these primaries and D65 to XYZ, columns scaled to the white point."""
    columns = np.array([(x / y, 1.0, (1 - x - y) / y) for x, y in primaries]).T
    return columns * np.linalg.solve(columns, _D65)


def srgb_curve(linear: Array) -> Array:
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 1e-9) ** (1 / 2.4) - 0.055)


def srgb_linear(value: Array) -> Array:
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def in_srgb(
    value_3: tuple[int, ...], primaries: tuple[tuple[float, float], ...], decode: Callable[[Array], Array]
) -> Array:
    """The 8-bit sRGB value of a colour in another RGB space, from the two standards' formulas."""
    linear = decode(np.array(value_3, np.float64) / 255)
    linear_srgb = np.linalg.solve(to_xyz(SRGB), to_xyz(primaries) @ linear)
    return 255 * srgb_curve(linear_srgb.astype(np.float64))


def rgb_profile(primaries: tuple[tuple[float, float], ...], decode: Callable[[Array], Array]) -> bytes:
    """An ICC profile of three matrix columns, adapted to D50 by Bradford, and one curve."""
    adapt = np.linalg.inv(_BRADFORD) @ np.diag((_BRADFORD @ _D50) / (_BRADFORD @ _D65)) @ _BRADFORD
    columns = adapt @ to_xyz(primaries)
    tags = {kind + b"XYZ": _xyz(columns[:, index]) for index, kind in enumerate((b"r", b"g", b"b"))}
    curves = {kind + b"TRC": _curve(decode) for kind in (b"r", b"g", b"b")}
    return _profile(b"mntr", b"RGB ", b"XYZ ", tags | curves)


def grey_profile(decode: Callable[[Array], Array]) -> bytes:
    """An ICC profile of one curve."""
    return _profile(b"mntr", b"GRAY", b"XYZ ", {b"kTRC": _curve(decode)})


def cmyk_profile() -> bytes:
    """An ICC profile of neutral inks: cyan, magenta and yellow take 20 from L* = 100 each, black all of it."""
    inks = np.indices((2, 2, 2, 2)).reshape(4, -1)  # the last, black, changes fastest, as the standard has it
    lightness = np.where(inks[3] == 1, 0, 100 - 20 * inks[:3].sum(0))
    lab = np.stack([np.round(lightness * 2.55), np.full(16, 128), np.full(16, 128)], -1).astype(np.uint8)
    straight = bytes(range(256))
    table = b"mft1\0\0\0\0" + bytes((4, 3, 2, 0)) + struct.pack(">9i", *(np.eye(3, dtype=int) * 65536).ravel())
    table += straight * 4 + lab.tobytes() + straight * 3
    return _profile(b"prtr", b"CMYK", b"Lab ", {b"A2B0": table, b"A2B1": table})


def _curve(decode: Callable[[Array], Array]) -> bytes:
    values = np.round(decode(np.linspace(0, 1, 1024)) * 65535).astype(">u2")
    return b"curv" + struct.pack(">II", 0, 1024) + values.tobytes()


def _profile(device: bytes, space: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    """An ICC profile of version 2.4 (ICC.1:2001-04)."""
    tags = {
        b"desc": b"desc" + struct.pack(">II", 0, 2) + b"x\0" + b"\0" * 78,
        b"cprt": b"text" + b"\0\0\0\0" + b"x\0",
        b"wtpt": _xyz(_D50),
        **tags,
    }
    table, body, at = b"", b"", 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        table += name + struct.pack(">II", at + len(body), len(data))
        body += data + b"\0" * (-len(data) % 4)
    header = struct.pack(">I4sI4s4s4s", at + len(body), b"lcms", 0x02400000, device, space, connection)
    header += struct.pack(">6H", 2020, 1, 1, 0, 0, 0) + b"acsp" + b"\0" * 28 + _xyz(_D50)[8:]
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def _xyz(value_3: Array) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in value_3))


def decode(data: bytes, max_pixels: int = 10_000_000) -> tuple[np.ndarray[Any, Any], tuple[str, ...]]:
    decoded = decode_photograph(data, max_pixels=max_pixels)
    assert decoded.image_HW3.dtype == np.uint8
    return decoded.image_HW3, decoded.notes


def middles(image_HW3: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The colours in the middle of the four quarters."""
    height, width = image_HW3.shape[:2]
    return image_HW3[height // 4 :: height // 2, width // 4 :: width // 2].astype(int)
