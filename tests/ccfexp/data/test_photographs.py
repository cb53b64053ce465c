"""What a hospital's files hold becomes upright sRGB pixels, or a fixed reason; nothing else of them gets out."""

from __future__ import annotations

import io
import logging
import struct
import traceback
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ccfexp.data.files import BadFileError, decode_image
from ccfexp.data.photographs import (
    NOTE_ORIENTATION,
    NOTE_SEVERAL,
    encode_png,
)
from tests.ccfexp.data import photograph_files as files
from tests.ccfexp.data.photograph_files import decode, middles

if TYPE_CHECKING:
    from collections.abc import Callable

pytest.importorskip("pillow_heif")

KINDS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "PNG": {},
    "TIFF": {"compression": "tiff_lzw"},
    "WEBP": {"lossless": True},
    "AVIF": {"quality": 95, "subsampling": "4:4:4"},
    "HEIF": {"quality": 95, "chroma": 444},
}
PLANTED = "SMITH^JOHN"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", KINDS)
def test_every_orientation_in_every_format(kind: str, orientation: int) -> None:
    """The upright picture, stored as a camera stores it that was held so, comes upright out of the file."""
    stored_as: dict[int, Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]] = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }
    upright = files.corners()
    stored = np.ascontiguousarray(stored_as[orientation](upright))
    turn: dict[str, Any] = (
        {"tiffinfo": {0x0112: orientation}} if kind == "TIFF" else {"exif": files.oriented(orientation)}
    )
    image_HW3, notes = decode(files.encode(stored, kind, **KINDS[kind], **turn))
    assert image_HW3.shape == upright.shape
    assert np.abs(middles(image_HW3) - middles(upright)).max() <= 6
    assert notes == ()


@pytest.mark.parametrize("exif", [files.oriented(9), b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0" + b"\xa5" * 60])
def test_rubbish_for_exif_does_not_stop_a_good_picture(exif: bytes) -> None:
    image_HW3, notes = decode(files.encode(files.corners(), "PNG", exif=exif))
    np.testing.assert_array_equal(image_HW3, files.corners())
    assert set(notes) <= {NOTE_ORIENTATION}


def test_an_unknown_orientation_is_noted() -> None:
    assert decode(files.encode(files.corners(), "JPEG", exif=files.oriented(9)))[1] == (NOTE_ORIENTATION,)
    assert decode(files.encode(files.corners(), "JPEG", exif=files.oriented(0)))[1] == ()


def test_files_of_several_pictures() -> None:
    """A main picture is named by MPO and HEIC alone; of an animation or of pages nobody knows which is meant."""
    first, second = files.corners(), Image.fromarray(files.corners()[::-1].copy())
    image_HW3, notes = decode(files.encode(first, "MPO", save_all=True, append_images=[second.copy()], quality=95))
    assert np.abs(middles(image_HW3) - middles(files.corners())).max() <= 6
    assert notes == (NOTE_SEVERAL,)
    for kind in ("TIFF", "WEBP", "PNG", "AVIF"):
        with pytest.raises(BadFileError, match="holds several pictures"):
            decode(files.encode(first, kind, save_all=True, append_images=[second.copy()]))
    from pillow_heif import from_pillow

    heif = from_pillow(second)
    heif.add_from_pillow(Image.fromarray(first))
    file = io.BytesIO()
    heif.save(file, quality=95, primary_index=1)
    image_HW3, notes = decode(file.getvalue())
    assert np.abs(middles(image_HW3) - middles(files.corners())).max() <= 6
    assert notes == (NOTE_SEVERAL,)


def test_heif_is_not_registered_for_the_process() -> None:
    decode(files.encode(files.corners(), "HEIF"))
    assert "HEIF" not in Image.OPEN


@pytest.mark.parametrize("kind", ["GIF", "PPM", "TGA", "PCX", "ICO", "EPS", "PDF", "JPEG2000", "DDS"])
def test_no_other_format_is_tried(kind: str) -> None:
    with pytest.raises(BadFileError, match="is not a photograph that can be read"):
        decode(files.encode(files.corners(64, 64), kind))


@pytest.mark.parametrize(
    "data", [b"", b"\0", b"%!PS-Adobe-3.0 EPSF-3.0", b"8BPS\0\1", b"<svg xmlns='x'/>", b"\xff\xd8"]
)
def test_what_is_no_photograph(data: bytes) -> None:
    with pytest.raises(BadFileError, match="is not a photograph that can be read"):
        decode(data)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_truncated_file_is_refused(kind: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    data = files.encode(noise, kind, **KINDS[kind])
    with pytest.raises(BadFileError, match=r"is damaged or incomplete|is not a photograph"):
        decode(data[: int(len(data) * share)])


def test_the_declared_size_is_compared_before_any_pixel_is_read() -> None:
    """Headers of huge pictures without their pixels: too large, not damaged; Pillow's own bound says the same."""
    for side in (5_000, 12_000, 60_000):
        header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
        data = b"\x89PNG\r\n\x1a\n" + files.chunk(b"IHDR", header) + files.chunk(b"IDAT", zlib.compress(b"\0"))
        with pytest.raises(BadFileError, match=r"declares more pixels than limits\.pixels=10000000"):
            decode(data)
    for kind in KINDS:
        with pytest.raises(BadFileError, match=r"limits\.pixels=6143"):
            decode(files.encode(files.corners(), kind), max_pixels=96 * 64 - 1)
        decode(files.encode(files.corners(), kind), max_pixels=96 * 64)


@pytest.mark.parametrize("name", [b"zTXt", b"iTXt", b"iCCP"])
def test_bombs_in_the_metadata_of_png(name: bytes) -> None:
    packed = zlib.compress(b"\0" * 200_000_000, 9)
    head = {b"zTXt": b"k\0\0", b"iTXt": b"k\0\1\0\0\0", b"iCCP": b"k\0\0"}[name]
    with pytest.raises(BadFileError, match=r"is damaged or incomplete|is not a photograph"):
        decode(files.png(files.corners(), 2, ((name, head + packed),)))


@pytest.mark.parametrize("rows", [1, 2**31, 2**32 - 1])
@pytest.mark.parametrize("count", [0, 2**31, 2**32 - 1])
def test_absurd_strips_of_tiff(rows: int, count: int, capfd: pytest.CaptureFixture[str]) -> None:
    """Two billion rows to a strip and strips of four gigabytes: refused, without the memory, without a word."""
    entries = {
        256: (4, 1, struct.pack("<I", 64)), 257: (4, 1, struct.pack("<I", 64)), 258: (3, 1, struct.pack("<H", 8)),
        259: (3, 1, struct.pack("<H", 5)), 262: (3, 1, struct.pack("<H", 1)), 273: (4, 1, struct.pack("<I", 8)),
        277: (3, 1, struct.pack("<H", 1)), 278: (4, 1, struct.pack("<I", rows)), 279: (4, 1, struct.pack("<I", count)),
    }  # fmt: skip
    with pytest.raises(BadFileError):
        decode(files.tiff(entries, b"\x80" * 40))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("size", [(31, 200), (200, 31), (1, 1)])
def test_too_small(size: tuple[int, int]) -> None:
    with pytest.raises(BadFileError, match=rf"is {size[0]}x{size[1]} pixels, at least 32x32"):
        decode(files.encode(Image.new("RGB", size, "white"), "PNG"))


def everywhere() -> dict[str, bytes]:
    """Files with a name in every place that a format has for one."""
    exif = Image.Exif()
    exif[0x010E] = exif[0x013B] = exif[0x8298] = PLANTED
    exif.get_ifd(0x8769)[0x927C] = PLANTED.encode()
    text = (b"tEXt", b"Patient\0" + PLANTED.encode()), (b"eXIf", exif.tobytes()[6:])
    profile = files.rgb_profile(files.SRGB, files.srgb_linear).replace(b"text\0\0\0\0x\0", b"text\0\0\0\0SJ")
    plain = {"exif": exif.tobytes(), "icc_profile": profile}
    return {
        "JPEG": files.encode(files.corners(), "JPEG", comment=PLANTED, xmp=PLANTED.encode(), **plain),
        "PNG": files.png(files.corners(), 2, text),
        "TIFF": files.encode(files.corners(), "TIFF", compression="tiff_lzw", artist=PLANTED, description=PLANTED),
        "WEBP": files.encode(files.corners(), "WEBP", xmp=PLANTED.encode(), **plain),
        "AVIF": files.encode(files.corners(), "AVIF", xmp=PLANTED.encode(), **plain),
        "HEIF": files.encode(files.corners(), "HEIF", xmp=PLANTED.encode(), **plain),
    }


@pytest.mark.parametrize("kind", KINDS)
def test_a_planted_name_reaches_nothing(
    kind: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither the pixels' file, nor notes, reasons, causes, log at any level, nor the terminal."""
    data = everywhere()[kind]
    assert PLANTED.encode() in data
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, "PIL")
    image_HW3, notes = decode(data)
    said = [*notes]
    rng = np.random.default_rng(0)
    for _ in range(60):
        broken = bytearray(data[: int(rng.integers(20, len(data)))])
        for _ in range(4):
            broken[int(rng.integers(len(broken)))] = int(rng.integers(256))
        try:
            said += decode(bytes(broken))[1]
        except BadFileError:
            said.append(traceback.format_exc().replace(__file__, ""))
    out = encode_png(image_HW3)
    assert PLANTED.encode() not in out
    assert not any(word in text for word in ("SMITH", "JOHN") for text in said)
    assert caplog.text == ""
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("PIL").level == logging.DEBUG


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_damaged_file_gives_pixels_or_a_reason(kind: str, data: st.DataObject) -> None:
    """Whatever bytes are changed: upright RGB pixels within the bound, or BadFileError, never anything else."""
    file = bytearray(everywhere()[kind])
    for place in data.draw(st.lists(st.integers(0, len(file) - 1), min_size=1, max_size=8)):
        file[place] = data.draw(st.integers(0, 255))
    try:
        image_HW3, _ = decode(bytes(file[: data.draw(st.integers(0, len(file)))]), max_pixels=100_000)
    except BadFileError:
        return
    assert image_HW3.ndim == 3
    assert image_HW3.shape[2] == 3
    assert image_HW3.shape[0] * image_HW3.shape[1] <= 100_000


def test_what_is_written_holds_pixels_alone() -> None:
    image_HW3 = np.random.default_rng(1).integers(0, 256, (70, 33, 3), np.uint8)
    data = encode_png(image_HW3)
    kinds = [kind for kind, _ in files.chunks_of(data)]
    assert kinds[0] == b"IHDR"
    assert kinds[-1] == b"IEND"
    assert set(kinds) == {b"IHDR", b"IDAT", b"IEND"}
    assert encode_png(image_HW3.copy()) == data
    np.testing.assert_array_equal(decode(data)[0], image_HW3)
    square = np.ascontiguousarray(image_HW3[:33])
    np.testing.assert_array_equal(decode_image(encode_png(square), 33), square)


@pytest.mark.parametrize("shape", [(40, 40), (40, 40, 4), (3, 40, 40)])
def test_only_rgb_pixels_are_written(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"Expected uint8 \[H, W, 3\]"):
        encode_png(np.zeros(shape, np.uint8))
