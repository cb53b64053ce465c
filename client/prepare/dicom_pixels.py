"""One photograph out of a DICOM file, as RGB of eight bits.

Greyscale is shown as the file says: its first window where it has one, else the whole range of its stored bits. A
photograph is taken as it is stored; whether it is mirrored cannot be known.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ccfexp.data.files import BadFileError
from ccfexp.data.quiet import silenced
from client.prepare.dicom_header import LOGGERS, PHOTOGRAPH, UNDEFINED_LENGTH, Header, read_header
from client.prepare.opening import open_regular

if TYPE_CHECKING:
    from pathlib import Path

    from pydicom.dataset import Dataset

    from ccfexp.detection.faces import Image
    from client.prepare.opening import ClampedReader
    from client.prepare.settings import Limits

Array = npt.NDArray[Any]

_RLE = "1.2.840.10008.1.2.5"
_NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")
_JPEG = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")
_GREY = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_RLE_HEADER = 64
_DAMAGED = "DICOM pixels are damaged or cut off; export the file again"
# Image Pixel (PS3.3 C.7.6.3), the lookup tables before it, and the colour profile.
_TAGS = (
    0x00280002, 0x00280004, 0x00280006, 0x00280008, 0x00280010, 0x00280011, 0x00280100, 0x00280101, 0x00280102,
    0x00280103, 0x00281050, 0x00281051, 0x00281052, 0x00281053, 0x00281056, 0x00281101, 0x00281102, 0x00281103,
    0x00281201, 0x00281202, 0x00281203, 0x00281221, 0x00281222, 0x00281223, 0x00282000, 0x00283000, 0x00283010,
)  # fmt: skip


def can_decode(syntax: str) -> bool:
    """Whether pixels in a transfer syntax are read: uncompressed, RLE, JPEG Baseline, JPEG 2000."""
    return syntax in (*_NATIVE, _RLE, *_JPEG)


def read_dicom_photograph(file: Path, frame: int, limits: Limits) -> Image:
    """One frame of a VL Photographic Image.

    Args:
        file: the DICOM file.
        frame: from 0.
        limits: what is too large; nothing larger is decoded, whatever the header says.

    Returns:
        Array [H, W, 3] of uint8, sRGB. Colours with an embedded profile (0028,2000) are converted by it.

    Raises:
        BadFileError: no such file, no VL Photographic Image, too large, damaged, or in a form that is not read. The
            reason holds no value but the names and numbers of the Image Pixel module.
    """
    with open_regular(file, limits.bytes) as stream:
        header = read_header(stream, _TAGS)
        if header.sop_class != PHOTOGRAPH:
            raise BadFileError("not a VL Photographic Image (SOPClassUID (0008,0016)); export the photograph as one")
        try:
            with silenced(*LOGGERS):
                layout = _layout(header.dataset)
                _check_size(layout, header, stream, frame, limits)
                return _to_rgb(_decode(stream, header, layout, frame), layout, header.dataset)
        except BadFileError:
            raise
        # pydicom, Pillow and their codecs raise whatever a damaged stream leads them to.
        except Exception:  # noqa: BLE001
            raise BadFileError(_DAMAGED) from None


@dataclass(frozen=True)
class _Layout:
    """How the pixels are stored (PS3.3 C.7.6.3)."""

    rows: int
    columns: int
    frames: int
    samples: int
    allocated: int
    stored: int
    signed: bool
    photometric: str

    @property
    def frame_bytes(self) -> int:
        """Of one frame before compression."""
        samples = 2 if self.photometric == "YBR_FULL_422" else self.samples  # two pixels share their colour
        return self.rows * self.columns * samples * self.allocated // 8


def _layout(dataset: Dataset) -> _Layout:
    layout = _Layout(
        rows=int(dataset.Rows),
        columns=int(dataset.Columns),
        frames=int(dataset.get("NumberOfFrames") or 1),
        samples=int(dataset.SamplesPerPixel),
        allocated=int(dataset.BitsAllocated),
        stored=int(dataset.BitsStored),
        signed=int(dataset.get("PixelRepresentation") or 0) == 1,
        photometric=str(dataset.PhotometricInterpretation),
    )
    if layout.photometric not in (_GREY if layout.samples == 1 else _COLOUR):
        raise BadFileError(
            "PhotometricInterpretation (0028,0004) does not fit SamplesPerPixel (0028,0002), or is not read; "
            "export as RGB"
        )
    if layout.allocated not in (8, 16) or not 1 <= layout.stored <= layout.allocated:
        raise BadFileError(
            f"BitsAllocated={layout.allocated} must be 8 or 16 and BitsStored={layout.stored} within it; export with 8"
        )
    if int(dataset.get("HighBit", layout.stored - 1)) != layout.stored - 1:
        raise BadFileError("HighBit (0028,0102) must be BitsStored - 1; export the file again")
    return layout


def _check_size(layout: _Layout, header: Header, stream: ClampedReader, frame: int, limits: Limits) -> None:
    if not can_decode(header.syntax):
        raise BadFileError(
            f"transfer syntax {header.syntax_name} is not read; export as Explicit VR Little Endian or JPEG Baseline"
        )
    pixels = layout.rows * layout.columns
    if not 0 < pixels <= limits.pixels:
        raise BadFileError(f"photograph pixels={pixels} must lie in [1, {limits.pixels}]; raise limits.pixels")
    if not 0 <= frame < layout.frames:
        raise BadFileError(f"DICOM file has frames={layout.frames}, so there is no frame={frame}, counted from 0")
    if header.syntax in _NATIVE:
        there = min(header.length, stream.size - header.value_at)
        if header.length == UNDEFINED_LENGTH or layout.frame_bytes * layout.frames > there:
            raise BadFileError(_DAMAGED)
    elif header.length != UNDEFINED_LENGTH:
        raise BadFileError("compressed pixels must be encapsulated (undefined length); export the file again")


def _decode(stream: ClampedReader, header: Header, layout: _Layout, frame: int) -> Array:
    """Stored values [H, W] or colours [H, W, 3] of one frame."""
    from pydicom.encaps import get_frame
    from pydicom.pixels.utils import pixel_array

    if header.syntax not in _NATIVE:
        stream.seek(header.value_at)
        coded = get_frame(stream, frame, number_of_frames=layout.frames)
        if header.syntax == _RLE:
            return _to_rgb_from_ybr(_unpack_rle(coded, layout), layout)
        _check_codestream(coded, layout)
    stream.seek(0)
    return pixel_array(stream, index=frame)


def _check_codestream(coded: bytes, layout: _Layout) -> None:
    """A codestream has a size of its own, and the decoder would follow that."""
    from PIL import Image

    with Image.open(io.BytesIO(coded), formats=("JPEG", "JPEG2000")) as image:
        if image.size != (layout.columns, layout.rows):
            raise BadFileError("size of the compressed photograph differs from Rows and Columns; export the file again")


def _unpack_rle(coded: bytes, layout: _Layout) -> Array:
    """Samples of an RLE frame (PS3.5 Annex G): a segment for each byte of each sample, the highest byte first.

    Pillow unpacks each segment to the size that it must have and no further; pydicom's decoder would follow the data,
    which can unfold to 64 times the file.
    """
    from PIL import Image

    each = layout.allocated // 8
    count, *offsets = struct.unpack("<16L", coded[:_RLE_HEADER])
    if count != layout.samples * each:
        raise BadFileError(_DAMAGED)
    bounds = [*offsets[:count], len(coded)]
    planes = []
    for start, end in pairwise(bounds):
        if not _RLE_HEADER <= start < end <= len(coded):
            raise BadFileError(_DAMAGED)
        line = Image.frombytes("L", (layout.rows * layout.columns, 1), coded[start:end], "packbits", "L")
        planes.append(np.asarray(line, np.uint8).reshape(layout.rows, layout.columns))
    byte_HWSB = np.stack(planes, -1).reshape(layout.rows, layout.columns, layout.samples, each)
    values_HWS = np.ascontiguousarray(byte_HWSB).view(f">{'i' if layout.signed else 'u'}{each}")[..., 0]
    return values_HWS[..., 0] if layout.samples == 1 else values_HWS


def _to_rgb_from_ybr(values: Array, layout: _Layout) -> Array:
    from pydicom.pixels.processing import convert_color_space

    if not layout.photometric.startswith("YBR"):
        return values
    return convert_color_space(values, layout.photometric, "RGB")


def _to_rgb(values: Array, layout: _Layout, dataset: Dataset) -> Image:
    """Stored values [H, W] or colours [H, W, 3] as sRGB of eight bits [H, W, 3]."""
    if layout.samples == 3 and layout.stored == 8 and layout.allocated == 8:
        return _with_profile(np.asarray(values, np.uint8), dataset)
    lowest = -(1 << (layout.stored - 1)) if layout.signed else 0
    levels = np.arange(1 << layout.stored) + lowest
    index = np.clip(values.astype(np.int32) - lowest, 0, len(levels) - 1)
    if layout.photometric == "PALETTE COLOR":
        return _with_profile(_palette(levels, dataset)[index], dataset)
    if layout.samples == 1:
        return np.repeat(_grey(levels, layout, dataset)[index][..., None], 3, -1)
    return _with_profile(_share((levels - lowest) / (len(levels) - 1))[index], dataset)


def _palette(levels: Array, dataset: Dataset) -> Image:
    """Colours [N, 3] of stored values."""
    from pydicom.pixels.processing import apply_color_lut

    colour_N3 = apply_color_lut(levels.astype(np.int32), dataset)
    # Tables of 16 bits whose entries have 8 are common, though the standard wants the whole range.
    if colour_N3.max() > 0xFF:
        colour_N3 = colour_N3 >> 8
    return colour_N3.astype(np.uint8)


def _grey(levels: Array, layout: _Layout, dataset: Dataset) -> Image:
    """Brightness [N] of stored values: rescaling, then the first window (PS3.3 C.11.2.1.2) or the whole range."""
    if "ModalityLUTSequence" in dataset or "VOILUTSequence" in dataset:
        raise BadFileError("greyscale with a lookup table (0028,3000) or (0028,3010) is not read; export as RGB")
    slope = float(dataset.get("RescaleSlope") or 1)
    value_N = levels * slope + float(dataset.get("RescaleIntercept") or 0)
    centre, width = _first(dataset, "WindowCenter"), _first(dataset, "WindowWidth")
    if centre is None or width is None:
        share_N = (value_N - value_N.min()) / np.ptp(value_N)
    elif width < 1:
        raise BadFileError("WindowWidth (0028,1051) must be at least 1; correct it")
    else:
        match str(dataset.get("VOILUTFunction") or "LINEAR"):
            case "LINEAR":
                share_N = (value_N - (centre - 0.5)) / max(width - 1, 1e-6) + 0.5
            case "LINEAR_EXACT":
                share_N = (value_N - centre) / width + 0.5
            case _:
                raise BadFileError("VOILUTFunction (0028,1056) is neither LINEAR nor LINEAR_EXACT; export as RGB")
    return _share(1 - np.clip(share_N, 0, 1) if layout.photometric == "MONOCHROME1" else share_N)


def _first(dataset: Dataset, keyword: str) -> float | None:
    values = dataset.get(keyword)
    if values is None or values == "":
        return None
    return float(values[0] if isinstance(values, list) or hasattr(values, "append") else values)


def _share(share_N: Array) -> Image:
    if not np.isfinite(share_N).all():
        raise BadFileError("greyscale's window or rescaling is not a number; correct it")
    return np.asarray(np.clip(share_N, 0, 1) * 255 + 0.5).astype(np.uint8)


def _with_profile(image_HW3: Image, dataset: Dataset) -> Image:
    """Colours as sRGB, by the profile that is embedded; without one they are taken as sRGB."""
    from PIL import Image, ImageCms

    profile = dataset.get("ICCProfile")
    if not profile:
        return image_HW3
    try:
        transform = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(bytes(profile))), ImageCms.createProfile("sRGB"), "RGB", "RGB"
        )
        return np.array(ImageCms.applyTransform(Image.fromarray(image_HW3), transform), np.uint8)
    except (ImageCms.PyCMSError, OSError):
        raise BadFileError("ICCProfile (0028,2000) is not of RGB colours or damaged; export as sRGB") from None
