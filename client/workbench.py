"""A hospital's bench: the base model and the site's images, loaded once per process and used for every round.

One process may work for many virtual sites (a simulation); they share the frozen base, and of their images only the
most recently used stay in memory.
"""

from __future__ import annotations

import json
import math
import os
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import torch

from ccfexp._io import canonical_json
from ccfexp.adapter import train_only
from ccfexp.compute import ComputeConfig
from ccfexp.errors import CheckpointError, ConfigError, WireError
from ccfexp.model import CCFExp
from ccfexp.privacy.engines import engine_of
from ccfexp.training import SiteData, train_local
from client.app import RequestRefusedError
from client.memory import memory_of
from client.update import start_of, update_of
from configs import build, to_dict
from configs.client_part import ClientPart, site_seed
from strategies import registry, wire
from strategies.messages import MAX_RANK
from strategies.packing import AdapterManifest, narrowed

if TYPE_CHECKING:
    from flwr.app import Context

    from ccfexp.adapter import AdapterConfig, AdapterState, Factors
    from ccfexp.privacy.steps import Plan
    from ccfexp.training import TrainConfig


OnStep = Callable[[str, int, int, int, float], None]  # site, round, step, steps, loss


@dataclass(frozen=True)
class SiteSource:
    """Where a site's images are; stays on the site's machine."""

    name: str
    manifest: Path
    max_rank: int = MAX_RANK
    declared_patients: int | None = None  # in public, whoever comes or goes; private runs need it


@dataclass(frozen=True)
class BenchPlan:
    """What a bench is made of: small, hashable, and the same in every process.

    Attributes:
        base: name or path of the base weights.
        sites: the sites of this machine; virtual node k of a simulation is sites[k].
        cache_dir: where frozen features are kept, or None to compute them anew in every process.
        memory_dir: where sites remember what they must between rounds.
        device: torch device.
        compute: how the device computes.
        threads: torch threads of this process, or None to leave them as they are.
        sites_in_memory: of how many sites the images stay loaded.
    """

    base: str
    sites: tuple[SiteSource, ...]
    memory_dir: Path
    cache_dir: Path | None = None
    device: str = "cpu"
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    threads: int | None = None
    sites_in_memory: int = 8


class Workbench:
    """Trains for the sites of a plan, one message at a time.

    Args:
        plan: what to load.
        on_step: called after every training step with site, round, step, steps and loss.
    """

    def __init__(self, plan: BenchPlan, on_step: OnStep | None = None) -> None:
        """Load nothing yet."""
        self._plan = plan
        self._on_step = on_step
        self._model: CCFExp | None = None
        self._adapter: AdapterConfig | None = None
        self._initial: AdapterState = {}
        self._data: OrderedDict[str, SiteData] = OrderedDict()

    def site(self, context: Context) -> str:
        """The site of this node: its own configuration names it, or in a simulation its partition number does.

        Raises:
            ConfigError: the node names no site of this machine.
        """
        node = context.node_config
        known = {source.name for source in self._plan.sites}
        if "site" in node:
            if node["site"] not in known:
                raise ConfigError("node configuration names a site that this machine has no manifest for")
            return str(node["site"])
        partition = int(node.get("partition-id", -1))
        if not 0 <= partition < len(self._plan.sites):
            raise ConfigError(f"partition-id={partition} must be 0 to {len(self._plan.sites) - 1}")
        return self._plan.sites[partition].name

    def hello(self, context: Context) -> wire.SiteHello:
        """What the node says of itself. Raises ConfigError as `site`."""
        name = self.site(context)
        return wire.SiteHello(name, next(source.max_rank for source in self._plan.sites if source.name == name))

    def train(self, site: str, message: wire.AdapterMessage) -> wire.AdapterUpdate:
        """One round of training from the adapter in the message.

        Raises:
            RequestRefusedError: the message is of another base, adapter or release.
        """
        part, terms = self._client_part(message), message.terms
        model = self._prepared(message, part)
        memory = memory_of(self._plan.memory_dir, terms.run, site, terms.privacy)
        try:
            start = start_of(message, AdapterManifest.of(self._initial), self._initial, memory)
            model.load_adapter_state(start)
        except (WireError, CheckpointError) as error:
            raise RequestRefusedError(str(error)) from error
        factors = cast("Factors", terms.trained)
        train_only(model, factors)
        seed, train = site_seed(part.seed, site), part.train.of_factors(factors)
        plan = self._training_plan(site, part, train, seed, terms.round_number)
        result = train_local(
            model,
            self._site_data(model, site),
            train,
            seed=seed,
            round_number=terms.round_number,
            plan=plan,
            threads=self._plan.threads or 1,
            on_step=self._step_reporter(site, terms.round_number),
        )
        random = np.random.default_rng([seed, terms.round_number])
        manifest, change_P = update_of(message, start, model.adapter_state(), memory, random)
        told = plan.released(**vars(result))
        return wire.AdapterUpdate(terms, manifest, change_P, told.weight, told.metrics)

    def _training_plan(self, site: str, part: ClientPart, train: TrainConfig, seed: int, round_number: int) -> Plan:
        """What a step of the round takes and what it makes of it.

        Raises:
            RequestRefusedError: a private run without a noise multiplier, or with one where none is declared for.
        """
        if part.privacy is None:
            return train.plan
        declared = next(source.declared_patients for source in self._plan.sites if source.name == site)
        if declared is None:
            raise RequestRefusedError("this site declares no number of patients, which a private run needs")
        compute = self._plan.compute
        try:
            return part.privacy.make(
                declared_patients=declared,
                source=part.privacy.source_of(seed, round_number),
                rows_at_once=compute.rows_at_once,
                engine=engine_of(compute),
            )
        except ConfigError as error:
            raise RequestRefusedError(str(error)) from error

    def _client_part(self, message: wire.AdapterMessage) -> ClientPart:
        try:
            part = ClientPart.from_json(message.client_config)
        except ConfigError as error:
            raise RequestRefusedError(str(error)) from error
        run, terms = part.adapter, message.terms
        if terms.rank > run.rank or not math.isclose(terms.alpha / terms.rank, run.alpha / run.rank):
            raise RequestRefusedError("rank and alpha of the terms do not go with those of the client configuration")
        if terms.method not in registry.RULES:
            raise RequestRefusedError(
                f"method={terms.method} is unknown here; coordinator and site need the same release"
            )
        return part

    def _prepared(self, message: wire.AdapterMessage, part: ClientPart) -> CCFExp:
        """The base with an adapter of the message's rank attached."""
        wanted = replace(part.adapter, rank=message.terms.rank, alpha=message.terms.alpha)
        if self._model is None or self._adapter != wanted:
            if self._plan.threads is not None:
                torch.set_num_threads(self._plan.threads)
            model = self._base(part.adapter, part.seed)
            initial = narrowed(model.adapter_state(), wanted.rank)  # of a site of lower rank the first components
            if wanted != part.adapter:
                model = self._base(wanted, part.seed)
            model.compute_as(self._plan.compute)
            self._model, self._adapter, self._initial = model, wanted, initial
        if message.terms.base_sha256 != self._model.base_sha256:
            raise RequestRefusedError(
                f"base_sha256={message.terms.base_sha256[:12]} of the message is not this site's "
                f"{self._model.base_sha256[:12]}; install the base weights that the coordinator uses"
            )
        return self._model

    def _base(self, adapter: AdapterConfig, seed: int) -> CCFExp:
        model = CCFExp.from_base(self._plan.base).to(self._plan.device)
        model.attach_adapter(adapter, seed)
        return model

    def _site_data(self, model: CCFExp, site: str) -> SiteData:
        if site not in self._data:
            while len(self._data) >= self._plan.sites_in_memory:
                self._data.popitem(last=False)
            manifest = next(source.manifest for source in self._plan.sites if source.name == site)
            cache_dir = None if self._plan.cache_dir is None else self._plan.cache_dir / site
            self._data[site] = SiteData.prepare(model, manifest, split="train", cache_dir=cache_dir)
        self._data.move_to_end(site)
        return self._data[site]

    def _step_reporter(self, site: str, round_number: int) -> Callable[[int, int, float], None] | None:
        on_step = self._on_step
        if on_step is None:
            return None
        return lambda step, steps, loss: on_step(site, round_number, step, steps, loss)


@lru_cache(maxsize=1)
def bench_of(plan: BenchPlan) -> Workbench:
    """This process's bench for a plan: made once, so that a worker process keeps its base from message to message."""
    return Workbench(plan)


@dataclass(frozen=True)
class HospitalBench:
    """What a hospital's machine tells the app, in the environment variable CCFEXP_BENCH as JSON.

    Attributes:
        base, site, manifest, cache, memory, device, threads, compute: as in `BenchPlan`, for one site.
        declared_patients: as in `SiteSource`.
    """

    base: str
    site: str
    manifest: str
    cache: str
    memory: str
    device: str
    threads: int
    compute: ComputeConfig
    declared_patients: int | None = None

    def to_json(self) -> str:
        """The value of the variable."""
        return canonical_json(to_dict(self))


def from_environment() -> Workbench:
    """The bench of a hospital's machine.

    Raises:
        ConfigError: the variable is missing, or was written by another release.
    """
    text = os.environ.get("CCFEXP_BENCH")
    if text is None:
        raise ConfigError("environment variable CCFEXP_BENCH is missing; start this site with `python -m client.run`")
    try:
        bench = build(HospitalBench, json.loads(text))
    except ValueError as error:  # also ConfigError
        raise ConfigError("CCFEXP_BENCH does not fit; the installed release and the bundle must be the same") from error
    source = SiteSource(bench.site, Path(bench.manifest), declared_patients=bench.declared_patients)
    folders = Path(bench.memory), Path(bench.cache)
    return bench_of(BenchPlan(bench.base, (source,), *folders, bench.device, bench.compute, bench.threads))
