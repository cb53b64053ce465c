"""What each correction of the fusion buys: ``python -m ccfexp.pretrain fusion``.

The shipped base has a fusion that was trained with every correction, so an adapter cannot tell what one of them buys.
Here each variant gets the shipped U-Net and a *new* conditioner, drawn from the same seed; both are trained on the same
healthy people, with the same batches, noise and number of steps, and judged on people of neither.
"""
# ruff: noqa: T201 - a command line program prints its table

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Final

from ccfexp import weights
from ccfexp._io import atomic_write_text
from ccfexp.errors import ConfigError, did_you_mean
from ccfexp.model import CCFExp, FrozenEncoders
from ccfexp.parallel import shares
from ccfexp.pretrain.base import (
    BASE_RECIPE,
    CURVE_POPULATION,
    BaseRecipe,
    Features,
    PairSampler,
    held_out_loss,
    new_state,
    train_base,
)
from ccfexp.pretrain.base_stage import NAME
from ccfexp.pretrain.population import PopulationSpec, cached_population, render_population

_COLUMNS = {"diffusion": "denoising", "identity": "identity", "landmark": "landmarks", "expression": "expression"}


@dataclass(frozen=True)
class FusionVariant:
    """One way to build and train the fusion.

    Attributes:
        switches: fields of ``ConditioningConfig`` that differ from the default.
        attentions_trained: False = the three cross-attentions stay at their random start, as in the published code,
            whose optimiser never gets them.
    """

    switches: Mapping[str, bool] = field(default_factory=dict)
    attentions_trained: bool = True


VARIANTS: Final[Mapping[str, FusionVariant]] = MappingProxyType(
    {
        "corrected": FusionVariant(),
        "memory_order": FusionVariant({"positions": False}),
        "raw_queries": FusionVariant({"projected_queries": False}),
        "no_residual": FusionVariant({"residual": False}),
        "style_of_identity_alone": FusionVariant({"style_expression": False}),
        "attentions_untrained": FusionVariant(attentions_trained=False),
        "published": FusionVariant(
            {"positions": False, "projected_queries": False, "residual": False, "style_expression": False},
            attentions_trained=False,
        ),
    }
)
STUDY_RECIPE: Final = replace(
    BASE_RECIPE,
    population=PopulationSpec(
        first_identity=300_000, identities=600, sessions=1, movements=8, palsied=0.0, lateral=0.5, grimaces=0.35
    ),
    steps=300,
    batch_size=16,
    learning_rate=3e-4,
    warm_up=30,
    ema=0.98,
)


def recipe_of(name: str, recipe: BaseRecipe = STUDY_RECIPE) -> BaseRecipe:
    """The recipe of a variant.

    Raises:
        ConfigError: unknown name.
    """
    if name not in VARIANTS:
        known = ", ".join(VARIANTS)
        raise ConfigError(f"unknown variant={name!r}.{did_you_mean(name, VARIANTS)} Known: {known}")
    switches = VARIANTS[name].switches
    return replace(recipe, model=replace(recipe.model, conditioning=replace(recipe.model.conditioning, **switches)))


def train_variant(name: str, recipe: BaseRecipe, encoders: FrozenEncoders, pairs: PairSampler, threads: int) -> CCFExp:
    """A new conditioner beside the shipped U-Net, trained together; returns the average of the weights."""
    state = new_state(recipe, encoders, "cpu")
    tensors, _ = weights.load(NAME)
    unet = {key.removeprefix("unet."): value for key, value in tensors.items() if key.startswith("unet.")}
    for model in (state.model, state.average):
        model.unet.load_state_dict(unet)
    if not VARIANTS[name].attentions_trained:
        fusion = state.model.conditioner
        for attention in (fusion.identity_attention, fusion.expression_attention, fusion.landmark_attention):
            attention.requires_grad_(False)
    with shares(threads) as both:
        for step, loss in train_base(recipe, state, pairs, both):
            if step % 25 == 0:
                print(f"{name}: step {step}/{recipe.steps} loss {loss:.4f}", flush=True)
    return state.average


def run_fusion_study(work: Path, workers: int, threads: int, recipe: BaseRecipe = STUDY_RECIPE) -> str:
    """Train and judge every variant; returns the table, which also stands in ``work/fusion.md``."""
    encoders = FrozenEncoders.load(recipe.model.encoders)
    people = cached_population(recipe.population, work, workers)
    pairs = PairSampler(people, Features.of(people, encoders, "cpu"), recipe.crossed)
    judges = render_population(CURVE_POPULATION, workers)
    held_out = PairSampler(judges, Features.of(judges, encoders, "cpu"), 1.0)
    lines = [f"| variant | {' | '.join(_COLUMNS.values())} |", "|---" * (len(_COLUMNS) + 1) + "|"]
    for name in VARIANTS:
        model = train_variant(name, recipe_of(name, recipe), encoders, pairs, threads)
        terms = held_out_loss(model, held_out, recipe.loss)
        lines.append(f"| {name} | {' | '.join(f'{terms[term]:.3g}' for term in _COLUMNS)} |")
        print(lines[-1], flush=True)
    table = "\n".join(lines) + "\n"
    atomic_write_text(work / "fusion.md", table)
    return table
