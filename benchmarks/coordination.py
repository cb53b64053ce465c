"""Seconds that a round takes beside training: this project's hospitals against Flower's own SuperNode as it comes.

Three hospitals on this machine, trivial training (one step on one picture), the same SuperLink, proxy, bundle and
coordinator. One side runs `python -m client.run`: the app stays loaded between messages, and nobody waits for seconds
to see whether there is work. The other is `flower-supernode` with its defaults, which starts a new process and loads
torch and the base for every message. The first rounds, in which features are computed, are not counted.

    python -m benchmarks.coordination --check
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import configs
from benchmarks._harness import Result, main
from client.workbench import HospitalBench
from configs.run import RunConfig
from simulation.sites import prepare_sites
from tests.e2e.stage import PROGRAMS, Stage, deployment

if TYPE_CHECKING:
    from collections.abc import Mapping

_SITES = ("A", "B", "C")
_ROUNDS, _COUNTED_FROM = 6, 3
_BOUND_S, _BOUND_RATIO = 5.0, 0.55
_TRIVIAL = [
    "train.steps=1",
    "train.batch_size=1",
    "train.cycle_every=1",
    f"federation.rounds={_ROUNDS}",
    "federation.min_sites=3",
    *(f"sites.{place}.subjects=2" for place in range(len(_SITES))),
]


def _start_default_node(stage: Stage, name: str, manifest: Path) -> None:
    """Flower's SuperNode with its defaults, working for a hospital."""
    site = stage.site(name)
    cache = str(site.cache)
    bench = HospitalBench(
        "phantom-base", name, str(manifest), cache, f"{cache}/memory", "cpu", 1, site.file.compute
    ).to_json()
    command = [
        str(PROGRAMS / "flower-supernode"),
        "--superlink", site.file.superlink,
        "--root-certificates", str(site.root_certificate),
        "--auth-supernode-private-key", str(site.private_key),
        "--port", str(site.file.port),
        "--node-config", f'site="{name}"',
    ]  # fmt: skip
    path = f"{PROGRAMS}:{os.environ.get('PATH', '')}"
    stage.start(f"node-{name}", ["/usr/bin/env", f"CCFEXP_BENCH={bench}", f"PATH={path}", *command])


def _seconds(stage: Stage, name: str) -> float:
    """The median time of a round once every hospital is warm."""
    stage.start_run("demo", [*_TRIVIAL, f"name={name}"])
    if stage.finish_run() != 0:
        sys.exit(stage.log("run"))
    rounds = [event for event in stage.events(name) if event["kind"] == "round"]
    times = [float(str(event["seconds"])) for event in rounds if int(str(event["round"])) >= _COUNTED_FROM]
    return statistics.median(times)


def _ours(stage: Stage) -> float:
    for name in _SITES:
        stage.start_site(name)
    for name in _SITES:
        stage.wait(f"site {name}", lambda name=name: stage.connected(name))  # type: ignore[misc]
    seconds = _seconds(stage, "ours")
    for name in _SITES:
        stage.end(f"site-{name}")
    return seconds


def _defaults(stage: Stage, data: Mapping[str, Path]) -> float:
    for name in _SITES:
        _start_default_node(stage, name, data[name])
    for name in _SITES:
        stage.wait(f"node {name}", lambda name=name: "SuperNode ID" in stage.log(f"node-{name}"))  # type: ignore[misc]
    return _seconds(stage, "defaults")


def measure() -> Result:
    """Both sides, one after the other, on one SuperLink."""
    with tempfile.TemporaryDirectory() as folder:
        config = configs.load("demo", _TRIVIAL, RunConfig)
        data = prepare_sites(config.hospitals, config.image_size, Path(folder) / "data")
        with deployment(Path(folder) / "here", _SITES) as stage:
            for name in _SITES:
                stage.settle_site(name, data[name], poll_s=0.5)
            ours, defaults = _ours(stage), _defaults(stage, data)
    rows = (
        ("client.run, seconds a round", f"{ours:.2f}"),
        ("flower-supernode with its defaults", f"{defaults:.2f}"),
        ("rounds counted", json.dumps([_COUNTED_FROM, _ROUNDS])),
    )
    absolute = Result("seconds a round", ours, _BOUND_S)
    return Result("coordination", ours / defaults, _BOUND_RATIO, rows=rows, also=(absolute,))


if __name__ == "__main__":
    raise SystemExit(main(measure, about="A round of trivial training at three hospitals: ours against the defaults."))
