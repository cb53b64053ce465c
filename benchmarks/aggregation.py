"""What the coordinator's arithmetic costs: speed over that of a plain memory copy, and memory as sites become many.

Speed: the default rule's mean of the uploads, against numpy's copy of the same arrays, in turns in one process. The
mean reads 4 bytes a number and updates 8, a copy reads and writes 4. Memory: a round of two hundred sites over one of
ten, updates on the disk, each in a process of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks._harness import Result, main
from strategies.aggregation import GlobalState, SiteUpdate
from strategies.averaging import combined_change
from strategies.options import CombineOptions
from strategies.packing import AdapterManifest
from strategies.registry import make

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

BOUND, MEMORY_BOUND = 0.3, 1.10
_SITES, _REPEATS = 10, 15
_FEW, _MANY = 10, 200
_WIDTHS = (64, 128, 192, 256)  # channels of the stages of a U-Net

_SIDE = """
import json, sys
from pathlib import Path
from benchmarks.aggregation import round_on_disk
print(json.dumps(round_on_disk(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))))
"""


def manifest_of(rank: int, blocks: int) -> AdapterManifest:
    """An adapter on so many residual blocks with attention at every stage: 64 to 256 outputs, 64 to 2304 inputs."""
    shapes: dict[str, tuple[int, tuple[int, ...]]] = {}
    for stage, width in enumerate(_WIDTHS):
        for block in range(blocks):
            name = f"stage{stage}.block{block}"
            shapes |= {f"{name}.{conv}": (width, (width, 3, 3)) for conv in ("conv1", "conv2")}
            shapes[f"{name}.time"] = (width, (256,))
            shapes |= {f"{name}.{part}": (width, (width,)) for part in ("to_q", "to_k", "to_v", "to_out")}
    factors: dict[str, tuple[int, ...]] = {}
    for name, (outputs, inputs) in shapes.items():
        factors[f"{name}.lora_A.weight"] = (rank, *inputs)
        factors[f"{name}.lora_B.weight"] = (outputs, rank, *(1 for _ in inputs[1:]))
    return AdapterManifest(tuple(sorted(factors.items())))


def state_of(manifest: AdapterManifest) -> GlobalState:
    """A federation that has trained for a while."""
    random = np.random.default_rng(0)
    return GlobalState(manifest, 0.02 * random.standard_normal(manifest.parameters, np.float32), 1.0)


def updates_of(manifest: AdapterManifest, sites: int, rank: int) -> Iterator[SiteUpdate]:
    """Hospitals with unequal numbers of patients, made one at a time."""
    for number in range(sites):
        random = np.random.default_rng([1, number])
        change_P = 1e-3 * random.standard_normal(manifest.parameters, np.float32)
        yield SiteUpdate(f"site-{number:03d}", float(20 + 7 * number), manifest, change_P, rank, 1.0)
        del change_P


# --- speed ------------------------------------------------------------------------------------------------------------


def best_seconds(tasks: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """The shortest time of each task; they take turns, so that a busy moment of the machine meets all."""
    best = dict.fromkeys(tasks, float("inf"))
    for _ in range(repeats):
        for name, task in tasks.items():
            began = time.perf_counter()
            task()
            best[name] = min(best[name], time.perf_counter() - began)
    return best


def speed() -> tuple[float, tuple[tuple[str, str], ...]]:
    """Uploads averaged over uploads copied, and rows."""
    rank, number = 48, 2  # a round that trains A, the larger factor of a convolution
    manifest = manifest_of(rank, blocks=4)
    state, rule = state_of(manifest), make("rolora")
    uploaded = manifest.only(rule.roles(number).uploaded)
    updates = list(updates_of(uploaded, _SITES, rank))
    sources = [np.asarray(update.change_P[: uploaded.parameters]) for update in updates]
    targets = [np.ones_like(source) for source in sources]

    def copied() -> None:
        for target, source in zip(targets, sources, strict=True):
            np.copyto(target, source)

    def averaged() -> None:
        combined_change(uploaded, state.scale, updates, CombineOptions())

    tasks = {"mean": averaged, "copy": copied, "round": lambda: rule.aggregate(state, updates, number)}
    seconds = best_seconds(tasks, _REPEATS)
    gigabytes = 4e-9 * _SITES * uploaded.parameters
    rows = (
        (
            "adapter",
            f"{manifest.parameters / 1e6:.1f} M parameters, {uploaded.parameters / 1e6:.1f} M of them uploaded",
        ),
        (f"mean of {_SITES} sites", f"{gigabytes / seconds['mean']:.2f} GB/s of uploads"),
        ("copy", f"{gigabytes / seconds['copy']:.2f} GB/s of uploads"),
        ("whole step of rolora", f"{gigabytes / seconds['round']:.2f} GB/s of uploads"),
    )
    return seconds["copy"] / seconds["mean"], rows


# --- memory -----------------------------------------------------------------------------------------------------------


def round_on_disk(name: str, sites: int, folder: Path) -> dict[str, float]:
    """Aggregate, and say how much memory this process had before the round and at most, in MB."""
    from server.shelf import Shelf

    rank, number = 8, 2  # rolora trains A
    manifest = manifest_of(rank, blocks=2)
    state, rule = state_of(manifest), make(name)
    shelf = Shelf(folder)
    before = _megabytes("VmRSS")
    uploaded = manifest.only(rule.roles(number).uploaded)
    waiting = (shelf.put(update) for update in updates_of(uploaded, sites, rank))
    after = rule.aggregate(state, waiting, number)
    shelf.clear()
    if not np.isfinite(after.flat_P).all():
        raise RuntimeError(f"{name} of {sites} sites gave values that are not finite")
    return {"before": before, "peak": _megabytes("VmHWM"), "parameters": manifest.parameters}


def _megabytes(field: str) -> float:
    """Of this process. Not getrusage: its maximum begins with that of the process that started this one."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) * 1024 / 1e6


def memory(name: str) -> tuple[Result, tuple[tuple[str, str], ...]]:
    """Peak memory with many sites over that with few."""
    peaks, rows = {}, []
    for sites in (_FEW, _MANY):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-c", _SIDE, name, str(sites), folder]
            began = time.perf_counter()
            done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1])  # noqa: S603
        facts = json.loads(done.stdout.splitlines()[-1])
        peaks[sites] = facts["peak"]
        seconds = time.perf_counter() - began
        text = f"{facts['peak']:.0f} MB at most, {facts['before']:.0f} MB before the round, {seconds:.1f} s"
        rows.append((f"{name}, {sites} sites", text))
    return Result(f"memory of {name}", peaks[_MANY] / peaks[_FEW], MEMORY_BOUND), tuple(rows)


def measure() -> Result:
    """Speed here, memory in processes of their own."""
    ratio, rows = speed()
    also = []
    for name in ("rolora", "flex"):
        result, more = memory(name)
        also.append(result)
        rows += more
    return Result("aggregation", ratio, BOUND, at_most=False, rows=rows, also=tuple(also))


if __name__ == "__main__":
    sys.exit(main(measure, about="The mean of uploads by the default rule over a plain copy of them, GB/s over GB/s"))
