"""The same product at every site, split into other factors: what an exact rule must not notice."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tests.strategies.factors import Round, letter, rounded


def turned(drawn: Round, seed: int = 7) -> Round:
    """(B_i, A_i) -> (B_i R_i, R_i^-1 A_i) for every site; R_i well conditioned, so that rounding stays small."""
    random = np.random.default_rng(seed)
    sites = []
    for site in drawn.sites:
        left, right = (np.linalg.qr(random.standard_normal((site.rank, site.rank)))[0] for _ in range(2))
        gauge = left @ np.diag(random.uniform(0.5, 2.0, site.rank)) @ right
        change = {}
        for name, value in site.trained().items():
            turn = np.linalg.inv(gauge) if letter(name) == "A" else gauge.T
            axis = 0 if letter(name) == "A" else 1
            moved = np.moveaxis(np.tensordot(turn, value, (1, axis)), 0, axis)
            change[name] = moved - site.sent[name]
        sites.append(replace(site, change=rounded(change)))
    return replace(drawn, sites=tuple(sites))
