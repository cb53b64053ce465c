"""Every rule in its rounds, for tests of what holds for all of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest

from strategies.options import CombineOptions
from strategies.registry import RULES, make
from strategies.rules import RuleOptions
from tests.strategies.factors import Plan, Round, round_of

if TYPE_CHECKING:
    from strategies.aggregation import GlobalState
    from strategies.rules import Rule


@dataclass(frozen=True)
class Case:
    """A rule in one of its rounds."""

    rule: Rule
    number: int
    label: str

    @property
    def letters(self) -> str:
        return self.rule.roles(self.number).uploaded

    def after(self, drawn: Round) -> GlobalState:
        return self.rule.aggregate(drawn.before, drawn.updates(self.letters), self.number)


CASES = [
    *(Case(make(name), number, f"{name} {number}") for name in sorted(RULES) for number in (1, 2)),
    Case(make("flex", RuleOptions(combine=CombineOptions(residual=True))), 1, "flex with residual"),
]
LINEAR = [case for case in CASES if case.rule.linear]
EVERY = pytest.mark.parametrize("case", CASES, ids=lambda case: case.label)
EVERY_LINEAR = pytest.mark.parametrize("case", LINEAR, ids=lambda case: case.label)


def drawn_for(case: Case, plan: Plan) -> Round:
    """A rule that moves everything into the base starts its rounds from B = 0; others may start from anything."""
    return round_of(replace(plan, zero_up=case.rule.name == "flora"))


def bits(state: GlobalState) -> list[bytes]:
    products = [state.residual[layer] for layer in sorted(state.residual)]
    parts = [part for product in products for part in (product.up_MR, product.down_RN)]
    return [state.flat_P.tobytes(), *(part.tobytes() for part in parts), *(v.tobytes() for v in state.memory.values())]
