"""The people that the shipped weights are trained on: healthy faces of every kind, and exact crossed pairs."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
import torch

from ccfexp.data.phantom.expression import Palsy
from ccfexp.data.phantom.render import Phantom
from ccfexp.errors import ConfigError
from ccfexp.model import FrozenEncoders
from ccfexp.pretrain.base import Features, PairSampler
from ccfexp.pretrain.population import (
    EFFORTS,
    EXPRESSION_UNITS,
    FIRST_GRIMACE,
    INTENSITIES,
    Population,
    PopulationSpec,
    grimaces,
    render_population,
)
from tests.ccfexp import tiny

SPEC = PopulationSpec(
    first_identity=77_000, identities=16, sessions=1, movements=8, palsied=0.0, size=32, lateral=0.5, grimaces=0.5
)


@pytest.fixture(scope="module")
def people() -> Population:
    return render_population(SPEC, workers=1)


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return Phantom()


def test_a_healthy_population_grimaces_and_has_no_palsy(people: Population) -> None:
    assert int(people.severity_N3.count_nonzero()) == 0
    assert set(people.side_N.tolist()) == {0}
    shares = (people.level_N >= FIRST_GRIMACE).float().mean()
    assert 0.3 < float(shares) < 0.6  # eight of nine photographs move, half of those are grimaces
    assert int((people.level_N[people.rest_N] >= FIRST_GRIMACE).sum()) == 0  # the identity photograph is at rest


def test_people_of_one_level_make_the_same_expression(phantom: Phantom) -> None:
    """What the crossed pairs rest on: beside healthy asymmetry the unit weights are those of the catalogue."""
    one, other = phantom.identity(77_100), phantom.identity(77_101)
    for shown in grimaces()[:20]:
        weights = [
            phantom.weights(person, "rest", shown.intensity, Palsy(), shown.effort, shown.grimace)
            for person in (one, other)
        ]
        for unit, value in shown.grimace.items():
            for found in weights:
                assert abs(found[unit] - value) < 0.35 * value + 0.1


def test_crossed_pairs_show_the_target_s_expression(people: Population) -> None:
    model = tiny.model()
    encoders: FrozenEncoders = model.encoders
    pairs = PairSampler(people, Features.of(people, encoders, "cpu"), crossed=1.0)
    generator = torch.Generator().manual_seed(0)
    target_B = torch.arange(len(people.movement_N))
    expression_B = pairs._expression(target_B, generator)
    moving = people.movement_N > 0
    grimacing = people.level_N >= FIRST_GRIMACE
    assert torch.equal(people.movement_N[expression_B], people.movement_N[target_B])
    assert torch.equal(people.level_N[expression_B][moving | grimacing], people.level_N[moving | grimacing])
    assert not bool((grimacing[expression_B] & ~grimacing).any())  # a resting face is not crossed with a grimace


def test_the_catalogue_is_fixed_and_moves_single_sides() -> None:
    catalogue = grimaces()
    assert [shown.level for shown in catalogue] == list(range(FIRST_GRIMACE, FIRST_GRIMACE + len(catalogue)))
    assert len(INTENSITIES) * len(EFFORTS) == FIRST_GRIMACE
    sides: dict[bool, int] = defaultdict(int)
    for shown in catalogue:
        for unit in EXPRESSION_UNITS:
            twin = unit.replace("Left", "Right") if unit.endswith("Left") else unit.replace("Right", "Left")
            sides[(unit in shown.grimace) and (twin not in shown.grimace)] += 1
    assert sides[True] > len(catalogue)


def test_a_grimace_of_one_side_moves_that_side(phantom: Phantom) -> None:
    """The corner of the patient's left mouth rises, the right one stays."""
    person = phantom.identity(77_102)
    rest = phantom.render(person, size=112).landmark_682
    smirk = phantom.render(person, size=112, grimace={"mouthSmileLeft": 1.0}).landmark_682
    moved = np.linalg.norm(smirk - rest, axis=1)
    assert moved[54] > 3 * moved[48] + 1  # 54 is the patient's left oral commissure, 48 the right


@pytest.mark.parametrize(
    ("palsy", "grimace", "message"),
    [
        (Palsy.of_grade(5, "left"), {"mouthSmileLeft": 1.0}, r"grimace of a person with palsy side='left'"),
        (Palsy(), {"mouthSmilLeft": 1.0}, r"unknown grimace unit='mouthSmilLeft'. Did you mean 'mouthSmileLeft'\?"),
    ],
)
def test_impossible_grimaces(phantom: Phantom, palsy: Palsy, grimace: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        phantom.weights(phantom.identity(1), "rest", 1.0, palsy, grimace=grimace)


def test_only_healthy_populations_grimace() -> None:
    with pytest.raises(ConfigError, match=r"grimaces=0.5 must lie in \[0, 1\], and be 0 where palsied=0.5 > 0"):
        PopulationSpec(first_identity=0, identities=1, sessions=1, movements=1, palsied=0.5, grimaces=0.5)
