"""The stage that makes the phantom base: resumable, with a curve of held-out quality against images seen."""
# ruff: noqa: T201 - the stage of a command line program says how far it is

import hashlib
import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save

from ccfexp import weights
from ccfexp._io import atomic_write_bytes, canonical_json
from ccfexp.errors import CheckpointError
from ccfexp.model import FrozenEncoders, config_to_json
from ccfexp.parallel import shares
from ccfexp.pretrain.base import (
    BASE_RECIPE,
    CURVE_POPULATION,
    BaseRecipe,
    BaseState,
    Features,
    PairSampler,
    held_out_loss,
    new_state,
    train_base,
)
from ccfexp.pretrain.population import cached_population, render_population
from ccfexp.pretrain.ship import ship

NAME = "phantom-base"
_SNAPSHOT_EVERY = 250
# How the shipped file came about, where that differs from running the command once from nothing.
_LINEAGE = (
    "- Lineage of the shipped file: the recipe was settled while it was trained. Steps 1 to 1,250 predicted v instead "
    "of the image (the last layer was negated then, the optimiser started anew); steps 1 to 3,250 saw two sessions of "
    "each person with even movements only; the expression term and the landmark weight of 30 began at step 4,000; "
    "steps up to 5,200 saw the first 3,000 people, and ended in a decay of the rate; "
    "from 5,201 it was back at its peak. Up to step 9,000 the faces made no grimaces and no movement on one side "
    "alone, half of the pairs were crossed, the expression term weighed 0.1, and an earlier face encoder was read; "
    "its deviations were mapped onto those of the present one by least squares (95 % of their variance), folded into "
    "the two layers that read them. "
    "The curve begins after the change to the image."
)
_CURVE_EVERY = 500


@dataclass(frozen=True)
class BasePlan:
    """Where and for how long the base is trained.

    Attributes:
        work: folder of rendered people and snapshots.
        out: folder that finished weights go to.
        device: torch device.
        minutes: stop after so long, or None to go on to the recipe's last step.
        ship_now: train nothing, write the present average.
        from_shipped: where there is no snapshot, start from the shipped base instead of from nothing.
        workers: processes that render.
    """

    work: Path
    out: Path
    device: str
    minutes: float | None
    ship_now: bool
    from_shipped: bool
    workers: int


def run_base(plan: BasePlan) -> None:
    """Train from the last snapshot, then (at the recipe's end, or at once with ``ship_now``) ship the average."""
    recipe = BASE_RECIPE
    encoders = FrozenEncoders.load(recipe.model.encoders).to(plan.device)
    state = new_state(recipe, encoders, plan.device)
    snapshot, curve_path = plan.work / "base-snapshot.safetensors", plan.work / "base-curve.jsonl"
    if snapshot.is_file():
        _resume(state, recipe, snapshot)
        print(f"base: resumed after step {state.step}", flush=True)
    elif plan.from_shipped:
        tensors, _ = weights.load(NAME)
        state.model.load_state_dict(tensors)
        state.average.load_state_dict(tensors)
    if not plan.ship_now:
        _train(recipe, state, plan.work, snapshot, curve_path, plan.minutes, plan.workers)
    if plan.ship_now or state.step >= recipe.steps:
        metadata, card = {"model": config_to_json(recipe.model)}, _card(recipe, state, curve_path)
        digest = ship(plan.out, NAME, dict(state.average.state_dict()), metadata, card)
        print(f"base: shipped after step {state.step}, sha256={digest}", flush=True)


def _train(
    recipe: BaseRecipe,
    state: BaseState,
    work: Path,
    snapshot: Path,
    curve_path: Path,
    minutes: float | None,
    workers: int,
) -> None:
    encoders, device = state.model.encoders, state.model.device
    people = cached_population(recipe.population, work, workers)
    features = work / f"base-features-{_encoders_key(recipe)}.safetensors"
    pairs = PairSampler(people, Features.cached(people, encoders, device, features), recipe.crossed)
    judges = render_population(CURVE_POPULATION, workers=1)
    held_out = PairSampler(judges, Features.of(judges, encoders, device), 0.5)
    # A GPU takes the whole batch at once; on a CPU every core takes a share.
    with shares(torch.get_num_threads() if device.type == "cpu" else 1) as both:
        meter = _Meter(recipe, state.step)
        for step, loss in train_base(recipe, state, pairs, both):
            meter.add(step, loss)
            out_of_time = minutes is not None and meter.spent > 60 * minutes
            if step % _CURVE_EVERY == 0:
                _measure(state, recipe, held_out, curve_path, meter)
            if step % _SNAPSHOT_EVERY == 0 or out_of_time or step == recipe.steps:
                _snapshot(state, recipe, snapshot)
            if out_of_time:
                return


class _Meter:
    """Running mean of the loss and the speed, told every fifty steps."""

    def __init__(self, recipe: BaseRecipe, first: int) -> None:
        self._recipe, self._first, self._started = recipe, first, time.monotonic()
        self.loss: float | None = None

    @property
    def spent(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    def add(self, step: int, loss: float) -> None:
        """Count a step."""
        self.loss = loss if self.loss is None else 0.98 * self.loss + 0.02 * loss
        if step % 50 == 0:
            rate, recipe = (step - self._first) / self.spent, self._recipe
            speed, left = rate * recipe.batch_size, (recipe.steps - step) / rate / 60
            line = f"step {step}/{recipe.steps} loss {self.loss:.4f}, {speed:.1f} images/s, {left:.0f} min left"
            print(f"base: {line}", flush=True)


def _measure(state: BaseState, recipe: BaseRecipe, held_out: PairSampler, curve_path: Path, meter: _Meter) -> None:
    """One more line of the curve of held-out quality against images seen."""
    figures = held_out_loss(state.average, held_out, recipe.loss)
    line = canonical_json({"images": state.step * recipe.batch_size, "train": meter.loss, **figures})
    with curve_path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    print(f"base: held out {line}", flush=True)


def _encoders_key(recipe: BaseRecipe) -> str:
    """Names the encoders and the people that cached features were made from."""
    names = recipe.model.encoders
    facts = [weights.sha256(name) for name in (names.identity, names.face, names.landmark)] + [str(recipe.population)]
    return hashlib.sha256("|".join(facts).encode()).hexdigest()[:16]


def _snapshot(state: BaseState, recipe: BaseRecipe, path: Path) -> None:
    tensors = {f"model.{key}": value for key, value in state.model.state_dict().items()}
    tensors |= {f"average.{key}": value for key, value in state.average.state_dict().items()}
    for index, slots in state.optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{slot}": value for slot, value in slots.items()}
    metadata = {"step": str(state.step), "recipe": canonical_json(asdict(recipe.model))}
    atomic_write_bytes(path, save({key: value.detach().cpu().contiguous() for key, value in tensors.items()}, metadata))


def _resume(state: BaseState, recipe: BaseRecipe, path: Path) -> None:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
    if metadata.get("recipe") != canonical_json(asdict(recipe.model)):
        raise CheckpointError("the snapshot belongs to another architecture; move it away to start anew")
    tensors = load_file(path)

    def part(prefix: str) -> dict[str, torch.Tensor]:
        return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}

    state.model.load_state_dict(part("model."))
    state.average.load_state_dict(part("average."))
    slots: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in part("optimiser.").items():
        index, slot = key.split(".", 1)
        slots.setdefault(int(index), {})[slot] = value
    state.optimiser.load_state_dict({"state": slots, "param_groups": state.optimiser.state_dict()["param_groups"]})
    state.step = int(metadata["step"])


def _card(recipe: BaseRecipe, state: BaseState, curve_path: Path) -> str:
    people = recipe.population
    curve = (
        [json.loads(line) for line in curve_path.read_text(encoding="utf-8").splitlines()]
        if curve_path.is_file()
        else []
    )
    parameters = sum(p.numel() for p in state.model.unet.parameters())
    lines = [
        f"# {NAME}",
        "",
        (
            f"- CCFExp at phantom size ({recipe.model.unet.image_size} px): U-Net {parameters:,} parameters, "
            f"conditioner {sum(p.numel() for p in state.model.conditioner.parameters()):,}."
        ),
        "- Command: `python -m ccfexp.pretrain base` (resumes by itself).",
        (
            f"- Data: {people.images:,} images of healthy phantom people, seeds {people.first_identity} to "
            f"{people.first_identity + people.identities - 1}; nobody with a palsy. Training seed {recipe.seed}."
        ),
        (
            f"- {state.step} steps of {recipe.batch_size} images ({state.step * recipe.batch_size:,} images seen); "
            f"average of weights, decay {recipe.ema}."
        ),
        "- Held-out loss (24 healthy phantom people, seeds 910000 to 910023; half of the pairs crossed):",
        "",
        "| images seen | total | diffusion | identity | landmark | expression |",
        "|---:|---:|---:|---:|---:|---:|",
        *(
            f"| {row['images']:,} | {row['total']:.4f} | {row['diffusion']:.4f} "
            f"| {row['identity']:.4f} | {row['landmark']:.5f} | {row.get('expression', math.nan):.4f} |"
            for row in curve[:: max(1, len(curve) // 16)]
        ),
        "",
        _LINEAGE,
        "- Limits: phantoms only, no evidence about patients; it has never seen a palsy: adapters are for that.",
        "",
    ]
    return "\n".join(lines)
