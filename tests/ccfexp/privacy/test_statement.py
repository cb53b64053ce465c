"""The sentence says the mechanism's numbers, rounded against us, and nothing that it does not give."""

from __future__ import annotations

import math

import pytest

from ccfexp.privacy.plan import PrivacyConfig
from ccfexp.privacy.statement import LIMITS, NONE, best_guess, epsilon_text, guess_text, statement, summary

PLAN = PrivacyConfig(noise_multiplier=1.0, steps=100)


def test_the_sentence_of_a_patient() -> None:
    assert statement("A", 7.981, PLAN) == (
        "Site A: everything that this site computed from its patients and sent in this run is (epsilon = 7.99, delta "
        "= 1e-05)-differentially private for each patient, all of the patient's photographs together: nothing that can "
        "be concluded from it is more than e^epsilon = 2,951 times as likely, plus delta, as if that patient had never "
        "been there, or the other way round; counted by privacy loss distributions, add or remove one patient, "
        "assuming that patients were sampled and noise was drawn independently and secretly (noise: secure, from the "
        "operating system)."
    )


def test_other_photographs_of_a_person_are_not_claimed_for() -> None:
    said = statement("A", 1.0, PrivacyConfig(noise_multiplier=1.0, unit="image", images_per_patient=1))
    assert "for each drawn photograph by itself, as what is drawn (the other photographs of its patient" in said
    assert "nor is the photograph itself where it shows the identity or the expression of another one" in said
    assert "are not covered" in said
    assert "add or remove one photograph" in said
    assert "all of the patient's photographs together" not in said


def test_seeded_noise_protects_nobody() -> None:
    said = statement("A", 1.0, PrivacyConfig(noise_multiplier=1.0, source="seeded"))
    assert "SEEDED" in said
    assert "no protection" in said
    assert "would, with secret noise, be (epsilon = 1.00" in said, "it is not"
    assert "secure" not in said
    assert "is (epsilon" not in said


def test_what_was_not_promised_is_not_claimed() -> None:
    assert statement("A", 3.0, None) == NONE == "None: the updates are not anonymous."
    assert "differentially private" not in statement("A", None, PLAN)
    assert "differentially private" not in statement("A", math.inf, PLAN)
    assert any("epsilons add up" in limit for limit in LIMITS)


@pytest.mark.parametrize(
    ("epsilon", "text"),
    [(0.0, "0.00"), (0.001, "0.01"), (3.0, "3.00"), (2.991, "3.00"), (7.99, "7.99"), (math.inf, "infinite")],
)
def test_epsilon_is_rounded_towards_more_loss(epsilon: float, text: str) -> None:
    assert epsilon_text(epsilon) == text


@pytest.mark.parametrize("epsilon", [0.5, 3.0, 20.0, 900.0])
def test_any_epsilon_can_be_told(epsilon: float) -> None:
    assert epsilon_text(epsilon) in statement("A", epsilon, PLAN)


def test_the_best_guess() -> None:
    """Even odds where nothing is learnt, certain where all is, and never below what randomised response gives."""
    assert best_guess(0.0, 0.0) == 0.5
    assert best_guess(math.log(3), 0.0) == pytest.approx(0.75)
    assert best_guess(0.0, 1.0) == 1.0
    assert best_guess(math.inf, 1e-5) == 1.0
    assert guess_text(math.log(3), 0.0) == "75.00 %"
    assert guess_text(3.0, 1e-5) == "95.26 %", "95.2575, rounded up"


def test_the_line_before_a_run_agrees_with_the_accountant() -> None:
    said = summary(PLAN, 100)
    assert f"epsilon {epsilon_text(PLAN.epsilon_after(100))} at delta 1e-05 after 100 steps" in said
    assert "noise multiplier 1.000" in said
    assert summary(None, 100) == "no differential privacy: the updates are not anonymous"
