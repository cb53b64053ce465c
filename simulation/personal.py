"""The models of a federation without a model of the whole: each site's own factors with the shared ones."""

from pathlib import Path

import torch
from torch import Tensor

from ccfexp.adapter import AdapterState
from client.memory import SiteMemory, folder_of
from server.checkpoint import Progress
from strategies import registry


def adapters_of(progress: Progress, folder: Path, privacy: str = "") -> dict[str, AdapterState]:
    """The adapter of the federation, named by nothing; or where the rule is personal those of its sites, by name.

    Args:
        progress: the run's last round.
        folder: of the run.
        privacy: the run's plan, as it stands in its terms.
    """
    if not progress.method or not registry.make(progress.method).personal:
        return {"": progress.adapter}
    memories = folder_of(folder / "memory", progress.run, privacy)
    adapters = {}
    for site in sorted(path.name for path in memories.iterdir()):
        own = SiteMemory(memories / site).before("personal", progress.round_number + 1)
        adapters[site] = progress.adapter | {name: _widened(own[name], progress.adapter[name]) for name in own}
    return adapters


def _widened(up: Tensor, like: Tensor) -> Tensor:
    """A site's B [m,r,..] at the run's rank: the components that it does not have are zero."""
    whole = torch.zeros_like(like)
    whole[:, : up.shape[1]] = up
    return whole
