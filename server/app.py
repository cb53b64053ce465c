"""The ServerApp: Flower's entry to the coordinator, as thin as it can be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flwr.serverapp import Grid, ServerApp

if TYPE_CHECKING:
    from collections.abc import Callable

    from flwr.app import Context

    from server.checkpoint import Progress
    from server.federation import Federation


def make_app(
    settle: Callable[[Context], Federation], on_finished: Callable[[Progress], None] | None = None
) -> ServerApp:
    """A ServerApp that runs the federation which `settle` makes when the run starts, not before.

    Flower drops what a ServerApp returns; `on_finished` gets the final progress.
    """
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        progress = settle(context).run(grid)
        if on_finished is not None:
            on_finished(progress)

    return app


def _from_run_config(context: Context) -> Federation:
    """The federation of a `flwr run`: the default configuration with the overrides in `hydra`."""
    from server.settle import settle

    return settle("default", str(context.run_config.get("hydra", "")).split())


app = make_app(_from_run_config)
