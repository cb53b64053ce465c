"""A DICOM photograph's pixels, in every way in which they are stored, against what was written."""

from __future__ import annotations

import io
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate

from ccfexp.data.files import BadFileError
from ccfexp.data.phantom.render import Phantom
from ccfexp.detection.faces import Image as Pixels
from client.prepare.dicom_pixels import read_dicom_photograph
from client.prepare.settings import Limits
from tests.client.prepare.dicoms import CODINGS, GREY, SECRETS, Coding, grey, write_dicom

# Mean and largest error that a coding may make: colours that are shared by two pixels, or by 256 of a palette.
ERRORS = {
    "jpeg": (5, 40), "jpeg_rgb": (2, 12), "ybr_full": (1.5, 4), "ybr_422": (4, 60), "palette": (3, 50),
    "palette16": (3, 50),
}  # fmt: skip


@pytest.fixture(scope="module")
def image() -> Pixels:
    phantom = Phantom()
    return phantom.render(phantom.identity(1), "smile_teeth", size=64).image_HW3[:48]


def read(file: Path, frame: int = 0, limits: Limits | None = None) -> Pixels:
    return read_dicom_photograph(file, frame, limits or Limits())


def refused(file: Path, frame: int = 0, limits: Limits | None = None) -> str:
    with pytest.raises(BadFileError) as caught:
        read(file, frame, limits)
    assert not any(secret in str(caught.value) for secret in SECRETS)
    assert caught.value.__cause__ is None
    return str(caught.value)


@pytest.mark.parametrize("coding", CODINGS)
def test_pixels_are_what_was_stored(tmp_path: Path, image: Pixels, coding: Coding) -> None:
    file = write_dicom(tmp_path / "smith_john", image, coding=coding)

    found = read(file)

    wanted = np.repeat(image[..., 1:2], 3, -1) if coding in GREY else image
    error = np.abs(found.astype(int) - wanted)
    assert found.dtype == np.uint8
    assert found.shape == image.shape
    mean, largest = ERRORS.get(coding, (0, 0))
    assert error.mean() <= mean
    assert error.max() <= largest


@pytest.mark.parametrize("coding", ["explicit", "planar", "rle", "jpeg2000", "grey12"])
def test_each_frame_is_itself(tmp_path: Path, image: Pixels, coding: Coding) -> None:
    frames = [image, image[::-1].copy(), 255 - image]
    file = write_dicom(tmp_path / "a", frames, coding=coding)

    for index, frame in enumerate(frames):
        wanted = np.repeat(frame[..., 1:2], 3, -1) if coding in GREY else frame
        np.testing.assert_array_equal(read(file, index), wanted)
    assert "frames=3" in refused(file, 3)
    assert "frames=3" in refused(file, -1)


@pytest.mark.parametrize(("function", "edge"), [("LINEAR", 0.5), ("LINEAR_EXACT", 0.0)])
def test_a_window_is_applied_as_the_standard_says(tmp_path: Path, image: Pixels, function: str, edge: float) -> None:
    """PS3.3 C.11.2.1.2, written out for each value; LINEAR is shifted and one narrower."""
    centre, width = 1500.0, 801.0
    more = {"WindowCenter": [centre, 1.0], "WindowWidth": [width, 2.0], "VOILUTFunction": function}
    found = read(write_dicom(tmp_path / "a", image, coding="grey12", more=more))

    narrower = 2 * edge
    for stored, shown in zip(grey(image).ravel(), found[..., 0].ravel(), strict=True):
        x = float(stored) - (centre - edge)
        share = (
            0.0 if x <= -(width - narrower) / 2 else 1.0 if x > (width - narrower) / 2 else x / (width - narrower) + 0.5
        )
        assert shown == int(share * 255 + 0.5)


def test_rescaling_comes_before_the_window(tmp_path: Path, image: Pixels) -> None:
    plain = write_dicom(tmp_path / "a", image, coding="grey12", more={"WindowCenter": 1500.0, "WindowWidth": 801.0})
    more = {"WindowCenter": 15100.0, "WindowWidth": 8001.0, "RescaleSlope": 10.0, "RescaleIntercept": 100.0}
    scaled = write_dicom(tmp_path / "b", image, coding="grey12", more=more)

    np.testing.assert_allclose(read(plain).astype(int), read(scaled), atol=1)


def test_an_embedded_profile_is_applied(tmp_path: Path, image: Pixels) -> None:
    """Against Pillow's own conversion of the same pixels; Lab, which is no profile of RGB, is refused."""
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    srgb = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, green = (struct.unpack(">L", srgb[i : i + 4])[0] for i in (_tag_at(srgb, b"rXYZ"), _tag_at(srgb, b"gXYZ")))
    swapped = bytearray(srgb)  # a profile whose red is what others call green
    swapped[_tag_at(srgb, b"rXYZ") : _tag_at(srgb, b"rXYZ") + 4] = struct.pack(">L", green)
    swapped[_tag_at(srgb, b"gXYZ") : _tag_at(srgb, b"gXYZ") + 4] = struct.pack(">L", red)

    file = write_dicom(tmp_path / "a", image, more={"ICCProfile": bytes(swapped)})
    np.testing.assert_allclose(read(file), image[..., [1, 0, 2]], atol=2)
    assert "ICCProfile" in refused(write_dicom(tmp_path / "b", image, more={"ICCProfile": lab}))
    assert "ICCProfile" in refused(write_dicom(tmp_path / "c", image, more={"ICCProfile": b"SMITH^JOHN"}))


def _tag_at(profile: bytes | bytearray, tag: bytes) -> int:
    """Where the profile's table of tags says that a tag lies (ICC.1, 7.3)."""
    at = bytes(profile).index(tag, 128)
    return at + 4


def test_a_stream_says_itself_what_its_colours_are(tmp_path: Path, image: Pixels) -> None:
    """A JPEG in JFIF is YBR whatever the header says; taken as RGB, faces would be green."""
    file = write_dicom(tmp_path / "a", image, coding="jpeg", more={"PhotometricInterpretation": "RGB"})

    assert np.abs(read(file).astype(int) - image).mean() < 5


@pytest.mark.parametrize(
    ("coding", "more", "words"),
    [
        ("explicit", {"Rows": 60000, "Columns": 60000}, "pixels=3600000000 must lie in"),
        ("explicit", {"Rows": 0}, "pixels=0 must lie in"),
        ("explicit", {"Rows": 49}, "damaged"),
        ("explicit", {"NumberOfFrames": 2}, "damaged"),
        ("explicit", {"PhotometricInterpretation": "SMITH"}, "PhotometricInterpretation"),
        ("explicit", {"PhotometricInterpretation": "MONOCHROME2"}, "PhotometricInterpretation"),
        ("explicit", {"BitsAllocated": 32}, "BitsAllocated=32"),
        ("explicit", {"BitsStored": 9}, "BitsStored=9"),
        ("grey12", {"HighBit": 15}, "HighBit"),
        ("explicit", {"Rows": None}, "damaged"),
        ("explicit", {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "not a VL Photographic Image"),
        ("jpeg", {"Rows": 46}, "differs from Rows and Columns"),
        ("jpeg2000", {"Columns": 60}, "differs from Rows and Columns"),
        ("rle", {"Rows": 96}, "damaged"),
        ("grey12", {"WindowCenter": 5.0, "WindowWidth": 0.5}, "WindowWidth"),
        ("grey12", {"WindowCenter": 5.0, "WindowWidth": 5.0, "VOILUTFunction": "SIGMOID"}, "VOILUTFunction"),
        ("grey12", {"WindowCenter": "nan", "WindowWidth": 5.0}, "not a number"),
        ("grey12", {"VOILUTSequence": [Dataset()]}, "lookup table"),
        ("palette", {"RedPaletteColorLookupTableDescriptor": None}, "damaged"),
    ],
)
def test_headers_that_lie_are_refused(
    tmp_path: Path, image: Pixels, coding: Coding, more: dict[str, Any], words: str
) -> None:
    assert words in refused(write_dicom(tmp_path / "smith_john", image, coding=coding, more=more))


def test_limits_hold_before_anything_is_decoded(tmp_path: Path, image: Pixels) -> None:
    file = write_dicom(tmp_path / "a", image, coding="jpeg")

    assert "pixels=3072 must lie in [1, 3071]" in refused(file, limits=Limits(pixels=3071))
    assert "exceed the limit=1000" in refused(file, limits=Limits(bytes=1000))
    assert read(file, limits=Limits(pixels=3072)).shape == image.shape


def test_runs_unfold_no_further_than_the_photograph(tmp_path: Path, image: Pixels) -> None:
    """RLE that stands for 64 MB in a photograph of 9 KB."""
    runs = b"\x81\x07" * 250_000
    coded = struct.pack("<16L", 3, 64, 64 + len(runs), 64 + 2 * len(runs), *[0] * 12) + runs * 3
    file = write_dicom(tmp_path / "a", image, coding="rle")
    dataset = pydicom.dcmread(file)
    dataset.PixelData = encapsulate([coded])
    dataset.save_as(file)

    assert (read(file) == 7).all()


def test_a_stream_larger_than_the_header_says_is_not_decoded(tmp_path: Path, image: Pixels) -> None:
    """A codestream claims 60 000 x 60 000 pixels; its header is believed by the decoder alone."""
    jpeg = io.BytesIO()
    Image.fromarray(image).save(jpeg, "JPEG")
    lying = bytearray(jpeg.getvalue())
    start = lying.index(b"\xff\xc0") + 5
    lying[start : start + 4] = struct.pack(">HH", 60000, 60000)
    file = write_dicom(tmp_path / "a", image, coding="jpeg")
    dataset = pydicom.dcmread(file)
    dataset.PixelData = encapsulate([bytes(lying)])
    dataset.save_as(file)

    assert refused(file)


@pytest.mark.parametrize("coding", ["explicit", "rle", "jpeg", "jpeg2000", "palette", "grey12"])
def test_cut_off_anywhere_it_is_refused(tmp_path: Path, image: Pixels, coding: Coding) -> None:
    whole = write_dicom(tmp_path / "smith_john", image, coding=coding).read_bytes()
    for length in np.linspace(1, len(whole) - 12, 40).astype(int):  # 8 bytes only say that the pixels are over
        (tmp_path / "smith_john").write_bytes(whole[:length])
        assert refused(tmp_path / "smith_john")


@pytest.mark.parametrize("coding", ["explicit", "rle", "jpeg", "jpeg2000", "palette", "grey16_signed"])
def test_flipped_bytes_are_survived(
    tmp_path_factory: pytest.TempPathFactory, image: Pixels, coding: Coding, capfd: pytest.CaptureFixture[str]
) -> None:
    file = write_dicom(tmp_path_factory.mktemp("flipped") / "smith_john", image[:16, :16].copy(), coding=coding)
    whole = file.read_bytes()

    @given(st.lists(st.tuples(st.integers(128, len(whole) - 1), st.integers(0, 255)), min_size=1, max_size=6))
    @settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    def flip(changes: list[tuple[int, int]]) -> None:
        damaged = bytearray(whole)
        for at, value in changes:
            damaged[at] = value
        file.write_bytes(bytes(damaged))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                found = read(file, limits=Limits(pixels=10_000_000))
            except BadFileError as error:
                assert not any(secret in f"{error}{error.__cause__}" for secret in SECRETS)  # noqa: PT017
            else:
                assert found.dtype == np.uint8
                assert found.shape[2] == 3
        assert not caught

    flip()
    assert not any(secret in text for secret in SECRETS for text in capfd.readouterr())
