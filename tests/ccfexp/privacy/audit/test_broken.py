"""Each broken mechanism is broken in one way and honest in every other."""

from __future__ import annotations

from dataclasses import fields, is_dataclass

import numpy as np
import pytest
import torch

from ccfexp.privacy.audit.broken import BREAKS, honest, without_clipping, without_noise
from ccfexp.privacy.noise import SeededSource
from ccfexp.privacy.per_unit import clipped_sum
from ccfexp.privacy.plan import PrivacyConfig
from ccfexp.privacy.steps import PrivatePlan
from ccfexp.training import TrainConfig

CONFIG = PrivacyConfig(noise_multiplier=1.5, clipping_norm=0.01)


def plan() -> PrivatePlan:
    return CONFIG.make(declared_patients=10, source=SeededSource([1, 2]))


def test_without_noise() -> None:
    spoiled, sound = without_noise(plan()), plan()

    assert np.array_equal(spoiled.source.uniform(9), sound.source.uniform(9))
    assert not spoiled.source.normal(9).any()
    assert (spoiled.clipping_norm, spoiled.noise_multiplier) == (sound.clipping_norm, sound.noise_multiplier)


def test_without_clipping() -> None:
    spoiled, sound = without_clipping(plan()), plan()
    gradients = [torch.tensor([[3.0, 4.0], [30.0, 40.0]])]

    total = clipped_sum(gradients, spoiled.clipping_norm)[0][0].float()
    assert torch.allclose(total, torch.tensor([33.0, 44.0]))
    deviation = spoiled.noise_multiplier * spoiled.clipping_norm
    assert deviation == pytest.approx(sound.noise_multiplier * sound.clipping_norm)
    assert np.array_equal(spoiled.source.normal(5), sound.source.normal(5))


def test_honest_is_the_plan_itself() -> None:
    sound = plan()

    assert honest(sound) is sound
    assert list(BREAKS) == ["nothing", "noise", "clipping"]


def test_no_key_of_a_configuration_breaks_anything() -> None:
    """Neither what is promised nor how it is trained has a field for it."""
    for config in (CONFIG, TrainConfig()):
        assert is_dataclass(config)
        names = {field.name for field in fields(config)}
        assert not names & {"break", "broken", "spoil", "audit"}
