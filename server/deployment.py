"""One run among real hospitals: the federation, alone in its folder, with a journal of what happens."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import configs
from ccfexp.checkpoint import save_adapter
from configs.run import RunConfig
from server import journal, lock
from server.federation import Hooks
from server.settle import base_model, run_folder, settle
from strategies import registry

if TYPE_CHECKING:
    from pathlib import Path

    from flwr.serverapp import Grid

    from server.checkpoint import Progress

LOCK = "serverapp.lock"
_LOCK_WAIT_S = 60.0  # a ServerApp whose SuperLink was killed may take some seconds to notice


@dataclass(frozen=True)
class Deployment:
    """What the ServerApp runs.

    Attributes:
        config: the resolved configuration.
        run_id: Flower's number of this run, by which the journal tells its lines from those of earlier attempts.
        wanted_sites: how many sites to wait for before the first round.
        lock_wait_s: how long to wait for another ServerApp to leave the folder.
    """

    config: RunConfig
    run_id: int
    wanted_sites: int = 0
    lock_wait_s: float = _LOCK_WAIT_S

    def run(self, grid: Grid) -> Progress:
        """Train until the last round and write the adapter; whatever goes wrong is in the journal too.

        Raises:
            RoundError: another ServerApp works in the folder, or a round had too few updates.
            CCFExpError: as `Federation.run` and `settle`.
        """
        folder = run_folder(self.config)
        diary = journal.Journal(folder / journal.NAME, self.run_id)
        try:
            with lock.held(folder / LOCK, self.lock_wait_s, "another ServerApp"):
                diary.started(
                    config_sha256=configs.config_hash(self.config),
                    rounds=self.config.federation.rounds,
                    after=rounds_done(folder),
                )
                hooks = Hooks(on_reply=diary.site, on_complete=diary.round)
                progress = settle(self.config, wanted_sites=self.wanted_sites, hooks=hooks).run(grid)
                self._save_adapter(folder / "adapter", progress)
                diary.finished(progress.round_number)
        except BaseException as error:
            diary.failed(error)
            raise
        return progress

    def _save_adapter(self, folder: Path, progress: Progress) -> None:
        """As peft loads it, and `python -m ccfexp.sample`; nothing where every site has a model of its own."""
        if registry.make(progress.method).personal:
            return
        model = base_model(self.config)
        about = {"base_sha256": model.base_sha256, "config_sha256": configs.config_hash(self.config)}
        save_adapter(
            folder, progress.adapter, model, self.config.adapter, about | {"rounds": str(progress.round_number)}
        )


def rounds_done(folder: Path) -> int:
    """The last complete round in a run's folder, 0 where there is none; the checkpoint itself is not opened."""
    try:
        return int(json.loads((folder / "checkpoint" / "state.json").read_text(encoding="utf-8"))["round"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0
