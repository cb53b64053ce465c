"""A full-size LoRA training step over the published procedure's step: time, and peak memory.

Both sides are measured without the expression term, which the published procedure does not have: it costs the default
loss one more pass of the face encoder at every step.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from benchmarks._harness import Result, main
from benchmarks._steps import BATCH, SIDES

TIME_BOUND, MEMORY_BOUND = 0.50, 0.60


def side(name: str) -> dict[str, float]:
    """Seconds and bytes of one side in a process of its own."""
    command = [sys.executable, "-m", "benchmarks._steps", name]
    root = Path(__file__).parents[1]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=root)  # noqa: S603
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _line(found: dict[str, float], unet_seconds: float) -> str:
    """Time with its split, and memory, of one side."""
    split = f"U-Net {unet_seconds:.2f} s, face networks and optimiser the rest"
    return f"{found['seconds']:.2f} s ({split}), {found['bytes'] / 1e9:.2f} GB"


def measure() -> Result:
    """Both sides in turn, and of each the U-Net's share alone."""
    found = {name: side(name) for name in SIDES}
    ours, theirs = found["corrected"], found["published"]
    rows = [
        (
            f"{name}, {BATCH} images",
            _line(found[name], found[f"{name}_unet"]["seconds"]),
        )
        for name in ("published", "corrected")
    ]
    memory = Result("training_step_memory", ours["bytes"] / theirs["bytes"], MEMORY_BOUND)
    return Result("training_step", ours["seconds"] / theirs["seconds"], TIME_BOUND, rows=tuple(rows), also=(memory,))


if __name__ == "__main__":
    sys.exit(main(measure, about="A full-size LoRA step over the published two-cycle step, one thread"))
