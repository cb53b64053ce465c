"""Photographs in folders, whose names say of whom and of what they are."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from ccfexp.data.files import BadFileError
from client.prepare.entries import Entry, Material, Refusal
from client.prepare.facts import same_subject
from client.prepare.sources.listing import (
    DICOM_FILES,
    LANDMARKS,
    PHOTOGRAPHS,
    VIDEOS,
    Listed,
    list_folder,
    resolve_folder,
    suffix_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Naming = Callable[[PurePosixPath], dict[str, str]]

# The names in CCFExp's published data, whose folders are classes and no subjects: "10 _brow raise_17_face.jpg".
_CCFEXP = re.compile(r"(?P<subject>[A-Za-z]?[0-9]+) ?_(?P<movement>.+)_[0-9]+_face")
# Without a digit the first word could as well belong to the movement: lip_pucker.
_FLAT = re.compile(r"(?P<subject>[^_]*[0-9][^_]*)_(?P<movement>.+)")
_FRAME = re.compile(r"(?:[\s_-]+[0-9]+|\s*\([0-9]+\))$")
_EXPECTED = "expected subject/movement_frame or subject/session/movement_frame"


def subject_folders(relative: PurePosixPath) -> dict[str, str]:
    """Read the facts in a path: ``subject/movement_frame`` or ``subject/session/movement_frame``.

    The number of the frame, where there is one, is no fact. ``subject_movement_frame_face``, as CCFExp's published data
    are named, is read in any one folder, and ``subject_movement_frame`` without a folder.

    Raises:
        BadFileError: another layout; the reason says what was expected.
    """
    *folders, name = relative.parts
    stem = PurePosixPath(name).stem
    if len(folders) > 2:
        raise BadFileError(f"lies in more than two folders; {_EXPECTED}")
    if len(folders) <= 1 and (whole := _CCFEXP.fullmatch(stem)):
        return {key: text.strip() for key, text in whole.groupdict().items()}
    stem = _FRAME.sub("", stem)
    if folders:
        facts = {"subject": folders[0], "movement": stem}
        return facts | {"session": folders[1]} if len(folders) > 1 else facts
    if flat := _FLAT.fullmatch(stem):
        return {key: text.strip() for key, text in flat.groupdict().items()}
    raise BadFileError(f"lies in no subject's folder; {_EXPECTED}, or subject_movement_frame without a folder")


class FolderSource:
    """A folder of photographs and videos.

    Landmarks are the file beside a photograph with the same name before its suffix: .npy, .pts, .json or .csv, of a
    video .npy.
    """

    def __init__(self, root: Path, naming: Naming = subject_folders, photographs: frozenset[str] = PHOTOGRAPHS) -> None:
        """Read nothing yet.

        Args:
            root: the folder.
            naming: reads the facts in a path from the folder, or raises BadFileError with what was expected.
            photographs: suffixes of photographs.
        """
        self._root = root
        self._naming = naming
        self._photographs = photographs

    def __repr__(self) -> str:
        """Name no folder."""
        return "FolderSource()"

    def entries(self) -> Iterator[Entry | Refusal]:
        """Photographs and videos, numbered by their place in the sorted listing.

        Raises:
            ConfigError: there is no such folder, or it cannot be read.
        """
        media = self._photographs | VIDEOS | DICOM_FILES
        listing = list_folder(resolve_folder(self._root), lambda path: suffix_of(path) in media | LANDMARKS)
        shown = [listed for listed in listing if listed.is_folder or suffix_of(listed.relative) not in LANDMARKS]
        landmarks = _by_name([listed for listed in listing if suffix_of(listed.relative) in LANDMARKS])
        namesakes = _by_name(shown)
        mixed = _mixed_folders(shown, self._naming)
        for number, listed in enumerate(shown, start=1):
            name = _name(listed)
            try:
                if listed.relative.parent in mixed:
                    raise BadFileError(_MIXED)
                yield self._entry(number, listed, landmarks.get(name, []), len(namesakes[name]))
            except BadFileError as error:
                yield Refusal(number, str(error), self._root / listed.relative)

    def _entry(self, number: int, listed: Listed, landmarks: list[Listed], namesakes: int) -> Entry:
        """Read what the listing shows of one photograph or video."""
        if listed.file is None:
            raise BadFileError(listed.reason)
        suffix = suffix_of(listed.relative)
        if suffix in DICOM_FILES:
            raise BadFileError("is a DICOM file; prepare DICOM files as a source of their own (kind: dicom)")
        facts = self._naming(listed.relative)
        is_video = suffix in VIDEOS
        return Entry(
            number=number,
            facts=facts,
            material=Material(
                kind="video" if is_video else "photograph",
                file=listed.file,
                landmarks=_landmarks(landmarks, namesakes, is_video=is_video),
            ),
        )


def _landmarks(found: list[Listed], namesakes: int, *, is_video: bool) -> Path | None:
    """Choose the landmarks beside a photograph; None = there are none."""
    if not found:
        return None
    if namesakes > 1:
        raise BadFileError("shares its name, and so its landmarks, with another photograph or video; rename one")
    if len(found) > 1:
        raise BadFileError("has several files of landmarks beside it; keep one")
    if found[0].file is None:
        raise BadFileError(f"has landmarks beside it that cannot be used: the file {found[0].reason}")
    if is_video and suffix_of(found[0].relative) != ".npy":
        raise BadFileError("is a video with landmarks that are no .npy file; give [T, 68, 2] of its frames as .npy")
    return found[0].file


_MIXED = (
    "lies in a folder whose files name another patient than the folder, but not one patient for each folder; give "
    "every patient a folder"
)


def _mixed_folders(listing: list[Listed], naming: Naming) -> set[PurePosixPath]:
    """Find folders of classes that do not stand for one patient each.

    Where file names, not folders, name the patient, the folder has to agree: a number that starts at 1 in every
    patient's folder would make one patient of them all.
    """
    pairs: set[tuple[PurePosixPath, str]] = set()
    for listed in listing:
        folder = listed.relative.parent
        try:
            subject = same_subject(naming(listed.relative)["subject"])
        except BadFileError:
            continue
        if folder.parts and subject not in {same_subject(part) for part in folder.parts}:
            pairs.add((folder, subject))
    folders = Counter(folder for folder, _ in pairs)
    subjects = Counter(subject for _, subject in pairs)
    return {folder for folder, subject in pairs if folders[folder] > 1 or subjects[subject] > 1}


def _name(listed: Listed) -> PurePosixPath:
    """Return a file's path without its suffix."""
    return listed.relative.parent / listed.relative.stem


def _by_name(listing: list[Listed]) -> dict[PurePosixPath, list[Listed]]:
    """Group files by their path without the suffix."""
    groups: dict[PurePosixPath, list[Listed]] = defaultdict(list)
    for listed in listing:
        groups[_name(listed)].append(listed)
    return groups
