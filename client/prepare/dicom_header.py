"""The header of a DICOM file, read without its pixels and without trusting a length that it states."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ccfexp.data.files import BadFileError
from ccfexp.data.quiet import silenced

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydicom.dataset import Dataset  # noqa: TC004 (a dataclass of this module; pydicom is loaded where it reads)
    from pydicom.tag import BaseTag

    from client.prepare.opening import ClampedReader

PHOTOGRAPH = "1.2.840.10008.5.1.4.1.1.77.1.4"
VIDEO = "1.2.840.10008.5.1.4.1.1.77.1.4.1"
LOGGERS = ("pydicom", "PIL")
UNDEFINED_LENGTH = 0xFFFFFFFF

_DICOMDIR = "1.2.840.10008.1.3.10"
_DEFLATED = "1.2.840.10008.1.2.1.99"
_BIG_ENDIAN = "1.2.840.10008.1.2.2"
_IMPLICIT = "1.2.840.10008.1.2"
_HEADER_BYTES = 64 << 20  # colour profiles and icons are the largest that stand before the pixels: a few MB
_PIXEL_DATA = (0x7FE0, 0x0010)


@dataclass(frozen=True)
class Header:
    """What stands before the pixels.

    Attributes:
        dataset: the attributes asked for, of those that are there.
        sop_class: what kind of object it is.
        syntax: UID of the transfer syntax.
        value_at: where the value of Pixel Data begins, in bytes.
        length: of that value as stated, `UNDEFINED_LENGTH` where it is encapsulated.
    """

    dataset: Dataset = field(repr=False)
    sop_class: str
    syntax: str
    value_at: int
    length: int

    @property
    def syntax_name(self) -> str:
        """The transfer syntax's name in the standard; of one that is not there "private"."""
        from pydicom.uid import UID

        with silenced(*LOGGERS):
            name = UID(self.syntax).name
        return "private" if name == self.syntax else name


def read_header(file: ClampedReader, tags: Iterable[int]) -> Header:
    """Read the header of an open file.

    Args:
        file: from its first byte.
        tags: attributes that are wanted; the others are passed over.

    Raises:
        BadFileError: no DICOM file, a DICOMDIR, deflated, without Pixel Data, or damaged. No value of the header is in
            the reason.
    """
    try:
        import pydicom
    except ImportError:
        raise BadFileError("DICOM files need pydicom; install the extra `photos`") from None
    size = file.size
    file.size = min(size, _HEADER_BYTES)
    try:
        with silenced(*LOGGERS), pydicom.config.disable_value_validation():
            return _read(file, [0x00080016, *tags])
    except BadFileError:
        raise
    # pydicom raises whatever its parsing of a damaged file runs into: struct.error, KeyError, RecursionError, ...
    except Exception:  # noqa: BLE001
        raise BadFileError("DICOM header is damaged or incomplete; export the file again") from None
    finally:
        file.size = size


def _read(file: ClampedReader, tags: list[int]) -> Header:
    from pydicom.filereader import dcmread

    if file.read(132)[128:] != b"DICM":
        raise BadFileError("not a DICOM file (no DICM after 128 bytes); export as DICOM Part 10 files")
    meta = _file_meta(file)
    if meta.get(0x00020002) == _DICOMDIR:
        raise BadFileError("a DICOMDIR, which only lists other files; nothing is lost, they are read themselves")
    syntax = meta.get(0x00020010, "")
    if not syntax:
        raise BadFileError("DICOM file states no transfer syntax (0002,0010); export it again")
    if syntax == _DEFLATED:  # may unfold to any size
        raise BadFileError(
            "transfer syntax Deflated Explicit VR Little Endian is not read; export as Explicit VR Little Endian"
        )
    file.seek(0)
    dataset = dcmread(file, stop_before_pixels=True, specific_tags=list(tags))
    value_at, length = _pixel_data(file, syntax)
    return Header(dataset, str(dataset.get("SOPClassUID", "")), syntax, value_at, length)


def _file_meta(file: ClampedReader) -> dict[int, str]:
    """The UIDs of the File Meta Information (group 0002), which is always Explicit VR Little Endian (PS3.10 7.1)."""
    from pydicom.filereader import data_element_generator

    def beyond(tag: BaseTag, _vr: str | None, _length: int) -> bool:
        return tag.group != 2

    elements = data_element_generator(file, is_implicit_VR=False, is_little_endian=True, stop_when=beyond)
    return {
        int(element.tag): bytes(element.value).decode("ascii").strip("\0 ")
        for element in elements
        if element.VR == "UI" and isinstance(element.value, bytes)
    }


def _pixel_data(file: ClampedReader, syntax: str) -> tuple[int, int]:
    """Where the value of Pixel Data begins and its stated length; the file stands at the element."""
    endian = ">" if syntax == _BIG_ENDIAN else "<"
    start = file.tell()
    head = file.read(12)
    if len(head) < 12 or struct.unpack(f"{endian}HH", head[:4]) != _PIXEL_DATA:
        raise BadFileError("DICOM file has no Pixel Data (7FE0,0010), or is cut off before it; export it again")
    if syntax == _IMPLICIT:
        return start + 8, struct.unpack("<L", head[4:8])[0]
    if head[4:6] not in (b"OB", b"OW", b"UN"):
        raise BadFileError("Pixel Data (7FE0,0010) is neither OB nor OW; export the file again")
    return start + 12, struct.unpack(f"{endian}L", head[8:])[0]
