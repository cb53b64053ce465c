"""What a site remembers of a run between rounds: factors that never leave it, and what rounding an update left over.

A round that is asked for again (the coordinator was killed before it was complete) must give the same update, so what
was remembered *before* a round is kept until the round after it.
"""

from __future__ import annotations

import hashlib
import logging
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from safetensors import SafetensorError
from safetensors.torch import load, save

from ccfexp._io import atomic_write_bytes

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)
Kind = Literal["personal", "left-over"]
_RUNS_KEPT = 8
_ROUND = re.compile(r"-([0-9]+)\.safetensors")


def memory_of(root: Path, run: str, site: str, privacy: str = "") -> SiteMemory:
    """What a site remembers of a run; of the runs before only the last few are kept."""
    folder = folder_of(root, run, privacy)
    others = sorted((path for path in root.glob("*") if path != folder), key=lambda path: path.stat().st_mtime)
    for path in others[: -_RUNS_KEPT or None]:
        shutil.rmtree(path, ignore_errors=True)
    return SiteMemory(folder / site)


def folder_of(root: Path, run: str, privacy: str = "") -> Path:
    """Where all sites of a machine remember a run, one folder a site.

    What came about under one plan of privacy is nothing to another: a coordinator names the run, and what was left over
    of ordinary rounds would leave with a private one that takes their name.

    Args:
        root: of all runs.
        run: as the terms name it.
        privacy: the plan, as it stands in the terms.
    """
    return root / (f"{run}-{hashlib.sha256(privacy.encode()).hexdigest()[:16]}" if privacy else run)


@dataclass(frozen=True)
class SiteMemory:
    """A folder of one site and one run, on the site's own disk."""

    folder: Path

    def before(self, kind: Kind, round_number: int) -> dict[str, torch.Tensor]:
        """What was remembered last before a round; nothing if there is none, or if it is damaged."""
        rounds = [number for number in self._rounds(kind) if number < round_number]
        if not rounds:
            return {}
        try:
            tensors: dict[str, torch.Tensor] = load(self._path(kind, max(rounds)).read_bytes())
        except (OSError, SafetensorError):
            log.warning("what was remembered of round %d (%s) is damaged: this site begins anew", max(rounds), kind)
            return {}
        return tensors

    def remember(self, kind: Kind, round_number: int, tensors: dict[str, torch.Tensor]) -> None:
        """Keep tensors as of the end of a round. Raises OSError if the disk refuses; the round must fail then."""
        self.folder.mkdir(parents=True, exist_ok=True)
        atomic_write_bytes(self._path(kind, round_number), save({name: tensors[name].contiguous() for name in tensors}))
        earlier = max((number for number in self._rounds(kind) if number < round_number), default=None)
        for number in self._rounds(kind):
            if number not in (earlier, round_number):  # older ones, and those of a run that was set back
                self._path(kind, number).unlink(missing_ok=True)

    def _rounds(self, kind: Kind) -> list[int]:
        found = (_ROUND.fullmatch(path.name.removeprefix(kind)) for path in self.folder.glob(f"{kind}-*.safetensors"))
        return [int(match[1]) for match in found if match is not None]

    def _path(self, kind: Kind, round_number: int) -> Path:
        return self.folder / f"{kind}-{round_number:06d}.safetensors"
