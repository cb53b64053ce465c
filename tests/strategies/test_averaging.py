"""The mean of changes against the mean of dense stacks, component by component, and centres that resist a liar."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings

from ccfexp.errors import RoundError, WireError
from strategies import averaging
from strategies.averaging import at_rank, combined_change, largest_share, too_long
from strategies.fedit import FedIT
from strategies.fedsvd import FedSVD
from strategies.ffa import FFA
from strategies.options import CombineOptions
from strategies.rolora import RoLoRA
from tests.strategies import collapse
from tests.strategies.factors import RANK, Factors, Plan, Round, Wide, letter, plans, round_of, unflat

if TYPE_CHECKING:
    from collections.abc import Iterable

    from strategies.aggregation import SiteUpdate
    from strategies.rules import Rule

MEDIAN, TRIMMED = CombineOptions(centre="median"), CombineOptions(centre="trimmed_mean", trim=0.2)
MANY = Plan(ranks=(RANK,) * 7, weights=(9.0, 1.0, 4.0, 4.0, 2.0, 7.0, 3.0))


def combined(drawn: Round, letters: str = "AB", options: CombineOptions | None = None) -> Wide:
    updates: Iterable[SiteUpdate] = drawn.updates(letters)
    return combined_change(
        drawn.before.manifest.only(letters), drawn.before.scale, updates, options or CombineOptions()
    )


def padded_means(drawn: Round, letters: str) -> Factors:
    """Zeros where a site has no component, and a mask of who has what: one tensor after another."""
    found: Factors = {}
    for name, value in drawn.factors.items():
        if letter(name) not in letters:
            continue
        total, weight = np.zeros(value.shape), np.zeros(value.shape)
        for site in drawn.sites:
            own = site.change[name] * (site.scale / drawn.before.scale if letter(name) == "B" else 1.0)
            place = tuple(slice(0, size) for size in own.shape)
            total[place] += site.weight * own
            weight[place] += site.weight
        found[name] = np.divide(total, weight, out=np.zeros(value.shape), where=weight > 0)
    return found


@given(plans())
@settings(max_examples=60, deadline=None)
def test_every_component_is_averaged_over_the_sites_that_have_it(plan: Plan) -> None:
    drawn = round_of(plan)
    for letters in ("A", "B", "AB"):
        found = unflat(drawn.before.manifest.only(letters), combined(drawn, letters))

        expected = padded_means(drawn, letters)
        assert found.keys() == expected.keys()
        assert all(np.allclose(found[name], expected[name], rtol=1e-12, atol=1e-14) for name in found)


def test_the_mean_is_made_in_double_precision() -> None:
    """Against exact fractions: weights are not rounded to single precision on the way."""
    drawn = round_of(replace(MANY, weights=(0.1, 1 / 3, 123.456, 7.7, 1e-3, 99.9, 2.2)))
    changes_KP = np.stack([update.change_P[:] for update in drawn.updates()])
    weights = [Fraction(site.weight) for site in drawn.sites]

    found_P = combined(drawn)

    for place in range(0, found_P.size, 29):
        terms = [w * Fraction(float(c)) for w, c in zip(weights, changes_KP[:, place], strict=True)]
        assert found_P[place] == pytest.approx(float(sum(terms) / sum(weights)), rel=1e-13, abs=1e-15)


def test_weights_beyond_single_precision_do_not_overflow() -> None:
    drawn = round_of(replace(MANY, weights=(1e300,) * 7))

    assert np.allclose(combined(drawn), combined(round_of(replace(MANY, weights=(1.0,) * 7))), rtol=1e-12)


def test_the_size_of_a_block_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = round_of(MANY)
    whole = [combined(drawn, "AB", options).tobytes() for options in (CombineOptions(), MEDIAN, TRIMMED)]

    monkeypatch.setattr(averaging, "BLOCK", 7)

    assert [combined(drawn, "AB", options).tobytes() for options in (CombineOptions(), MEDIAN, TRIMMED)] == whole


def test_the_weights_of_those_present_sum_to_one() -> None:
    """Whoever is absent is as if it had never been: the share of the others grows, nothing shrinks towards zero."""
    drawn = round_of(MANY)
    present = replace(drawn, sites=(drawn.sites[1], drawn.sites[4], drawn.sites[5]))
    alike = [replace(site, change=drawn.sites[0].change) for site in present.sites]

    mean_P = combined(replace(present, sites=tuple(alike)))

    assert np.allclose(mean_P, next(drawn.updates()).change_P[:], rtol=1e-14)
    shares_K = np.array([1.0, 2.0, 7.0]) / 10
    stack_KP = np.stack([update.change_P[:].astype(np.float64) for update in present.updates()])
    assert np.allclose(combined(present), shares_K @ stack_KP, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6, 7])
def test_robust_centres_are_those_of_the_dense_stack(count: int) -> None:
    drawn = round_of(replace(MANY, ranks=(RANK,) * count, weights=()))
    stack_KP = np.stack([update.change_P[:].astype(np.float64) for update in drawn.updates()])
    cut = {1: 0, 2: 0, 3: 1, 4: 1, 5: 1, 6: 1, 7: 1}[count]
    expected_P = np.sort(stack_KP, axis=0)[cut : count - cut].mean(0)

    assert np.array_equal(combined(drawn, options=MEDIAN), np.median(stack_KP, axis=0))
    assert np.allclose(combined(drawn, options=TRIMMED), expected_P, rtol=1e-14, atol=1e-15)


def test_a_trimmed_mean_leaves_out_a_share_at_either_end() -> None:
    drawn = round_of(replace(MANY, ranks=(RANK,) * 10, weights=()))
    stack_KP = np.sort(np.stack([update.change_P[:].astype(np.float64) for update in drawn.updates()]), axis=0)
    options = CombineOptions(centre="trimmed_mean", trim=0.3)

    assert np.allclose(combined(drawn, options=options), stack_KP[3:7].mean(0), rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("count", [3, 4, 5, 6, 7])
@pytest.mark.parametrize("options", [MEDIAN, TRIMMED], ids=["median", "trimmed"])
def test_one_hostile_site_moves_the_mean_and_not_a_robust_centre(options: CombineOptions, count: int) -> None:
    """However far its numbers are and however many patients it claims, the centre stays between the honest ones."""
    drawn = round_of(replace(MANY, ranks=(RANK,) * count, weights=()))
    hostile = replace(
        drawn.sites[1], change={name: value + 1e6 for name, value in drawn.sites[1].change.items()}, weight=1e5
    )
    attacked = replace(drawn, sites=(drawn.sites[0], hostile, *drawn.sites[2:]))
    honest = (update for update in drawn.updates() if update.site != hostile.name)
    honest_KP = np.stack([update.change_P[:].astype(np.float64) for update in honest])

    centre_P = combined(attacked, options=options)

    assert (centre_P >= honest_KP.min(0)).all()
    assert (centre_P <= honest_KP.max(0)).all()
    assert combined(attacked).min() > 1e5


@pytest.mark.parametrize("options", [MEDIAN, TRIMMED], ids=["median", "trimmed"])
def test_robust_centres_refuse_sites_of_different_rank_or_alpha(options: CombineOptions) -> None:
    for plan in (Plan(ranks=(2, 3, 3)), Plan(scales=(1.0, 2.0, 2.0))):
        with pytest.raises(RoundError, match=rf"centre={options.centre} .* every site needs one rank"):
            combined(round_of(plan), options=options)


def test_the_norm_filter_knows_the_long_ones_by_the_median() -> None:
    drawn = round_of(MANY)
    long = replace(drawn.sites[4], change={name: 50 * value for name, value in drawn.sites[4].change.items()})
    updates = list(replace(drawn, sites=(*drawn.sites[:4], long, *drawn.sites[5:])).updates())
    norms = [float(np.linalg.norm(update.change_P[:].astype(np.float64))) for update in updates]

    found = too_long(updates, 3.0)

    assert list(found) == ["site-04"]
    assert f"norm={norms[4]:.4g}, expected at most {3 * np.median(norms):.4g}" in found["site-04"]
    assert too_long(updates, 1000.0) == {}
    assert too_long([], 3.0) == {}


# --- rank collapse ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [FedIT(), FFA(), FedSVD(), RoLoRA()], ids=lambda rule: str(rule.name))
def test_property_4_the_nested_mean_keeps_the_rank(rule: Rule) -> None:
    """Components that small sites lack keep their 16 % of the energy; plain averaging leaves 1.2 % and 0.07 %."""
    assert collapse.plain_rounds(2) == pytest.approx([0.0118, 0.00074], rel=0.02)

    assert collapse.idle_rounds(rule, 4) == pytest.approx([0.16] * 4, rel=1e-5)


@pytest.mark.parametrize("rule", [FedIT(), FFA(), FedSVD(), RoLoRA()], ids=lambda rule: str(rule.name))
def test_property_4_what_only_a_large_site_learns_arrives_whole(rule: Rule) -> None:
    assert collapse.tail_energy(collapse.padded()) == pytest.approx(0.0118, rel=0.02)

    assert np.allclose(collapse.taught(rule), collapse.wanted(), atol=1e-6)


# --- who may take part ------------------------------------------------------------------------------------------------


def test_fewer_components_are_the_first_ones_and_a_residual_keeps_its_own() -> None:
    drawn = round_of(Plan())
    entries = {**dict(drawn.before.manifest.entries), "x.lora_A.residual.weight": (9, 4)}
    narrow = dict(at_rank(type(drawn.before.manifest)(tuple(sorted(entries.items()))), 2).entries)

    assert narrow["d.convolution.lora_A.weight"] == (2, 2, 3, 3)
    assert narrow["d.convolution.lora_B.weight"] == (5, 2, 1, 1)
    assert narrow["e.both_rank.lora_A.weight"] == (2, 3)
    assert narrow["e.both_rank.lora_B.weight"] == (3, 2)
    assert narrow["x.lora_A.residual.weight"] == (9, 4)


def test_a_rank_above_the_runs_is_refused() -> None:
    drawn = round_of(Plan(rank=2, ranks=(2, 2)))
    wide = list(round_of(Plan(rank=3, ranks=(3, 3))).updates())[1]

    with pytest.raises(WireError, match=r"rank=3, expected 1 to 2"):
        combined_change(drawn.before.manifest, 2.0, [next(drawn.updates()), wide], CombineOptions())


def test_other_factors_than_the_runs_are_refused() -> None:
    drawn = round_of(Plan())

    with pytest.raises(WireError, match=r"tensors? (missing|not agreed)"):
        combined_change(drawn.before.manifest.only("B"), 2.0, drawn.updates("A"), CombineOptions())
    lying = replace(next(drawn.updates()), rank=2, scale=1.0)
    with pytest.raises(WireError, match=r"shape of"):
        combined_change(drawn.before.manifest, 2.0, [lying], CombineOptions())


# --- the most that one site counts ------------------------------------------------------------------------------------


@given(plans())
@settings(max_examples=60, deadline=None)
def test_the_largest_share_is_what_one_site_can_move_a_number(plan: Plan) -> None:
    """Measured: each site in turn changes all its numbers by one, the others by nothing."""
    drawn = round_of(plan)
    moved = 0.0
    for mine in drawn.sites:
        sites = [
            replace(
                site, change={name: np.full(value.shape, float(site is mine)) for name, value in site.change.items()}
            )
            for site in drawn.sites
        ]
        moved = max(moved, float(combined(replace(drawn, sites=tuple(sites))).max()))

    taken = [(site.weight, site.rank, site.scale / drawn.before.scale) for site in drawn.sites]

    assert largest_share(taken) == pytest.approx(moved, rel=1e-12)
