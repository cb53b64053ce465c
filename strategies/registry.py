"""Aggregation rules by name, and what may be combined with which."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccfexp.errors import ConfigError, did_you_mean
from strategies.fedit import FedIT
from strategies.fedsa import FedSA
from strategies.fedsvd import FedSVD
from strategies.ffa import FFA
from strategies.flex import Flex
from strategies.flora import FLoRA
from strategies.rolora import RoLoRA
from strategies.rules import RuleOptions

if TYPE_CHECKING:
    from collections.abc import Callable

    from strategies.options import CombineOptions, ServerOptimiser
    from strategies.rules import Rule

RULES: dict[str, Callable[[RuleOptions], Rule]] = {
    rule.name: rule for rule in (FedIT, FFA, FedSVD, RoLoRA, FLoRA, Flex, FedSA)
}
AUTO = "auto"


def chosen(name: str, *, private: bool, mixed_ranks: bool) -> str:
    """The rule that a configuration means: "auto" is rolora, fedsvd where training is private, flex for mixed ranks.

    Raises:
        ConfigError: no rule has this name.
    """
    if name == AUTO:
        # Under differential privacy one noised factor in an orthonormal basis has the least noise, at any ranks.
        return FedSVD.name if private else Flex.name if mixed_ranks else RoLoRA.name
    if name not in RULES:
        known = ", ".join((AUTO, *sorted(RULES)))
        raise ConfigError(f"federation.strategy={name!r} is unknown; known: {known}.{did_you_mean(name, RULES)}")
    return name


def make(name: str, options: RuleOptions | None = None) -> Rule:
    """A rule.

    Raises:
        ConfigError: no rule has this name.
    """
    return RULES[chosen(name, private=False, mixed_ranks=False)](options or RuleOptions())


def check_combination(
    name: str,
    combine: CombineOptions,
    optimiser: ServerOptimiser,
    *,
    secure_aggregation: bool = False,
    central_noise: bool = False,
) -> None:
    """Refuse what the algebra does not allow.

    Raises:
        ConfigError: naming the two settings that do not go together, and what would.
    """
    rule = make(name)
    linear = ", ".join(sorted(known for known, make_rule in RULES.items() if make_rule(RuleOptions()).linear))
    needs_sum = "secure_aggregation" if secure_aggregation else "central_noise" if central_noise else ""
    if needs_sum and not rule.linear:
        raise ConfigError(
            f"federation.strategy={name} is not linear in the uploads and cannot go with federation.{needs_sum}, "
            f"where only their sum is known; choose one of {linear}"
        )
    if needs_sum and combine.needs_all:
        raise ConfigError(
            f"federation.{needs_sum} works on the sum of the updates, and federation.combine compares them one with "
            "another; use combine.centre=mean and combine.norm_filter=0"
        )
    if optimiser.kind != "plain" and not rule.steady:
        raise ConfigError(
            f"federation.optimiser.kind={optimiser.kind} remembers numbers of the last rounds, and strategy={name} "
            "gives the factors a new basis every round; choose kind=plain, or fedit, ffa, fedsa or rolora"
        )
    if combine.centre != "mean" and not rule.linear:
        raise ConfigError(
            f"federation.combine.centre={combine.centre} compares factors number by number, which strategy={name} does "
            f"not average; choose one of {linear}, or combine.norm_filter"
        )
    if combine.residual and name != Flex.name:
        raise ConfigError(
            f"federation.combine.residual is of strategy=flex, not of {name}; choose strategy=flex, or set it to false"
        )
