"""The toy of rank collapse: three sites of rank 2, one of rank 8, and a model whose components 3 to 8 matter.

Averaging that counts zeros for the small sites leaves a quarter of what they lack, a sixteenth of its energy, each
round: 16 %, 1.2 %, 0.07 % (Liu et al. 2026, arXiv:2602.13486).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from strategies.aggregation import GlobalState
from tests.strategies.factors import Factors, Round, Site, Wide, applied, cut, flat, manifest_of, rounded

if TYPE_CHECKING:
    from strategies.rules import Rule

RANKS = (2, 2, 2, 8)
HEAD, TAIL = min(RANKS), max(RANKS)
_LAYER, _OUTPUTS, _INPUTS = "x", 16, 12
_DOWN, _UP = f"{_LAYER}.lora_A.weight", f"{_LAYER}.lora_B.weight"


def target() -> Factors:
    """Singular values times left vectors, and right vectors; the tail has 16 % of the energy."""
    random = np.random.default_rng(3)
    left, right = (np.linalg.qr(random.standard_normal((size, TAIL)))[0] for size in (_OUTPUTS, _INPUTS))
    values = np.linspace(1.3, 0.7, TAIL)
    values[:HEAD] *= np.sqrt(0.84 / np.square(values[:HEAD]).sum())
    values[HEAD:] *= np.sqrt(0.16 / np.square(values[HEAD:]).sum())
    return rounded({_DOWN: right.T, _UP: left * values})


def tail_energy(matrix: Wide) -> float:
    """Share of the energy that lies beyond the components that every site has."""
    energy = np.square(np.linalg.svd(matrix, compute_uv=False))
    return float(energy[HEAD:].sum() / energy.sum())


def plain_rounds(rounds: int) -> list[float]:
    """Tail energies where nobody learns anything and products are averaged with zeros for what a site lacks."""
    matrix = target()[_UP] @ target()[_DOWN]
    energies = []
    for _ in range(rounds):
        u, values, v = np.linalg.svd(matrix, full_matrices=False)
        matrix = np.mean([u[:, :rank] * values[:rank] @ v[:rank] for rank in RANKS], axis=0)
        energies.append(tail_energy(matrix))
    return energies


def idle_rounds(rule: Rule, rounds: int) -> list[float]:
    """Tail energies where nobody learns anything, by a rule."""
    state = _state(target())
    energies = []
    for number in range(1, rounds + 1):
        state = rule.aggregate(state, _round(state, None).updates(rule.roles(number).uploaded), number)
        energies.append(tail_energy(applied(state)[_LAYER]))
    return energies


def taught(rule: Rule) -> Wide:
    """What the federation applies after a round in which every site learns all of the target that its rank holds."""
    unlearnt = {_DOWN: target()[_DOWN], _UP: np.zeros((_OUTPUTS, TAIL))}
    state = _state(unlearnt)
    after = rule.aggregate(state, _round(state, target()).updates(rule.roles(1).uploaded), 1)
    return applied(after)[_LAYER]


def wanted() -> Wide:
    """The product of the target."""
    matrix: Wide = target()[_UP] @ target()[_DOWN]
    return matrix


def padded() -> Wide:
    """What zeros averaged in make of the target in a round."""
    parts = [cut(target(), rank) for rank in RANKS]
    matrix: Wide = np.mean([part[_UP] @ part[_DOWN] for part in parts], axis=0)
    return matrix


def _state(factors: Factors) -> GlobalState:
    return GlobalState(manifest_of(factors), flat(factors), 1.0)


def _round(state: GlobalState, goal: Factors | None) -> Round:
    """All sites; B moves to the goal's, or not at all."""
    values = Round(state, ()).factors
    sites = []
    for place, rank in enumerate(RANKS):
        sent = cut(values, rank)
        change = {name: 0 * value for name, value in sent.items()}
        if goal is not None:
            change[_UP] = cut(goal, rank)[_UP] - sent[_UP]
        sites.append(Site(f"site-{place}", 1.0, rank, 1.0, sent, rounded(change)))
    return Round(state, tuple(sites))
