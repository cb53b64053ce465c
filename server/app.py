"""The ServerApp: Flower's entry to the coordinator, as thin as it can be."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Protocol

from flwr.serverapp import Grid, ServerApp

if TYPE_CHECKING:
    from collections.abc import Callable

    from flwr.app import Context

    from server.checkpoint import Progress


class Run(Protocol):
    """What the app runs: a federation, or one with a journal."""

    def run(self, grid: Grid) -> Progress:
        """Train until the last round."""
        ...


def make_app(settle: Callable[[Context], Run], on_finished: Callable[[Progress], None] | None = None) -> ServerApp:
    """A ServerApp that runs what `settle` makes when the run starts, not before.

    Flower drops what a ServerApp returns; `on_finished` gets the final progress.
    """
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        progress = settle(context).run(grid)
        if on_finished is not None:
            on_finished(progress)

    return app


def _from_run_config(context: Context) -> Run:
    """The run of a `flwr run`: a named configuration with overrides, and how many sites to wait for."""
    from configs.named import load_named
    from server.deployment import Deployment

    values = context.run_config
    config = load_named(str(values.get("config", "default")), shlex.split(str(values.get("hydra", ""))))
    return Deployment(config, context.run_id, int(values.get("sites", 0)))


app = make_app(_from_run_config)
