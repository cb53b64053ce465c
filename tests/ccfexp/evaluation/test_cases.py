"""Held-out cases: balanced, paired, and of people whom nothing was ever trained on."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

import configs
from ccfexp.data.phantom.camera import SceneStyle
from ccfexp.data.phantom.expression import HOUSE_BRACKMANN, MOVEMENTS, Palsy
from ccfexp.data.phantom.identity import Prior
from ccfexp.data.phantom.presets import SITES
from ccfexp.data.phantom.render import Phantom, Photograph
from ccfexp.data.phantom.sites import PhantomSite, render_person
from ccfexp.errors import ConfigError
from ccfexp.evaluation import cases as cases_module
from ccfexp.evaluation.cases import EXAMINATIONS_PER_PERSON, FIRST_EXPRESSION, FIRST_PERSON, HeldOutCases, phantom_cases
from ccfexp.pretrain.base import BASE_RECIPE, CURVE_POPULATION
from ccfexp.pretrain.encoders import RECIPES
from ccfexp.pretrain.figures import HELD_OUT
from configs.run import FIRST_RESERVED, RunConfig

PEOPLE, SIZE = 4, 32
MOST_PEOPLE = 1000  # no evaluation asks for more


@pytest.fixture(scope="module")
def cases() -> HeldOutCases:
    """Cases of four people."""
    return phantom_cases(PEOPLE, SIZE)


def test_grades_and_sides_are_balanced(cases: HeldOutCases) -> None:
    """Every grade once for each person; every palsied grade as often left as right; I has no side and no severity."""
    assert len(cases) == PEOPLE * EXAMINATIONS_PER_PERSON == 24
    assert Counter(cases.grade_C) == dict.fromkeys(HOUSE_BRACKMANN, PEOPLE)
    for person in range(PEOPLE):
        assert sorted(g for g, s in zip(cases.grade_C, cases.subject_C, strict=True) if s == person) == [
            1,
            2,
            3,
            4,
            5,
            6,
        ]
    of_grade = Counter(zip(cases.grade_C, cases.side_C, strict=True))
    assert of_grade.pop((1, "none")) == PEOPLE
    assert of_grade == {(grade, side): PEOPLE // 2 for grade in range(2, 7) for side in ("left", "right")}
    severity = {
        grade: [v for v, g in zip(cases.severity_C, cases.grade_C, strict=True) if g == grade] for grade in range(1, 7)
    }
    assert severity[1] == [0.0] * PEOPLE
    assert all(max(severity[grade]) < min(severity[grade + 1]) for grade in (1, 2, 3, 4))


def test_movements_are_spread(cases: HeldOutCases) -> None:
    """Six different ones for each person, never rest, and no grade is tied to a movement."""
    for person in range(PEOPLE):
        own = [m for m, s in zip(cases.movement_C, cases.subject_C, strict=True) if s == person]
        assert len(set(own)) == EXAMINATIONS_PER_PERSON
        assert set(own) <= set(MOVEMENTS) - {"rest"}
    assert len({m for m, g in zip(cases.movement_C, cases.grade_C, strict=True) if g == 6}) > 1


def test_a_case_is_the_same_person_under_the_shown_expression(cases: HeldOutCases) -> None:
    """Identity photograph healthy at rest; target in the same light with the labelled movement; shown by another."""
    phantom, case = Phantom(), 3  # grade IV of the first person
    person = phantom.identity(FIRST_PERSON)
    rest = phantom.render(person, "rest", seed=0, size=SIZE)
    healthy = phantom.render(person, cases.movement_C[case], seed=0, size=SIZE)

    assert np.array_equal(cases.identity_C3HW[case].permute(1, 2, 0).numpy(), rest.image_HW3)
    assert all(
        torch.equal(cases.identity_C3HW[other], cases.identity_C3HW[case]) for other in range(EXAMINATIONS_PER_PERSON)
    )
    # The palsy moves the target's landmarks away from the healthy movement's, on the affected side.
    assert np.abs(cases.landmark_C682[case] - healthy.landmark_682).max() > 0.3
    assert not torch.equal(cases.expression_C3HW[case], cases.target_C3HW[case])
    assert Palsy.of_grade(4, "left").mean_severity == pytest.approx(cases.severity_C[case], abs=0.08)


def test_cases_do_not_depend_on_how_many_there_are(cases: HeldOutCases) -> None:
    """The first person's cases are the same alone."""
    alone = phantom_cases(1, SIZE)

    assert torch.equal(alone.target_C3HW, cases.target_C3HW[:EXAMINATIONS_PER_PERSON])
    assert torch.equal(alone.expression_C3HW, cases.expression_C3HW[:EXAMINATIONS_PER_PERSON])


DARK = PhantomSite("dark", style=SceneStyle(backgrounds=(4,)), prior=Prior(skin_alpha=8.0, skin_beta=1.0))
COARSE = PhantomSite(
    "coarse", style=SceneStyle(backgrounds=(3,)), prior=Prior(skin_alpha=1.0, skin_beta=8.0), jpeg_quality=5
)


def test_people_come_to_the_hospitals_in_turn() -> None:
    """Their room is the hospital's; what is asked of them is not."""
    cases, plain = phantom_cases(4, SIZE, (DARK, COARSE)), phantom_cases(4, SIZE)

    wall_P = cases.identity_C3HW[::EXAMINATIONS_PER_PERSON, :, :3, :3].float().mean((1, 2, 3))
    assert max(wall_P[0], wall_P[2]) < 100  # people 0 and 2 come to the dark room
    assert min(wall_P[1], wall_P[3]) > 150
    assert cases.movement_C == plain.movement_C
    assert cases.grade_C == plain.grade_C
    for home in (0, 1):
        asked = Counter(
            (g, s) for g, s, p in zip(cases.grade_C, cases.side_C, cases.subject_C, strict=True) if p % 2 == home
        )
        assert all(asked[grade, side] == 1 for grade in range(2, 7) for side in ("left", "right"))
    # Whoever shows the expression comes to either hospital.
    shown = [cases.expression_C3HW[case, :, :3, :3].float().mean() < 125 for case in range(EXAMINATIONS_PER_PERSON)]
    assert 0 < sum(shown) < EXAMINATIONS_PER_PERSON


@pytest.mark.parametrize("count", [2, 3])
def test_expressions_come_from_all_hospitals_at_every_grade_and_side(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How often from the person's own hospital says nothing of the grade or the side."""
    homes = tuple(PhantomSite(f"H{number}", style=SceneStyle(backgrounds=(number,))) for number in range(count))
    seen: list[tuple[str, int]] = []  # hospital and session of every photograph

    def watched(site: PhantomSite, who: int, movement: str, palsy: Palsy, session: int, size: int) -> Photograph:
        seen.append((site.name, session))
        return render_person(site, who, movement, palsy, session, size)

    monkeypatch.setattr(cases_module, "render_person", watched)
    cases = phantom_cases(2 * count**2, 16, homes)

    own = Counter(
        (grade, side)
        for grade, side, person, away in zip(
            cases.grade_C, cases.side_C, cases.subject_C, [name for name, session in seen if session == 1], strict=True
        )
        if away == f"H{person % count}"
    )
    assert {own[grade, side] for grade in range(2, 7) for side in ("left", "right")} == {count}


def test_skin_is_that_of_the_hospitals_people() -> None:
    """Two hospitals alike but for who comes: everybody in every picture has the skin of one of them."""
    priors = Prior(skin_alpha=1, skin_beta=30), Prior(skin_alpha=30, skin_beta=1)
    light, dark = (phantom_cases(4, SIZE, (PhantomSite("P", prior=prior),)) for prior in priors)

    for name in ("identity_C3HW", "expression_C3HW", "target_C3HW"):
        cheek = slice(SIZE // 2, SIZE // 2 + 6)
        a, b = (getattr(cases, name)[:, :, cheek, cheek].float().mean((1, 2, 3)) for cases in (light, dark))
        assert a.mean() > b.mean() + 30, name


def test_the_hospitals_camera_compresses_every_picture_of_a_case() -> None:
    """JPEG at quality 5 leaves blocks of 8 pixels: the target is what that hospital would have photographed."""
    fine, coarse = phantom_cases(1, SIZE, (replace(COARSE, jpeg_quality=0),)), phantom_cases(1, SIZE, (COARSE,))

    for name in ("identity_C3HW", "expression_C3HW", "target_C3HW"):
        difference = getattr(fine, name).float() - getattr(coarse, name).float()
        assert difference.abs().mean() > 3, name
    assert np.array_equal(fine.landmark_C682, coarse.landmark_C682)


def _ranges() -> dict[str, tuple[int, int]]:
    """First and last-plus-one phantom seed of everybody that anything is made from or measured on."""
    populations = {name: recipe.population for name, recipe in RECIPES.items() if not name.endswith("landmark")}
    populations |= {"base": BASE_RECIPE.population, "encoder figures": HELD_OUT, "base curve": CURVE_POPULATION}
    ranges = {name: (spec.first_identity, spec.first_identity + spec.identities) for name, spec in populations.items()}
    ranges["held-out people"] = (FIRST_PERSON, FIRST_PERSON + MOST_PEOPLE)
    ranges["shown people"] = (FIRST_EXPRESSION, FIRST_EXPRESSION + MOST_PEOPLE * EXAMINATIONS_PER_PERSON)
    for name, site in SITES.items():
        ranges[f"preset {name}"] = (site.first_identity, site.first_identity + site.subjects)
    for name in configs.available():
        for site in configs.load(name, [], RunConfig).sites:
            ranges[f"{name} {site.name}"] = (site.first_identity, site.first_identity + site.subjects)
    return ranges


def test_nobody_here_is_known_to_any_network_or_site() -> None:
    """Seeds of the cases against those of every site and of every population in a recipe."""
    ranges = _ranges()
    held_out = {name: ranges.pop(name) for name in ("held-out people", "shown people")}

    for name, (first, last) in held_out.items():
        for other, (other_first, other_last) in ranges.items():
            assert last <= other_first or other_last <= first, (name, other)
    (a, b), (c, d) = held_out.values()
    assert b <= c or d <= a


def test_pretraining_evaluators_and_sites_share_nobody() -> None:
    """Evaluators learn other people than the encoders and the base; sites have people of their own."""
    ranges = _ranges()
    evaluators = {name: span for name, span in ranges.items() if name.startswith("evaluator")}
    conditioning = {name: span for name, span in ranges.items() if name.startswith("phantom-") or name == "base"}
    sites = [span for name, span in ranges.items() if name.split()[-1] in SITES]

    assert evaluators
    assert conditioning
    assert all(last <= FIRST_RESERVED for _, last in sites)
    assert all(first >= FIRST_RESERVED for first, _ in (*evaluators.values(), *conditioning.values()))
    for first, last in evaluators.values():
        assert all(last <= other_first or other_last <= first for other_first, other_last in conditioning.values())
    assert BASE_RECIPE.population.palsied == 0


def test_an_examination_has_one_palsy_one_stranger_and_several_movements(cases: HeldOutCases) -> None:
    """Four pictures of each grade; the first of them is the one of an examination of a single picture."""
    count = 4
    examined = phantom_cases(1, SIZE, movements=count)

    assert len(examined) == EXAMINATIONS_PER_PERSON * count
    for start in range(0, len(examined), count):
        part = slice(start, start + count)
        assert len(set(examined.movement_C[part])) == count
        assert len({*examined.severity_C[part]}) == len({*examined.side_C[part]}) == len({*examined.grade_C[part]}) == 1
    assert torch.equal(examined.target_C3HW[::count], cases.target_C3HW[:EXAMINATIONS_PER_PERSON])
    assert torch.equal(examined.expression_C3HW[::count], cases.expression_C3HW[:EXAMINATIONS_PER_PERSON])


@pytest.mark.parametrize("movements", [0, len(MOVEMENTS)])
def test_movements_that_there_are_not(movements: int) -> None:
    """Rest shows no movement."""
    with pytest.raises(ConfigError, match=f"movements={movements} of an examination must lie in \\[1, 10\\]"):
        phantom_cases(1, SIZE, movements=movements)


@pytest.mark.parametrize("people", [0, -1])
def test_no_people(people: int) -> None:
    """At least one person is needed."""
    with pytest.raises(ConfigError, match=f"people={people} must be >= 1"):
        phantom_cases(people, SIZE)
