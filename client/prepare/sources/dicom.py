"""A folder of DICOM files: VL Photographic Images and Video Photographic Images.

Only headers are read. Whether a photograph is mirrored cannot be known from its header and is not guessed: Patient
Orientation is seldom written for photographs, and where it is, often by rote.

What Consent for Clinical Trial Use (0012,0083) says of training, by Distribution Type (PS3.3 C.7.2.3.1.2):

=====================================  =============  ================
Consent for Distribution Flag          consent_train  consent_generate
=====================================  =============  ================
NO or WITHDRAWN in any item            false          false
YES, PUBLIC_RELEASE                    true           not known
YES, RESTRICTED_REUSE                  not known      not known
YES, NAMED_PROTOCOL                    not known      not known
another word, or no item               refused        refused
absent                                 not known      not known
=====================================  =============  ================

A release to the public is for use without restriction, which covers training. A restricted re-use does not say which,
and a named protocol is another one until somebody says that it is this. None of the terms is about drawing a patient's
face. What is not known the table of labels may say.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ccfexp.data.files import BadFileError
from ccfexp.data.quiet import silenced
from ccfexp.errors import ConfigError, did_you_mean
from client.prepare.dicom_header import LOGGERS, PHOTOGRAPH, VIDEO, Header, read_header
from client.prepare.dicom_pixels import can_decode
from client.prepare.dicom_video import holds_video
from client.prepare.entries import Entry, Material, Refusal
from client.prepare.opening import open_regular
from client.prepare.settings import Dicom
from client.prepare.sources.listing import LANDMARKS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydicom.dataelem import DataElement
    from pydicom.dataset import Dataset

_MOST_FRAMES = 1000
_MOST_BYTES = 1 << 40  # a header is read whatever the file's size; what is too large is refused where pixels are read
_PATIENT_ID, _TRIAL_SUBJECT, _IDENTITY_REMOVED = 0x00100020, 0x00120040, 0x00120062
_CONSENT, _DISTRIBUTION, _CONSENTED = 0x00120083, 0x00120084, 0x00120085
_LATERALITY, _FRAMES, _BURNT_IN, _RECOGNISABLE = 0x00200062, 0x00280008, 0x00280301, 0x00280302
_METHODS, _CODE, _FACE_REMOVED = 0x00120064, 0x00080100, "113102"  # PS3.16: Clean Recognizable Visual Features
_TAGS = (
    _PATIENT_ID, _TRIAL_SUBJECT, _IDENTITY_REMOVED, _CONSENT, _METHODS, _LATERALITY, _FRAMES, _BURNT_IN, _RECOGNISABLE,
)  # fmt: skip
_SIDES = {"R": "right", "L": "left", "B": "bilateral"}
_NO_SIDE = ("", "U")


@dataclass(frozen=True)
class DicomSource:
    """DICOM photographs and videos below a folder; a frame of an image with several is an entry of its own.

    Landmarks are the file beside a file of one photograph or video, of the same name before its suffix.

    Attributes:
        root: the folder.
        settings: which attributes say what.
        files: the files in their order, or why one cannot be read; None = all below the folder, sorted.
    """

    root: Path
    settings: Dicom
    files: Iterable[Path | BadFileError] | None = None

    def entries(self) -> Iterator[Entry | Refusal]:
        """All that is there, numbered from 1.

        Raises:
            ConfigError: no such folder, or a keyword that is not in DICOM's dictionary.
        """
        tags = _tags(self.settings)
        number = 0
        for file in _walk(self.root) if self.files is None else self.files:
            try:
                if isinstance(file, BadFileError):
                    raise file
                facts, material, frames = _read(file, tags, self.settings)
                if frames == 1:
                    material = replace(material, landmarks=_beside(file, self.root))
            except BadFileError as error:
                number += 1
                yield Refusal(number, str(error), None if isinstance(file, BadFileError) else file)
                continue
            for frame in range(frames):
                number += 1
                yield Entry(number=number, facts=dict(facts), material=replace(material, frame=frame))


def _beside(file: Path, root: Path) -> Path | None:
    """The landmarks beside a file; raises BadFileError where it cannot be told which they are."""
    found = [path for suffix in sorted(LANDMARKS) if (path := file.with_suffix(suffix)).exists()]
    if len(found) > 1:
        raise BadFileError("has several landmark files beside it; keep one")
    if found and not (found[0].is_file() and found[0].resolve().is_relative_to(root.resolve())):
        raise BadFileError("has landmarks that are no file below the source's folder; copy them")
    return found[0] if found else None


def _tags(settings: Dicom) -> dict[str, int]:
    """The tag of each fact that an attribute is named for."""
    try:
        from pydicom.datadict import keyword_dict, tag_for_keyword
    except ImportError:
        raise ConfigError("source of kind=dicom needs pydicom; install the extra `photos`") from None
    tags = {}
    for fact in ("movement", "subject", "session", "grade"):
        name = getattr(settings, fact)
        if name is None:
            continue
        if name.startswith("("):
            tags[fact] = int(name[1:5] + name[6:10], 16)
            continue
        tag = tag_for_keyword(name)
        if tag is None:
            raise ConfigError(
                f"dicom.{fact} is no keyword of DICOM's dictionary.{did_you_mean(name, keyword_dict)} "
                "A private attribute is written as its tag, (gggg,eeee)"
            )
        tags[fact] = tag
    return tags


def _walk(root: Path) -> list[Path | BadFileError]:
    """Files below a folder, sorted by the bytes of their paths, without hidden ones; a link must not leave it."""

    def fail(_error: OSError) -> None:
        raise ConfigError("source: a folder cannot be read; check that it exists, and its permissions") from None

    home = os.path.realpath(root)
    found: list[Path] = []
    for folder, below, names in os.walk(home, onerror=fail):
        below[:] = [name for name in below if not name.startswith(".")]
        found += [Path(folder, name) for name in names if not name.startswith(".")]
    leaves = BadFileError("a link that leaves the source's folder; copy the file")
    # Not Path.resolve, which raises, with the path, where links run in a circle; what opens the file refuses that.
    return [
        path if Path(os.path.realpath(path)).is_relative_to(home) else leaves for path in sorted(found, key=os.fsencode)
    ]


def _read(file: Path, tags: dict[str, int], settings: Dicom) -> tuple[dict[str, str], Material, int]:
    """Facts, material and number of frames of one file."""
    with open_regular(file, _MOST_BYTES) as stream:
        header = read_header(stream, [*tags.values(), *_TAGS])
    with silenced(*LOGGERS):
        _check_use(header.dataset)
        frames = _check_kind(header)
        facts = _facts(header.dataset, tags, settings)
    if header.sop_class == VIDEO:
        return facts, Material(kind="dicom_video", file=file), frames
    return facts, Material(kind="dicom", file=file), frames


def _check_use(dataset: Dataset) -> None:
    """Refuse what must not, or cannot, be learned from."""
    methods = [_text(item, _CODE) for item in _items(dataset, _METHODS) or ()]
    if _text(dataset, _RECOGNISABLE) == "NO" or _FACE_REMOVED in methods:
        raise BadFileError(
            "the face was made unrecognisable, says RecognizableVisualFeatures (0028,0302) or "
            "DeidentificationMethodCodeSequence (0012,0064); take the original, or correct them"
        )
    if _text(dataset, _BURNT_IN) == "YES":
        raise BadFileError(
            "BurnedInAnnotation (0028,0301) is YES: text in the pixels may name the patient; remove it and set NO"
        )


def _check_kind(header: Header) -> int:
    """The number of frames that are entries; refuse what is neither a photograph nor a video that can be read."""
    if header.sop_class == VIDEO:
        if not holds_video(header.syntax):
            raise BadFileError(
                f"transfer syntax {header.syntax_name} of a video is not read; export as MPEG-4 AVC/H.264"
            )
        return 1
    if header.sop_class != PHOTOGRAPH:
        raise BadFileError(
            "not a photograph: SOPClassUID (0008,0016) must be VL Photographic Image Storage or Video Photographic "
            "Image Storage"
        )
    if not can_decode(header.syntax):
        raise BadFileError(
            f"transfer syntax {header.syntax_name} is not read; export as Explicit VR Little Endian or JPEG Baseline"
        )
    frames = _text(header.dataset, _FRAMES) or "1"
    if not re.fullmatch("[0-9]{1,6}", frames) or not 1 <= int(frames) <= _MOST_FRAMES:
        raise BadFileError(f"NumberOfFrames (0028,0008) must lie in [1, {_MOST_FRAMES}]; split the file")
    return int(frames)


def _facts(dataset: Dataset, tags: dict[str, int], settings: Dicom) -> dict[str, str]:
    facts = {fact: _text(dataset, tag) for fact, tag in tags.items()}
    if (
        not facts["subject"]
        and tags["subject"] == _PATIENT_ID
        and _text(dataset, _IDENTITY_REMOVED) == "YES"  # PatientID was emptied on purpose
    ):
        facts["subject"] = _text(dataset, _TRIAL_SUBJECT)
    if settings.laterality == "side":
        facts["side"] = _side(dataset)
    facts |= _consent(dataset)
    return {fact: text for fact, text in facts.items() if text}


def _side(dataset: Dataset) -> str:
    letter = _text(dataset, _LATERALITY)
    if letter in _NO_SIDE:
        return ""
    if letter not in _SIDES:
        raise BadFileError(
            "ImageLaterality (0020,0062) is none of R, L, B, U; correct it or set dicom.laterality=ignore"
        )
    return _SIDES[letter]


def _consent(dataset: Dataset) -> dict[str, str]:
    """What Consent for Clinical Trial Use says (the module's table)."""
    found = _items(dataset, _CONSENT)
    if found is None:
        return {}
    items = [(_text(item, _CONSENTED), _text(item, _DISTRIBUTION)) for item in found]
    if any(flag in ("NO", "WITHDRAWN") for flag, _ in items):
        return {"consent_train": "false", "consent_generate": "false"}
    known = ("NAMED_PROTOCOL", "RESTRICTED_REUSE", "PUBLIC_RELEASE")
    if not items or any(flag != "YES" or distribution not in known for flag, distribution in items):
        raise BadFileError(
            "ConsentForClinicalTrialUseSequence (0012,0083) is there but cannot be understood; correct or remove it"
        )
    return {"consent_train": "true"} if ("YES", "PUBLIC_RELEASE") in items else {}


def _items(dataset: Dataset, tag: int) -> list[Dataset] | None:
    """The items of a sequence; None where it is absent."""
    from pydicom.sequence import Sequence

    if tag not in dataset:
        return None
    value = _value(dataset, tag)
    if not isinstance(value, Sequence):
        raise BadFileError(f"attribute {_shown(tag)} is not the sequence that it should be; correct it")
    return list(value)


def _text(dataset: Dataset, tag: int) -> str:
    """The one value of an attribute as text; empty where it is absent or empty."""
    from pydicom.multival import MultiValue
    from pydicom.sequence import Sequence

    value = _value(dataset, tag)
    if value is None:
        return ""
    if isinstance(value, MultiValue | Sequence):
        raise BadFileError(f"attribute {_shown(tag)} holds several values where one is expected")
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    if "\N{REPLACEMENT CHARACTER}" in text:  # two patients could become one
        raise BadFileError(f"attribute {_shown(tag)} does not fit SpecificCharacterSet (0008,0005); correct it")
    return text.strip(" \0")


def _value(dataset: Dataset, tag: int) -> object:
    """The value of an attribute, None where it is absent; only now pydicom makes it of bytes."""
    try:
        element: DataElement | None = dataset.get(tag)
    # It raises whatever bytes that are no such value lead it to: ValueError, struct.error, KeyError, ...
    except Exception:  # noqa: BLE001
        raise BadFileError(f"attribute {_shown(tag)} cannot be read; correct it, or export the file again") from None
    return None if element is None else element.value


def _shown(tag: int) -> str:
    return f"({tag >> 16:04x},{tag & 0xFFFF:04x})"
