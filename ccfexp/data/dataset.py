"""The images of one split in memory, with the identity image that belongs to each.

Shapes: N images, T training targets, H = W = image size, 68 landmarks.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from ccfexp.data.files import BadFileError, decode_image, decode_landmarks
from ccfexp.data.rows import Movement, Row, Split
from ccfexp.errors import ManifestError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ccfexp.data.manifest import Manifest

__all__ = ["PatientImages", "load_split"]


@dataclass(frozen=True)
class PatientImages:
    """One split of one site, sorted by subject, session, movement, side and path.

    Attributes:
        image_N3HW: uint8, RGB.
        landmark_N682: float32, x right and y down, in pixels of the image, (0, 0) at its outer corner.
        patient_N: int64 in [0, patients), a running number that says nothing about who it is.
        identity_N: int64, for each image the index of the image that shows who the person is.
        target_T: int64, increasing indices of the images that may be training targets.
        patients: number of patients.
        movement_N: the movement's name of each image.
        side_N: the paralysed side of each image, the patient's own left or right.
        grade_N: House-Brackmann grade 1..6 of each image, None where it is not graded.
    """

    image_N3HW: torch.Tensor = field(repr=False)
    landmark_N682: torch.Tensor = field(repr=False)
    patient_N: torch.Tensor
    identity_N: torch.Tensor
    target_T: torch.Tensor
    patients: int
    movement_N: list[str]
    side_N: list[str]
    grade_N: list[int | None]

    def repeats(self) -> list[torch.Tensor]:
        """For each image the indices [any number] of the same patient's same movement in another session."""
        groups: dict[tuple[int, str], list[int]] = defaultdict(list)
        keys = list(zip(self.patient_N.tolist(), self.movement_N, strict=True))
        for index, key in enumerate(keys):
            groups[key].append(index)
        # Photographs of one session share their identity image.
        session_N = self.identity_N.tolist()
        return [
            torch.tensor([other for other in groups[key] if session_N[other] != session_N[index]], dtype=torch.int64)
            for index, key in enumerate(keys)
        ]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.movement_N)


def load_split(manifest: Manifest, split: Split | str) -> PatientImages:
    """Load every image of one split.

    Args:
        manifest: a checked manifest.
        split: "train" or "holdout".

    Returns:
        The split in an order that depends on the rows alone, not on their order in the file.

    Raises:
        ManifestError: the split has no rows or none that may be drawn, or a file has changed since the manifest was
            checked.
        ValueError: split is neither "train" nor "holdout".
    """
    wanted = Split(split)
    numbered = sorted(
        ((number, row) for number, row in enumerate(manifest.rows, start=2) if row.split is wanted),
        key=lambda item: _order(item[1]),
    )
    if not numbered:
        raise ManifestError(f"The manifest has no rows with split={wanted.value}; at least 1 is needed.")
    rows = [row for _, row in numbered]
    if not any(row.is_target for row in rows):
        raise ManifestError(
            f"No row with split={wanted.value} has role=expression or role=both; at least 1 is needed to draw."
        )
    image_NHW3, landmark_N682 = _read_files(manifest, numbered)
    subjects = {subject: index for index, subject in enumerate(sorted({row.subject_id for row in rows}))}
    return PatientImages(
        image_N3HW=torch.from_numpy(image_NHW3).permute(0, 3, 1, 2).contiguous(),
        landmark_N682=torch.from_numpy(landmark_N682),
        patient_N=torch.tensor([subjects[row.subject_id] for row in rows], dtype=torch.int64),
        identity_N=torch.tensor(_identities(rows), dtype=torch.int64),
        target_T=torch.tensor([index for index, row in enumerate(rows) if row.is_target], dtype=torch.int64),
        patients=len(subjects),
        movement_N=[row.movement.value for row in rows],
        side_N=[row.side.value for row in rows],
        grade_N=[row.grade for row in rows],
    )


def _order(row: Row) -> tuple[str, ...]:
    """Return the key by which images are sorted; paths are unique, so no two keys are equal."""
    return (row.subject_id, row.session, row.movement, row.side, row.path)


def _identities(rows: Sequence[Row]) -> list[int]:
    """Choose the identity image of each image.

    The first at rest of the same subject and session; without one, the subject's first in the order of sessions.
    """
    candidates: dict[str, list[int]] = defaultdict(list)
    for index, row in enumerate(rows):  # rows are sorted by session within a subject
        if row.is_identity:
            candidates[row.subject_id].append(index)

    def choose(row: Row) -> int:
        of_subject = candidates[row.subject_id]
        at_rest = (
            index
            for index in of_subject
            if rows[index].session == row.session and rows[index].movement is Movement.REST
        )
        return next(at_rest, of_subject[0])

    return [choose(row) for row in rows]


def _read_files(
    manifest: Manifest, numbered: Sequence[tuple[int, Row]]
) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.uint8]], np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    """Read images [N, H, W, 3] and landmarks [N, 68, 2]; all files that changed are reported at once."""
    size = manifest.image_size
    image_NHW3 = np.empty((len(numbered), size, size, 3), dtype=np.uint8)
    landmark_N682 = np.empty((len(numbered), 68, 2), dtype=np.float32)
    problems = []
    for index, (number, row) in enumerate(numbered):
        try:
            data = (manifest.root / row.path).read_bytes()
            if hashlib.sha256(data).hexdigest() != row.sha256:
                raise BadFileError("image differs from its sha256")
            image_NHW3[index] = decode_image(data, size)
            landmarks = (manifest.root / row.landmarks).read_bytes()
            if row.landmarks_sha256 and hashlib.sha256(landmarks).hexdigest() != row.landmarks_sha256:
                raise BadFileError("landmarks differ from their landmarks_sha256")
            landmark_N682[index] = decode_landmarks(landmarks)
        except BadFileError as error:
            problems.append(f"row {number}: {error}")
        except OSError:
            problems.append(f"row {number}: a file cannot be read")
    if problems:
        raise ManifestError("Files changed after the manifest was checked; check it again:", problems)
    return image_NHW3, landmark_N682
