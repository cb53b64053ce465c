"""Scores of cases and the metrics made of them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ccfexp.evaluation.scores import METRICS, CaseScores, ModelScores
from tests.ccfexp.evaluation.models import target

BY_KEY = {m.key: m for m in METRICS}


def test_every_metric_of_a_hand_made_pair() -> None:
    """Two cases, each number computed by hand."""
    first = CaseScores(
        0, "left", "left", 5.0, 4.0, 0.05, 0.8, 20.0, 0.9, True, laterality="left", grade=5, stranger_similarity=0.1
    )  # fmt: skip
    second = CaseScores(
        1, "none", "left", 1.0, 3.0, 0.07, 0.6, 18.0, 0.7, False, laterality="right", grade=1, stranger_similarity=0.3
    )  # fmt: skip
    third = CaseScores(2, "left", "left", 3.0, 3.5, float("nan"), 0.7, 19.0, 0.8, True, laterality="right", grade=3)
    scores = ModelScores("m", (first, second, third))

    found = {key: scores.estimate(metric) for key, metric in BY_KEY.items()}

    assert found == pytest.approx(
        {
            "side_accuracy": 1 / 2,  # the healthy second case does not count
            "side_balanced_accuracy": 0.5,
            "severity_spearman": 1.0,
            "severity_examined": 1.0,  # the two pictures of person 1 are of two grades: each its own examination
            "severity_error": (1 + 2 + 0.5) / 3,
            "landmark_nme": 0.06,
            "ssim": 0.7,
            "psnr": 19.0,
            "identity_similarity": 0.8,
            "identity_leak": 0.2,
            "movement_accuracy": 2 / 3,
        }
    )


def test_an_examination_is_judged_by_the_mean_of_its_pictures() -> None:
    """Single pictures contradict the truth in rank; the means of the two examinations do not."""

    def picture(grade: int, true: float, seen: float) -> CaseScores:
        return CaseScores(
            1, "left", "left", true, seen, 0.05, 0.8, 20.0, 0.9, True, laterality="left", grade=grade
        )  # fmt: skip

    scores = ModelScores(
        "m",
        (picture(2, 0.2, 0.6), picture(2, 0.2, 0.0), picture(4, 0.7, 0.5), picture(4, 0.7, 0.5), picture(6, 1, 0.9)),
    )

    assert scores.columns["examined_severity"] == pytest.approx([0.3, 0.3, 0.5, 0.5, 0.9])
    assert scores.estimate(BY_KEY["severity_examined"]) == pytest.approx(1)
    assert scores.estimate(BY_KEY["severity_spearman"]) < 0.8


def test_summary_is_plain_json_also_with_an_infinite_psnr() -> None:
    """The ceiling row has no finite PSNR; JSON has no infinity."""
    written = json.dumps(target().to_json(rng=np.random.default_rng(0), resamples=20), allow_nan=False)

    metrics = json.loads(written)["metrics"]
    assert metrics["psnr"]["estimate"] is None
    assert metrics["ssim"]["estimate"] == 1
    assert set(metrics) == set(BY_KEY)


def test_a_model_needs_cases() -> None:
    """The error names the model."""
    with pytest.raises(ValueError, match="model='base'"):
        ModelScores("base", ())


def test_a_side_that_is_no_label_is_refused() -> None:
    """The error names the field and the value."""
    with pytest.raises(ValueError, match="predicted_side='L'"):
        CaseScores(0, "left", "L", 1.0, 1.0, 0.1, 0.5, 20.0, 0.9, True, laterality="left", grade=3)
