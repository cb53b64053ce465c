"""A changed configuration has a name, and so a folder, of its own."""

from __future__ import annotations

import configs
from configs.named import load_named
from configs.run import RunConfig


def test_unchanged() -> None:
    assert load_named("tiny", []) == configs.load("tiny", [], RunConfig)


def test_changed() -> None:
    first, second = load_named("tiny", ["seed=2", "threads=1"]), load_named("tiny", ["threads=1", "seed=2"])

    assert first == second
    assert first.name.startswith("tiny-")
    assert first.name != load_named("tiny", ["seed=3"]).name


def test_a_given_name_stays() -> None:
    assert load_named("tiny", ["seed=2", "name=mine"]).name == "mine"


def test_the_demo_can_lose_one_hospital() -> None:
    config = configs.load("demo", [], RunConfig)

    assert len(config.hospitals) == 3
    assert config.federation.min_sites == 2
    assert (config.federation.rounds, config.train.steps) == (4, 5)
