"""The choice of the best local model, and the comparison on equal cases."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from ccfexp.evaluation.comparison import best_local, compare
from ccfexp.evaluation.scores import METRICS, ModelScores
from tests.ccfexp.evaluation.models import model, target

BY_KEY = {m.key: m for m in METRICS}


def test_best_local_is_chosen_per_metric_in_its_direction() -> None:
    """One site draws better shapes, the other better sides: each is the opponent where it is strongest."""
    shapes = model("site A", 0.5)
    sides = ModelScores("site B", tuple(replace(c, laterality=c.true_side, nme=c.nme + 0.05) for c in shapes.cases))

    assert best_local(BY_KEY["side_accuracy"], [shapes, sides]).name == "site B"
    assert best_local(BY_KEY["landmark_nme"], [shapes, sides]).name == "site A"  # lower is better
    assert best_local(BY_KEY["landmark_nme"], [sides, shapes]).name == "site A"


def test_a_local_model_without_a_value_is_not_the_best() -> None:
    """An undefined correlation must not pass as the strongest opponent."""
    constant = ModelScores("site A", tuple(replace(c, predicted_severity=3.0) for c in model("x", 0.2).cases))
    weak = model("site B", 0.05)

    assert best_local(BY_KEY["severity_spearman"], [constant, weak]).name == "site B"


def test_comparison_finds_the_better_model_and_its_direction() -> None:
    """Federated is clearly better than the base in either direction of metric, and not clearly unlike its twin."""
    table = compare(
        model("federated", 0.8, 1), model("base", 0.2, 2), [model("site A", 0.4, 3), model("site B", 0.5, 4)],
        pooled=model("federated twin", 0.8, 5), target=target(), seed=0, resamples=200,
    )  # fmt: skip
    by_key = {m.metric.key: m for m in table.metrics}

    for key in ("side_accuracy", "severity_spearman", "landmark_nme", "ssim"):
        assert [r.model for r in by_key[key].rows] == ["federated", "base", "best local", "pooled", "true target"]
        verdicts = {d.against: d.verdict for d in by_key[key].differences}
        assert verdicts["base"] == "better", key
    assert by_key["landmark_nme"].differences[0].value.high < 0
    assert by_key["side_accuracy"].differences[2].verdict == "not clear"
    assert by_key["ssim"].rows[2].chosen == "site B"
    json.dumps(table.to_json(), allow_nan=False)


def test_a_worse_federated_model_is_called_worse() -> None:
    """The table can also say that the federation failed."""
    table = compare(model("federated", 0.2, 1), model("base", 0.8, 2), [], seed=0, resamples=100)

    assert {d.verdict for m in table.metrics for d in m.differences if m.metric.key in ("ssim", "landmark_nme")} == {
        "worse"
    }


def test_adding_a_model_changes_no_other_number() -> None:
    """Every interval has its own generator."""
    federated, base = model("federated", 0.8, 1), model("base", 0.2, 2)

    small = compare(federated, base, [], seed=4, resamples=50).to_json()["metrics"]
    large = compare(federated, base, [model("A", 0.4, 3)], model("p", 0.9, 4), seed=4, resamples=50).to_json()

    for key, metric in small.items():
        for name in ("federated", "base"):
            assert metric["models"][name] == large["metrics"][key]["models"][name]


def test_models_scored_on_other_cases_are_not_compared() -> None:
    """A paired difference of unpaired cases would be nonsense with a narrow interval."""
    other = ModelScores("base", tuple(replace(c, true_side="left") for c in model("x", 0.5).cases))

    with pytest.raises(ValueError, match="true_side"):
        compare(model("federated", 0.5), other, [], seed=0)
    with pytest.raises(ValueError, match="60 and 54 cases"):
        compare(model("federated", 0.5), model("base", 0.5, subjects=9), [], seed=0)
