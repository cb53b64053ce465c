"""Training of the small phantom encoders: identity, expression ("face"), landmarks, and the evaluators.

The face encoder is trained as a deviation network (Zhang et al., CVPR 2021, "DLN"): expression heads read the
difference between its vector and the frozen identity vector, so that identity cancels.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from ccfexp.encoders import EncoderConfig, PhantomEncoder, landmarks_from_vector, load_phantom_encoder
from ccfexp.errors import ConfigError, did_you_mean
from ccfexp.pretrain.augment import jitter_colour, jitter_crop, move_landmarks
from ccfexp.pretrain.population import EXPRESSION_UNITS, MOVEMENT_NAMES, Population, PopulationSpec, batches

Step = Callable[[Tensor, torch.Generator], Tensor]


@dataclass(frozen=True)
class EncoderRecipe:
    """How one encoder is made. Evaluators learn other people (another ``first_identity``) and have another shape."""

    task: str
    encoder: EncoderConfig
    population: PopulationSpec
    steps: int
    batch_size: int = 64
    learning_rate: float = 2e-3
    seed: int = 0


_MIXED = PopulationSpec(first_identity=100_000, identities=2000, sessions=2, movements=7, palsied=0.6)
# Twice the people, and some healthy ones who wink and smirk: the deviation must tell those from a palsy.
_FACES = replace(_MIXED, identities=4000, lateral=0.2)
_EVALUATION = replace(_MIXED, first_identity=300_000)

_EVALUATOR_IDENTITY = EncoderConfig(channels=(24, 40, 112), depth=2)
_EVALUATOR_EXPRESSION = EncoderConfig(channels=(32, 48, 80), depth=3, vector=160)

RECIPES: Final[dict[str, EncoderRecipe]] = {
    "phantom-identity": EncoderRecipe("identity", EncoderConfig(), _MIXED, steps=3500),
    "phantom-landmark": EncoderRecipe("landmark", EncoderConfig(vector=136), _MIXED, steps=3500, seed=1),
    "phantom-face": EncoderRecipe("deviation", EncoderConfig(), _FACES, steps=8000, seed=2),
    "evaluator-identity": EncoderRecipe("identity", _EVALUATOR_IDENTITY, _EVALUATION, steps=3000, seed=11),
    "evaluator-expression": EncoderRecipe("expression", _EVALUATOR_EXPRESSION, _EVALUATION, steps=4500, seed=12),
}


class IdentityHead(nn.Module):
    """CosFace (Wang et al., CVPR 2018, eq. 4): cosine logits with an additive margin."""

    def __init__(self, vector: int, people: int, scale: float = 24.0, margin: float = 0.2) -> None:
        super().__init__()
        self.centre_PD = nn.Parameter(torch.randn(people, vector) * 0.05)
        self.scale, self.margin = scale, margin

    def forward(self, vector_BD: Tensor, person_B: Tensor) -> Tensor:
        """Mean cross-entropy of telling the people of a batch apart."""
        cosine_BP = functional.normalize(vector_BD) @ functional.normalize(self.centre_PD).T
        margin_BP = self.margin * functional.one_hot(person_B, cosine_BP.shape[1])
        return functional.cross_entropy(self.scale * (cosine_BP - margin_BP), person_B)


class ExpressionHead(nn.Module):
    """Reads the side of the palsy, three regional severities, the movement and the unit weights from a vector."""

    def __init__(self, vector: int) -> None:
        super().__init__()
        self.side = nn.Linear(vector, 3)
        self.severity = nn.Linear(vector, 3)
        self.movement = nn.Linear(vector, len(MOVEMENT_NAMES))
        self.unit = nn.Linear(vector, len(EXPRESSION_UNITS))

    def loss(self, vector_BD: Tensor, people: Population, index_B: Tensor) -> Tensor:
        """Sum of the four heads' losses."""
        side = functional.cross_entropy(self.side(vector_BD), people.side_N[index_B])
        severity = functional.smooth_l1_loss(self.severity(vector_BD), people.severity_N3[index_B], beta=0.1)
        movement = functional.cross_entropy(self.movement(vector_BD), people.movement_N[index_B], label_smoothing=0.05)
        unit = functional.smooth_l1_loss(self.unit(vector_BD), people.unit_NU[index_B], beta=0.1)
        return side + 3 * severity + movement + 6 * unit


def _landmark_loss(vector_B136: Tensor, landmark_B682: Tensor) -> Tensor:
    """Smooth L1 in pixels of a 64-pixel image, so that half a pixel is where it turns linear."""
    predicted = landmarks_from_vector(vector_B136)
    return functional.smooth_l1_loss(predicted * 64, landmark_B682 * 64, beta=0.5)


def build_task(recipe: EncoderRecipe, encoder: PhantomEncoder, people: Population) -> tuple[nn.Module, Step]:
    """The head that a task trains beside the encoder and the loss of a batch of indices."""
    if recipe.task == "identity":
        head: nn.Module = IdentityHead(recipe.encoder.vector, recipe.population.identities)

        def identity(index_B: Tensor, generator: torch.Generator) -> Tensor:
            x_B3HW, _ = jitter_crop(jitter_colour(people.batch(index_B), generator), generator)
            return Tensor(head(encoder(x_B3HW).vector_BD, people.person_N[index_B]))

        return head, identity
    if recipe.task == "landmark":
        head = nn.Identity()

        def landmark(index_B: Tensor, generator: torch.Generator) -> Tensor:
            x_B3HW, theta = jitter_crop(jitter_colour(people.batch(index_B), generator), generator)
            return _landmark_loss(encoder(x_B3HW).vector_BD, move_landmarks(people.landmark_N682[index_B], theta))

        return head, landmark
    if recipe.task == "deviation":
        heads = ExpressionHead(recipe.encoder.vector)
        identity_encoder = load_phantom_encoder("phantom-identity")

        def deviation(index_B: Tensor, generator: torch.Generator) -> Tensor:
            x_B3HW, _ = jitter_crop(jitter_colour(people.batch(index_B), generator), generator)
            with torch.no_grad():
                identity_BD = identity_encoder(x_B3HW).vector_BD
            return heads.loss(encoder(x_B3HW).vector_BD - identity_BD, people, index_B)

        return heads, deviation
    if recipe.task == "expression":
        both = nn.ModuleDict(
            {"expression": ExpressionHead(recipe.encoder.vector), "landmark": nn.Linear(recipe.encoder.vector, 136)}
        )

        def expression(index_B: Tensor, generator: torch.Generator) -> Tensor:
            x_B3HW, theta = jitter_crop(jitter_colour(people.batch(index_B), generator), generator)
            vector_BD = encoder(x_B3HW).vector_BD
            loss = both["expression"].loss(vector_BD, people, index_B)  # type: ignore[operator]
            moved = move_landmarks(people.landmark_N682[index_B], theta)
            return Tensor(loss + _landmark_loss(both["landmark"](vector_BD), moved))

        return both, expression
    tasks = ("identity", "landmark", "deviation", "expression")
    raise ConfigError(
        f"unknown encoder task={recipe.task!r}; known: {', '.join(tasks)}.{did_you_mean(recipe.task, tasks)}"
    )


def train_encoder(recipe: EncoderRecipe, people: Population) -> Iterator[tuple[int, float, PhantomEncoder, nn.Module]]:
    """Train and yield (step, loss, encoder, head) after every step; AdamW with a one-cycle learning rate."""
    torch.manual_seed(recipe.seed)
    generator = torch.Generator().manual_seed(recipe.seed)
    encoder = PhantomEncoder(recipe.encoder).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    head, loss_of = build_task(recipe, encoder, people)
    parameters = [*encoder.parameters(), *head.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=recipe.learning_rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.learning_rate, recipe.steps, pct_start=0.1)
    order = batches(recipe.batch_size, people.image_N3HW.shape[0], generator)
    for step in range(1, recipe.steps + 1):
        encoder.train()
        loss = loss_of(next(order), generator)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 5.0)
        optimiser.step()
        schedule.step()
        yield step, float(loss.detach()), encoder, head
