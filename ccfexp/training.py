"""The one training loop: federated, pooled and local-only runs all call ``train_local``.

Randomness is seeded per (seed, round, step): a round repeated from the same adapter gives the same adapter bit for bit.
"""

import contextlib
import hashlib
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from ccfexp._io import atomic_write_bytes, sha256_file
from ccfexp.adapter import Factors
from ccfexp.averaging import running_average
from ccfexp.conditioning import ExpressionFeatures, IdentityFeatures
from ccfexp.data.dataset import PatientImages, load_split
from ccfexp.data.manifest import read_manifest
from ccfexp.errors import ConfigError, RoundError
from ccfexp.losses import Batch, CycleConfig
from ccfexp.model import CCFExp
from ccfexp.parallel import losses_of, shares
from ccfexp.privacy.steps import Draw, Losses, MeanPlan, Plan, Targets
from ccfexp.proximal import Anchor
from ccfexp.published.encoder_files import encoder_hashes

log = logging.getLogger(__name__)
OnStep = Callable[[int, int, float], None]  # step, steps, loss

# Where one factor of every pair is trained a step moves the product half as far; with twice the rate rules that train
# one learn as much in as many steps as those that train both (docs/strategies.md).
ONE_FACTOR_RATE = 2.0


@dataclass(frozen=True)
class TrainConfig:
    """One round of training at one site.

    Attributes:
        steps: optimiser steps per round.
        batch_size: images per step.
        learning_rate: of AdamW, which starts anew each round.
        decay_rounds: the learning rate falls linearly, step by step, to zero over so many rounds; 0 = constant.
        gradient_clip: bound on the gradient norm of the whole adapter.
        expression_from: which photograph gives the expression: the target itself (published), or the same patient's
            same movement in another session where there is one. Another day's pose and light cannot be copied, so
            they must be taken from the identity photograph.
        cycle: the loss.
        cycle_every: every so many steps of the run one takes the second pass, weighted so many times (published: every
            step, 1). Averaged over the steps, the gradient before its norm is bounded is that of the whole loss.
        average: what a round ends with is the running average of everything trained over the round's steps, instead
            of its last values (published: the U-Net alone is averaged).
        proximal: mu of FedProx, how strongly a round is held to where it starts (see ``ccfexp.proximal``); 0 = not. The
            loss that is told is without its term.
    """

    steps: int = 16
    batch_size: int = 8
    learning_rate: float = 1e-3
    decay_rounds: int = 0
    gradient_clip: float = 1.0
    expression_from: Literal["target", "other_session"] = "other_session"
    cycle: CycleConfig = field(default_factory=CycleConfig)
    cycle_every: int = 1
    average: bool = False
    proximal: float = 0.0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "cycle_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"train {name}={getattr(self, name)} must be >= 1; give a positive whole number")
        for name in ("learning_rate", "gradient_clip"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"train {name}={getattr(self, name)} must be > 0; give a positive number")
        if self.expression_from not in ("target", "other_session"):
            raise ConfigError(
                f"train expression_from={self.expression_from!r} must be target or other_session; choose one"
            )
        if self.decay_rounds < 0:
            raise ConfigError(f"train decay_rounds={self.decay_rounds} must be >= 0; 0 keeps the rate constant")
        if not 0 <= self.proximal < math.inf:
            raise ConfigError(f"train proximal={self.proximal} must be >= 0 and finite; 0 is no proximal term")

    def rate_at(self, round_number: int, step: int) -> float:
        """Learning rate of a step of a round, both counted from 1."""
        if not self.decay_rounds:
            return self.learning_rate
        done = (round_number - 1 + (step - 1) / self.steps) / self.decay_rounds
        return self.learning_rate * max(0.0, 1 - done)

    @property
    def plan(self) -> MeanPlan:
        """Of ordinary steps."""
        return MeanPlan(self.batch_size, self.gradient_clip)

    def of_factors(self, factors: Factors) -> "TrainConfig":
        """The same for a round that trains these factors: a higher rate where it is one of the two."""
        return self if factors == "AB" else replace(self, learning_rate=ONE_FACTOR_RATE * self.learning_rate)

    def cycle_at(self, round_number: int, step: int) -> CycleConfig:
        """The loss of a step of a round, both counted from 1."""
        takes_it = ((round_number - 1) * self.steps + step) % self.cycle_every == 0
        return replace(self.cycle, cycle_weight=self.cycle.cycle_weight * self.cycle_every if takes_it else 0.0)


@dataclass(frozen=True)
class TrainResult:
    """Public facts of a round: mean loss, steps taken, numbers of patients and of target images at the site."""

    loss: float
    steps: int
    patients: int
    images: int


@dataclass(frozen=True)
class SiteData:
    """A site's images with their frozen features, computed once (N images, T targets)."""

    images: PatientImages
    identity_ND: Tensor = field(repr=False)
    identity_map_NCGG: Tensor = field(repr=False)
    deviation_ND: Tensor = field(repr=False)
    landmark_map_NCGG: Tensor = field(repr=False)
    landmark_N136: Tensor = field(repr=False)
    recogniser_ND: Tensor | None = field(default=None, repr=False)  # None: the identity encoder is the recogniser

    @classmethod
    def prepare(cls, model: CCFExp, manifest: Path, split: str = "train", cache_dir: Path | None = None) -> "SiteData":
        """Load a split of a manifest data set and encode every image once.

        Args:
            model: whose encoders are used.
            manifest: path of manifest.csv.
            split: "train" or "holdout".
            cache_dir: folder on the site's own disk where features are kept between processes, or None.

        Raises:
            ManifestError: rows that cannot be used.
        """
        images = load_split(read_manifest(manifest, model.config.unet.image_size), split)
        path = None if cache_dir is None else cache_dir / f"features-{_cache_key(model, manifest, split)}.safetensors"
        if path is not None and path.is_file():
            try:
                return cls(images, **load_file(path))
            except (SafetensorError, TypeError):
                path.unlink()  # a damaged cache is made anew: it holds nothing that cannot be computed
        features = encode_images(model, images.image_N3HW)
        if path is not None:
            with contextlib.suppress(OSError):  # a cache may be missing; a full disk must not cost the site its round
                atomic_write_bytes(path, save(features))
        return cls(images, **features)

    def batch(self, target_B: Tensor, expression_B: Tensor, device: torch.device) -> Batch:
        """Training examples: which images to draw, and which photographs show their expression."""
        identity_B = self.images.identity_N[target_B]
        recognised_ND = self.identity_ND if self.recogniser_ND is None else self.recogniser_ND
        return Batch(
            target_B3HW=to_unit_range(self.images.image_N3HW[target_B]).to(device),
            identity=self.identity(identity_B, device),
            expression=self.expression(expression_B, device),
            target_identity_BD=recognised_ND[target_B].to(device),
            target_landmark_B136=self.landmark_N136[target_B].to(device),
            target_deviation_BD=self.deviation_ND[target_B].to(device),
            person_BD=recognised_ND[identity_B].to(device),
        )

    def identity(self, index_B: Tensor, device: torch.device) -> IdentityFeatures:
        """Features of images as identity photographs."""
        return IdentityFeatures(self.identity_ND[index_B].to(device), self.identity_map_NCGG[index_B].to(device))

    def expression(self, index_B: Tensor, device: torch.device) -> ExpressionFeatures:
        """Features of images as expression photographs."""
        return ExpressionFeatures(
            self.deviation_ND[index_B].to(device),
            self.landmark_map_NCGG[index_B].to(device),
            self.landmark_N136[index_B].to(device),
        )


def to_unit_range(image_uint8: Tensor) -> Tensor:
    """uint8 images to float in [-1, 1]."""
    return image_uint8.float() / 127.5 - 1


@torch.no_grad()
def encode_images(model: CCFExp, image_N3HW: Tensor, batch_size: int = 128) -> dict[str, Tensor]:
    """Frozen features of uint8 images, on the CPU, by the field names of ``SiteData``."""
    names = ["identity_ND", "identity_map_NCGG", "deviation_ND", "landmark_map_NCGG", "landmark_N136"]
    if model.encoders.recogniser is not None:
        names.append("recogniser_ND")
    parts = []
    for images in image_N3HW.split(batch_size):
        x_B3HW = to_unit_range(images).to(model.device)
        identity = model.encoders.identity_features(x_B3HW)
        person_BD, neutral_BD = model.encoders.vectors(x_B3HW, identity.vector_BD)
        expression = model.encoders.expression_features(x_B3HW, neutral_BD)
        parts.append([part.cpu() for part in (*identity, *expression, person_BD)[: len(names)]])
    return {name: torch.cat(column).contiguous() for name, column in zip(names, zip(*parts, strict=True), strict=True)}


def _cache_key(model: CCFExp, manifest: Path, split: str) -> str:
    hashes = encoder_hashes(model.config.encoders, model.folder)
    return hashlib.sha256("|".join([sha256_file(manifest), split, *hashes]).encode()).hexdigest()[:24]


def train_local(
    model: CCFExp,
    data: SiteData,
    config: TrainConfig,
    *,
    seed: int,
    round_number: int,
    plan: Plan | None = None,
    threads: int = 1,
    on_step: OnStep | None = None,
) -> TrainResult:
    """Train the adapter in ``model`` for one round on one site's patients.

    Args:
        model: base with an adapter; the trained adapter stays in it.
        data: the site's training split.
        config: steps, batch, learning rate and loss.
        seed: of this site's randomness.
        round_number: counted from 1.
        plan: what a step takes and what gradient it makes; the mean of a batch if none is given.
        threads: shares that every batch is worked on in (see ``ccfexp.parallel``).
        on_step: called with (step, steps, loss) after every step.

    Raises:
        RoundError: the loss is no longer a finite number.
        ConfigError: the plan cannot keep what it promises with this model.
    """
    plan = plan or config.plan
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=0.0)
    examples = Examples(model, data, config)
    targets = Targets(data.images.target_T, data.images.patient_N[data.images.target_T])
    average = running_average(parameters) if config.average else None
    anchor = Anchor(parameters, config.proximal)
    total, left_out = 0.0, 0
    with shares(threads) as work, plan.running(model):
        for step in range(1, config.steps + 1):
            generator = torch.Generator().manual_seed(step_seed(seed, round_number, step))
            for group in optimiser.param_groups:
                group["lr"] = config.rate_at(round_number, step)
            optimiser.zero_grad()
            prepare = partial(examples.losses, config.cycle_at(round_number, step), generator)
            loss, without = plan.backward(model, plan.draw(targets, generator), prepare, work)
            _check_finite(loss, config, round_number, step)
            anchor.pull()  # after the clip, which is for what comes of the patients
            optimiser.step()
            if average is not None:
                average.step(parameters)
            total, left_out = total + loss, left_out + without
            if on_step is not None:
                on_step(step, config.steps, loss)
    if average is not None:
        average.copy_to(parameters)
    if left_out:  # for the site's own log: nobody else may know how many
        log.warning("%d times a patient's gradient was not finite and counted as none", left_out)
    return TrainResult(total / config.steps, config.steps, data.images.patients, len(data.images.target_T))


def _check_finite(loss: float, config: TrainConfig, round_number: int, step: int) -> None:
    if not math.isfinite(loss):
        raise RoundError(
            f"training diverged: loss={loss} at step {step} of round {round_number}; lower "
            f"train.learning_rate={config.learning_rate}"
        )


def step_seed(seed: int, round_number: int, step: int) -> int:
    """A 63-bit seed that depends on all three numbers."""
    digest = hashlib.sha256(f"{seed}/{round_number}/{step}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


@dataclass(frozen=True)
class Examples:
    """Makes a step's examples: photographs, timesteps and noise of the images that a plan has drawn."""

    model: CCFExp
    data: SiteData
    config: TrainConfig
    _repeats: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.config.expression_from == "other_session":
            self._repeats.extend(self.data.images.repeats())

    def losses(self, cycle: CycleConfig, generator: torch.Generator, draw: Draw) -> Losses:
        """The loss of every row; all that is random of it is drawn now, in this order, and some rows lose their map."""
        # Unit by unit, timesteps in strata too: what one is drawn with must not depend on who else is there.
        model, units = self.model, draw.units(generator)
        shown_R = torch.cat([_draw_repeats(own, self._repeats, random) for own, random in units])
        batch = self.data.batch(draw.target_R, shown_R, model.device)
        timesteps, shape = model.config.diffusion.steps, batch.target_B3HW.shape[1:]
        t_R = torch.cat([stratified_timesteps(len(own), timesteps, random) for own, random in units]).to(model.device)
        eps_R3HW = torch.cat([torch.randn(len(own), *shape, generator=random) for own, random in units])
        shown, drop = batch.expression, model.conditioner.bottleneck.drop
        maps = shown.landmark_map_BCGG.split(list(draw.sizes))
        kept = torch.cat([drop(part, random) for part, (_, random) in zip(maps, units, strict=True)])
        batch = batch._replace(expression=shown._replace(landmark_map_BCGG=kept))
        return losses_of(model, batch, t_R, eps_R3HW.to(model.device), cycle)


def _draw_repeats(target_B: Tensor, repeats: list[Tensor], generator: torch.Generator) -> Tensor:
    """For each target one of the photographs that repeat it, the target itself where none does, or none is given."""
    if not repeats:
        return target_B
    chosen = []
    for target in target_B.tolist():
        others = repeats[target]
        chosen.append(int(others[torch.randint(len(others), (), generator=generator)]) if len(others) else target)
    return torch.tensor(chosen)


def stratified_timesteps(count: int, steps: int, generator: torch.Generator) -> Tensor:
    """One timestep from each of ``count`` equal strata, in random order: the same distribution, less variance."""
    offset = torch.rand(count, generator=generator)
    order = torch.randperm(count, generator=generator)
    return ((order + offset) / count * steps).long().clamp(max=steps - 1)
