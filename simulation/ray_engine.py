"""The same two apps through Flower's own simulation runtime: sites train in parallel Ray workers.

`flwr.simulation.run_simulation` is deprecated in favour of `flwr run`, which starts a daemon, installs the project and
takes half a minute; it is the only one of the two that takes app objects. It is called here and nowhere else.
"""

from __future__ import annotations

import contextlib
import logging
import os
from typing import TYPE_CHECKING

from flwr.supercore import telemetry

from ccfexp.errors import ConfigError, RoundError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from threading import Event

    from flwr.app import ConfigRecordValues
    from flwr.clientapp import ClientApp
    from flwr.serverapp import ServerApp

    from configs.federation import EngineConfig


def run_on_ray(server_app: ServerApp, client_app: ClientApp, nodes: int, config: EngineConfig, stop: Event) -> None:
    """Run a federation of `nodes` virtual sites and return when its ServerApp has finished.

    Args:
        server_app: must wait until all nodes are registered: Flower starts it while they still register.
        client_app: is sent to the workers with every message, so it must be small.
        nodes: how many sites; site k has partition-id k.
        config: what one site gets of this machine.
        stop: set when the runtime ends for whatever reason, so that a waiting ServerApp ends too.

    Raises:
        ConfigError: Ray is not installed.
        RoundError: Ray failed, not a site.
        CCFExpError: whatever the ServerApp raises.
    """
    tell_nobody()
    from flwr.simulation import run_simulation

    try:
        import ray  # noqa: F401 (an optional part of the installation)
    except ImportError as error:
        raise ConfigError("engine='ray' needs Ray, which is not installed; install the extra 'ray'") from error
    resources: dict[str, ConfigRecordValues] = {"num_cpus": config.client_cpus, "num_gpus": config.client_gpus}
    # Flower hands these on to Ray. A worker that dies is started anew: it would stay in Flower's pool and, as it fails
    # at once, be given most of the sites of all later rounds.
    resources["max_restarts"] = -1
    try:
        with _without_deprecation():
            run_simulation(server_app, client_app, num_supernodes=nodes, backend_config={"client_resources": resources})
    except RuntimeError as error:  # what Flower makes of any failure of Ray itself
        raise RoundError(
            "Ray's workers could not be started or were lost; free processor time and memory, "
            "then run the same command again, or choose engine=local"
        ) from error
    finally:
        stop.set()


def tell_nobody() -> None:
    """Neither Flower nor Ray reports a run to its makers, unless the environment asks for it."""
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Flower reads its variable once, when it is first imported, and that was before: its own copy decides.
    telemetry.FLWR_TELEMETRY_ENABLED = os.environ["FLWR_TELEMETRY_ENABLED"]


@contextlib.contextmanager
def _without_deprecation() -> Iterator[None]:
    """Keep Flower's deprecation notice out of the user's log, and nothing else."""

    def wanted(record: logging.LogRecord) -> bool:
        return "DEPRECATED FEATURE" not in str(record.msg)

    logger = logging.getLogger("flwr")
    logger.addFilter(wanted)
    try:
        yield
    finally:
        logger.removeFilter(wanted)
