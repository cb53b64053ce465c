"""Pretraining of the phantom base on healthy people: all movements, no palsy, all parameters.

Half of the expression photographs show *another* person making the same movement at the same intensity, an exact
counterfactual that only phantoms offer: the base learns to take the movement, not the face, from that photograph.
"""

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from ccfexp._io import atomic_write_bytes
from ccfexp.conditioning import ExpressionFeatures, IdentityFeatures
from ccfexp.losses import Batch, CycleConfig, cycle_loss
from ccfexp.model import PHANTOM, CCFExp, FrozenEncoders, ModelConfig
from ccfexp.parallel import Shares, losses_of
from ccfexp.pretrain.population import FIRST_GRIMACE, Population, PopulationSpec
from ccfexp.privacy.steps import mean_gradient
from ccfexp.training import stratified_timesteps


@dataclass(frozen=True)
class BaseRecipe:
    """How the base is made.

    Attributes:
        steps, batch_size: length of the training.
        learning_rate: peak; linear warm-up, constant, linear decay to zero over the last ``decay`` of the steps.
        crossed: share of examples whose expression photograph shows another person.
        ema: decay of the average of the weights, which is what is shipped.
    """

    model: ModelConfig = PHANTOM
    population: PopulationSpec = field(
        default_factory=lambda: PopulationSpec(
            first_identity=200_000, identities=6000, sessions=1, movements=8, palsied=0.0, lateral=0.5, grimaces=0.35
        )
    )
    loss: CycleConfig = field(default_factory=lambda: CycleConfig(cycle_weight=0.0, expression_weight=0.3))
    steps: int = 12_000
    batch_size: int = 32
    learning_rate: float = 6e-4
    warm_up: int = 300
    decay: float = 0.3
    crossed: float = 0.75
    ema: float = 0.999
    seed: int = 5

    def rate(self, step: int) -> float:
        """Learning rate of a step counted from 1."""
        left = (self.steps - step + 1) / (self.decay * self.steps)
        return self.learning_rate * min(1.0, step / self.warm_up, left)


BASE_RECIPE: Final = BaseRecipe()
CURVE_POPULATION: Final = PopulationSpec(
    first_identity=910_000, identities=24, sessions=1, movements=7, palsied=0.0, lateral=0.5
)


@dataclass(frozen=True)
class Features:
    """Frozen features of a whole population in half precision (they are inputs, not parameters)."""

    identity_ND: Tensor
    identity_map: Tensor
    deviation_ND: Tensor
    landmark_map: Tensor
    landmark_N136: Tensor

    @classmethod
    def of(cls, people: Population, encoders: FrozenEncoders, device: torch.device | str) -> "Features":
        """Encode every image once."""
        parts: list[tuple[Tensor, ...]] = []
        with torch.no_grad():
            for index in torch.arange(people.image_N3HW.shape[0]).split(256):
                x_B3HW = people.batch(index).to(device)
                identity = encoders.identity_features(x_B3HW)
                expression = encoders.expression_features(x_B3HW, identity.vector_BD)
                parts.append(tuple(part.half().cpu() for part in (*identity, *expression)))
        return cls(*(torch.cat(column).contiguous() for column in zip(*parts, strict=True)))

    @classmethod
    def cached(cls, people: Population, encoders: FrozenEncoders, device: torch.device | str, path: Path) -> "Features":
        """As ``of``, kept in ``path`` so that a resumed training starts at once."""
        if not path.is_file():
            atomic_write_bytes(path, save(vars(cls.of(people, encoders, device))))
        return cls(**load_file(path))


class PairSampler:
    """Draws (target, identity photograph, expression photograph) with a generator seeded by (seed, step)."""

    def __init__(self, people: Population, features: Features, crossed: float) -> None:
        self.people, self.features, self.crossed = people, features, crossed
        groups: dict[tuple[int, int], list[int]] = defaultdict(list)
        # Resting faces of every intensity are alike: the activation is empty.
        self.key_N = [
            (movement, level if movement or level >= FIRST_GRIMACE else 0)
            for movement, level in zip(people.movement_N.tolist(), people.level_N.tolist(), strict=True)
        ]
        for index, key in enumerate(self.key_N):
            groups[key].append(index)
        self.groups = {key: torch.tensor(members) for key, members in groups.items()}

    def draw(self, size: int, generator: torch.Generator, device: torch.device | str) -> Batch:
        """One batch on ``device``."""
        target_B = torch.randint(len(self.key_N), (size,), generator=generator)
        return self.batch(target_B, self._expression(target_B, generator), device)

    def _expression(self, target_B: Tensor, generator: torch.Generator) -> Tensor:
        expression_B = target_B.clone()
        for place, target in enumerate(target_B.tolist()):
            if torch.rand((), generator=generator) < self.crossed:
                members = self.groups[self.key_N[target]]
                expression_B[place] = members[torch.randint(len(members), (), generator=generator)]
        return expression_B

    def batch(self, target_B: Tensor, expression_B: Tensor, device: torch.device | str) -> Batch:
        """The examples of given indices."""
        f, rest_B = self.features, self.people.rest_N[target_B]

        def of(table: Tensor, index: Tensor) -> Tensor:
            return table[index].to(device).float()

        return Batch(
            target_B3HW=self.people.batch(target_B).to(device),
            identity=IdentityFeatures(of(f.identity_ND, rest_B), of(f.identity_map, rest_B)),
            expression=ExpressionFeatures(
                of(f.deviation_ND, expression_B), of(f.landmark_map, expression_B), of(f.landmark_N136, expression_B)
            ),
            target_identity_BD=of(f.identity_ND, target_B),
            target_landmark_B136=of(f.landmark_N136, target_B),
            target_deviation_BD=of(f.deviation_ND, target_B),
            person_BD=of(f.identity_ND, rest_B),
        )


@dataclass
class BaseState:
    """All that a resumed training needs; randomness is seeded per step, so no generator state is stored."""

    model: CCFExp
    average: CCFExp
    optimiser: torch.optim.AdamW
    step: int = 0


def new_state(recipe: BaseRecipe, encoders: FrozenEncoders, device: torch.device | str) -> BaseState:
    """Fresh weights and an empty optimiser."""
    torch.manual_seed(recipe.seed)
    model = CCFExp(recipe.model, encoders).to(device).to(memory_format=torch.channels_last)
    average = CCFExp(recipe.model, encoders).to(device)
    average.load_state_dict(model.state_dict())
    average.requires_grad_(False)
    optimiser = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.99), weight_decay=0.01)
    return BaseState(model, average, optimiser)


def train_base(recipe: BaseRecipe, state: BaseState, pairs: PairSampler, work: Shares) -> Iterator[tuple[int, float]]:
    """Continue to ``recipe.steps``; yields (step, loss) after every step."""
    device = state.model.device
    while state.step < recipe.steps:
        step = state.step + 1
        generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
        batch = pairs.draw(recipe.batch_size, generator, device)
        t_B = stratified_timesteps(recipe.batch_size, recipe.model.diffusion.steps, generator).to(device)
        eps = torch.randn(batch.target_B3HW.shape, generator=generator).to(device)
        for group in state.optimiser.param_groups:
            group["lr"] = recipe.rate(step)
        state.optimiser.zero_grad()
        losses = losses_of(state.model, batch, t_B, eps, recipe.loss)
        trained = [parameter for parameter in state.model.parameters() if parameter.requires_grad]
        loss = mean_gradient(trained, losses, len(t_B), work)
        torch.nn.utils.clip_grad_norm_(state.model.parameters(), 1.0)
        state.optimiser.step()
        _follow(state.average, state.model, min(recipe.ema, (1 + step) / (10 + step)))
        state.step = step
        yield step, loss


@torch.no_grad()
def _follow(average: CCFExp, model: CCFExp, decay: float) -> None:
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)


@torch.no_grad()
def held_out_loss(model: CCFExp, pairs: PairSampler, loss: CycleConfig, seed: int = 0) -> dict[str, float]:
    """Loss terms on people never trained on, at fixed timesteps and noise, self and crossed pairs alike."""
    generator = torch.Generator().manual_seed(seed)
    sums: dict[str, float] = defaultdict(float)
    rounds = math.ceil(len(pairs.key_N) / 32)
    for _ in range(rounds):
        batch = pairs.draw(32, generator, model.device)
        t_B = stratified_timesteps(32, model.config.diffusion.steps, generator)
        eps = torch.randn(batch.target_B3HW.shape, generator=generator)
        terms = cycle_loss(model, batch, t_B.to(model.device), eps.to(model.device), loss)
        for name in ("total_B", "diffusion_B", "identity_B", "landmark_B", "expression_B"):
            sums[name.removesuffix("_B")] += float(getattr(terms, name).mean()) / rounds
    return dict(sums)
