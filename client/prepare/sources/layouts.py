"""The layouts of three public data sets of facial palsy, as far as they are publicly described.

None of the data were at hand. Each function says what its authors describe, what was seen in public programs that read
the data, and what is assumed; a file that does not fit is refused with what was expected. Side, grade and consent come
from the table of labels and from ``consent``: no folder's name is taken for a diagnosis.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ccfexp.data.files import BadFileError
from ccfexp.data.rows import Movement
from client.prepare.sources.folder import FolderSource
from client.prepare.sources.listing import PHOTOGRAPHS, VIDEOS, suffix_of

if TYPE_CHECKING:
    from pathlib import Path, PurePosixPath

# Of AFLFP's sixteen classes the seven that are a movement of ours, with the misspellings that a public reader of the
# data corrects.
_AFLFP = {
    "brow raise": Movement.BROW_RAISE,
    "close smile": Movement.SMILE_CLOSED,
    "gentle smile": Movement.SMILE_CLOSED,
    "open smile": Movement.SMILE_TEETH,
    "frown": Movement.FROWN,
    "frow": Movement.FROWN,
    "frowm": Movement.FROWN,
    "snarl": Movement.SNARL,
    "gentle eyes closure": Movement.GENTLE_EYE_CLOSURE,
    "gentle eye closure": Movement.GENTLE_EYE_CLOSURE,
    "gentle eys closure": Movement.GENTLE_EYE_CLOSURE,
    "gently eyes closure": Movement.GENTLE_EYE_CLOSURE,
    "close eyes gentle": Movement.GENTLE_EYE_CLOSURE,
    "close eyes gently": Movement.GENTLE_EYE_CLOSURE,
    "tight eyes closure": Movement.TIGHT_EYE_CLOSURE,
    "tight eye closure": Movement.TIGHT_EYE_CLOSURE,
    "tight eues closure": Movement.TIGHT_EYE_CLOSURE,
    "tight eyes close": Movement.TIGHT_EYE_CLOSURE,
}
_AFLFP_OTHER = re.compile(r"(?:left|right|rigth) (?:smile|snarl|wink|eyebrow|eyeborw|eyrbrow)|funny")
_AFLFP_NAME = re.compile(r"(?:[^-]*-)?(?P<movement>[^-]+)_[0-9]+")

_MEEI_GROUPS = frozenset(("normal", "normals", "flaccid", "synkinetic"))
_MEEI_MOVEMENTS = (
    Movement.REST,
    Movement.BROW_RAISE,
    Movement.GENTLE_EYE_CLOSURE,
    Movement.TIGHT_EYE_CLOSURE,
    Movement.SMILE_CLOSED,
    Movement.SMILE_TEETH,
    Movement.LIP_PUCKER,
    Movement.LOWER_TEETH,
)

_YFP_FOLDER = re.compile(r"image[234]?")
_YFP_PHOTOGRAPHS = PHOTOGRAPHS | {".bmp"}


def aflfp(relative: PurePosixPath) -> dict[str, str]:
    """Read the facts in a path of AFLFP.

    Described by the authors (Xia et al., IEEE Transactions on Computational Social Systems 10(4), 2023): 88 subjects,
    16 classes of expression, 68 landmarks set by hand in every photograph. Seen in public readers: a folder for each
    subject, its number as name; photographs ``NUMBER-CLASS_FRAME.jpg`` with the landmarks beside them as ``.pts`` files
    of 68 lines without a head; files ``*_detect.pts`` of a detector, which are not taken. Nine classes are no movement
    of ours: those of one side alone, and "funny". There is none at rest, so prepare with ``identity: first``.

    Assumed: that the folder's number, and not the number in the name, is the subject.

    Raises:
        BadFileError: what was expected.
    """
    subject = relative.parts[0]
    if len(relative.parts) < 2 or not (subject.isascii() and subject.isdigit()):
        raise BadFileError("lies in no numbered folder; name the folder of AFLFP whose folders are subjects' numbers")
    found = _AFLFP_NAME.fullmatch(relative.stem)
    if found is None:
        raise BadFileError("has no name of AFLFP; expected number-class_frame in the subject's folder")
    name = " ".join(found["movement"].casefold().split())
    if _AFLFP_OTHER.fullmatch(name):
        raise BadFileError(
            "shows a class of AFLFP that is none of the movements: one side alone, or funny; leave it out"
        )
    if name not in _AFLFP:
        raise BadFileError("names none of AFLFP's 16 classes of expression; expected number-class_frame")
    return {"subject": subject, "movement": _AFLFP[name]}


def meei(relative: PurePosixPath) -> dict[str, str]:
    """Read the facts in a path of the MEEI Facial Palsy Photo and Video Standard Set.

    Described by the authors (Greene et al., The Laryngoscope 130(1), 2020): 60 people, normal, flaccid and synkinetic,
    with a photograph of every standard movement and one video of them all, graded by eFACE, House-Brackmann and
    Sunnybrook. Seen in public readers: ``Normals/Normal8/Normal8_1.jpg``,
    ``Flaccid/CompleteFlaccid/CompleteFlaccid1/CompleteFlaccid1_8.jpg``, the same with ``Synkinetic``; one ``.mp4`` in
    each person's folder; 480 photographs, eight for each person, numbered 1 to 8 as rest, brows, eyes closed softly,
    eyes closed hard, smile closed, smile open, lip pucker, lower teeth.

    Assumed: that order of the eight, which comes from a reader and not from the authors. Side and grade are in a
    workbook that lacks some people; copy them into the table of labels with the folder's name as subject.

    Raises:
        BadFileError: what was expected.
    """
    parts = relative.parts
    if len(parts) < 3 or parts[0].strip().casefold() not in _MEEI_GROUPS:
        raise BadFileError("lies in none of the folders Normals, Flaccid, Synkinetic; name the folder that holds these")
    person, stem = parts[-2].strip(), relative.stem.strip()
    if suffix_of(relative) in VIDEOS:
        raise BadFileError(
            "is a video of all movements; write into a table where each begins and ends (kind: table, start_s, end_s)"
        )
    prefix, _, number = stem.rpartition("_")
    if prefix.casefold() != person.casefold() or number not in tuple("12345678"):
        raise BadFileError("has no name of the MEEI set; expected the folder's name, an underscore and 1 to 8")
    return {"subject": person, "movement": _MEEI_MOVEMENTS[int(number) - 1]}


def yfp(relative: PurePosixPath) -> dict[str, str]:
    """Read the facts in a path of the YouTube Facial Palsy database.

    Described by the authors (Hsu et al. 2018, sites.google.com/view/yfp-database): 32 videos of 21 patients who speak
    to the camera, as frames at 6 a second, with boxes of the palsy around eyes and mouth and its intensity. Seen in
    public readers: ``Image/NUMBER/FRAME.bmp``, the same with ``Image2`` to ``Image4``, and the boxes in
    ``Image_large_XML/NUMBER/FRAME.xml``, which are not read: an intensity of a region is no House-Brackmann grade.

    No movement is asked for, so its name here is "speaking": every frame is refused until the hospital writes under
    ``words`` which movement that counts as. Assumed: that a numbered folder is one patient. The authors do not say so,
    and some patients have several videos: check this before anybody is held out.

    Raises:
        BadFileError: what was expected.
    """
    parts = relative.parts
    if len(parts) < 3 or not _YFP_FOLDER.fullmatch(parts[0].casefold()):
        raise BadFileError(
            "lies in none of the folders Image, Image2, Image3, Image4; name the folder that holds these"
        )
    subject = parts[-2]
    if suffix_of(relative) not in _YFP_PHOTOGRAPHS or not all(
        text.isascii() and text.isdigit() for text in (subject, relative.stem)
    ):
        raise BadFileError("has no name of YFP; expected number/frame.bmp, both numbers")
    return {"subject": subject, "movement": "speaking"}


def aflfp_source(root: Path) -> FolderSource:
    """Read AFLFP."""
    return FolderSource(root, aflfp)


def meei_source(root: Path) -> FolderSource:
    """Read the MEEI standard set."""
    return FolderSource(root, meei)


def yfp_source(root: Path) -> FolderSource:
    """Read YFP."""
    return FolderSource(root, yfp, _YFP_PHOTOGRAPHS)
