"""One federation on one machine, on either engine: the same ServerApp and ClientApp, the same bits to start from."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ccfexp.errors import ConfigError
from ccfexp.model import CCFExp
from client import app as client_app
from client.workbench import BenchPlan, OnStep, SiteSource, Workbench
from server.exchange import Patience
from server.federation import Federation, Hooks, OnReply, OnRound
from server.settle import federation_of
from simulation.engines import run_apps
from simulation.spending import LEDGERS, Spender, spender_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ccfexp.adapter import AdapterState
    from configs.run import RunConfig
    from server.checkpoint import Progress

Engine = Literal["local", "ray"]


@dataclass(frozen=True)
class Callbacks:
    """What watches a simulation; see `server.federation.Hooks` and `client.workbench.Workbench`.

    on_step(site, round, step, steps, loss) is called in the local engine only: Ray's workers have no way to tell.
    """

    on_round: OnRound | None = None
    on_reply: OnReply | None = None
    on_step: OnStep | None = None


def run_federation(
    config: RunConfig,
    site_manifests: Mapping[str, Path],
    out_dir: Path,
    *,
    engine: Engine = "local",
    cache_dir: Path | None = None,
    device: str = "cpu",
    callbacks: Callbacks | None = None,
) -> Progress:
    """Train an adapter over all sites, or go on where the same call was interrupted.

    Args:
        config: the resolved configuration.
        site_manifests: site name -> its manifest.csv.
        out_dir: gets `checkpoint/`, at the end `adapter.safetensors`, and in a private run `privacy/<SITE>/`, where
            every site writes down what it spends.
        engine: "local" runs the sites one after the other in this process, "ray" in parallel workers.
        cache_dir: where frozen features are kept, one folder a site; None computes them anew in every process.
        device: torch device on which sites train.
        callbacks: what watches.

    Returns:
        The final adapter and the history of rounds, round 0 being the adapter before training.

    Raises:
        ConfigError: `out_dir` holds a run of another configuration; an unknown strategy or engine; an epsilon for which
            no noise is enough.
        RoundError: a round had too few usable updates; the same call goes on from the round before.
        CheckpointError: a checkpoint is damaged or could not be written.
        WeightsError: the base is missing or altered.
    """
    watch = callbacks or Callbacks()
    sources = tuple(
        SiteSource(name, Path(site_manifests[name]).resolve(), config.max_rank(name), config.patients(name))
        for name in sorted(site_manifests)
    )
    folders = (out_dir / "memory").resolve(), cache_dir and cache_dir.resolve()
    plan = BenchPlan(config.base, sources, *folders, device, config.compute, config.threads)
    initial, base_sha256 = _start(config)
    federation = federation_of(
        config,
        initial=initial,
        base_sha256=base_sha256,
        out_dir=out_dir,
        wanted_sites=len(sources),
        # On one machine no site is late: it waits for its turn.
        patience=Patience(timeout_s=math.inf, poll_s=0.05),
        hooks=Hooks(watch.on_round, watch.on_reply),
    )
    return _run_on(engine, federation, plan, config, watch.on_step)


def _run_on(
    engine: Engine, federation: Federation, plan: BenchPlan, config: RunConfig, on_step: OnStep | None
) -> Progress:
    """The sites one after the other in this process, or in Ray's workers."""
    ledgers = (federation.out_dir / LEDGERS).resolve()
    if engine == "local":
        spender = Spender.around(Workbench(plan, on_step), plan, ledgers)
        return run_apps(federation, client_app.make_app(lambda: spender), len(plan.sites))
    if engine == "ray":
        app = client_app.make_app(functools.partial(spender_of, plan, ledgers))
        return run_apps(federation, app, len(plan.sites), ray=config.engine)
    raise ConfigError(f"engine={engine!r} must be 'local' or 'ray'; choose one")


def _start(config: RunConfig) -> tuple[AdapterState, str]:
    """The adapter before training and the base's hash; the model itself is not kept, because sites share their own."""
    model = CCFExp.from_base(config.base)
    model.attach_adapter(config.adapter, config.seed)
    return model.adapter_state(), model.base_sha256
