"""The stage that makes one encoder from its recipe to the shipped file."""
# ruff: noqa: T201 - the stage of a command line program says how far it is

import time
from dataclasses import asdict
from pathlib import Path

from ccfexp._io import canonical_json
from ccfexp.encoders import PhantomEncoder, metadata_of
from ccfexp.errors import ConfigError, did_you_mean
from ccfexp.pretrain.encoders import RECIPES, EncoderRecipe, train_encoder
from ccfexp.pretrain.figures import held_out_figures
from ccfexp.pretrain.population import cached_population
from ccfexp.pretrain.ship import ship


def run_encoder(name: str, work: Path, out: Path, workers: int) -> None:
    """Train, measure and ship the encoder ``name``.

    Raises:
        ConfigError: unknown name.
    """
    if name not in RECIPES:
        raise ConfigError(f"unknown encoder {name!r}; known: {', '.join(RECIPES)}.{did_you_mean(name, RECIPES)}")
    recipe = RECIPES[name]
    people = cached_population(recipe.population, work, workers)
    started, average = time.monotonic(), 0.0
    for step, loss, encoder, head in train_encoder(recipe, people):
        trained = encoder, head
        average = loss if step == 1 else 0.98 * average + 0.02 * loss
        if step % 100 == 0 or step == recipe.steps:
            left = (time.monotonic() - started) / step * (recipe.steps - step)
            print(f"{name}: step {step}/{recipe.steps} loss {average:.4f}, {left:.0f} s left", flush=True)
    encoder, head = trained
    figures = held_out_figures(recipe, encoder, head)
    print(f"{name}: held-out figures {figures}", flush=True)
    tensors = dict(encoder.state_dict())
    if name.startswith("evaluator") and recipe.task != "identity":
        tensors |= {f"head.{key}": value for key, value in head.state_dict().items()}
    metadata = {"encoder": metadata_of(recipe.encoder), "recipe": canonical_json(asdict(recipe))}
    digest = ship(out, name, tensors, metadata, _card(name, recipe, encoder, figures))
    print(f"{name}: shipped, sha256={digest}", flush=True)


def _card(name: str, recipe: EncoderRecipe, encoder: PhantomEncoder, figures: dict[str, float]) -> str:
    people = recipe.population
    last = people.first_identity + people.identities - 1
    lines = [
        f"# {name}",
        "",
        (
            f"- Task: {recipe.task}; {sum(p.numel() for p in encoder.parameters()):,} parameters; "
            f"input RGB in [-1, 1], {recipe.encoder.image_size} x {recipe.encoder.image_size}."
        ),
        f"- Command: `python -m ccfexp.pretrain encoder {name}`",
        (
            f"- Data: phantom people with seeds {people.first_identity} to {last}, {people.images:,} images, "
            f"{people.palsied:.0%} of the sessions palsied; training seed {recipe.seed}, "
            f"{recipe.steps} steps of {recipe.batch_size}."
        ),
        "- Held-out figures (60 phantom people, seeds 900000 to 900059):",
        *(f"  - {key}: {value:.4f}" for key, value in figures.items()),
        "- Limits: trained on phantoms alone; not evidence about patients, and of no use on photographs.",
        "",
    ]
    return "\n".join(lines)
