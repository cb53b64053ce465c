"""What the federation adds to training: federated rounds with one site over the same steps in a plain loop.

Both sides are taken in one run, in turn: after every federated round (server, wire, checks, aggregation, checkpoint,
client) the same round is trained once more by a bare call of the training loop. Start-up is left out on both sides.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from benchmarks._harness import Result, main
from ccfexp.model import CCFExp
from ccfexp.training import SiteData, train_local
from configs import load
from configs.client_part import site_seed
from configs.run import RunConfig
from simulation.federate import Callbacks, run_federation
from simulation.sites import prepare_sites

if TYPE_CHECKING:
    from ccfexp.adapter import AdapterState

BOUND = 1.10
_ROUNDS = 8


def measure() -> Result:
    """Median seconds of a round on both sides, default round length, one site."""
    whole = load("default", [f"federation.rounds={_ROUNDS}", "federation.min_sites=1"], RunConfig)
    config = replace(whole, sites=whole.sites[:1])
    torch.set_num_threads(config.threads)
    site = config.sites[0].name
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manifests = prepare_sites(config.sites, config.image_size, folder / "sites")
        model = CCFExp.from_base(config.base)
        model.attach_adapter(config.adapter, config.seed)
        data = SiteData.prepare(model, manifests[site])
        federated, plain = _Stopwatch(), _Stopwatch()
        before: dict[int, AdapterState] = {}

        def on_round(number: int, adapter: AdapterState, _: dict[str, float]) -> None:
            federated.stop()
            before[number] = adapter
            if number:
                plain.start()
                model.load_adapter_state(before[number - 1])
                seed = site_seed(config.seed, site)
                train_local(model, data, config.train, seed=seed, round_number=number, threads=config.threads)
                model.adapter_state()
                plain.stop()
            federated.start()

        run_federation(config, manifests, folder / "run", callbacks=Callbacks(on_round=on_round))
    # The first round loads the base and encodes the site's images: start-up.
    first, second = statistics.median(federated.seconds[1:]), statistics.median(plain.seconds[1:])
    rows = (
        ("steps per round", f"{config.train.steps} of {config.train.batch_size} images"),
        ("federated round", f"{first:.3f} s"),
        ("plain loop", f"{second:.3f} s"),
    )
    return Result("federation_overhead", first / second, BOUND, rows=rows)


class _Stopwatch:
    """Seconds between each start and the stop after it."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._started: float | None = None

    def start(self) -> None:
        self._started = time.perf_counter()

    def stop(self) -> None:
        if self._started is not None:
            self.seconds.append(time.perf_counter() - self._started)


if __name__ == "__main__":
    sys.exit(
        main(measure, about="Federated rounds with one site over the same steps in a plain loop, start-up left out")
    )
