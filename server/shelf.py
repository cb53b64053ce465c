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
        """The numbers of a part with a beginning and an end."""
        numbers: FlatArray = np.fromfile(self.path, np.float32, part.stop - part.start, offset=4 * part.start)
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
            np.ascontiguousarray(numbers, np.float32).tofile(path)
        except OSError as error:
            raise CheckpointError(
                f"the update of site {update.site} could not be kept ({error.strerror}); free the disk and run the "
                "same command again"
            ) from error
        return replace(update, change_P=NumbersOnDisk(path))

    def clear(self) -> None:
        """Remove all."""
        shutil.rmtree(self._folder, ignore_errors=True)
