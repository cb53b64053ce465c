"""A hospital's bench: the base model and the site's images, loaded once per process and used for every round.

One process may work for many virtual sites (a simulation); they share the frozen base, and of their images only the
most recently used stay in memory.
"""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ccfexp._io import canonical_json
from ccfexp.compute import ComputeConfig
from ccfexp.errors import ConfigError, WireError
from ccfexp.model import CCFExp
from ccfexp.training import SiteData, train_local
from client.app import RequestRefusedError
from configs import build, to_dict
from configs.client_part import ClientPart, site_seed
from strategies import wire
from strategies.packing import AdapterManifest

if TYPE_CHECKING:
    from flwr.app import Context

    from ccfexp.adapter import AdapterConfig


OnStep = Callable[[str, int, int, int, float], None]  # site, round, step, steps, loss


@dataclass(frozen=True)
class SiteSource:
    """Where a site's images are; stays on the site's machine."""

    name: str
    manifest: Path


@dataclass(frozen=True)
class BenchPlan:
    """What a bench is made of: small, hashable, and the same in every process.

    Attributes:
        base: name or path of the base weights.
        sites: the sites of this machine; virtual node k of a simulation is sites[k].
        cache_dir: where frozen features are kept, or None to compute them anew in every process.
        device: torch device.
        compute: how the device computes.
        threads: torch threads of this process, or None to leave them as they are.
        sites_in_memory: of how many sites the images stay loaded.
    """

    base: str
    sites: tuple[SiteSource, ...]
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
        self._manifest: AdapterManifest | None = None
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

    def train(self, site: str, message: wire.AdapterMessage) -> wire.AdapterUpdate:
        """One round of training from the adapter in the message.

        Raises:
            RequestRefusedError: the message is of another base, adapter or release.
        """
        part = self._client_part(message)
        model = self._prepared(message, part)
        model.load_adapter_state(message.state())
        round_number = message.terms.round_number
        result = train_local(
            model,
            self._site_data(model, site),
            part.train,
            seed=site_seed(part.seed, site),
            round_number=round_number,
            threads=self._plan.threads or 1,
            on_step=self._step_reporter(site, round_number),
        )
        metrics = {"loss": result.loss, "steps": result.steps, "patients": result.patients, "images": result.images}
        return wire.AdapterUpdate.of(message.terms, model.adapter_state(), float(result.patients), metrics)

    def _client_part(self, message: wire.AdapterMessage) -> ClientPart:
        try:
            part = ClientPart.from_json(message.client_config)
        except ConfigError as error:
            raise RequestRefusedError(str(error)) from error
        if (part.adapter.rank, float(part.adapter.alpha)) != (message.terms.rank, message.terms.alpha):
            raise RequestRefusedError("rank and alpha of the terms are not those of the client configuration")
        return part

    def _prepared(self, message: wire.AdapterMessage, part: ClientPart) -> CCFExp:
        """The base with the adapter of the message attached, checked against the message."""
        if self._model is None or self._manifest is None or self._adapter != part.adapter:
            if self._plan.threads is not None:
                torch.set_num_threads(self._plan.threads)
            model = CCFExp.from_base(self._plan.base).to(self._plan.device)
            model.attach_adapter(part.adapter, part.seed)
            model.compute_as(self._plan.compute)
            self._model, self._adapter = model, part.adapter
            self._manifest = AdapterManifest.of(model.adapter_state())
        if message.terms.base_sha256 != self._model.base_sha256:
            raise RequestRefusedError(
                f"base_sha256={message.terms.base_sha256[:12]} of the message is not this site's "
                f"{self._model.base_sha256[:12]}; install the base weights that the coordinator uses"
            )
        try:
            message.manifest.check_equal(self._manifest)
        except WireError as error:
            raise RequestRefusedError(str(error)) from error
        return self._model

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
        base, site, manifest, cache, device, threads, compute: as in `BenchPlan`, for one site.
    """

    base: str
    site: str
    manifest: str
    cache: str
    device: str
    threads: int
    compute: ComputeConfig

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
    source = SiteSource(bench.site, Path(bench.manifest))
    return bench_of(BenchPlan(bench.base, (source,), Path(bench.cache), bench.device, bench.compute, bench.threads))
