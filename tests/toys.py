"""A federation small enough for a test: real messages, real gradient steps on a low-rank regression, no images."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord
from flwr.clientapp import ClientApp

from client.app import make_app
from configs.federation import FederationConfig
from server.exchange import Patience
from server.federation import Federation, Hooks
from strategies import coding, wire
from strategies.packing import narrowed, pack

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from flwr.app import Context, Message, RecordDict

A, B = "layer.lora_A.weight", "layer.lora_B.weight"
A_MOVED, B_MOVED = "layer.lora_A.residual.weight", "layer.lora_B.residual.weight"
SITES = ("north", "south", "west")
BASE = "b" * 64


def initial(width: int = 6) -> dict[str, torch.Tensor]:
    """LoRA factors of rank 2 as peft starts them: A random, B zero."""
    generator = torch.Generator().manual_seed(0)
    return {A: torch.randn(2, width, generator=generator), B: torch.zeros(width, 2)}


@dataclass
class ToyHospital:
    """Fits B A to its own matrix with plain gradient descent; the weight of a site is its place plus 1."""

    sites: tuple[str, ...] = SITES
    steps: int = 5
    calls: list[tuple[str, int]] = field(default_factory=list)
    own: dict[tuple[str, int], dict[str, torch.Tensor]] = field(default_factory=dict)  # B by site and round
    ranks: tuple[int, ...] = ()  # of the sites; empty: no limit

    def hello(self, context: Context) -> wire.SiteHello:
        """The site of the partition and its rank."""
        site = self.site(context)
        return wire.SiteHello(site, self.ranks[self.sites.index(site)] if self.ranks else 256)

    def _own(self, site: str, round_number: int) -> dict[str, torch.Tensor]:
        """The site's own B of its last round before this one."""
        rounds = [number for name, number in self.own if name == site and number < round_number]
        return self.own[site, max(rounds)] if rounds else {}

    def site(self, context: Context) -> str:
        """The site of the partition."""
        return self.sites[int(context.node_config["partition-id"])]

    def train(self, site: str, message: wire.AdapterMessage) -> wire.AdapterUpdate:
        """A few steps from the adapter in the message."""
        self.calls.append((site, message.terms.round_number))
        place = self.sites.index(site)
        start = initial() | self._own(site, message.terms.round_number) | message.state()
        start = narrowed(start, message.terms.rank)
        state = {name: tensor.clone().requires_grad_() for name, tensor in start.items()}
        base_NM = start[B_MOVED] @ start[A_MOVED] if A_MOVED in start else 0.0
        scale = message.terms.alpha / message.terms.rank
        width = state[A].shape[1]
        generator = torch.Generator().manual_seed(1000 * place + message.terms.round_number)
        target_NM = torch.eye(width) * torch.tensor([4.0, 4.0] + [0.0] * (width - 2)) + 0.1 * place
        for _ in range(self.steps):
            x_BM = torch.randn(8, width, generator=generator)
            loss = (x_BM @ (base_NM + scale * state[B] @ state[A] - target_NM).T).square().mean()
            trained = [state[name] for name in (A, B) if name[name.index("lora_") + 5] in message.terms.trained]
            gradients = torch.autograd.grad(loss, trained)
            with torch.no_grad():
                for tensor, gradient in zip(trained, gradients, strict=True):
                    tensor.sub_(gradient, alpha=0.1)
        self.own[site, message.terms.round_number] = {B: state[B].detach()}
        change = {name: state[name].detach() - start[name] for name in message.uploaded.names}
        manifest, change_P = pack(change)
        random = np.random.default_rng([place, message.terms.round_number])
        change_P = coding.representable(change_P, message.terms.coding, random)
        metrics = {"loss": loss.item(), "steps": self.steps}
        return wire.AdapterUpdate(message.terms, manifest, change_P, place + 1.0, metrics)


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
    start: dict[str, torch.Tensor] | None = None,
    config_sha256: str = "a" * 64,
    timeout_s: float = 60.0,
    wait_s: float = 0.2,
    stop: threading.Event | None = None,
    **options: Any,  # noqa: ANN401 (of the configuration)
) -> Federation:
    """A coordinator of the toy."""
    values: dict[str, Any] = {"strategy": "fedit", "wait_for_sites_s": wait_s, "max_weight": 1000.0} | options
    return Federation(
        config=FederationConfig(rounds=rounds, min_sites=min_sites, **values),
        terms=wire.Terms(1, "fedit", 2, 2.0, config_sha256, BASE),
        initial=start or initial(),
        client_config="{}",
        out_dir=out_dir,
        wanted_sites=wanted,
        patience=Patience(timeout_s, poll_s=0.01, stop=stop or threading.Event()),
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
