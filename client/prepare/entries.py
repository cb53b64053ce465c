"""What a source offers: photographs with what is known of them, before a pixel of them is read.

Nothing here may reach a log: a path, a file name or a hospital's own number of a patient is an identifier. That is why
every such field is left out of the text form.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

FACTS = (
    "subject", "session", "movement", "side", "grade", "role", "consent_train", "consent_generate", "consent_expires",
    "mm_per_pixel",
)  # fmt: skip
"""What a source can say of a photograph, as it is written there; `client.prepare.facts` reads it."""

Kind = Literal["photograph", "dicom", "video", "dicom_video"]


@dataclass(frozen=True, kw_only=True)
class Material:
    """Where the pixels are.

    Attributes:
        kind: how they are read. "dicom": a frame of a VL Photographic Image. "video": the peak frame of the movement,
            of a file that PyAV reads; "dicom_video" the same of a Video Photographic Image.
        file: lies below the source's folder, also after links are followed.
        landmarks: file of the 68 points in pixels of the upright photograph, of a video [T, 68, 2] of its frames.
        frame: of a DICOM image with several, from 0.
        start_s, end_s: the part of a video in which the movement is made, in seconds; None = its start, its end.
    """

    kind: Kind
    file: Path = field(repr=False)
    landmarks: Path | None = field(default=None, repr=False)
    frame: int = 0
    start_s: float | None = None
    end_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One photograph, or one movement of a video.

    Attributes:
        number: the row of a table as a spreadsheet shows it (the header is row 1), else the place in the sorted
            listing from 1. The only thing by which a photograph is named to anybody.
        facts: texts of some of `FACTS`, as the source has them; one that is not known is absent or empty.
        material: where the pixels are.
    """

    number: int
    facts: dict[str, str] = field(repr=False)
    material: Material


@dataclass(frozen=True)
class Refusal:
    """What is not taken: the number of its entry, and why. The reason holds no identifier, path or file name.

    ``file`` is where it lies, for the eyes of a person at a terminal; None = a row of a table. ``facts`` are what the
    source says of it all the same, if it says anything: a consent that was taken back counts although the file is gone.
    """

    number: int
    reason: str
    file: Path | None = field(default=None, repr=False, compare=False)
    facts: dict[str, str] | None = field(default=None, repr=False, compare=False)


class Source(Protocol):
    """A place that photographs come from."""

    def entries(self) -> Iterator[Entry | Refusal]:
        """All that is there, in an order that depends on the content alone, each with a number of its own.

        Reads no pixels. A file or row that cannot be used is a `Refusal`, never an exception.

        Raises:
            ConfigError: the source as a whole cannot be used (no such folder, a table without the columns that are
                needed), in words without a path.
        """
        ...
