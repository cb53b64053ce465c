"""What a private run may promise, and what it is told when it promises something else."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from ccfexp.errors import ConfigError
from ccfexp.privacy.plan import PrivacyConfig

PLAN = PrivacyConfig(noise_multiplier=1.0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "privacy.epsilon=null and privacy.noise_multiplier=null: exactly one"),
        ({"epsilon": 3.0, "noise_multiplier": 1.0}, "privacy.epsilon=3 and privacy.noise_multiplier=1: exactly one"),
        ({"epsilon": 0.0}, "privacy.epsilon=0.0 must be finite and above 0"),
        ({"epsilon": math.inf}, "privacy.epsilon=inf must be finite"),
        ({"epsilon": math.nan}, "privacy.epsilon=nan must be finite"),
        ({"noise_multiplier": 0.1}, r"privacy.noise_multiplier=0.1 must lie in \[0.2, 1000\]"),
        ({"noise_multiplier": math.nan}, "privacy.noise_multiplier=nan must lie"),
        ({"delta": 0.1}, r"privacy.delta=0.1 must lie in \(0, 0.1\)"),
        ({"delta": 0.0}, "privacy.delta=0.0 must lie"),
        ({"sampling_rate": 0.0}, r"privacy.sampling_rate=0.0 must lie in \(0, 1\]"),
        ({"sampling_rate": 1.5}, "privacy.sampling_rate=1.5 must lie"),
        ({"clipping_norm": 0.0}, "privacy.clipping_norm=0.0 must be finite and above 0"),
        ({"clipping_norm": math.inf}, "privacy.clipping_norm=inf must be finite"),
        ({"images_per_patient": 0}, r"privacy.images_per_patient=0 must lie in \[1, 64\]"),
        ({"draws_per_image": 65}, r"privacy.draws_per_image=65 must lie in \[1, 64\]"),
        ({"steps": -1}, r"privacy.steps=-1 must lie in \[0, 1000000\]"),
        ({"unit": "hospital"}, "privacy.unit='hospital' must be one of patient, image"),
        ({"source": "clock"}, "privacy.source='clock' must be one of secure, seeded"),
        ({"unit": "image"}, "privacy.images_per_patient=2 must be 1 with unit=image"),
    ],
)
def test_a_value_that_cannot_be_is_named(values: dict[str, Any], message: str) -> None:
    """With its bound and the remedy."""
    if values and not {"epsilon", "noise_multiplier"} & set(values):
        values = values | {"noise_multiplier": 1.0}
    with pytest.raises(ConfigError, match=message):
        PrivacyConfig(**values)


def test_a_run_says_how_many_steps_it_has_or_its_rounds_do() -> None:
    """A plan for fewer than are taken would promise too much."""
    assert PLAN.over(120).steps == 120
    assert replace(PLAN, steps=200).over(120).steps == 200
    with pytest.raises(ConfigError, match=r"privacy.steps=100 must be at least the steps of the run, 120"):
        replace(PLAN, steps=100).over(120)


def test_calibration_gives_the_noise_that_epsilon_asks_for() -> None:
    """A plan with its noise stays as it is."""
    plan = PrivacyConfig(epsilon=3.0, steps=160).calibrate()

    assert plan.epsilon is None
    assert plan.noise_multiplier is not None
    assert 2.9 < plan.epsilon_after(160) <= 3.0
    assert plan.epsilon_after(80) < plan.epsilon_after(160)
    assert plan.calibrate() is plan


def test_a_plan_without_steps_or_noise_has_no_cost() -> None:
    """It says what is missing."""
    plan = PrivacyConfig(epsilon=3.0)
    with pytest.raises(ConfigError, match=r"privacy\.steps=0 must be at least 1"):
        plan.calibrate()
    with pytest.raises(ConfigError, match="calibrate it first"):
        plan.spent(10)
