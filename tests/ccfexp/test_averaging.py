"""The running average against the published one: its decays and the values that it gives."""

import math
from typing import Any

import torch
from torch import nn

from ccfexp.averaging import running_average
from tests.ccfexp.published.recipe import facts


def test_decays_and_averages_are_the_published_ones() -> None:
    expected = facts("ema")
    parameter = nn.Parameter(torch.zeros(1))
    average = running_average([parameter])
    for number, (decay, value) in enumerate(
        zip(expected["decay_at_step_0_to_11"], expected["averaged"], strict=True), start=1
    ):
        parameter.data.fill_(float(number))
        average.step([parameter])
        found: Any = average.cur_decay_value
        assert math.isclose(found, decay, rel_tol=1e-5, abs_tol=1e-9)
        assert math.isclose(float(average.shadow_params[0]), value, rel_tol=1e-5)


def test_the_decay_of_late_steps() -> None:
    average = running_average([nn.Parameter(torch.zeros(1))])
    for step, decay in facts("ema")["decay_at"].items():
        assert math.isclose(average.get_decay(int(step) + 1), decay, rel_tol=1e-6)
