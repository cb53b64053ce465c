"""Whatever a file's pixels mean, they come out as 8 bits of sRGB on white, or with a note, or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from ccfexp.data.files import BadFileError
from ccfexp.data.photographs import NOTE_ADOBE, NOTE_CMYK, NOTE_PROFILE, NOTE_TRANSPARENT
from tests.ccfexp.data import photograph_files as files
from tests.ccfexp.data.photograph_files import decode, middles

if TYPE_CHECKING:
    from collections.abc import Callable


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


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pixels_that_no_photograph_has(mode: str) -> None:
    with pytest.raises(BadFileError, match=f"pixels of mode={mode}"):
        decode(files.encode(Image.new(mode, (40, 40), 1), "TIFF"))


def test_black_is_refused() -> None:
    with pytest.raises(BadFileError, match="is black"):
        decode(files.encode(Image.new("RGB", (40, 40)), "JPEG"))
