"""The video in a Video Photographic Image: an MPEG stream, cut into fragments."""

from __future__ import annotations

import bisect
import io
import struct
from itertools import accumulate
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from ccfexp.data.files import BadFileError
from client.prepare.dicom_header import UNDEFINED_LENGTH, VIDEO, read_header
from client.prepare.opening import ClampedReader, open_regular

if TYPE_CHECKING:
    from pathlib import Path


_ITEM, _END = (0xFFFE, 0xE000), (0xFFFE, 0xE0DD)
_MOST_FRAGMENTS = 1_000_000
_CUT_OFF = "DICOM video is damaged or cut off; export it again"


def holds_video(syntax: str) -> bool:
    """Whether a transfer syntax is MPEG-2, MPEG-4 AVC or HEVC."""
    from pydicom.uid import MPEGTransferSyntaxes

    return syntax in MPEGTransferSyntaxes


def open_dicom_video(file: Path, max_bytes: int) -> BinaryIO:
    """Open the stream in a Video Photographic Image, for PyAV; the caller closes it.

    The fragments are joined as they are read: nothing is copied.

    Args:
        file: the DICOM file.
        max_bytes: that it may have.

    Raises:
        BadFileError: no such DICOM file, a transfer syntax that is no MPEG, or cut off.
    """
    stream = open_regular(file, max_bytes)
    try:
        header = read_header(stream, ())
        if header.sop_class != VIDEO or not holds_video(header.syntax) or header.length != UNDEFINED_LENGTH:
            raise BadFileError(
                f"not an encapsulated MPEG video (transfer syntax {header.syntax_name}); export as MPEG-4 AVC/H.264"
            )
        pieces = _fragments(stream, header.value_at)
    except BaseException:
        stream.close()
        raise
    return cast("BinaryIO", io.BufferedReader(_Joined(stream, pieces)))


def _fragments(stream: ClampedReader, start: int) -> list[tuple[int, int]]:
    """Offset and length of every fragment (PS3.5 A.4): the first item is the offset table, not video."""
    stream.seek(start)
    pieces: list[tuple[int, int]] = []
    while True:
        head = stream.read(8)
        if len(head) < 8:
            raise BadFileError(_CUT_OFF)
        group, element, length = struct.unpack("<HHL", head)
        if (group, element) == _END:
            break
        at = stream.tell()
        if (group, element) != _ITEM or at + length > stream.size:
            raise BadFileError(_CUT_OFF)
        pieces.append((at, length))
        if len(pieces) > _MOST_FRAGMENTS:
            raise BadFileError(f"DICOM video has more than {_MOST_FRAGMENTS} fragments; export it again")
        stream.seek(length, io.SEEK_CUR)
    if not any(length for _, length in pieces[1:]):
        raise BadFileError("DICOM video is empty; export it again")
    return pieces[1:]


class _Joined(io.RawIOBase):
    """Pieces of a file, read as one."""

    def __init__(self, stream: ClampedReader, pieces: list[tuple[int, int]]) -> None:
        self._stream = stream
        self._pieces = pieces
        self._ends = list(accumulate(length for _, length in pieces))
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._ends[-1]}[whence]
        if base + offset < 0:
            raise ValueError("a seek before the start")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 (whatever can be written to)
        view = memoryview(buffer).cast("B")
        piece = bisect.bisect_right(self._ends, self._at)
        if piece == len(self._pieces):
            return 0
        start, length = self._pieces[piece]
        left = self._ends[piece] - self._at
        self._stream.seek(start + length - left)
        data = self._stream.read(min(left, len(view)))
        view[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        self._stream.close()
        super().close()
