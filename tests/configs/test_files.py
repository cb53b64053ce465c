"""Every shipped YAML file loads, and says how it is run, how long that takes and what comes out."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

import configs
from ccfexp.data.phantom.presets import SITES
from ccfexp.errors import ConfigError
from ccfexp.privacy.plan import PrivacyConfig
from client.site import load_site
from configs.run import RunConfig

FOLDER = Path(configs.__file__).parent
FILES = sorted(path for path in FOLDER.rglob("*.yaml") if path.parent != configs.SITES)
OPENING = (
    r"# python -m \S+.*\n",
    r"(?m)^# Expected time: +\S",
    r"(?m)^# Expected figure: +\S",
)


def test_files_are_found() -> None:
    """The tests below look at real files, and at all of them."""
    assert set(configs.available()) >= {"default", "full", "tiny"}
    assert set(configs.available()) <= {path.relative_to(FOLDER).with_suffix("").as_posix() for path in FILES}
    assert not list(FOLDER.rglob("*.yml")), "write .yaml: .yml files are neither loaded nor packed"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_opens_with_command_time_and_figure(path: Path) -> None:
    """The first comment holds the command on its first line, and the expected time and figure."""
    # A file of a group tells Hydra first where its keys belong.
    text = path.read_text(encoding="utf-8").removeprefix("# @package _global_\n")
    opening = text[: re.search(r"(?m)^[^#]", text + "\n.").start()]  # type: ignore[union-attr]  # there is always a '.'

    assert re.match(OPENING[0], opening)
    assert path.stem in re.split(r"[\s=]", opening.splitlines()[0]) or path.stem == "default"
    assert all(re.search(pattern, opening) for pattern in OPENING[1:])


@pytest.mark.parametrize("name", ["A", "B", "C"])
def test_a_site_file_of_the_demonstration_loads_and_says_how_it_is_used(name: str) -> None:
    """Each has a port of its own, and its first line is the command."""
    sites = {path.stem: load_site(path.stem, None) for path in configs.SITES.glob("*.yaml")}

    assert sites[name].name == name
    assert len({site.file.port for site in sites.values()}) == len(sites) == 3
    assert sites[name].path.read_text(encoding="utf-8").startswith(f"# python -m client.run --site {name}\n")


def test_the_named_hospitals_are_those_of_the_default_run() -> None:
    """`python -m ccfexp.data.phantom --site A` photographs patients of the default run's hospital A."""
    sites = configs.load("default", [], RunConfig).sites

    assert {site.name: replace(site, subjects=SITES[site.name].subjects) for site in sites} == SITES


@pytest.mark.parametrize(("name", "overrides"), [("default", []), ("full", []), ("default", ["federation.rounds=12"])])
def test_the_learning_rate_falls_over_the_whole_run(name: str, overrides: list[str]) -> None:
    """Also where only the number of rounds is changed."""
    config = configs.load(name, overrides, RunConfig)

    assert config.train.decay_rounds == config.federation.rounds


def test_a_second_pass_that_never_comes() -> None:
    """Every tenth step of four."""
    with pytest.raises(ConfigError, match=r"train.cycle_every=10 must be at most the steps of a run, 4; lower it"):
        configs.load("tiny", ["train.cycle_every=10"], RunConfig)
    one_pass = configs.load("tiny", ["train.cycle_every=10", "train.cycle.cycle_weight=0"], RunConfig)
    assert one_pass.train.cycle_every == 10


@pytest.mark.parametrize("name", configs.available())
def test_a_shipped_configuration_loads(name: str) -> None:
    """Nothing is shipped that a person could not run; its folder carries its own name."""
    config = configs.load(name, [], RunConfig)

    assert config.name == name
    assert configs.build(RunConfig, configs.to_dict(config)) == config


def test_a_private_run_by_a_word_on_the_command_line() -> None:
    """The group's file writes down what the class has, so that every part of the promise can be read."""
    config = configs.load("tiny", ["+privacy=patient", "privacy.epsilon=3"], RunConfig)

    assert config.privacy == PrivacyConfig(epsilon=3.0)
    assert configs.load("tiny", ["+privacy=none"], RunConfig) == configs.load("tiny", [], RunConfig)
    assert configs.choices("privacy") == ["none", "patient"]
