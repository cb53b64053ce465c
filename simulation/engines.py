"""Two ways to run the same two apps on one machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flwr.app import Context, RecordDict

from ccfexp.errors import RoundError
from server.app import make_app
from simulation.grid import LocalGrid
from simulation.ray_engine import run_on_ray

if TYPE_CHECKING:
    from flwr.clientapp import ClientApp

    from configs.federation import EngineConfig
    from server.checkpoint import Progress
    from server.federation import Federation


def run_apps(federation: Federation, clients: ClientApp, nodes: int, *, ray: EngineConfig | None = None) -> Progress:
    """Run a federation with a ClientApp for `nodes` virtual sites: in this process or, given `ray`, in Ray's workers.

    Raises:
        CCFExpError: as `Federation.run`.
        RoundError: the runtime ended before the federation.
    """
    finished: list[Progress] = []
    coordinator = make_app(lambda _: federation, finished.append)
    if ray is None:
        context = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={})
        coordinator(LocalGrid(clients, nodes), context)
    else:
        run_on_ray(coordinator, clients, nodes, ray, federation.patience.stop)
    if not finished:
        raise RoundError("the simulation ended before its last round; run the same command again")
    return finished[0]
