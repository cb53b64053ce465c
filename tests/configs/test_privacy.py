"""A private run: which plan its sites are given, and what does not go with it."""

from __future__ import annotations

from dataclasses import replace

import pytest

import configs
from ccfexp.errors import ConfigError
from ccfexp.privacy.plan import PrivacyConfig
from configs.client_part import ClientPart, plan_text
from configs.run import RunConfig

PRIVATE = ["+privacy=patient", "privacy.epsilon=3"]


def load(*overrides: str) -> RunConfig:
    return configs.load("tiny", [*PRIVATE, *overrides], RunConfig)


def test_the_plan_is_calibrated_for_every_step_of_the_run() -> None:
    config = load("federation.rounds=5", "train.steps=4")
    plan = config.private_plan

    assert plan is not None
    assert plan.steps == 20
    assert plan.epsilon is None
    assert 2.9 < plan.epsilon_after(20) <= 3.0
    assert configs.load("tiny", [], RunConfig).private_plan is None


def test_the_hash_is_of_what_was_asked_for() -> None:
    """Not of the noise that was found, which is another release's to find a thousandth of it lower."""
    config = load()
    before = configs.config_hash(config)

    assert config.private_plan is not None
    assert configs.config_hash(config) == before == configs.config_hash(load())
    assert configs.config_hash(load("privacy.epsilon=2")) != before


def test_a_plan_survives_the_wire() -> None:
    config = load()
    plan = config.private_plan
    part = ClientPart.from_json(ClientPart(config.adapter, config.train, config.seed, plan).to_json())

    assert part.privacy == plan
    assert plan_text(part.privacy) == plan_text(plan)
    assert len(plan_text(plan)) < 1000, "as long as terms allow"
    assert plan_text(None) == ""


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["privacy.steps=3"], r"privacy.steps=3 must be at least the steps of the run, 4"),
        (["compute.compile=true"], r"compute.compile=true cannot go with a private run.*set it to false"),
        (
            ["compute.checkpointing=true", "compute.unit_gradients=opacus"],
            r"cannot go with compute.unit_gradients=opacus",
        ),
        (
            ["patients_times=50", "privacy.delta=0.02"],
            r"privacy.delta=0.02 must be below 1 / patients=100 of site A, 0.01\b.*lower it",
        ),
        (["federation.strategy=fedsvd", "federation.optimiser.kind=momentum"], r"strategy=fedsvd"),
        (["federation.strategy=auto", "federation.optimiser.kind=momentum"], r"strategy=fedsvd"),
    ],
)
def test_what_a_private_run_cannot_be(overrides: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        load(*overrides)


def test_patients_who_are_held_out_are_none_of_the_training() -> None:
    config = load()
    sites = tuple(replace(site, subjects=9, holdout=2) for site in config.sites)

    assert replace(config, sites=sites, site_copies=2).patients("A001") == 7


def test_auto_is_fedsvd_at_any_ranks() -> None:
    federation = load("federation.strategy=auto").federation

    assert federation.rule(mixed_ranks=False, private=True) == "fedsvd"
    assert federation.rule(mixed_ranks=True, private=True) == "fedsvd"
    assert load("federation.strategy=rolora").federation.rule(mixed_ranks=False, private=True) == "rolora"
    assert replace(load(), privacy=PrivacyConfig(noise_multiplier=1.0)).private_plan is not None
