"""Rules by name, and which settings go together: a refusal names both and says what would do."""

from __future__ import annotations

import pytest

from ccfexp.errors import ConfigError
from strategies import registry
from strategies.options import CombineOptions, ServerOptimiser
from strategies.registry import RULES, check_combination, chosen, make
from strategies.rules import RuleOptions

PLAIN, MEAN = ServerOptimiser(), CombineOptions()
LINEAR = {"fedit", "ffa", "fedsvd", "rolora", "fedsa"}
STEADY = {"fedit", "ffa", "rolora", "fedsa"}


def test_there_are_seven_rules_and_each_knows_its_name() -> None:
    assert set(RULES) == {"fedit", "ffa", "fedsvd", "rolora", "flora", "flex", "fedsa"}
    assert all(make(name).name == name for name in RULES)
    assert registry.AUTO not in RULES


@pytest.mark.parametrize("name", sorted(RULES))
def test_the_facts_of_the_rules(name: str) -> None:
    rule = make(name)

    assert rule.linear == (name in LINEAR)
    assert rule.steady == (name in STEADY)
    assert rule.personal == (name == "fedsa")
    for number in (1, 2, 3):
        roles = rule.roles(number)
        assert set(roles.uploaded) <= set(roles.trained)
        assert set(roles.sent + roles.trained + roles.uploaded) <= {"A", "B"}


def test_options_reach_the_rule() -> None:
    options = RuleOptions(combine=CombineOptions(centre="median"), seed=5)

    assert all(make_rule(options).options is options for make_rule in RULES.values())  # type: ignore[attr-defined]
    assert make("auto").name == "rolora"


@pytest.mark.parametrize(
    ("private", "mixed_ranks", "name"),
    [(False, False, "rolora"), (False, True, "flex"), (True, False, "fedsvd"), (True, True, "fedsvd")],
)
def test_auto_is_the_rule_for_the_case(private: bool, mixed_ranks: bool, name: str) -> None:
    assert chosen("auto", private=private, mixed_ranks=mixed_ranks) == name
    assert chosen("fedit", private=private, mixed_ranks=mixed_ranks) == "fedit"


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"federation.strategy='rolara' is unknown; known: auto, fedit, .*rolora"):
        chosen("rolara", private=False, mixed_ranks=False)
    with pytest.raises(ConfigError, match=r"'nothing' is unknown"):
        make("nothing")


@pytest.mark.parametrize("name", sorted(RULES))
@pytest.mark.parametrize("setting", ["secure_aggregation", "central_noise"])
def test_property_8_what_needs_a_sum_goes_with_linear_rules_alone(name: str, setting: str) -> None:
    def check() -> None:
        check_combination(
            name,
            MEAN,
            PLAIN,
            secure_aggregation=setting == "secure_aggregation",
            central_noise=setting == "central_noise",
        )

    if name in LINEAR:
        check()
    else:
        with pytest.raises(
            ConfigError,
            match=rf"federation.strategy={name} is not linear .* federation.{setting}, .*"
            r"choose one of fedit, fedsa, fedsvd, ffa, rolora",
        ):
            check()


@pytest.mark.parametrize("combine", [CombineOptions(centre="median"), CombineOptions(norm_filter=3.0)])
@pytest.mark.parametrize("setting", ["secure_aggregation", "central_noise"])
def test_a_sum_cannot_be_compared(combine: CombineOptions, setting: str) -> None:
    remedy = "use combine.centre=mean and combine.norm_filter=0"
    with pytest.raises(ConfigError, match=rf"federation.{setting} .* federation.combine .*{remedy}"):
        check_combination("ffa", combine, PLAIN, **{setting: True})


@pytest.mark.parametrize("name", sorted(RULES))
@pytest.mark.parametrize("kind", ["momentum", "adam"])
def test_memory_needs_a_basis_that_stays(name: str, kind: str) -> None:
    optimiser = ServerOptimiser(kind=kind, rate=0.1)  # type: ignore[arg-type]
    if name in STEADY:
        check_combination(name, MEAN, optimiser)
        return
    remedy = "choose kind=plain, or fedit, ffa, fedsa or rolora"
    with pytest.raises(ConfigError, match=rf"federation.optimiser.kind={kind} .*strategy={name} .*{remedy}"):
        check_combination(name, MEAN, optimiser)


@pytest.mark.parametrize("name", sorted(RULES))
@pytest.mark.parametrize("centre", ["median", "trimmed_mean"])
def test_a_robust_centre_needs_factors_that_are_averaged(name: str, centre: str) -> None:
    combine = CombineOptions(centre=centre)  # type: ignore[arg-type]
    if name in LINEAR:
        check_combination(name, combine, PLAIN)
        return
    with pytest.raises(
        ConfigError,
        match=rf"federation.combine.centre={centre} .*strategy={name} .*choose one of fedit, .* or combine.norm_filter",
    ):
        check_combination(name, combine, PLAIN)


@pytest.mark.parametrize("name", sorted(RULES))
def test_a_residual_is_of_flex_alone(name: str) -> None:
    combine = CombineOptions(residual=True)
    if name == "flex":
        check_combination(name, combine, PLAIN)
        return
    with pytest.raises(
        ConfigError,
        match=rf"federation.combine.residual is of strategy=flex, not of {name}; choose strategy=flex, or",
    ):
        check_combination(name, combine, PLAIN)


@pytest.mark.parametrize("name", sorted(RULES))
def test_every_rule_goes_with_the_defaults_and_with_the_norm_filter(name: str) -> None:
    check_combination(name, MEAN, PLAIN)
    check_combination(name, CombineOptions(norm_filter=3.0), PLAIN)
