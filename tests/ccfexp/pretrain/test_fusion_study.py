"""The comparison of the fusion's corrections: what starts alike, what is trained, what differs."""

from dataclasses import replace

import pytest
import torch

from ccfexp import weights
from ccfexp.errors import ConfigError
from ccfexp.model import FrozenEncoders
from ccfexp.pretrain.base import Features, PairSampler, new_state
from ccfexp.pretrain.fusion_study import STUDY_RECIPE, VARIANTS, recipe_of, train_variant
from ccfexp.pretrain.population import PopulationSpec, render_population

_PEOPLE = PopulationSpec(first_identity=1, identities=2, sessions=1, movements=2, palsied=0.0)


@pytest.fixture(scope="module")
def encoders() -> FrozenEncoders:
    return FrozenEncoders.load(STUDY_RECIPE.model.encoders)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_starts_with_the_shipped_unet_and_a_new_fusion(name: str, encoders: FrozenEncoders) -> None:
    people = render_population(_PEOPLE, workers=1)
    pairs = PairSampler(people, Features.of(people, encoders, "cpu"), 1.0)
    recipe = replace(recipe_of(name), steps=1, batch_size=2, learning_rate=0.0)
    model = train_variant(name, recipe, encoders, pairs, threads=1)
    shipped, _ = weights.load("phantom-base")
    unet, fusion = model.unet.state_dict(), model.conditioner.state_dict()
    assert all(torch.equal(value, shipped[f"unet.{key}"]) for key, value in unet.items())
    assert not torch.equal(fusion["landmark_project.weight"], shipped["conditioner.landmark_project.weight"])


def test_an_untrained_attention_keeps_its_random_start_and_all_else_moves(encoders: FrozenEncoders) -> None:
    people = render_population(_PEOPLE, workers=1)
    pairs = PairSampler(people, Features.of(people, encoders, "cpu"), 1.0)
    recipe = replace(recipe_of("attentions_untrained"), steps=2, batch_size=2, warm_up=1, ema=0.0)
    start = new_state(recipe, encoders, "cpu").model.conditioner.state_dict()
    start = {key: value.clone() for key, value in start.items()}
    after = train_variant("attentions_untrained", recipe, encoders, pairs, threads=1).conditioner.state_dict()
    moved = {key for key in start if not torch.equal(start[key], after[key])}
    assert moved == {key for key in start if "_attention." not in key}


def test_an_unknown_variant_is_refused_with_a_suggestion() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'memory_order'"):
        recipe_of("memory_ordr")
