"""What the page works on: faces with their points, from wherever they come and to wherever they are saved."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from ccfexp.detection.faces import Points
from ccfexp.errors import CCFExpError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt


class UnknownFaceError(CCFExpError):
    """A face that the desk does not have."""


class ChangedError(CCFExpError):
    """Somebody else changed what is about to be saved or shown; nothing was written."""


@dataclass(frozen=True)
class Face:
    """One face on the desk.

    Attributes:
        number: by which the page asks for it; the same face keeps it for as long as the desk exists.
        subject, session: pseudonym and session, shown on the page and nowhere else.
        movement: what the face was asked to do.
        side: the paralysed side, the patient's.
        grade: House-Brackmann 1..6; None = not graded.
        landmark_source: where its points come from.
        flags: what about its points should be looked at, in short words without identifier.
        width, height: of its picture, in pixels.
    """

    number: int
    subject: str = field(repr=False)
    session: str = field(repr=False)
    movement: str
    side: str
    grade: int | None
    landmark_source: str
    flags: tuple[str, ...]
    width: int
    height: int

    @property
    def urgency(self) -> int:
        """Who is to be looked at first: 2 flagged, 1 placed by a detector and seen by nobody, 0 neither."""
        return 2 if self.flags else int(self.landmark_source == "detector")


@dataclass(frozen=True)
class Picture:
    """The file of a picture, as a browser shows it."""

    data: bytes = field(repr=False)
    media_type: str


@dataclass(frozen=True)
class Placed:
    """The points of a face: ``point_682`` in pixels of its picture, ``version`` changes with points or picture."""

    point_682: Points = field(repr=False)
    version: str


class Desk(Protocol):
    """Faces whose points a person corrects. All methods may be called from several threads at once.

    A desk may offer a face that has no points yet: `placed` then answers points to start from, and `save` is what
    makes it a face with points.
    """

    def faces(self) -> Sequence[Face]:
        """All faces, as they are now.

        Raises:
            CCFExpError: what they come from has become unusable.
            OSError: it cannot be read.
        """
        ...

    def picture(self, number: int) -> Picture:
        """The picture of a face.

        Raises:
            UnknownFaceError: there is no such face.
            ChangedError: the picture is gone or another one.
        """
        ...

    def placed(self, number: int) -> Placed:
        """The points of a face.

        Raises:
            UnknownFaceError: there is no such face.
            ChangedError: the points are gone or damaged.
        """
        ...

    def save(self, number: int, point_682: npt.NDArray[Any], version: str) -> tuple[Face, Placed]:
        """Save the points of a face, wholly or not at all, and return what it is then.

        Args:
            number: of the face.
            point_682: its points, in pixels of its picture.
            version: of the points that the person started from.

        Raises:
            UnknownFaceError: there is no such face.
            RefusedPointsError: these are not the points of a face in this picture.
            ChangedError: picture or points are not those of the version any more.
            OSError: the disk is full or cannot be written.
        """
        ...
