"""Frames of a video, upright, with their places and times.

Containers and codecs are those that cameras write; others are not opened. So a file that only names other files, or an
address (a playlist), is never followed.
"""

from __future__ import annotations

import math
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from ccfexp.data.files import BadFileError
from ccfexp.detection.faces import Image

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    import numpy.typing as npt
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

    from client.prepare.settings import Limits

VIDEO_BYTES = 10
"""A video may have this many times `Limits.bytes`."""

_CONTAINERS = "mov,mp4,3gp,matroska,webm,avi,asf,mpeg,mpegts,mpegvideo,h264,hevc,m4v,dv"
_CODECS = (
    "h264", "hevc", "av1", "libdav1d", "vp8", "vp9", "libvpx", "libvpx-vp9", "mpeg1video", "mpeg2video", "mpeg4",
    "msmpeg4", "msmpeg4v2", "wmv1", "wmv2", "wmv3", "vc1", "mjpeg", "dvvideo", "prores",
)  # fmt: skip
_MOST_SECONDS = 4 * 3600.0
_MOST_FRAMES = 2_000_000
_SAME_TIME_S = 1e-6
_CONVERT = "convert it to MP4 with H.264"
_DAMAGED = f"video is damaged or cut off; copy it again, or {_CONVERT}"


@dataclass(frozen=True)
class Frame:
    """One frame.

    Attributes:
        index: its place among all frames of the video as they are shown, from 0.
        time_s: since the first frame.
        image_HW3: uint8 RGB, upright, with square pixels.
    """

    index: int
    time_s: float
    image_HW3: Image = field(repr=False)


def read_frames(
    file: BinaryIO, limits: Limits, start_s: float | None = None, end_s: float | None = None
) -> Generator[Frame]:
    """Frames of a part of a video, evenly spread: all of it where it has no more than `Limits.frames`.

    Args:
        file: of a video, seekable; read from its first byte.
        limits: pixels of a frame, and the number of frames.
        start_s: where the part begins, in seconds since the first frame; None = the first frame.
        end_s: where it ends, itself included; None = the last frame.

    Raises:
        BadFileError: not a video that is read, damaged, without frames in that part, too large or too long.
    """
    start, end = start_s or 0.0, math.inf if end_s is None else end_s
    if not 0 <= start <= end:
        raise BadFileError("part of the video must begin at 0 s or later and end after that; correct start_s, end_s")
    with _opened(file, limits) as (container, stream):
        times = _packet_times(container, stream)
    within = [time_s for time_s in times if start - _SAME_TIME_S <= time_s <= end + _SAME_TIME_S]
    wanted = [within[i] for i in np.linspace(0, len(within) - 1, min(limits.frames, len(within))).round().astype(int)]
    given = 0
    with closing(_decoded(file, limits)) as decoded:
        for index, time_s, frame, aspect in decoded:
            if given == len(wanted) or time_s > end + _SAME_TIME_S:
                break
            if time_s < wanted[given] - _SAME_TIME_S or frame.is_corrupt:
                continue
            while given < len(wanted) and wanted[given] <= time_s + _SAME_TIME_S:
                given += 1
            yield Frame(index, time_s, _picture(frame, aspect, limits))
    if given == 0:
        raise BadFileError("video has no whole frame in the part from start_s to end_s; correct the two")


def read_frame(file: BinaryIO, limits: Limits, index: int) -> Frame:
    """The frame at a place; arguments and errors as `read_frames`."""
    with closing(_decoded(file, limits)) as decoded:
        for at, time_s, frame, aspect in decoded:
            if at == index:
                return Frame(at, time_s, _picture(frame, aspect, limits))
    raise BadFileError(_DAMAGED)


def count_frames(file: BinaryIO, limits: Limits) -> int:
    """How many frames a video has, by decoding it; what its header says is not trusted. Errors as `read_frames`."""
    return sum(1 for _ in _decoded(file, limits))


@contextmanager
def _guarded() -> Iterator[None]:
    """Silence libav, and turn whatever it raises into a `BadFileError` of fixed words."""
    import av

    level = av.logging.get_level()
    # Nothing at all: any level, also PANIC, keeps the last line for the next exception's text.
    av.logging.set_level(None)
    try:
        yield
    except BadFileError:
        raise
    # libav's errors are of many types (also ValueError, OSError, MemoryError) and may hold names.
    except Exception:  # noqa: BLE001
        raise BadFileError(_DAMAGED) from None
    finally:
        av.logging.set_level(level)


@contextmanager
def _opened(file: BinaryIO, limits: Limits) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The first video stream of a file."""
    try:
        import av
    except ImportError:
        raise BadFileError("videos need PyAV; install the extra `photos`") from None
    # libav compares max_pixels with what a stream claims before it sets memory aside for a frame.
    most = {"max_pixels": str(limits.pixels)}
    lists = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "", "codec_whitelist": ",".join(_CODECS)}
    with _guarded():
        file.seek(0)
        with av.open(file, mode="r", options=lists | most) as container:
            if not container.streams.video:
                raise BadFileError("file has no video stream; name a video")
            stream = container.streams.video[0]
            context = stream.codec_context
            if context.name not in _CODECS:
                raise BadFileError(f"codec of the video is not read; {_CONVERT}")
            _check_pixels(context.width * context.height, limits)
            context.options = most
            context.thread_count = 1  # entries are prepared side by side already
            yield container, stream


def _packet_times(container: InputContainer, stream: VideoStream) -> list[float]:
    """Times since the first frame, sorted, of all that the container holds, without decoding: good enough to spread."""
    base, step = _time_base(stream), _frame_s(stream)
    stamps: list[int | None] = []
    for packet in container.demux(stream):
        if packet.size:
            stamps.append(packet.pts)
        if len(stamps) > _MOST_FRAMES:
            raise BadFileError(f"video has more than {_MOST_FRAMES} frames; cut out the movements")
    known = sorted(stamp for stamp in stamps if stamp is not None)
    if len(known) == len(stamps) and known:
        return [float((stamp - known[0]) * base) for stamp in known]
    return [i * step for i in range(len(stamps))]


def _decoded(file: BinaryIO, limits: Limits) -> Generator[tuple[int, float, VideoFrame, Fraction]]:
    """Place, time, content and pixel aspect of all frames, in the order in which they are shown."""
    with _opened(file, limits) as (container, stream):
        base, step, aspect = _time_base(stream), _frame_s(stream), _pixel_aspect(stream)
        first: int | None = None
        before = -step
        for index, frame in enumerate(container.decode(stream)):
            _check_pixels(frame.width * frame.height, limits)
            if frame.pts is not None and first is None:
                first = frame.pts - round(index * step / base)
            # Bare streams have no times of their own.
            time_s = before + step if frame.pts is None or first is None else float((frame.pts - first) * base)
            if time_s < before:
                raise BadFileError(f"times of the video run backwards; {_CONVERT}")
            if time_s > _MOST_SECONDS or index >= _MOST_FRAMES:
                raise BadFileError(f"video is longer than {_MOST_SECONDS:.0f} s; cut out the movements")
            before = time_s
            yield index, time_s, frame, aspect


def _time_base(stream: VideoStream) -> Fraction:
    if not stream.time_base or stream.time_base < 0:
        raise BadFileError(f"video states no unit of time; {_CONVERT}")
    return stream.time_base


def _frame_s(stream: VideoStream) -> float:
    """Length of a frame by the rate that the stream states or libav infers."""
    rate = stream.average_rate or stream.guessed_rate or Fraction(25)
    return float(1 / rate) if 1 <= rate <= 1000 else 1 / 25


def _pixel_aspect(stream: VideoStream) -> Fraction:
    """Width of a pixel by its height; old camcorders' are not square, and a face would be drawn out."""
    aspect = stream.sample_aspect_ratio or Fraction(1)
    if not Fraction(1, 4) <= aspect <= 4:
        raise BadFileError(f"shape of the video's pixels is absurd; {_CONVERT}")
    return aspect


def _check_pixels(pixels: int, limits: Limits) -> None:
    if pixels > limits.pixels:
        raise BadFileError(f"frame pixels={pixels} exceed the limit={limits.pixels}; raise limits.pixels")


def _picture(frame: VideoFrame, aspect: Fraction, limits: Limits) -> Image:
    """A frame as uint8 RGB [H, W, 3], upright, with square pixels; ``aspect`` is the width of a pixel by its height."""
    width = round(frame.width * aspect)
    _check_pixels(width * frame.height, limits)
    with _guarded():
        image_HW3 = np.asarray(frame.to_ndarray(format="rgb24", width=width, height=frame.height), np.uint8)
        matrix: Any = frame.side_data.get("DISPLAYMATRIX")
    return image_HW3 if matrix is None else _upright(image_HW3, np.frombuffer(memoryview(matrix), np.int32))


def _upright(image_HW3: Image, matrix_9: npt.NDArray[np.int32]) -> Image:
    """Turn and mirror as the container's display matrix says: x' = a x + c y, y' = b x + d y (a, b, _, c, d, ...)."""
    a, b, c, d = (int(matrix_9[i]) for i in (0, 1, 3, 4))
    if not b and not c and a and d:
        across, down = a, d
    elif not a and not d and b and c:
        image_HW3 = image_HW3.swapaxes(0, 1)
        across, down = c, b
    else:
        raise BadFileError(f"video is turned by an odd angle; {_CONVERT}")
    return np.ascontiguousarray(image_HW3[:: 1 if down > 0 else -1, :: 1 if across > 0 else -1])
