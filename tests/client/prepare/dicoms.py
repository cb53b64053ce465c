"""DICOM files of phantoms, as real ones are written, with identifiers planted where hospitals have them."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders.base import RLELosslessEncoder
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
    generate_uid,
)

from ccfexp.data.quiet import silenced
from ccfexp.detection.faces import Image as Pixels
from client.prepare.dicom_header import PHOTOGRAPH, VIDEO

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

Coding = Literal[
    "explicit", "implicit", "big_endian", "planar", "rle", "jpeg", "jpeg_rgb", "jpeg2000", "ybr_full", "ybr_422",
    "rgb16", "palette", "palette16", "grey8", "grey12", "inverted", "grey16_signed",
]  # fmt: skip
CODINGS: tuple[Coding, ...] = Coding.__args__  # type: ignore[attr-defined]  # a Literal's words
GREY = ("grey8", "grey12", "inverted", "grey16_signed")
LOSSY = ("jpeg", "jpeg_rgb", "ybr_full", "ybr_422")

PLANTED = {
    "PatientName": "SMITH^JOHN",
    "PatientBirthDate": "19610214",
    "OtherPatientIDs": "MRN-4711-0815",
    "PatientAddress": "12 Elm Street",
    "InstitutionName": "ST-ELSEWHERE",
    "ReferringPhysicianName": "DOE^JANE",
    "PatientComments": "smith_john_1961",
}
"""Identifiers that must not come out again."""
SECRETS = (*PLANTED.values(), "SMITH", "MRN-SECRET-77", "smith_john")

_LETTERS = {"right": "R", "left": "L", "bilateral": "B", "none": "U"}
_SYNTAX = {
    "implicit": ImplicitVRLittleEndian,
    "big_endian": ExplicitVRBigEndian,
    "rle": RLELossless,
    "jpeg": JPEGBaseline8Bit,
    "jpeg_rgb": JPEGBaseline8Bit,
    "jpeg2000": JPEG2000Lossless,
}


def write_dicom(
    path: Path,
    images: Pixels | Sequence[Pixels],
    *,
    subject: str = "MRN-SECRET-77",
    movement: str = "rest",
    side: str | None = None,
    session: str = "20240115",
    consent: Sequence[tuple[str, str]] | None = None,
    planted: Mapping[str, str] = PLANTED,
    coding: Coding = "explicit",
    more: Mapping[str, Any] | None = None,
) -> Path:
    """A VL Photographic Image.

    Args:
        path: where it is written.
        images: uint8 RGB [H, W, 3], or several: a frame each.
        subject: PatientID.
        movement: SeriesDescription.
        session: StudyDate.
        side: right, left, bilateral or none, as ImageLaterality; None = absent.
        consent: (Consent for Distribution Flag, Distribution Type) of each item; None = no sequence.
        planted: further attributes by keyword: identifiers that must not come out again.
        coding: how the pixels are stored.
        more: attributes of any kind that are set last; None takes one away.
    """
    frames = [images] if isinstance(images, np.ndarray) else list(images)
    with silenced("pydicom"), disable_value_validation():
        dataset = _patient(PHOTOGRAPH, subject, movement, side, session, consent, planted)
        _add_pixels(dataset, frames, coding)
        _add(dataset, more)
        _save(dataset, path, _SYNTAX.get(coding, ExplicitVRLittleEndian))
    return path


def write_dicom_video(
    path: Path,
    video: bytes,
    *,
    syntax: str = "1.2.840.10008.1.2.4.102",
    fragments: int = 1,
    subject: str = "MRN-SECRET-77",
    movement: str = "rest",
    side: str | None = None,
    session: str = "20240115",
    consent: Sequence[tuple[str, str]] | None = None,
    planted: Mapping[str, str] = PLANTED,
    more: Mapping[str, Any] | None = None,
) -> Path:
    """A Video Photographic Image that holds ``video`` (an MP4 file, say) in a number of fragments; else as above."""
    with silenced("pydicom"), disable_value_validation():
        dataset = _patient(VIDEO, subject, movement, side, session, consent, planted)
        dataset.NumberOfFrames, dataset.Rows, dataset.Columns = 1, 64, 64
        dataset.PixelData = encapsulate([video], fragments_per_frame=fragments)
        dataset["PixelData"].VR = "OB"
        _add(dataset, more)
        _save(dataset, path, syntax)
    return path


def _patient(
    sop_class: str,
    subject: str,
    movement: str,
    side: str | None,
    session: str,
    consent: Sequence[tuple[str, str]] | None,
    planted: Mapping[str, str],
) -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, generate_uid()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.PatientID, dataset.SeriesDescription, dataset.StudyDate = subject, movement, session
    for keyword, value in planted.items():
        setattr(dataset, keyword, value)
    if side is not None:
        dataset.ImageLaterality = _LETTERS[side]
    if consent is not None:
        dataset.ConsentForClinicalTrialUseSequence = [_consent_item(*item) for item in consent]
    return dataset


def _consent_item(flag: str, distribution: str) -> Dataset:
    item = Dataset()
    item.ConsentForDistributionFlag, item.DistributionType = flag, distribution
    return item


def _add(dataset: Dataset, more: Mapping[str, Any] | None) -> None:
    for keyword, value in (more or {}).items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)


def _save(dataset: Dataset, path: Path, syntax: str) -> None:
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.get("SOPClassUID", PHOTOGRAPH)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)


def grey(image_HW3: Pixels) -> np.ndarray[Any, np.dtype[np.uint32]]:
    """What a greyscale file of ``image_HW3`` holds: its green, in 12 bits."""
    return (image_HW3[..., 1].astype(np.uint32) * 4095 + 127) // 255


def _add_pixels(dataset: Dataset, frames: Sequence[Pixels], coding: Coding) -> None:
    stored = [_stored(dataset, frame, coding) for frame in frames]
    dataset.Rows, dataset.Columns = frames[0].shape[:2]
    dataset.NumberOfFrames = len(frames)
    dataset.HighBit = dataset.BitsStored - 1
    if coding in ("rle", "jpeg", "jpeg_rgb", "jpeg2000"):
        dataset.PixelData = encapsulate(stored)
        dataset["PixelData"].VR = "OB"
    else:
        data = b"".join(stored)
        dataset.PixelData = data + b"\0" * (len(data) % 2)
        dataset["PixelData"].VR = "OW" if dataset.BitsAllocated > 8 else "OB"


def _describe(dataset: Dataset, photometric: str, bits: int = 8, samples: int = 3, *, planar: int = 0) -> None:
    dataset.PhotometricInterpretation, dataset.SamplesPerPixel = photometric, samples
    dataset.BitsAllocated, dataset.BitsStored = 8 if bits <= 8 else 16, bits
    dataset.PixelRepresentation = 0
    if samples == 3:
        dataset.PlanarConfiguration = planar


def _stored(dataset: Dataset, image_HW3: Pixels, coding: Coding) -> bytes:
    """The bytes of one frame; says in the data set how they are meant."""
    if coding in GREY:
        return _stored_grey(dataset, image_HW3, coding)
    if coding.startswith("palette"):
        return _palette(dataset, image_HW3, coding)
    match coding:
        case "planar":
            _describe(dataset, "RGB", planar=1)
            return image_HW3.transpose(2, 0, 1).tobytes()
        case "rle":
            _describe(dataset, "RGB")
            return RLELosslessEncoder.encode(
                image_HW3.tobytes(), rows=image_HW3.shape[0], columns=image_HW3.shape[1], samples_per_pixel=3,
                number_of_frames=1, bits_allocated=8, bits_stored=8, pixel_representation=0,
                photometric_interpretation="RGB", planar_configuration=0,
            )  # fmt: skip
        case "jpeg" | "jpeg_rgb":
            _describe(dataset, "YBR_FULL_422" if coding == "jpeg" else "RGB")
            return _compressed(image_HW3, "JPEG", {"quality": 95, "keep_rgb": coding == "jpeg_rgb"})
        case "jpeg2000":
            _describe(dataset, "YBR_RCT")
            return _compressed(image_HW3, "JPEG2000", {"irreversible": False, "no_jp2": True, "mct": 1})
        case "ybr_full" | "ybr_422":
            _describe(dataset, "YBR_FULL" if coding == "ybr_full" else "YBR_FULL_422")
            ybr_HW3 = np.asarray(Image.fromarray(image_HW3).convert("YCbCr"))
            if coding == "ybr_full":
                return ybr_HW3.tobytes()
            pairs = ybr_HW3.reshape(len(ybr_HW3), -1, 2, 3)
            return np.concatenate([pairs[:, :, :, 0], pairs[:, :, 0, 1:]], -1).tobytes()
        case "rgb16":
            _describe(dataset, "RGB", bits=16)
            return (image_HW3.astype("<u2") * 257).tobytes()
        case _:
            _describe(dataset, "RGB")
            return image_HW3.tobytes()


def _stored_grey(dataset: Dataset, image_HW3: Pixels, coding: Coding) -> bytes:
    match coding:
        case "grey8":
            _describe(dataset, "MONOCHROME2", samples=1)
            return image_HW3[..., 1].tobytes()
        case "grey16_signed":
            _describe(dataset, "MONOCHROME2", bits=16, samples=1)
            dataset.PixelRepresentation = 1
            return (image_HW3[..., 1].astype(np.int32) * 257 - 32768).astype("<i2").tobytes()
        case _:
            _describe(dataset, "MONOCHROME2" if coding == "grey12" else "MONOCHROME1", bits=12, samples=1)
            values = grey(image_HW3)
            return (values if coding == "grey12" else 4095 - values).astype("<u2").tobytes()


def _compressed(image_HW3: Pixels, codec: str, options: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    Image.fromarray(image_HW3).save(out, codec, **options)
    return out.getvalue()


def _palette(dataset: Dataset, image_HW3: Pixels, coding: Coding) -> bytes:
    indexed = Image.fromarray(image_HW3).quantize(256)
    colours = np.zeros((256, 3), np.uint16)
    table = np.array(indexed.getpalette(), np.uint16).reshape(-1, 3)
    colours[: len(table)] = table
    _describe(dataset, "PALETTE COLOR", samples=1)
    for name, column in zip(("Red", "Green", "Blue"), colours.T, strict=True):
        setattr(dataset, f"{name}PaletteColorLookupTableDescriptor", [256, 0, 16])
        entries = column if coding == "palette" else column * 257
        setattr(dataset, f"{name}PaletteColorLookupTableData", entries.astype("<u2").tobytes())
    return np.asarray(indexed, np.uint8).tobytes()
