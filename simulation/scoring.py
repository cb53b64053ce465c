"""Draw the held-out cases with each model, once, and let the evaluators judge."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from ccfexp._io import atomic_write_bytes
from ccfexp.adapter import AdapterState
from ccfexp.bottleneck import Bottleneck
from ccfexp.conditioning import ExpressionFeatures, IdentityFeatures
from ccfexp.errors import ConfigError
from ccfexp.evaluation.cases import HeldOutCases
from ccfexp.evaluation.judge import Evaluators, case_features, judge, resting_features, validation_loss
from ccfexp.evaluation.scores import ModelScores
from ccfexp.model import CCFExp
from ccfexp.sampling import SamplingConfig, sample
from ccfexp.training import to_unit_range
from simulation.progress import RunProgress


@dataclass
class Scorer:
    """Draws and judges the same cases with any adapter; pictures are kept in ``folder`` by adapter.

    Attributes:
        model: the base with an adapter attached; its factors are replaced for every model drawn. Where the adapter has
            a bottleneck, the base alone is drawn and validated without it.
        cases: people never trained on.
        sampling: sampler, steps and guidance.
        seed: of the noise that drawing starts from, the same for every model.
        threads: shares that pictures are drawn in.
        folder: where drawn pictures are kept, so that an interrupted run does not draw them again.

    Raises ConfigError where the cases or the sampling steps do not fit the base.
    """

    model: CCFExp
    cases: HeldOutCases
    sampling: SamplingConfig
    seed: int
    folder: Path
    threads: int = 1

    def __post_init__(self) -> None:
        side, fits = self.cases.target_C3HW.shape[-1], self.model.config.unet.image_size
        if side != fits:
            raise ConfigError(f"image_size={side} must be {fits}, the size of the base; set image_size={fits}")
        self.model.diffusion.timesteps(self.sampling.steps)  # refuses too many now, not after the training
        self.features = case_features(self.model, self.cases)
        self.resting = resting_features(self.model, self.cases) if self.sampling.guidance != 1 else None
        self.evaluators = Evaluators.load()
        # One picture of every examination is enough to follow a training by.
        followed = _first_of_examinations(self.cases)
        self._followed = self.cases.only(followed)
        self._followed_features = (
            IdentityFeatures(*(part[followed] for part in self.features[0])),
            ExpressionFeatures(*(part[followed] for part in self.features[1])),
        )

    def loss(self, adapter: AdapterState | None) -> float:
        """Validation loss of an adapter; None = of the base alone."""
        with self._wearing(adapter):
            return validation_loss(self.model, self._followed, self._followed_features)

    def draw(self, name: str, adapter: AdapterState | None, progress: RunProgress) -> Tensor:
        """Pictures uint8 [C,3,H,W] of all cases, drawn with an adapter; None = with the base alone."""
        path, key = self.folder / f"{name}.safetensors", self._key(adapter)
        total = len(self.cases)
        if path.is_file() and _key_of(path) == key:
            progress.advance(total * self.sampling.steps, f"{name}: already drawn")
            return load_file(path)["image_C3HW"]
        done = 0

        def report(drawn: int, of: int) -> None:
            nonlocal done
            progress.advance((drawn - done) * self.sampling.steps, f"drawing with {name}: {drawn}/{of}")
            done = drawn

        with self._wearing(adapter):
            image = sample(
                self.model,
                *self.features,
                self.sampling,
                seed=self.seed,
                threads=self.threads,
                resting=self.resting,
                on_batch=report,
            )
        pixels = ((image + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        atomic_write_bytes(path, save({"image_C3HW": pixels.contiguous()}, {"key": key}))
        return pixels

    def score(self, name: str, pixels_C3HW: Tensor) -> ModelScores:
        """What the evaluators read from the pictures of one model."""
        return judge(name, to_unit_range(pixels_C3HW), self.cases, self.evaluators)

    def score_target(self) -> ModelScores:
        """The true pictures judged by the same evaluators: the most that any model can reach."""
        return self.score("true target", self.cases.target_C3HW)

    @contextmanager
    def _wearing(self, adapter: AdapterState | None) -> Iterator[None]:
        """The model with an adapter and its bottleneck, or with neither."""
        conditioner = self.model.conditioner
        own = conditioner.bottleneck
        nothing = {name: torch.zeros_like(value) for name, value in self.model.adapter_state().items()}
        self.model.load_adapter_state(nothing if adapter is None else adapter)
        conditioner.bottleneck = self._bottleneck(adapter)
        try:
            yield
        finally:
            conditioner.bottleneck = own

    def _bottleneck(self, adapter: AdapterState | None) -> Bottleneck:
        return Bottleneck() if adapter is None else self.model.conditioner.bottleneck

    def _key(self, adapter: AdapterState | None) -> str:
        digest = hashlib.sha256()
        for name, value in sorted((adapter or {}).items()):
            digest.update(name.encode())
            digest.update(value.numpy().tobytes())
        for part in (self.cases.identity_C3HW, self.cases.expression_C3HW):
            digest.update(part.numpy().tobytes())
        facts = [asdict(self.sampling), asdict(self._bottleneck(adapter)), self.seed, self.model.base_sha256]
        digest.update(json.dumps(facts, sort_keys=True).encode())
        return digest.hexdigest()


def _first_of_examinations(cases: HeldOutCases) -> list[int]:
    """Index of the first picture of every person at every grade."""
    first: dict[tuple[int, int], int] = {}
    for index, examination in enumerate(zip(cases.subject_C, cases.grade_C, strict=True)):
        first.setdefault(examination, index)
    return list(first.values())


def _key_of(path: Path) -> str:
    with safe_open(path, "pt") as file:
        metadata: dict[str, str] = file.metadata() or {}
    return metadata.get("key", "")
