"""The noise has the size that the largest share asks for: the test takes no other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from strategies.central_noise import CentralNoise
from strategies.fedsvd import FedSVD
from strategies.ffa import FFA
from strategies.rules import RuleOptions
from tests.strategies.factors import Plan, Wide, applied, distance, letter, round_of, unflat

MULTIPLIER, BOUND = 1.3, 4.0
WIDE = {"x": (400, (90,)), "y": (300, (50,))}
PLAN = Plan(shapes=WIDE, ranks=(3, 3, 3, 3), weights=(5.0, 1.0, 2.0, 2.0), size=0.0)
LARGEST = 0.5  # 5 of 10


def drawn_noise(noise: CentralNoise, plan: Plan = PLAN) -> Wide:
    """What a round without any change adds to B: nothing but noise."""
    drawn = round_of(plan)
    after = FFA(RuleOptions(noise=noise)).aggregate(drawn.before, drawn.updates("B"), 1)
    found = unflat(after.manifest, after.flat_P)
    return np.concatenate([(found[n] - v).ravel() for n, v in drawn.factors.items() if letter(n) == "B"])


def is_gaussian_of(noise_P: Wide, deviation: float) -> bool:
    """Whether mean, size and shape are those of N(0, deviation^2), each at one in a hundred thousand."""
    count, level = noise_P.size, 1e-5
    low, high = stats.chi2.ppf([level / 2, 1 - level / 2], count) * deviation**2
    sized = low < float(np.square(noise_P).sum()) < high
    centred = abs(float(noise_P.mean())) < stats.norm.ppf(1 - level / 2) * deviation / np.sqrt(count)
    return bool(sized and centred and stats.kstest(noise_P / deviation, "norm").pvalue > level)


def made(seed: int = 0, multiplier: float = MULTIPLIER, bound: float = BOUND) -> CentralNoise:
    return CentralNoise(multiplier, bound, np.random.default_rng(seed))


def many(plan: Plan, first: int = 0) -> Wide:
    """The noise of ten runs with other secrets."""
    return np.concatenate([drawn_noise(made(first + seed), plan) for seed in range(10)])


@pytest.mark.parametrize("first", [0, 100, 200])
def test_the_deviation_is_multiplier_times_bound_times_the_largest_share(first: int) -> None:
    assert drawn_noise(made(first)).size == 2100

    assert is_gaussian_of(many(PLAN, first), MULTIPLIER * BOUND * LARGEST)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (1.3 * 4.0 / 4, "by the number of sites, as where hospitals are taken for equal"),
        (1.3 * 4.0, "as if one site were the whole mean"),
        (1.3 * 4.0 * LARGEST * 1.05, "5 % too much"),
        (1.3 * 4.0 * LARGEST / 1.05, "5 % too little"),
        (1.3 * 4.0 * 5.0, "weights that were not normalised"),
    ],
)
def test_a_wrong_scale_is_refused_by_the_same_test(wrong: float, why: str) -> None:
    noise_P = many(PLAN)

    assert is_gaussian_of(noise_P, 1.3 * 4.0 * LARGEST)
    assert not is_gaussian_of(noise_P, wrong), why


def test_a_wrong_shape_is_refused_by_the_same_test() -> None:
    """Uniform noise of the right variance, and Gaussian noise with a small mean."""
    random = np.random.default_rng(0)
    side = np.sqrt(3) * 2.6

    assert not is_gaussian_of(random.uniform(-side, side, 20_000), 2.6)
    assert not is_gaussian_of(random.normal(0.1, 2.6, 20_000), 2.6)


def test_a_dropout_makes_the_largest_share_larger() -> None:
    """Without the second and third site the first holds 5 of 7: the share is that of this very round."""
    plan = replace(PLAN, ranks=(3, 3), weights=(5.0, 2.0))

    assert is_gaussian_of(many(plan), 5.2 * 5 / 7)


def test_components_that_few_sites_have_need_more_noise() -> None:
    """The only site of rank 3 is the whole mean of component 3, whatever its share of all patients."""
    plan = replace(PLAN, ranks=(2, 2, 3, 2))

    assert is_gaussian_of(many(plan), 5.2)


def test_a_larger_alpha_counts_for_more() -> None:
    """A change of B is multiplied by the site's alpha / r over the run's, and so is what the site can do."""
    plan = replace(PLAN, scales=(2.0, 2.0, 8.0, 2.0))

    assert is_gaussian_of(many(plan), 5.2 * 0.2 * 4)


def test_noise_is_added_to_what_is_trained_and_to_nothing_else() -> None:
    drawn = round_of(replace(PLAN, size=0.5))
    after = FFA(RuleOptions(noise=made())).aggregate(drawn.before, drawn.updates("B"), 1)
    plain = FFA().aggregate(drawn.before, drawn.updates("B"), 1)

    found, without = (unflat(state.manifest, state.flat_P) for state in (after, plain))
    for name, value in found.items():
        assert np.array_equal(value, without[name]) == (letter(name) == "A")
    noise_P = np.concatenate([(found[n] - without[n]).ravel() for n in found if letter(n) == "B"])
    assert np.allclose(noise_P, np.random.default_rng(0).normal(0, 2.6, noise_P.size), atol=1e-5)


def test_the_new_basis_of_fedsvd_is_made_after_the_noise() -> None:
    """Post-processing: the product is that of the noisy mean, and no second noise is drawn."""
    drawn = round_of(PLAN)

    noisy, refactored = (
        rule.aggregate(drawn.before, drawn.updates("B"), 1)
        for rule in (FFA(RuleOptions(noise=made(3))), FedSVD(RuleOptions(noise=made(3))))
    )

    assert distance(applied(refactored), applied(noisy)) < 1e-6


def test_the_generator_is_not_shown() -> None:
    """Its seed is the coordinator's secret: a log of the rule's options must not hold its state."""
    assert "generator" not in repr(made())
