"""The stream in a Video Photographic Image, joined from its fragments."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccfexp.data.files import BadFileError
from client.prepare.dicom_video import open_dicom_video
from client.prepare.settings import Limits
from client.prepare.video import read_frames
from tests.client.prepare.dicoms import SECRETS, write_dicom, write_dicom_video
from tests.client.prepare.films import numbered, place, write_video

MOST = 10_000_000


def refused(file: Path, most: int = MOST) -> str:
    with pytest.raises(BadFileError) as caught:
        open_dicom_video(file, most).close()
    assert not any(secret in str(caught.value) for secret in SECRETS)
    return str(caught.value)


@pytest.mark.parametrize("fragments", [1, 2, 7])
def test_the_video_is_played_out_of_its_fragments(tmp_path: Path, fragments: int) -> None:
    video = write_video(tmp_path / "v", numbered(12)).read_bytes()
    file = write_dicom_video(tmp_path / "smith_john", video, fragments=fragments)

    with open_dicom_video(file, MOST) as stream:
        assert stream.read() in (video, video + b"\0")
        frames = list(read_frames(stream, Limits()))
    assert [frame.index for frame in frames] == list(range(12))
    assert [place(frame.image_HW3, 12) for frame in frames] == list(range(12))


@given(st.data())
@settings(max_examples=50, deadline=None)
def test_it_reads_and_seeks_as_one_file(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    whole = np.random.default_rng(0).bytes(4000)
    fragments = data.draw(st.integers(1, 9))
    file = write_dicom_video(tmp_path_factory.mktemp("v") / "v", whole, fragments=fragments)

    with open_dicom_video(file, MOST) as stream, io.BytesIO(whole) as plain:
        for at, count in data.draw(st.lists(st.tuples(st.integers(0, 4500), st.integers(0, 3000)), max_size=8)):
            assert stream.seek(at) == plain.seek(at)
            assert stream.read(count) == plain.read(count)
        assert stream.seek(-10, io.SEEK_END) == 3990
        assert stream.read() == whole[-10:]
        with pytest.raises(ValueError, match="before the start"):
            stream.seek(-5000, io.SEEK_END)


def test_cut_off_anywhere_it_is_refused(tmp_path: Path) -> None:
    file = write_dicom_video(tmp_path / "smith_john", b"v" * 3000, fragments=4)
    whole = file.read_bytes()
    for length in [*range(1, len(whole) - 8, 61), len(whole) - 8, len(whole) - 1]:
        file.write_bytes(whole[:length])
        assert refused(file)


def test_what_holds_no_video_is_refused(tmp_path: Path) -> None:
    image = np.zeros((8, 8, 3), np.uint8)

    assert "MPEG" in refused(write_dicom(tmp_path / "a", image))
    assert "JPEG Baseline" in refused(write_dicom_video(tmp_path / "b", b"v" * 99, syntax="1.2.840.10008.1.2.4.50"))
    assert "exceed the limit=100" in refused(write_dicom_video(tmp_path / "c", b"v" * 99), most=100)
