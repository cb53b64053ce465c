"""Updates that must wait their turn wait on the disk, so that memory does not grow with the number of hospitals.

Updates are combined in the order of the sites' names whatever order they arrive in: the same updates, the same bits.
One that comes early, or that a rule needs together with all others, is written to a file and read part by part.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ccfexp.errors import CheckpointError

if TYPE_CHECKING:
    from strategies.aggregation import SiteUpdate
    from strategies.packing import FlatArray


@dataclass(frozen=True)
class NumbersOnDisk:
    """Float32 numbers in a file, of which a part is read when it is asked for."""

    path: Path

    def __getitem__(self, part: slice) -> FlatArray:
        """The numbers of a part with a beginning and an end. Raises CheckpointError if they are not all there."""
        count = part.stop - part.start
        try:
            numbers: FlatArray = np.fromfile(self.path, np.float32, count, offset=4 * part.start)
        except OSError as error:
            raise _lost(self.path.stem, "read", error.strerror) from error
        if numbers.size != count:  # numpy would stretch a single number over a whole part
            raise _lost(self.path.stem, "read", "the file is too short")
        return numbers


class Shelf:
    """A folder of updates that lives as long as a round.

    Args:
        folder: emptied before and after; nothing in it is needed by a run that goes on after a crash.
    """

    def __init__(self, folder: Path) -> None:
        """Clear away what an interrupted round left behind."""
        self._folder = folder
        self.clear()

    def put(self, update: SiteUpdate) -> SiteUpdate:
        """The same update with its numbers on the disk.

        Raises:
            CheckpointError: the disk refused.
        """
        path = self._folder / f"{update.site}.f4"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            numbers = update.change_P[0 : update.manifest.parameters]
            # Not by tofile, which says nothing when the last of its bytes do not fit on the disk.
            path.write_bytes(np.ascontiguousarray(numbers, np.float32).data)
        except OSError as error:
            raise _lost(update.site, "kept", error.strerror) from error
        return replace(update, change_P=NumbersOnDisk(path))

    def clear(self) -> None:
        """Remove all."""
        shutil.rmtree(self._folder, ignore_errors=True)


def _lost(site: str, what: str, reason: str | None) -> CheckpointError:
    return CheckpointError(
        f"the update of site {site} could not be {what} ({reason}); free the disk and run the same command again"
    )
