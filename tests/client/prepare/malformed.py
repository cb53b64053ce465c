"""Photographs, files and rows that no preparation can use, made from good ones by a seeded generator."""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.client.prepare.clinic import Shot

Random = np.random.Generator
Make = Callable[[Path, Shot, Random], None]
KINDS = ("JPEG", "PNG", "TIFF", "WEBP")


def _cut(folder: Path, shot: Shot, rng: Random) -> None:
    """A photograph that ends too early."""
    kind = KINDS[rng.integers(len(KINDS))]
    data = shot.encoded(kind)
    (folder / f"rest_1.{kind.lower()}").write_bytes(data[: int(rng.integers(1, len(data) * 3 // 4))])


def _flipped(folder: Path, shot: Shot, rng: Random) -> None:
    """Bytes of the header and some others are changed."""
    kind = KINDS[rng.integers(len(KINDS))]
    data = bytearray(shot.encoded(kind))
    for place in (*rng.integers(0, 32, 6), *rng.integers(0, len(data), 40)):
        data[place] = int(rng.integers(256))
    (folder / f"rest_1.{kind.lower()}").write_bytes(data)


def _rubbish(folder: Path, shot: Shot, rng: Random) -> None:
    del shot
    size = int(rng.integers(0, 3000))
    (folder / f"rest_1.{rng.choice(['jpg', 'png', 'tif', 'webp', 'heic', 'mp4', 'mov', 'dcm'])}").write_bytes(
        rng.bytes(size)
    )


def _other_format(folder: Path, shot: Shot, rng: Random) -> None:
    """Under a photograph's name."""
    others = [
        b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%!PS-Adobe-3.0 EPSF-3.0\nshowpage", b"%PDF-1.7\n",
        b"<html>rest</html>", shot.encoded("GIF"), shot.encoded("PPM"), b"8BPS\x00\x01" + bytes(60), b"",
    ]  # fmt: skip
    (folder / "rest_1.jpg").write_bytes(others[rng.integers(len(others))] + rng.bytes(8))


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _bomb(folder: Path, shot: Shot, rng: Random) -> None:
    """Small files that are huge when they are unpacked."""
    del shot
    zeros = zlib.compress(bytes(50_000_000), 9)
    side = int(rng.integers(30_000, 2**31 - 1))
    header = _png_chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    pixels = b"\x89PNG\r\n\x1a\n" + header + _png_chunk(b"IDAT", zeros) + _png_chunk(b"IEND", b"")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("rest.png", bytes(5_000_000))
    choice = (pixels, packed.getvalue(), pixels[:60])[rng.integers(3)]
    (folder / "rest_1.png").write_bytes(choice + rng.bytes(4))


def _shape(folder: Path, shot: Shot, rng: Random) -> None:
    """Pictures of an impossible size."""
    width, height = [(1, 1), (1, 20_000), (20_000, 2), (8, 8)][rng.integers(4)]
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), tuple(int(value) for value in rng.integers(0, 256, 3))).save(buffer, "PNG")
    (folder / "rest_1.png").write_bytes(buffer.getvalue())
    np.save(folder / "rest_1.npy", shot.landmark_682)


def _points(folder: Path, shot: Shot, rng: Random) -> None:
    """A good photograph with landmarks that are none, or of half a face, or of a mirrored one."""
    (folder / "rest_1.png").write_bytes(shot.encoded())
    p = shot.landmark_682
    nan = p.copy()
    nan[int(rng.integers(68))] = np.nan
    mirrored = p * np.array([-1, 1]) + np.array([shot.image_HW3.shape[1], 0])
    shifted = p + np.array([shot.image_HW3.shape[1] * 0.55, 0])
    bad: list[Any] = [
        nan, p[:5], p * 50, np.zeros((68, 2), np.float32), np.array([{}], object), p.astype("U8"), p * 0 + 3,
        shifted, p * 0.001, mirrored.astype(np.float32), np.full((68, 2), np.inf),
    ]  # fmt: skip
    np.save(folder / "rest_1.npy", bad[rng.integers(len(bad))], allow_pickle=True)


def _no_points(folder: Path, shot: Shot, rng: Random) -> None:
    del rng
    (folder / "rest_1.png").write_bytes(shot.encoded())


def _word(folder: Path, shot: Shot, rng: Random) -> None:
    """A movement that nobody knows."""
    word = str(rng.choice(["smile_teth", "brow rase", "yawn", "", "rest rest", "smile", "\u202erest", "res\u0301t"]))
    (folder / f"{word}_1.png").write_bytes(shot.encoded())


def _name(folder: Path, shot: Shot, rng: Random) -> None:
    """Names that are not UTF-8, too long for sense, or made to break a log."""
    names = [b"rest\xff\xfe_1.png", b"\xc3\x28_1.png", b"rest\n2026-01-01 INFO all good_1.png", b"x" * 240 + b".png"]
    with open(os.fsencode(folder) + b"/" + names[rng.integers(len(names))], "wb") as file:  # noqa: PTH123 (bytes)
        file.write(shot.encoded())


def _link(folder: Path, shot: Shot, rng: Random) -> None:
    """Links out of the folder, in circles, to nothing; and what is no file."""
    del shot
    path, choice = folder / "rest_1.jpg", int(rng.integers(5))
    if choice == 0:
        path.symlink_to("/etc/hostname")
    elif choice == 1:
        path.symlink_to(path)
    elif choice == 2:
        path.symlink_to(folder / "nowhere.jpg")
    elif choice == 3:
        os.mkfifo(path)
    else:
        (folder / "loop").symlink_to(folder, target_is_directory=True)
        path.symlink_to("../../../../../../../../../../dev/zero")


FILES: tuple[Make, ...] = (
    _cut, _flipped, _rubbish, _other_format, _bomb, _shape, _points, _no_points, _word, _name, _link,
)  # fmt: skip


def malform_folder(root: Path, taken: Sequence[Shot], number: int, seed: int) -> None:
    """Write patients with one bad file each into a folder, all kinds in turn."""
    rng = np.random.default_rng(seed)
    for index in range(number):
        folder = root / f"bad patient {index:04d}"
        folder.mkdir(parents=True)
        FILES[index % len(FILES)](folder, _another(taken[index % len(taken)], rng), rng)


def _another(shot: Shot, rng: Random) -> Shot:
    """The same scene once more, so that no two files are the same photograph."""
    image_HW3 = shot.image_HW3.copy()
    image_HW3[:4] = rng.integers(0, 256, image_HW3[:4].shape, np.uint8)
    return replace(shot, image_HW3=image_HW3)


ROWS: tuple[dict[str, str], ...] = (
    {"path": "../../etc/passwd"}, {"path": "/etc/passwd"}, {"path": "C:\\face.png"}, {"path": "..\\face.png"},
    {"path": ""}, {"path": "pictures"}, {"path": "pictures/nobody.png"}, {"path": "a\x07b.png"}, {"path": "x" * 5000},
    {"landmarks": "../../../etc/hostname"}, {"landmarks": "pictures/nobody.npy"}, {"subject": ""},
    {"subject": "\u202e"},
    {"movement": "smile_teth"}, {"movement": ""}, {"side": ""}, {"side": "links"}, {"grade": "VII"}, {"grade": "0"},
    {"consent_train": "perhaps"}, {"consent_train": ""}, {"consent_train": "false"}, {"consent_expires": "31.12.2030"},
    {"consent_expires": "2001-01-01"}, {"mm_per_pixel": "-1"}, {"mm_per_pixel": "nan"}, {"role": "star"},
    {"start_s": "1"}, {"start_s": "later"},
)  # fmt: skip
"""What is wrong with a row of a table, one thing at a time."""
