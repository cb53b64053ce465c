"""Scores of a model on held-out cases: what the evaluators read from each picture, and the metrics made of it.

A case is one synthesised picture of a person never trained on: this person, asked to make that movement with that
palsy.  The evaluators (encoders separate from those that condition or train the model) read side, severity, movement,
landmarks and identity from the picture.  Models are set beside each other in ``comparison``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ccfexp.evaluation.bootstrap import Interval, interval
from ccfexp.evaluation.metrics import accuracy, balanced_accuracy, finite_mean, spearman

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIDE_LABELS = ("left", "right", "none", "bilateral")
_SIDES = ("predicted_side", "true_side", "laterality")
# In grade II the asymmetry is about a healthy face's own: the side cannot be told even from true pictures.
CLEAR_GRADE = 3


@dataclass(frozen=True)
class CaseScores:
    """What the evaluators read from one picture, beside the truth.

    ``subject`` is a running number, never an identifier.  Sides are the patient's (left, right, none).  Severity is
    on any scale that grows with it (House-Brackmann 1 to 6, or a regional severity in [0, 1]), predicted and true on
    the same.  ``nme``: landmark error over the inter-ocular distance; ``ssim``, ``psnr`` (dB): against the true
    picture; ``identity_similarity``: cosine with the person's identity photograph; ``stranger_similarity``: with the
    photograph of somebody else that showed the expression.  NaN marks what a case lacks.
    ``laterality``: the more affected side (left, right) if one must be named; ``grade``: House-Brackmann asked for.

    Raises ValueError for an unknown side.
    """

    subject: int
    true_side: str
    predicted_side: str
    true_severity: float
    predicted_severity: float
    nme: float
    ssim: float
    psnr: float
    identity_similarity: float
    movement_correct: bool
    laterality: str = field(kw_only=True)
    grade: int = field(kw_only=True)
    stranger_similarity: float = field(default=float("nan"), kw_only=True)

    def __post_init__(self) -> None:
        """Refuse a side that is no label: it would silently count as an error of the model."""
        for name in _SIDES:
            if getattr(self, name) not in SIDE_LABELS:
                raise ValueError(
                    f"Unknown {name}={getattr(self, name)!r}: expected one of {', '.join(SIDE_LABELS)} (the patient's)."
                )


@dataclass(frozen=True)
class Metric:
    """One line of the comparison: how its value follows from the cases and which direction is better."""

    key: str
    label: str
    meaning: str
    columns: tuple[str, ...]
    statistic: Callable[..., float]
    higher_is_better: bool = True
    unit: str = ""
    digits: int = 2
    headline: bool = False  # named in the plain-language summary

    @property
    def direction(self) -> str:
        """Words for the table: "higher is better" or "lower is better"."""
        return "higher is better" if self.higher_is_better else "lower is better"

    def better(self, a: float, b: float) -> bool:
        """Whether ``a`` is better than ``b``; any number is better than NaN."""
        if np.isnan(a) or np.isnan(b):
            return bool(np.isnan(b) and not np.isnan(a))
        return a > b if self.higher_is_better else a < b


def _laterality_accuracy(laterality: NDArray[Any], true_side: NDArray[Any], grade: NDArray[Any]) -> float:
    clear = grade >= CLEAR_GRADE
    return accuracy(laterality[clear], true_side[clear]) if clear.any() else float("nan")


def _severity_error(predicted: NDArray[Any], true: NDArray[Any]) -> float:
    return finite_mean(np.abs(predicted - true))


def _mean_of_groups(value_N: NDArray[Any], keys_KN: NDArray[Any]) -> NDArray[Any]:
    """Each value replaced by the mean [N] of its group, the columns of ``keys_KN`` that are equal."""
    _, group_N = np.unique(keys_KN, axis=1, return_inverse=True)
    total_G, count_G = np.bincount(group_N, value_N), np.bincount(group_N)
    return np.asarray((total_G / count_G)[group_N])


_SEVERITY = ("predicted_severity", "true_severity")
METRICS: tuple[Metric, ...] = (
    Metric(
        "side_accuracy",
        "Side accuracy",
        "House-Brackmann III to VI: share of pictures whose more affected side, left or right, is the asked one",
        ("laterality", "true_side", "grade"),
        _laterality_accuracy,
        headline=True,
    ),
    Metric(
        "side_balanced_accuracy",
        "Side accuracy with healthy",
        "All grades: left, right or none recognised, averaged over the three so that each counts alike",
        ("predicted_side", "true_side"),
        balanced_accuracy,
    ),
    Metric(
        "severity_spearman",
        "Severity correlation",
        "Spearman rank correlation of the severity seen with the severity asked for",
        _SEVERITY,
        spearman,
        headline=True,
    ),
    # A picture repeats its examination's severity, which leaves a rank correlation as it is.
    Metric(
        "severity_examined",
        "Severity correlation of examinations",
        "The same for the severity of an examination: its mean over all pictures of one person at one grade",
        ("examined_severity", "true_severity"),
        spearman,
    ),
    Metric(
        "severity_error",
        "Severity error",
        "Mean absolute difference of the severity seen and the severity asked for",
        _SEVERITY,
        _severity_error,
        higher_is_better=False,
    ),
    Metric(
        "landmark_nme",
        "Landmark error",
        "Mean distance of the 68 landmarks from the true ones, over the inter-ocular distance",
        ("nme",),
        finite_mean,
        higher_is_better=False,
        digits=4,
        headline=True,
    ),
    Metric(
        "ssim", "SSIM", "Structural similarity with the true picture", ("ssim",), finite_mean, digits=3, headline=True
    ),
    Metric(
        "psnr",
        "PSNR",
        "Peak signal-to-noise ratio against the true picture",
        ("psnr",),
        finite_mean,
        unit="dB",
        digits=1,
    ),
    Metric(
        "identity_similarity",
        "Identity similarity",
        "Cosine with the person's own photograph; compare with the true target, not with 1",
        ("identity_similarity",),
        finite_mean,
        digits=3,
    ),
    Metric(
        "identity_leak",
        "Identity leak",
        "Cosine with the stranger whose photograph shows the expression; compare with the true target, not with 0",
        ("stranger_similarity",),
        finite_mean,
        higher_is_better=False,
        digits=3,
    ),
    Metric(
        "movement_accuracy",
        "Movement accuracy",
        "Share of pictures in which the asked movement is recognised",
        ("movement_correct",),
        finite_mean,
    ),
)


@dataclass(frozen=True)
class ModelScores:
    """All cases of one model.  Two models are comparable when subject, true side and true severity agree case by case.

    Raises ValueError without cases.
    """

    name: str
    cases: tuple[CaseScores, ...]

    def __post_init__(self) -> None:
        if not self.cases:
            raise ValueError(
                f"Expected cases of model={self.name!r}, got none: evaluate at least one held-out picture."
            )

    @cached_property
    def columns(self) -> dict[str, NDArray[Any]]:
        """The fields of CaseScores as arrays [N], one entry a case; sides as positions in SIDE_LABELS, for speed."""
        columns = {f.name: np.array([getattr(c, f.name) for c in self.cases]) for f in fields(CaseScores)}
        for name in _SIDES:
            columns[name] = np.array([SIDE_LABELS.index(side) for side in columns[name]])
        columns["examined_severity"] = _mean_of_groups(
            columns["predicted_severity"], np.stack([columns["subject"], columns["grade"]])
        )
        return columns

    def arrays(self, metric: Metric) -> list[NDArray[Any]]:
        """The arrays [N] that ``metric.statistic`` takes."""
        return [self.columns[name] for name in metric.columns]

    def estimate(self, metric: Metric) -> float:
        """The value of ``metric`` over all cases."""
        return float(metric.statistic(*self.arrays(metric)))

    def summary(self, *, rng: np.random.Generator, resamples: int = 1000, level: float = 0.95) -> dict[str, Interval]:
        """Every metric by key, with its interval over subjects."""
        subject = self.columns["subject"]
        return {
            m.key: interval(m.statistic, self.arrays(m), subject, rng=rng, resamples=resamples, level=level)
            for m in METRICS
        }

    def to_json(self, *, rng: np.random.Generator, resamples: int = 1000, level: float = 0.95) -> dict[str, Any]:
        """Name, counts and every metric with its interval, in plain values."""
        summary = self.summary(rng=rng, resamples=resamples, level=level)
        return {
            "name": self.name,
            "cases": len(self.cases),
            "subjects": len(np.unique(self.columns["subject"])),
            "metrics": {key: value.to_json() for key, value in summary.items()},
        }
