"""A federation small enough for a test: real messages, real gradient steps on a low-rank regression, no images."""

from __future__ import annotations

import atexit
import shutil
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord
from flwr.clientapp import ClientApp

from client.app import make_app
from client.memory import SiteMemory
from client.update import start_of, update_of
from configs.federation import FederationConfig
from server.exchange import Patience
from server.federation import Federation, Hooks
from strategies import wire
from strategies.packing import AdapterManifest, narrowed, trained_letter

if TYPE_CHECKING:
    from collections.abc import Callable

    from flwr.app import Context, Message, RecordDict

    from ccfexp.adapter import AdapterState

A, B = "layer.lora_A.weight", "layer.lora_B.weight"
A_MOVED, B_MOVED = "layer.lora_A.residual.weight", "layer.lora_B.residual.weight"
SITES = ("north", "south", "west")
BASE = "b" * 64


def initial(width: int = 6, rank: int = 2) -> AdapterState:
    """LoRA factors as peft starts them: A random, B zero."""
    generator = torch.Generator().manual_seed(0)
    return {A: torch.randn(rank, width, generator=generator), B: torch.zeros(width, rank)}


def temporary_folder() -> Path:
    """A folder that goes with this process."""
    folder = tempfile.mkdtemp(prefix="ccfexp-toy-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


@dataclass
class ToyHospital:
    """Fits B A to its own matrix with plain gradient descent; the weight of a site is its place plus 1.

    What a site starts from, remembers and sends is the work of the real `client.update` and `client.memory`.

    Attributes:
        sites: names, by partition.
        steps: of gradient descent in a round.
        ranks: the largest of each site; empty: no limit.
        first: the run's first adapter, as every site draws it.
        folder: where the sites remember what they must.
        calls: site and round of every training.
        starts: what each of them started from.
        ends: the factors that it ended with.
    """

    sites: tuple[str, ...] = SITES
    steps: int = 5
    ranks: tuple[int, ...] = ()
    first: AdapterState = field(default_factory=initial)
    folder: Path = field(default_factory=temporary_folder)
    calls: list[tuple[str, int]] = field(default_factory=list)
    starts: dict[tuple[str, int], AdapterState] = field(default_factory=dict)
    ends: dict[tuple[str, int], AdapterState] = field(default_factory=dict)

    def site(self, context: Context) -> str:
        """The site of the partition."""
        return self.sites[int(context.node_config["partition-id"])]

    def hello(self, context: Context) -> wire.SiteHello:
        """The site of the partition and its rank."""
        site = self.site(context)
        return wire.SiteHello(site, self.ranks[self.sites.index(site)] if self.ranks else 256)

    def train(self, site: str, message: wire.AdapterMessage) -> wire.AdapterUpdate:
        """A few steps from the adapter in the message. Raises RequestRefusedError as `client.update.start_of`."""
        terms, place = message.terms, self.sites.index(site)
        self.calls.append((site, terms.round_number))
        memory = SiteMemory(self.folder / terms.run / site)
        first = narrowed(self.first, terms.rank)
        start = start_of(message, AdapterManifest.of(first), first, memory)
        trained, loss = self.fit(place, terms, start)
        self.starts[site, terms.round_number], self.ends[site, terms.round_number] = start, trained
        random = np.random.default_rng([place, terms.round_number])
        manifest, change_P = update_of(message, start, trained, memory, random)
        return wire.AdapterUpdate(terms, manifest, change_P, place + 1.0, {"loss": loss, "steps": self.steps})

    def fit(self, place: int, terms: wire.Terms, start: AdapterState) -> tuple[AdapterState, float]:
        """The factors after training those that the terms name, and the last loss."""
        state = {name: start[name].clone().requires_grad_() for name in (A, B)}
        base_NM = start[B_MOVED] @ start[A_MOVED] if A_MOVED in start else 0.0
        width = state[A].shape[1]
        generator = torch.Generator().manual_seed(1000 * place + terms.round_number)
        target_NM = torch.eye(width) * torch.tensor([4.0, 4.0] + [0.0] * (width - 2)) + 0.1 * (place % 7)
        for _ in range(self.steps):
            x_BM = torch.randn(8, width, generator=generator)
            product_NM = base_NM + terms.alpha / terms.rank * state[B] @ state[A]
            loss = (x_BM @ (product_NM - target_NM).T).square().mean()
            moving = [state[name] for name in (A, B) if trained_letter(name) in set(terms.trained)]
            gradients = torch.autograd.grad(loss, moving)
            with torch.no_grad():
                for tensor, gradient in zip(moving, gradients, strict=True):
                    tensor.sub_(gradient, alpha=0.1)
        return {name: tensor.detach() for name, tensor in state.items()}, loss.item()


def make_toy() -> ToyHospital:
    """A hospital of the three sites; a function of this module, so that another process can make it too."""
    return ToyHospital()


def make_hundred() -> ToyHospital:
    """A hospital of a hundred sites."""
    return ToyHospital(tuple(f"site-{index:03d}" for index in range(100)), steps=1)


def federation(
    out_dir: Path,
    *,
    rounds: int = 3,
    min_sites: int = 2,
    wanted: int = 3,
    hooks: Hooks | None = None,
    start: AdapterState | None = None,
    alpha: float = 2.0,
    seed: int = 0,
    config_sha256: str = "a" * 64,
    timeout_s: float = 60.0,
    wait_s: float = 0.2,
    stop: threading.Event | None = None,
    **options: Any,  # noqa: ANN401 (of the configuration)
) -> Federation:
    """A coordinator of the toy."""
    first = start or initial()
    values: dict[str, Any] = {"strategy": "fedit", "wait_for_sites_s": wait_s, "max_weight": 1000.0} | options
    return Federation(
        config=FederationConfig(rounds=rounds, min_sites=min_sites, **values),
        terms=wire.Terms(1, "fedit", len(first[A]), alpha, config_sha256, BASE),
        initial=first,
        client_config="{}",
        out_dir=out_dir,
        wanted_sites=wanted,
        patience=Patience(timeout_s, poll_s=0.01, stop=stop or threading.Event()),
        seed=seed,
        hooks=hooks or Hooks(),
    )


def write_changes(records: RecordDict, change_P: np.ndarray) -> None:
    """Put other float32 numbers into an update, not compressed, whatever they are."""
    planes = change_P.astype("<f4").view(np.uint8).reshape(-1, 4).T  # as `strategies.coding` writes them
    records["adapter"] = ArrayRecord({"flat": Array(np.frombuffer(planes.tobytes(), np.uint8))})
    records["terms"] = ConfigRecord({**records.config_records["terms"], "compressed": False})


def spoiled(app: ClientApp, site_index: int, rounds: set[int], spoil: Callable[[RecordDict], None]) -> ClientApp:
    """The same app, but what one site answers in some rounds is changed behind its back, as a broken network would."""

    def inner(message: Message, context: Context) -> Message:
        return app(message, context)

    def call(message: Message, context: Context) -> Message:
        reply = inner(message, context)
        mine = context.node_config["partition-id"] == site_index
        if mine and int(message.metadata.group_id) in rounds:
            spoil(reply.content)
        return reply

    wrapper = ClientApp()
    wrapper.train()(call)
    wrapper.query()(inner)
    return wrapper


def toy_app(hospital: ToyHospital | None = None) -> ClientApp:
    """The real ClientApp around a toy hospital."""
    bench = hospital or ToyHospital()
    return make_app(lambda: bench)
