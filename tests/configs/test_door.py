"""The door: YAML and overrides in, checked dataclasses out, and every kind of mistake named."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

import configs
from ccfexp.errors import ConfigError


class Light(StrEnum):
    """An enumeration in a configuration."""

    WARM = "warm"
    COLD = "cold"


@dataclass(frozen=True, kw_only=True)
class Train:
    """A nested part with a check of its own."""

    steps: int
    learning_rate: float = 1e-3
    clip: float | None = None
    mode: Literal["corrected", "official"] = "corrected"

    def __post_init__(self) -> None:
        """Check one bound with its full key, another without."""
        if self.steps < 1:
            raise ConfigError(f"steps={self.steps}, at least 1 is needed; raise it.")
        if self.steps > 1000:
            raise ConfigError(f"train.steps={self.steps}, at most 1000; lower it.")


@dataclass(frozen=True, kw_only=True)
class Site:
    """An entry of a list."""

    name: str
    subjects: int = 4
    light: Light = Light.WARM


@dataclass(frozen=True, kw_only=True)
class Run:
    """A whole configuration."""

    name: str
    train: Train
    sites: tuple[Site, ...] = ()
    size: tuple[int, int] = (48, 64)
    progress: bool = True
    weights: dict[str, float] = field(default_factory=dict)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of configurations."""
    (tmp_path / "small.yaml").write_text(
        "name: small\n"
        "train: {steps: 3, learning_rate: 1e-4}\n"
        "sites:\n"
        "  - {name: A, light: cold}\n"
        "  - {name: B, subjects: 9}\n"
    )
    (tmp_path / "large.yaml").write_text("defaults: [small, _self_]\nname: large\ntrain: {steps: 30}\n")
    (tmp_path / "grouped.yaml").write_text("defaults: [_self_, train: quick]\nname: g\n")
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "quick.yaml").write_text("steps: 1\n")
    (tmp_path / "train" / "slow.yaml").write_text("steps: 99\n")
    (tmp_path / "required.yaml").write_text("name: ???\ntrain:\n  steps: ???\n")
    return tmp_path


SMALL = Run(
    name="small",
    train=Train(steps=3, learning_rate=1e-4),
    sites=(Site(name="A", light=Light.COLD), Site(name="B", subjects=9)),
)


def load(folder: Path, name: str, *overrides: str) -> Run:
    """Load through the door."""
    return configs.load(name, overrides, Run, folder=folder)


def test_yaml_becomes_dataclasses(folder: Path) -> None:
    """Nested parts, lists of dataclasses, enumerations and defaults are all there."""
    assert load(folder, "small") == SMALL


def test_a_file_may_build_on_another(folder: Path) -> None:
    """Hydra's defaults list works; the later file wins."""
    assert load(folder, "large") == replace(SMALL, name="large", train=Train(steps=30, learning_rate=1e-4))


def test_choice_of_a_group(folder: Path) -> None:
    """A subfolder holds alternatives of one part."""
    assert load(folder, "grouped").train == Train(steps=1)
    assert load(folder, "grouped", "train=slow").train == Train(steps=99)
    assert load(folder, "grouped", "train=slow", "train.steps=7").train == Train(steps=7)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("name=other", replace(SMALL, name="other")),
        ("train.steps=7", replace(SMALL, train=Train(steps=7, learning_rate=1e-4))),
        ("train.learning_rate=1", replace(SMALL, train=Train(steps=3, learning_rate=1.0))),
        ("train.clip=0.5", replace(SMALL, train=Train(steps=3, learning_rate=1e-4, clip=0.5))),
        ("train.clip=null", SMALL),
        ("+train.mode=official", replace(SMALL, train=Train(steps=3, learning_rate=1e-4, mode="official"))),
        ("progress=false", replace(SMALL, progress=False)),
        ("size=[1,2]", replace(SMALL, size=(1, 2))),
        ("sites.1.subjects=2", replace(SMALL, sites=(SMALL.sites[0], Site(name="B", subjects=2)))),
        ("sites=[{name: C}]", replace(SMALL, sites=(Site(name="C"),))),
        ("weights.a=0.5", replace(SMALL, weights={"a": 0.5})),
    ],
)
def test_override(folder: Path, override: str, expected: Run) -> None:
    """Any key that the schema knows can be set, whether or not the YAML file names it."""
    assert load(folder, "small", override) == expected


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("nmae=x", "Unknown key nmae. Did you mean 'name'?"),
        ("train.stpes=4", "Unknown key train.stpes. Did you mean 'steps'?"),
        ("+train.stpes=4", "Unknown key train.stpes. Did you mean 'steps'?"),
        ("sites.0.subject=4", "Unknown key sites.0.subject. Did you mean 'subjects'?"),
        ("sites=[{name: A, subject: 4}]", "Unknown key sites[0].subject. Did you mean 'subjects'?"),
        ("zzz=4", "Unknown key zzz. Known in the configuration: name, train, sites"),
        ("train.steps.more=4", "Unknown key train.steps.more: train.steps is int and has no keys below it."),
        ("train.steps=many", "train.steps='many' is str, expected int."),
        ("train.steps=1.5", "train.steps=1.5 is float, expected int."),
        ("train.steps=true", "train.steps=true is bool, expected int."),
        ("train.steps=null", "train.steps=null is null, expected int."),
        ("train.clip=high", "train.clip='high' is str, expected float or null."),
        ("train.learning_rate=nan", "train.learning_rate=nan is not finite"),
        ("train.mode=offical", "train.mode='offical' is str, expected one of corrected, official. Did you mean"),
        ("progress=1", "progress=1 is int, expected bool."),
        ("name=3", "name=3 is int, expected str."),
        ("train=3", "The override 'train=3' names no file of train. Known: quick, slow."),
        ("train=quik", "Did you mean 'quick'?"),
        ("sites=3", "sites=3 is int, expected list of Site."),
        ("size=[1]", "size has 1 entries, expected 2: [int, int]."),
        ("size=4", "size=4 is int, expected [int, int]."),
        ("sites.0.light=wram", "sites[0].light='wram' is str, expected one of warm, cold. Did you mean 'warm'?"),
        ("sites=[{subjects: 4}]", "sites[0].name is missing: expected str; give sites[0].name=VALUE."),
        ("weights.a=x", "weights.a='x' is str, expected float."),
        ("train.steps=0", "train: steps=0, at least 1 is needed; raise it."),
        ("train.steps=1,2", "gives several values; give one, or a list"),
        ("~train.steps", "removes or moves a key; write key=value."),
        ("train.steps", "cannot be read; write key=value."),
        ("name=${nothing}", "The configuration 'small' cannot be read: Interpolation key 'nothing' not found"),
    ],
)
def test_bad_override_is_named(folder: Path, override: str, message: str) -> None:
    """The error says which key, which value and what was expected."""
    with pytest.raises(ConfigError) as caught:
        load(folder, "small", override)

    assert message in str(caught.value)


def test_a_key_is_not_said_twice(folder: Path) -> None:
    """A part that names its full key is quoted as it is."""
    with pytest.raises(ConfigError, match=r"^train\.steps=2000, at most 1000; lower it\.$"):
        load(folder, "small", "train.steps=2000")


def test_every_problem_is_told_at_once(folder: Path) -> None:
    """Two mistakes in a file are two lines of one error."""
    (folder / "bad.yaml").write_text("nmae: x\ntrain: {stpes: 1}\nsites: 3\n")

    with pytest.raises(ConfigError) as caught:
        load(folder, "bad")

    assert [line.split(".")[0] for line in str(caught.value).splitlines()] == [
        "Unknown key nmae",
        "name is missing: expected str; give name=VALUE",
        "Unknown key train",
        "train",
        "sites=3 is int, expected list of Site",
    ]


def test_required_values_are_asked_for(folder: Path) -> None:
    """A value that the file leaves open must be given, and then is taken."""
    with pytest.raises(ConfigError, match=r"train\.steps is missing: expected int; give train\.steps=VALUE\."):
        load(folder, "required", "name=x")

    assert load(folder, "required", "name=x", "train.steps=2") == Run(name="x", train=Train(steps=2))


@pytest.mark.parametrize("text", ["a: [", "- a\n- b\n", "name: x\nname: y\n"])
def test_unreadable_yaml(folder: Path, text: str) -> None:
    """Broken YAML, a list, and a key given twice are refused."""
    (folder / "bad.yaml").write_text(text)

    with pytest.raises(ConfigError, match="'bad'"):
        load(folder, "bad")


def test_unknown_name(folder: Path) -> None:
    """The nearest name is suggested, and all are listed."""
    with pytest.raises(ConfigError, match=r"Unknown configuration 'smal'. Did you mean 'small'\? Known: grouped"):
        load(folder, "smal")


def test_a_file_in_a_subfolder_is_loaded_as_it_is(folder: Path) -> None:
    """The subfolder's name is not part of the keys."""
    loaded = configs.load("train/slow", ["steps=5"], Train, folder=folder)

    assert loaded == Train(steps=5)


def test_hash_and_json_follow_the_values(folder: Path) -> None:
    """Equal values give equal hashes however they were written; any other value gives another."""
    config = load(folder, "small")
    same = load(folder, "small", "train.steps=3")
    other = load(folder, "small", "sites.0.light=warm")

    assert configs.config_hash(config) == configs.config_hash(same)
    assert configs.config_hash(config) != configs.config_hash(other)
    assert len(configs.config_hash(config)) == 64
    assert configs.build(Run, json.loads(configs.resolved_json(config))) == config


SITES = st.builds(Site, name=st.text(), subjects=st.integers(), light=st.sampled_from(Light))
RUNS = st.builds(
    Run,
    name=st.text().filter(lambda text: text != "???"),
    train=st.builds(
        Train,
        steps=st.integers(1, 1000),
        learning_rate=st.floats(allow_nan=False, allow_infinity=False),
        clip=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    ),
    sites=st.lists(SITES, max_size=3).map(tuple),
    progress=st.booleans(),
    weights=st.dictionaries(st.text(), st.floats(allow_nan=False, allow_infinity=False), max_size=2),
)


@given(RUNS)
def test_plain_values_read_back(run: Run) -> None:
    """Whatever a configuration holds survives the way to JSON and back."""
    assert configs.build(Run, json.loads(configs.resolved_json(run))) == run


def test_to_dict_refuses_scalars() -> None:
    """Only a configuration has keys."""
    with pytest.raises(TypeError, match="not int"):
        configs.to_dict(3)
