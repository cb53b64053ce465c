"""The table that compares models on the same held-out cases: federated, base, best local, pooled and true target.

"True target" is the true picture read by the same evaluators, so its row is the ceiling that the evaluators themselves
allow.  What counts is the paired difference from the federated model, not whether two intervals overlap.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ccfexp.evaluation.bootstrap import Interval, interval, paired_difference
from ccfexp.evaluation.scores import METRICS, Metric, ModelScores

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


def best_local(metric: Metric, locals_: Iterable[ModelScores]) -> ModelScores:
    """The local-only model that is strongest in ``metric``.

    Chosen anew for every metric and on the evaluated cases themselves: an advantage that no hospital could have had
    in truth, granted so that a federated model that wins has won against the strongest opponent.
    """
    candidates = tuple(locals_)
    best = candidates[0]
    for candidate in candidates[1:]:
        if metric.better(candidate.estimate(metric), best.estimate(metric)):
            best = candidate
    return best


@dataclass(frozen=True)
class Row:
    """One model in one metric; ``chosen`` names the site behind "best local", else it is the model's name."""

    model: str
    chosen: str
    value: Interval


@dataclass(frozen=True)
class Difference:
    """Federated minus another model, on the same cases.  ``verdict``: "better", "worse" or "not clear"."""

    against: str
    value: Interval
    verdict: str


@dataclass(frozen=True)
class MetricComparison:
    """All models in one metric and the federated model's paired differences from them."""

    metric: Metric
    rows: tuple[Row, ...]
    differences: tuple[Difference, ...]


@dataclass(frozen=True)
class Comparison:
    """The table federated / base / best local / pooled / true target, by metric."""

    metrics: tuple[MetricComparison, ...]
    cases: int
    subjects: int
    level: float

    def to_json(self) -> dict[str, Any]:
        """The whole table in plain values."""
        return {
            "cases": self.cases,
            "subjects": self.subjects,
            "level": self.level,
            "metrics": {
                m.metric.key: {
                    "label": m.metric.label,
                    "direction": m.metric.direction,
                    "unit": m.metric.unit,
                    "models": {r.model: {"chosen": r.chosen, **r.value.to_json()} for r in m.rows},
                    "federated_minus": {d.against: {"verdict": d.verdict, **d.value.to_json()} for d in m.differences},
                }
                for m in self.metrics
            },
        }


def compare(
    federated: ModelScores,
    base: ModelScores,
    locals_: Sequence[ModelScores],
    pooled: ModelScores | None = None,
    target: ModelScores | None = None,
    *,
    seed: int,
    resamples: int = 1000,
    level: float = 0.95,
) -> Comparison:
    """Compare models on the same cases.

    ``locals_``: one model per site, possibly none; ``pooled`` and ``target`` optional.  Every interval is drawn from
    its own generator seeded with (seed, position), so that adding a model or a metric changes no other number.
    Raises ValueError where two models were not scored on the same cases.
    """
    others = [base, *locals_, *(m for m in (pooled, target) if m is not None)]
    for other in others:
        _check_same_cases(federated, other)
    options = {"resamples": resamples, "level": level}
    metrics = tuple(
        _compare_metric(m, federated, base, locals_, pooled, target, seed=(seed, i), options=options)
        for i, m in enumerate(METRICS)
    )
    subject = federated.columns["subject"]
    return Comparison(metrics, len(federated.cases), len(np.unique(subject)), level)


def _compare_metric(
    metric: Metric,
    federated: ModelScores,
    base: ModelScores,
    locals_: Sequence[ModelScores],
    pooled: ModelScores | None,
    target: ModelScores | None,
    *,
    seed: tuple[int, int],
    options: Mapping[str, Any],
) -> MetricComparison:
    local = best_local(metric, locals_) if locals_ else None
    named = {"federated": federated, "base": base, "best local": local, "pooled": pooled, "true target": target}
    subject = federated.columns["subject"]
    rows, differences = [], []
    for position, (name, model) in enumerate(named.items()):
        if model is None:
            continue
        rng = np.random.default_rng((*seed, position))
        cases = model.arrays(metric)
        rows.append(Row(name, model.name, interval(metric.statistic, cases, subject, rng=rng, **options)))
        if name in ("base", "best local", "pooled"):
            value = paired_difference(metric.statistic, federated.arrays(metric), cases, subject, rng=rng, **options)
            differences.append(Difference(name, value, _verdict(metric, value)))
    return MetricComparison(metric, tuple(rows), tuple(differences))


def _verdict(metric: Metric, difference: Interval) -> str:
    if not difference.excludes_zero:
        return "not clear"
    return "better" if (difference.low > 0) == metric.higher_is_better else "worse"


def _check_same_cases(a: ModelScores, b: ModelScores) -> None:
    for name in ("subject", "true_side", "true_severity"):
        x, y = a.columns[name], b.columns[name]
        equal_nan = x.dtype.kind == "f" and y.dtype.kind == "f"
        if not np.array_equal(x, y, equal_nan=equal_nan):
            raise ValueError(
                f"Models {a.name!r} and {b.name!r} differ in {name} of their cases ({len(x)} and {len(y)} cases): "
                "score every model on the same cases in the same order."
            )
