"""Frames of a video: which, when, and upright; and whatever is wrong with one is a fixed reason."""

from __future__ import annotations

import io
import logging
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ccfexp.data.files import BadFileError
from client.prepare.settings import Limits
from client.prepare.video import Frame, count_frames, read_frame, read_frames
from tests.client.prepare.films import numbered, place, write_video

FRAMES = 30
NAMES = ("SMITH^JOHN", "smith_john_1961")
FORMATS = [
    ("mp4", "h264"), ("mp4", "mpeg4"), ("mov", "h264"), ("matroska", "h264"), ("avi", "mpeg4"), ("mpegts", "h264"),
    ("mpegts", "mpeg2video"), ("mpeg", "mpeg2video"), ("asf", "mpeg4"), ("h264", "h264"),
]  # fmt: skip


def read(
    file: Path, limits: Limits | None = None, start_s: float | None = None, end_s: float | None = None
) -> list[Frame]:
    with file.open("rb") as stream:
        return list(read_frames(stream, limits or Limits(), start_s, end_s))


def refused(data: bytes, limits: Limits | None = None) -> str:
    with pytest.raises(BadFileError) as caught:
        list(read_frames(io.BytesIO(data), limits or Limits()))
    assert not any(name in str(caught.value) for name in NAMES)
    assert caught.value.__cause__ is None
    return str(caught.value)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("video") / "smith_john_1961.mp4", numbered(FRAMES))


@pytest.mark.parametrize(("container", "codec"), FORMATS)
def test_frames_are_spread_evenly_and_know_their_place(tmp_path: Path, container: str, codec: str) -> None:
    file = write_video(tmp_path / "v", numbered(FRAMES), container=container, codec=codec)

    frames = read(file, Limits(frames=7))

    assert [frame.index for frame in frames] == np.linspace(0, 29, 7).round().tolist()
    assert [place(frame.image_HW3, FRAMES) for frame in frames] == [frame.index for frame in frames]
    np.testing.assert_allclose([frame.time_s for frame in frames], [frame.index / 25 for frame in frames], atol=1e-3)
    with file.open("rb") as stream:
        assert count_frames(stream, Limits()) == FRAMES
        assert place(read_frame(stream, Limits(), 17).image_HW3, FRAMES) == 17
        with pytest.raises(BadFileError):
            read_frame(stream, Limits(), FRAMES)


@given(st.integers(0, 29), st.integers(0, 29), st.integers(1, 40))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_part_holds_its_own_frames(video: Path, first: int, last: int, most: int) -> None:
    """Never more than asked for, both ends among them, all of the part where it is short enough."""
    first, last = sorted((first, last))

    found = [frame.index for frame in read(video, Limits(frames=most), first / 25, last / 25)]

    assert found == sorted(set(found))
    assert len(found) == min(most, last - first + 1)
    assert found[0] == first
    assert found[-1] == (last if most > 1 else first)
    assert np.ptp(np.diff(found)) <= 1 if len(found) > 1 else True


@pytest.mark.parametrize(("start_s", "end_s"), [(5.0, None), (0.501, 0.502), (1.0, 0.5), (-1.0, None), (np.nan, 1.0)])
def test_a_part_without_a_frame_is_refused(video: Path, start_s: float, end_s: float | None) -> None:
    with pytest.raises(BadFileError, match="start_s"):
        read(video, None, start_s, end_s)


def test_uneven_times_are_kept(tmp_path: Path) -> None:
    """A telephone drops frames in the dark: the part is that of the times, not of the places."""
    times = [0, 1, 2, 3, 10, 20, 21, 22, 40, 41]
    file = write_video(tmp_path / "v", numbered(10), times=times)

    frames = read(file)

    np.testing.assert_allclose([frame.time_s for frame in frames], np.array(times) / 25, atol=1e-3)
    assert [frame.index for frame in read(file, None, 10 / 25, 22 / 25)] == [4, 5, 6, 7]


def test_the_first_frame_is_at_zero(tmp_path: Path) -> None:
    file = write_video(tmp_path / "v", numbered(5), container="mpegts", times=[50, 51, 52, 53, 54])

    assert [frame.time_s for frame in read(file)] == pytest.approx([0, 0.04, 0.08, 0.12, 0.16])


# (rotation against the clock, mirrored after it) -> the same by numpy
UPRIGHT = {
    (0, False): lambda image: image,
    (90, False): lambda image: np.rot90(image, 1),
    (180, False): lambda image: np.rot90(image, 2),
    (270, False): lambda image: np.rot90(image, 3),
    (0, True): lambda image: image[:, ::-1],
    (90, True): lambda image: np.rot90(image, 1)[:, ::-1],
    (180, True): lambda image: np.rot90(image, 2)[:, ::-1],
    (270, True): lambda image: np.rot90(image, 3)[:, ::-1],
}


@pytest.mark.parametrize(("rotation", "mirrored"), UPRIGHT)
def test_a_frame_is_turned_and_mirrored_as_a_player_shows_it(tmp_path: Path, rotation: int, mirrored: bool) -> None:
    (stored,) = numbered(1)
    file = write_video(tmp_path / "v", [stored], rotation=rotation, mirrored=mirrored)

    (frame,) = read(file)

    wanted = UPRIGHT[rotation, mirrored](stored)
    assert frame.image_HW3.shape == wanted.shape
    assert np.abs(frame.image_HW3.astype(int) - wanted).mean() < 4


def test_an_odd_angle_is_refused(tmp_path: Path) -> None:
    assert "odd angle" in refused(write_video(tmp_path / "v", numbered(2), rotation=30).read_bytes())


def test_pixels_become_square(tmp_path: Path) -> None:
    """A face of a camcorder would otherwise be drawn out."""
    (frame,) = read(write_video(tmp_path / "v", numbered(1), pixel_aspect=Fraction(16, 11)))

    assert frame.image_HW3.shape == (48, 93, 3)


def test_colours_are_those_that_went_in(tmp_path: Path) -> None:
    (stored,) = numbered(1)

    (frame,) = read(write_video(tmp_path / "v", [stored]))

    assert np.abs(frame.image_HW3.astype(int) - stored).mean() < 4


def _sound() -> bytes:
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=48000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4800), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 48000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return out.getvalue()


def _without_frames() -> bytes:
    out = io.BytesIO()
    with av.open(out, "w", format="avi") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.start_encoding()
    return out.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        _sound(),
        _without_frames(),
        b"SMITH^JOHN" * 400,
        b"\0",
        b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile:///tmp/smith_john_1961\n#EXT-X-ENDLIST\n",
        b"ffconcat version 1.0\nfile /tmp/smith_john_1961.mp4\n",
    ],
    ids=["sound", "no frames", "text", "a byte", "playlist", "list of files"],
)
def test_what_is_no_video_is_refused(data: bytes) -> None:
    assert refused(data)


def test_a_list_of_files_is_not_followed(video: Path) -> None:
    """The list names a video that is there, and libav would play it."""
    assert refused(f"ffconcat version 1.0\nfile '{video}'\n".encode())


def test_limits(video: Path) -> None:
    assert "pixels=3072 exceed the limit=3071" in refused(video.read_bytes(), Limits(pixels=3071))
    assert len(read(video, Limits(pixels=3072))) == FRAMES


def test_times_beyond_all_measure_are_refused(tmp_path: Path) -> None:
    assert "longer than" in refused(write_video(tmp_path / "v", numbered(3), times=[0, 1, 10**6]).read_bytes())


def test_libav_stays_silent_and_its_level_is_put_back(
    video: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    before = av.logging.get_level()
    av.logging.set_level(av.logging.DEBUG)
    try:
        with caplog.at_level(logging.DEBUG):
            read(video, Limits(frames=2))
            refused(video.read_bytes()[:2000])
            refused(b"SMITH^JOHN" * 400)
            assert av.logging.get_level() == av.logging.DEBUG
    finally:
        av.logging.set_level(before)
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("container", "codec"), [("mp4", "h264"), ("mpegts", "mpeg2video"), ("avi", "mpeg4")])
def test_cut_off_anywhere_there_is_no_other_error(tmp_path: Path, container: str, codec: str) -> None:
    whole = write_video(tmp_path / "v", numbered(8), container=container, codec=codec).read_bytes()
    for length in np.linspace(1, len(whole) - 1, 30).astype(int):
        _survive(whole[:length])


@pytest.mark.parametrize(("container", "codec"), [("mp4", "h264"), ("matroska", "mpeg4"), ("mpegts", "mpeg2video")])
def test_flipped_bytes_are_survived(
    tmp_path: Path, container: str, codec: str, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = write_video(tmp_path / "v", numbered(8), container=container, codec=codec).read_bytes()

    @given(st.lists(st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255)), min_size=1, max_size=8))
    @settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    def flip(changes: list[tuple[int, int]]) -> None:
        damaged = bytearray(whole)
        for at, value in changes:
            damaged[at] = value
        _survive(bytes(damaged))

    flip()
    assert capfd.readouterr() == ("", "")


def _survive(data: bytes) -> None:
    begun = time.monotonic()
    try:
        frames = list(read_frames(io.BytesIO(data), Limits(pixels=1_000_000)))
    except BadFileError as error:
        assert error.__cause__ is None  # noqa: PT017
    else:
        assert all(frame.image_HW3.ndim == 3 for frame in frames)
    assert time.monotonic() - begun < 5
