"""A private training step over an ordinary one at equal images, one thread: CPU time, and peak memory.

Both train every factor of the shipped base with the two-pass loss. The ordinary step takes the mean of its images; the
private one takes as many images of half as many patients, tells the patients' gradients apart, clips them over the
whole adapter and adds noise from the operating system's generator. Opacus' engine stands beside them. Times are of
steps in turn in one process, the least of several; memory is what a process of its own grows by (Linux tells).
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from benchmarks._harness import Result, main
from ccfexp.adapter import AdapterConfig
from ccfexp.conditioning import ExpressionFeatures, IdentityFeatures
from ccfexp.losses import Batch, CycleConfig
from ccfexp.model import CCFExp
from ccfexp.parallel import losses_of, shares
from ccfexp.privacy.engines import OpacusEngine
from ccfexp.privacy.noise import SecureSource
from ccfexp.privacy.plan import PrivacyConfig
from ccfexp.privacy.steps import Draw, Engine, MeanPlan, Plan

if TYPE_CHECKING:
    from collections.abc import Callable

IMAGES, REPEATS = 16, 7
TIME_BOUND, MEMORY_BOUND = 1.15, 1.15
SIDES = ("ordinary", "private", "opacus")
LOSS = CycleConfig(expression_weight=0.5)


def batch_of(model: CCFExp, images: int, side: int) -> Batch:
    """Random pictures with their features, as a site has them."""
    generator = torch.Generator().manual_seed(0)
    target, person = (torch.rand(images, 3, side, side, generator=generator) * 2 - 1 for _ in range(2))
    with torch.no_grad():
        shown = model.encoders.expression_features(target)
        photo = model.encoders.identity_features(person)
        return Batch(
            target,
            IdentityFeatures(*photo),
            ExpressionFeatures(*shown),
            model.encoders.identity(target).vector_BD,
            shown.landmark_B136,
            shown.deviation_BD,
            photo.vector_BD,
        )


def plans() -> dict[str, Plan]:
    """What each side does with the same images."""
    config = PrivacyConfig(noise_multiplier=1.0, clipping_norm=0.02, sampling_rate=0.5)

    def private(engine: Engine | None = None) -> Plan:
        return config.make(declared_patients=IMAGES, source=SecureSource(), rows_at_once=IMAGES, engine=engine)

    return {"ordinary": MeanPlan(IMAGES, 1.0), "private": private(), "opacus": private(OpacusEngine())}


def steps(names: tuple[str, ...]) -> dict[str, Callable[[], None]]:
    """A training step of each side, on one model."""
    torch.set_num_threads(1)
    model = CCFExp.from_base("phantom-base")
    model.attach_adapter(AdapterConfig(), seed=0)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with torch.no_grad():
        for parameter in trained:
            parameter.normal_(std=0.02)
    optimiser = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.0)
    side = model.config.unet.image_size
    batch = batch_of(model, IMAGES, side)
    t_B = torch.linspace(50, 950, IMAGES).long()
    eps = torch.randn(batch.target_B3HW.shape, generator=torch.Generator().manual_seed(1))
    losses = losses_of(model, batch, t_B, eps, LOSS)
    draws = dict.fromkeys(SIDES, Draw(torch.arange(IMAGES), (2,) * (IMAGES // 2)))
    draws["ordinary"] = Draw(torch.arange(IMAGES), (IMAGES,))

    def step(name: str, plan: Plan) -> None:
        optimiser.zero_grad()
        with shares(1) as work, plan.running(model):
            plan.backward(model, draws[name], lambda _: losses, work)
        optimiser.step()

    return {name: lambda name=name, plan=plan: step(name, plan) for name, plan in plans().items() if name in names}  # type: ignore[misc]


def seconds() -> dict[str, float]:
    """The least CPU time of a step of each side, steps taken in turn."""
    taken = steps(SIDES)
    least = dict.fromkeys(SIDES, float("inf"))
    for repeat in range(REPEATS + 1):
        for name, step in taken.items():
            started = time.process_time()
            step()
            if repeat:
                least[name] = min(least[name], time.process_time() - started)
    return least


def growth(name: str) -> float:
    """Bytes that the process grows by, at its peak, in some steps of one side."""
    step = steps((name,))[name]
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak so far was that of loading
    before = _peak()
    for _ in range(3):
        step()
    return _peak() - before


def _peak() -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024.0 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


def _growth_apart(name: str) -> float:
    """The same in a process of its own: the peak of a process only ever rises."""
    command = [sys.executable, "-m", "benchmarks.privacy_step", "--growth", name]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1])  # noqa: S603
    return float(json.loads(done.stdout.splitlines()[-1]))


def measure() -> Result:
    """Time in one process, memory in one each."""
    taken, grown = seconds(), {name: _growth_apart(name) for name in SIDES}
    rows = tuple((f"{name}, {IMAGES} images", _line(taken, grown, name)) for name in SIDES)
    memory = Result("privacy_step_memory", grown["private"] / grown["ordinary"], MEMORY_BOUND)
    return Result("privacy_step", taken["private"] / taken["ordinary"], TIME_BOUND, rows=rows, also=(memory,))


def _line(taken: dict[str, float], grown: dict[str, float], name: str) -> str:
    time_ratio, memory_ratio = taken[name] / taken["ordinary"], grown[name] / grown["ordinary"]
    return f"{taken[name]:.3f} s ({time_ratio:.3f}), {grown[name] / 2**20:.0f} MiB ({memory_ratio:.3f})"


if __name__ == "__main__":
    if "--growth" in sys.argv:
        print(json.dumps(growth(sys.argv[-1])))
        sys.exit()
    sys.exit(main(measure, about="A private step over an ordinary one at equal images, one thread"))
