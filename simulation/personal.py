"""The models of a federation without a model of the whole: each site's own factors with the shared ones."""

from pathlib import Path

from ccfexp.adapter import AdapterState
from client.memory import SiteMemory
from server.checkpoint import Progress
from strategies import registry


def adapters_of(progress: Progress, folder: Path, config_sha256: str) -> dict[str, AdapterState]:
    """The adapter of the federation, named by nothing; or where the rule is personal those of its sites, by name.

    Args:
        progress: the run's last round.
        folder: of the run.
        config_sha256: of its configuration.
    """
    if not progress.method or not registry.make(progress.method).personal:
        return {"": progress.adapter}
    memories = folder / "memory" / config_sha256[:16]
    sites = sorted(path.name for path in memories.iterdir())
    return {
        site: progress.adapter | SiteMemory(memories / site).before("personal", progress.round_number + 1)
        for site in sites
    }
