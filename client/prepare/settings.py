"""What a hospital writes down about its photographs: where they are, and how they are read.

The file (``prepare.yaml`` beside the site's file) stays on the hospital's disk; nothing of it is ever sent.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from typing import Literal

from ccfexp.data.rows import Movement
from ccfexp.errors import ConfigError, did_you_mean

SourceKind = Literal["auto", "table", "folder", "dicom", "video", "aflfp", "yfp", "meei"]
MIN_SIZE, MAX_SIZE = 16, 1024
_TAG = re.compile(r"[A-Za-z][A-Za-z0-9]*|\([0-9A-Fa-f]{4},[0-9A-Fa-f]{4}\)")


@dataclass(frozen=True)
class Columns:
    """What the hospital's table calls its columns; null = there is none, or it is called as here."""

    path: str | None = None
    landmarks: str | None = None
    subject: str | None = None
    session: str | None = None
    movement: str | None = None
    side: str | None = None
    grade: str | None = None
    role: str | None = None
    consent_train: str | None = None
    consent_generate: str | None = None
    consent_expires: str | None = None
    mm_per_pixel: str | None = None
    start_s: str | None = None
    end_s: str | None = None

    def __post_init__(self) -> None:
        named = [name for column in fields(self) if (name := getattr(self, column.name)) is not None]
        if len(set(named)) != len(named):
            raise ConfigError("two keys name the same column of the table; give each a column of its own")


@dataclass(frozen=True)
class Table:
    """A table of photographs, or of what is known of patients.

    Attributes:
        columns: what its columns are called.
        sheet: of a workbook; null = the first.
        delimiter: of a CSV file; null = comma, semicolon or tab, whichever the header has.
        encoding: of a CSV file; null = UTF-8, and nothing is guessed.
    """

    columns: Columns = field(default_factory=Columns)
    sheet: str | None = None
    delimiter: Literal[",", ";", "\t", "|"] | None = None
    encoding: str | None = None


@dataclass(frozen=True)
class Labels:
    """A table of what is known of patients, for sources that do not say it: side, grade, consent.

    A row holds for all photographs of its subject, of its session and movement too where it names them; the row that
    names most wins.

    Attributes:
        file: CSV or XLSX.
        table: how it is read.
    """

    file: str
    table: Table = field(default_factory=Table)


@dataclass(frozen=True)
class Consent:
    """One consent for all photographs of a source, such as a public data set's terms.

    Attributes:
        train: patients agreed to training.
        generate: patients agreed that their face is drawn.
        basis: on what this rests, in words, for the hospital's own record.
    """

    train: bool
    generate: bool
    basis: str

    def __post_init__(self) -> None:
        if not self.basis.strip():
            raise ConfigError("consent.basis is empty; write down what the consent of all these patients rests on")


@dataclass(frozen=True)
class Dicom:
    """How DICOM attributes are read (keywords of the standard, or "(gggg,eeee)").

    Attributes:
        movement: attribute that holds the movement's name.
        subject: attribute of the patient's number.
        session: attribute that tells sessions apart and sorts them in time.
        grade: attribute of the House-Brackmann grade; null = it is in the table of labels.
        laterality: whether ImageLaterality is the paralysed side; "ignore" where it means something else.
    """

    movement: str = "SeriesDescription"
    subject: str = "PatientID"
    session: str = "StudyDate"
    grade: str | None = None
    laterality: Literal["side", "ignore"] = "side"

    def __post_init__(self) -> None:
        for name in ("movement", "subject", "session", "grade"):
            value = getattr(self, name)
            if value is not None and not _TAG.fullmatch(value):
                raise ConfigError(f"dicom.{name} must be a keyword such as PatientID, or a tag such as (0010,0020)")


@dataclass(frozen=True)
class Limits:
    """What is too large to be a photograph; a file beyond is refused before it is decoded.

    Attributes:
        bytes: of one file, of a video ten times as much.
        pixels: of one photograph.
        frames: of one movement in a video that are looked at, evenly spread.
        seconds: that one entry may take in all.
    """

    bytes: int = 200_000_000
    pixels: int = 120_000_000
    frames: int = 60
    seconds: float = 300.0

    def __post_init__(self) -> None:
        for name in ("bytes", "pixels", "frames", "seconds"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"limits.{name}={getattr(self, name)} must be above 0")


@dataclass(frozen=True)
class Faces:
    """How faces and their points are found.

    Attributes:
        detector: "insightface" finds faces with the pack in `weights`; "supplied": by the landmarks that come along.
        landmarks: "fan" finds the 68 points with FAN in `weights`; "supplied": only those that come along. Points that
            come along always win.
        weights: the folder of weights for photographs (`python -m ccfexp.weights check DIR`).
        several: what is done with a photograph of several faces.
        min_score: of a detection, in [0, 1].
        min_side: of a face in pixels of the photograph, between the eyes; smaller ones are refused.
    """

    detector: Literal["insightface", "supplied"] = "supplied"
    landmarks: Literal["fan", "supplied"] = "supplied"
    weights: str | None = None
    several: Literal["refuse", "largest"] = "refuse"
    min_score: float = 0.5
    min_side: float = 10.0

    def __post_init__(self) -> None:
        if self.weights is None and (self.detector != "supplied" or self.landmarks != "supplied"):
            raise ConfigError(
                f"faces.weights=null must be a folder with faces.detector={self.detector}, "
                f"faces.landmarks={self.landmarks}; place the weights there by hand"
            )
        if self.detector == "supplied" and self.landmarks == "fan":
            raise ConfigError(
                "faces.landmarks=fan needs faces.detector=insightface: it has to be told where the face is"
            )
        if not 0 <= self.min_score <= 1:
            raise ConfigError(f"faces.min_score={self.min_score} must lie in [0, 1]; 0.5 is a good choice")
        if self.min_side <= 0:
            raise ConfigError(f"faces.min_side={self.min_side} must be above 0 pixels")


@dataclass(frozen=True)
class PrepareFile:
    """What stands in the file.

    Attributes:
        source: folder or table of the photographs.
        kind: what lies there; auto looks.
        table: how a table is read.
        labels: a table of what the source itself does not say.
        words: the hospital's own names of movements, each with its name here.
        consent: one consent for all; null = the source or the labels say it for each.
        dicom: how DICOM attributes are read.
        faces: how faces are found.
        limits: what is too large.
        image_size: side of the prepared photographs in pixels; null = what the site's base draws.
        holdout: share of patients that are held out of training, by grade and side.
        seed: of the choice who is held out; keep it.
        identity: what shows who a patient without a photograph at rest is: "rest" refuses such a patient, "first" takes
            the first photograph.
        processes: that work at the same time.
    """

    source: str
    kind: SourceKind = "auto"
    table: Table = field(default_factory=Table)
    labels: Labels | None = None
    words: dict[str, str] = field(default_factory=dict)
    consent: Consent | None = None
    dicom: Dicom = field(default_factory=Dicom)
    faces: Faces = field(default_factory=Faces)
    limits: Limits = field(default_factory=Limits)
    image_size: int | None = None
    holdout: float = 0.2
    seed: int = 0
    identity: Literal["rest", "first"] = "rest"
    processes: int = 2

    def __post_init__(self) -> None:
        for meaning in self.words.values():
            if meaning not in list(Movement):
                known = ", ".join(Movement)
                raise ConfigError(f"words: one means no movement.{did_you_mean(meaning, Movement)} Known: {known}")
        if self.image_size is not None and not MIN_SIZE <= self.image_size <= MAX_SIZE:
            raise ConfigError(f"image_size={self.image_size} must lie in [{MIN_SIZE}, {MAX_SIZE}]; 112 is usual")
        if not 0 <= self.holdout < 1:
            raise ConfigError(f"holdout={self.holdout} must lie in [0, 1); 0.2 is a good choice")
        if self.processes < 1:
            raise ConfigError(f"processes={self.processes} must be at least 1; use the number of cores")
