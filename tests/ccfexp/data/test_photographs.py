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
from PIL import Image, ImageCms

from ccfexp.data.files import BadFileError, decode_image
from ccfexp.data.photographs import (
    NOTE_ADOBE,
    NOTE_CMYK,
    NOTE_ORIENTATION,
    NOTE_PROFILE,
    NOTE_SEVERAL,
    NOTE_TRANSPARENT,
    decode_photograph,
    encode_png,
)
from tests.ccfexp.data import photograph_files as files

if TYPE_CHECKING:
    from collections.abc import Callable

pytest.importorskip("pillow_heif")

MANY = 10_000_000
KINDS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "PNG": {},
    "TIFF": {"compression": "tiff_lzw"},
    "WEBP": {"lossless": True},
    "AVIF": {"quality": 95, "subsampling": "4:4:4"},
    "HEIF": {"quality": 95, "chroma": 444},
}
PLANTED = "SMITH^JOHN"


def decode(data: bytes, max_pixels: int = MANY) -> tuple[np.ndarray[Any, Any], tuple[str, ...]]:
    decoded = decode_photograph(data, max_pixels=max_pixels)
    assert decoded.image_HW3.dtype == np.uint8
    return decoded.image_HW3, decoded.notes


def middles(image_HW3: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The colours in the middle of the four quarters."""
    height, width = image_HW3.shape[:2]
    return image_HW3[height // 4 :: height // 2, width // 4 :: width // 2].astype(int)


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


@pytest.mark.parametrize("value", [(128, 160, 100), (200, 150, 120), (60, 60, 60), (90, 40, 30)])
@pytest.mark.parametrize(
    ("primaries", "curve"),
    [
        (files.ADOBE_RGB, lambda value: value**files.ADOBE_GAMMA),
        (files.DISPLAY_P3, files.srgb_linear),
        (files.SRGB, files.srgb_linear),
    ],
    ids=["Adobe RGB", "Display P3", "sRGB"],
)
def test_a_profile_brings_colours_to_srgb(
    primaries: tuple[tuple[float, float], ...], curve: Callable[[Any], Any], value: tuple[int, ...]
) -> None:
    """Against the standards' own formulas, computed here in double precision."""
    flat = np.full((40, 40, 3), value, np.uint8)
    profile = files.rgb_profile(primaries, curve)
    expected = files.in_srgb(value, primaries, curve)
    for kind, tolerance in (("PNG", 1), ("TIFF", 1), ("JPEG", 4)):  # JPEG rounds chroma, which blue is most of
        image_HW3, notes = decode(files.encode(flat, kind, icc_profile=profile))
        assert notes == ()
        np.testing.assert_allclose(image_HW3[20, 20], expected, atol=tolerance)


def test_a_profile_of_grey() -> None:
    """A scanner's linear grey of a half is sRGB's 188, with and without transparency."""
    profile = files.grey_profile(lambda value: value)
    grey = Image.new("L", (40, 40), 128)
    expected = 255 * files.srgb_curve(np.array(128 / 255))
    assert expected == pytest.approx(188, abs=0.5)
    for picture in (grey, grey.convert("LA")):
        image_HW3, notes = decode(files.encode(picture, "PNG", icc_profile=profile))
        assert notes == ()
        np.testing.assert_allclose(image_HW3[20, 20], expected, atol=1)


@pytest.mark.parametrize(
    ("inks", "lightness"), [((0, 0, 0, 0), 100), ((255, 0, 0, 0), 80), ((0, 255, 255, 0), 60), ((0, 0, 0, 255), 0)]
)
def test_a_profile_of_printing_inks(inks: tuple[int, ...], lightness: float) -> None:
    """L* to sRGB by CIE 15 and IEC 61966-2-1, in formulas."""
    y = ((lightness + 16) / 116) ** 3 if lightness > 8 else lightness / 903.3
    expected = 255 * files.srgb_curve(np.array(y))
    printed = Image.new("CMYK", (40, 40), inks)
    for kind in ("TIFF", "JPEG"):
        data = files.encode(printed, kind, icc_profile=files.cmyk_profile())
        if lightness == 0:
            with pytest.raises(BadFileError, match="is black"):
                decode(data)
            continue
        image_HW3, notes = decode(data)
        assert notes == ()
        np.testing.assert_allclose(image_HW3[20, 20], expected, atol=2)


def test_a_known_adobe_colour() -> None:
    """Adobe's green of full strength lies outside sRGB; its red is sRGB's red, but of more than full strength."""
    assert files.in_srgb((255, 0, 0), files.ADOBE_RGB, lambda v: v**files.ADOBE_GAMMA)[0] > 255
    profile = files.rgb_profile(files.ADOBE_RGB, lambda v: v**files.ADOBE_GAMMA)
    green = np.full((40, 40, 3), (0, 255, 0), np.uint8)
    image_HW3, _ = decode(files.encode(green, "PNG", icc_profile=profile))
    np.testing.assert_array_equal(image_HW3[0, 0], (0, 255, 0))


@pytest.mark.parametrize("profile", [b"no profile", b"\0" * 200, "cut", "grey"])
def test_a_bad_profile_is_ignored_with_a_note(profile: bytes | str) -> None:
    good = files.rgb_profile(files.SRGB, files.srgb_linear)
    bytes_of = {"cut": good[:300], "grey": good[:16] + b"GRAY" + good[20:]}
    content = bytes_of[profile] if isinstance(profile, str) else profile
    image_HW3, notes = decode(files.encode(files.corners(), "PNG", icc_profile=content))
    np.testing.assert_array_equal(image_HW3, files.corners())
    assert notes == (NOTE_PROFILE,)


def test_adobe_rgb_by_its_mark_alone_is_noted() -> None:
    """Cameras set to Adobe RGB write the mark of DCF 2.0 and no profile."""
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA005] = {1: "R03", 2: b"0100"}
    assert decode(files.encode(files.corners(), "JPEG", exif=exif.tobytes()))[1] == (NOTE_ADOBE,)


def test_sixteen_bits_keep_full_scale() -> None:
    ramp = np.linspace(0, 65535, 64).round().astype(np.uint16)
    grey = np.tile(ramp, (40, 1))
    expected = np.tile((ramp >> 8).astype(np.uint8)[:, None], (40, 1, 3))
    assert expected.max() == 255
    np.testing.assert_array_equal(decode(files.png(grey, colour=0))[0], expected)
    np.testing.assert_array_equal(decode(files.png(np.stack([grey] * 3, -1), colour=2))[0], expected)
    np.testing.assert_array_equal(decode(files.encode(Image.fromarray(grey), "TIFF"))[0], expected)


@pytest.mark.parametrize("colour", [0, 2])
def test_twelve_bits_at_the_low_end_of_sixteen_are_refused(colour: int) -> None:
    grey = np.tile(np.linspace(0, 4095, 64).astype(np.uint16), (40, 1))
    with pytest.raises(BadFileError, match="12 bits a value at the low end of 16"):
        decode(files.png(grey if colour == 0 else np.stack([grey] * 3, -1), colour=colour))


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "YCbCr", "LAB"])
def test_every_kind_of_pixels(mode: str) -> None:
    """Smooth colours, through the mode and back by a conversion of another kind where there is one."""
    x, y = np.meshgrid(np.linspace(100, 180, 64), np.linspace(100, 180, 48))
    picture = Image.fromarray(np.stack([x, y, (x + y) / 2], -1).astype(np.uint8))
    expected = np.asarray(picture).astype(int)
    if mode == "LAB":
        srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        stored = ImageCms.profileToProfile(picture, srgb, lab, outputMode="LAB")
        assert stored is not None
    else:
        stored = picture.quantize(256) if mode == "P" else picture.convert(mode)
    if mode in ("L", "1"):
        expected = np.repeat(np.asarray(stored.convert("L")).astype(int)[..., None], 3, -1)
    image_HW3, notes = decode(files.encode(stored, "PNG" if mode in ("1", "P", "L") else "TIFF"))
    tolerance = {"L": 0, "1": 0, "P": 8, "CMYK": 2, "YCbCr": 3, "LAB": 6}[mode]
    assert np.abs(image_HW3 - expected).max() <= tolerance
    assert notes == ((NOTE_CMYK,) if mode == "CMYK" else ())


def test_cmyk_jpeg_is_stored_inverted_and_comes_out_right() -> None:
    image_HW3, notes = decode(files.encode(Image.fromarray(files.corners()).convert("CMYK"), "JPEG", quality=95))
    assert np.abs(middles(image_HW3) - middles(files.corners())).max() <= 4
    assert notes == (NOTE_CMYK,)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_parts_are_laid_on_white(mode: str) -> None:
    rgba = np.dstack([files.corners(), np.full((64, 96), 255, np.uint8)])
    opaque, notes = decode(files.encode(Image.fromarray(rgba).convert("LA" if mode == "LA" else "RGBA"), "PNG"))
    assert notes == ()
    rgba[:32, :48, 3] = 0
    picture = Image.fromarray(rgba)
    image_HW3, notes = decode(files.encode(picture.quantize(16) if mode == "P" else picture.convert(mode), "PNG"))
    assert notes == (NOTE_TRANSPARENT,)
    assert (image_HW3[:32, :48] == 255).all()
    if mode != "P":
        np.testing.assert_array_equal(image_HW3[32:], opaque[32:])
    rgba[:32, :48, 3] = 51  # a fifth
    image_HW3, _ = decode(files.encode(Image.fromarray(rgba), "PNG"))
    np.testing.assert_allclose(image_HW3[0, 0], 0.2 * files.corners()[0, 0] + 0.8 * 255, atol=1)


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


@pytest.mark.parametrize("kind", ["GIF", "BMP", "PPM", "TGA", "PCX", "ICO", "EPS", "PDF", "JPEG2000", "DDS"])
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


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pixels_that_no_photograph_has(mode: str) -> None:
    with pytest.raises(BadFileError, match=f"pixels of mode={mode}"):
        decode(files.encode(Image.new(mode, (40, 40), 1), "TIFF"))


def test_black_is_refused() -> None:
    with pytest.raises(BadFileError, match="is black"):
        decode(files.encode(Image.new("RGB", (40, 40)), "JPEG"))


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
