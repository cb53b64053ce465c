"""Peak memory of a federation of a hundred sites over one of ten, each in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks._harness import Result, main

BOUND = 1.10
_FEW, _MANY = 5, 50  # copies of the two listed sites

_SIDE = """
import json, resource, sys
from pathlib import Path
from configs import load
from configs.run import RunConfig
from simulation.federate import run_federation
from simulation.sites import prepare_sites
copies = int(sys.argv[1])
config = load("hundred", [f"site_copies={copies}", f"federation.min_sites={2 * copies}"], RunConfig)
folder = Path(sys.argv[2])
manifests = prepare_sites(config.hospitals, config.image_size, folder / "sites")
progress = run_federation(config, manifests, folder / "run")
used = [len(record.weights) for record in progress.history[1:]]
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"sites": len(manifests), "used": used, "kilobytes": peak}))
"""


def peak_bytes(copies: int) -> tuple[int, int]:
    """Sites and peak resident bytes of a federation in its own process.

    Raises:
        RuntimeError: a site did not take part in every round.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", _SIDE, str(copies), folder]
        root = Path(__file__).parents[1]
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=root)  # noqa: S603
    facts = json.loads(done.stdout.splitlines()[-1])
    if set(facts["used"]) != {facts["sites"]}:
        raise RuntimeError(f"sites={facts['sites']}, but used per round={facts['used']}")
    return facts["sites"], 1024 * facts["kilobytes"]


def measure() -> Result:
    """Ten sites, then a hundred, tiny steps."""
    few, bytes_few = peak_bytes(_FEW)
    many, bytes_many = peak_bytes(_MANY)
    rows = ((f"{few} sites", f"{bytes_few / 1e6:.0f} MB"), (f"{many} sites", f"{bytes_many / 1e6:.0f} MB"))
    return Result("many_sites", bytes_many / bytes_few, BOUND, rows=rows)


if __name__ == "__main__":
    sys.exit(main(measure, about="Peak memory of a federation of a hundred sites over one of ten"))
