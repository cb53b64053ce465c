"""The evaluators tell right pictures from wrong ones: without that no table of models would mean anything."""

from __future__ import annotations

import pytest
import torch

import configs
from ccfexp.conditioning import ExpressionFeatures, IdentityFeatures
from ccfexp.data.phantom.expression import SIDES
from ccfexp.encoders import landmarks_from_vector
from ccfexp.evaluation.cases import HeldOutCases, phantom_cases
from ccfexp.evaluation.judge import Evaluators, case_features, case_indices, judge, validation_loss
from ccfexp.evaluation.scores import METRICS, ModelScores
from ccfexp.model import CCFExp
from ccfexp.training import to_unit_range
from configs.run import RunConfig

HEADLINE = [metric for metric in METRICS if metric.headline]


@pytest.fixture(scope="module")
def cases() -> HeldOutCases:
    """Cases of twelve people who come to the hospitals of the default run."""
    return phantom_cases(12, 64, configs.load("default", [], RunConfig).hospitals)


@pytest.fixture(scope="module")
def evaluators() -> Evaluators:
    """The shipped ones."""
    return Evaluators.load()


@pytest.fixture(scope="module")
def right(cases: HeldOutCases, evaluators: Evaluators) -> ModelScores:
    """The true targets, judged."""
    return judge("true target", to_unit_range(cases.target_C3HW), cases, evaluators)


def _judged(image_C3HW: torch.Tensor, cases: HeldOutCases, evaluators: Evaluators) -> ModelScores:
    return judge("other", to_unit_range(image_C3HW), cases, evaluators)


@pytest.mark.parametrize("metric", HEADLINE, ids=lambda metric: metric.key)
def test_true_targets_beat_shuffled_targets(
    metric: object, right: ModelScores, cases: HeldOutCases, evaluators: Evaluators
) -> None:
    """In every headline metric, by far."""
    order = torch.randperm(len(cases), generator=torch.Generator().manual_seed(0))
    wrong = _judged(cases.target_C3HW[order], cases, evaluators)
    (chosen,) = [one for one in HEADLINE if one is metric]

    true, shuffled = right.estimate(chosen), wrong.estimate(chosen)

    assert chosen.better(true, shuffled)
    assert abs(true - shuffled) > {"landmark_nme": 0.02}.get(chosen.key, 0.2)


def test_true_targets_reach_what_the_run_asks_for(right: ModelScores) -> None:
    """The evaluators must be able to see a federated side accuracy of .90 and a severity correlation of .8."""
    value = {metric.key: right.estimate(metric) for metric in METRICS}

    assert value["side_accuracy"] >= 0.95
    assert value["severity_spearman"] >= 0.85
    assert value["landmark_nme"] < 0.03
    assert value["ssim"] == pytest.approx(1.0)
    assert value["psnr"] == 100.0
    assert value["movement_accuracy"] > 0.8


def test_a_mirrored_picture_shows_the_palsy_on_the_other_side(
    cases: HeldOutCases, evaluators: Evaluators, right: ModelScores
) -> None:
    """Side and landmarks follow the picture, not the label."""
    mirrored = _judged(cases.target_C3HW.flip(-1), cases, evaluators)
    clear = [c for c, grade in enumerate(cases.grade_C) if grade >= 4]

    other = {"left": "right", "right": "left"}
    turned = [mirrored.cases[c].laterality == other[cases.side_C[c]] for c in clear]
    assert sum(turned) >= 0.9 * len(turned)
    assert right.estimate(HEADLINE[0]) > mirrored.estimate(HEADLINE[0]) + 0.5


def test_identity_belongs_to_the_person(cases: HeldOutCases, evaluators: Evaluators, right: ModelScores) -> None:
    """The true target is more like the person's photograph than the person who showed the expression."""
    (metric,) = [one for one in METRICS if one.key == "identity_similarity"]

    assert right.estimate(metric) > _judged(cases.expression_C3HW, cases, evaluators).estimate(metric) + 0.3


def test_a_picture_of_the_stranger_leaks(cases: HeldOutCases, evaluators: Evaluators, right: ModelScores) -> None:
    """The photograph that shows the expression is its own stranger; the true target is somebody else."""
    (metric,) = [one for one in METRICS if one.key == "identity_leak"]

    assert _judged(cases.expression_C3HW, cases, evaluators).estimate(metric) == pytest.approx(1.0)
    assert right.estimate(metric) < 0.5


def test_cases_are_scored_in_order(right: ModelScores, cases: HeldOutCases) -> None:
    """Subject, true side, true severity and grade are the cases' own."""
    assert [case.subject for case in right.cases] == list(cases.subject_C)
    assert [case.true_side for case in right.cases] == list(cases.side_C)
    assert [case.true_severity for case in right.cases] == list(cases.severity_C)
    assert [case.grade for case in right.cases] == list(cases.grade_C)


def test_reading_is_in_known_words_and_units(cases: HeldOutCases, evaluators: Evaluators) -> None:
    """Sides by name, landmarks in fractions of the side near the true ones."""
    reading = evaluators.read(to_unit_range(cases.target_C3HW[:4]))

    assert set(reading.side_N) <= set(SIDES)
    assert set(reading.laterality_N) <= {"left", "right"}
    assert (reading.landmark_N682 * 64 - torch.from_numpy(cases.landmark_C682[:4])).norm(dim=-1).mean() < 1.5
    assert landmarks_from_vector(torch.zeros(1, 136)).shape == reading.landmark_N682[:1].shape


def test_validation_loss_is_fixed_and_notices_wrong_conditions(cases: HeldOutCases) -> None:
    """The same number twice; a worse one with the expressions of other cases."""
    model = CCFExp.from_base("phantom-base")
    few = HeldOutCases(**{name: value[:6] for name, value in vars(cases).items()})
    identity, expression = case_features(model, few)
    turned = [5, 0, 1, 2, 3, 4]
    swapped = ExpressionFeatures(*(part[turned] for part in expression))

    loss = validation_loss(model, few, (identity, expression))

    assert isinstance(identity, IdentityFeatures)
    assert validation_loss(model, few, (identity, expression)) == loss
    assert validation_loss(model, few, (identity, swapped)) > loss


def test_wanted_cases(cases: HeldOutCases) -> None:
    """The first of each pair that exists, in order, once."""
    first, last = (cases.grade_C[0], cases.movement_C[0]), (cases.grade_C[-1], cases.movement_C[-1])

    found = case_indices(cases, [last, first, last, (6, "rest")])

    assert found[1] == 0
    assert len(found) == 2
    assert (cases.grade_C[found[0]], cases.movement_C[found[0]]) == last
