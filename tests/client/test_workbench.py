"""What a hospital's bench makes of a run's privacy: a plan that keeps it, or no round."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from ccfexp.adapter import AdapterConfig
from ccfexp.compute import ComputeConfig
from ccfexp.privacy.engines import OpacusEngine
from ccfexp.privacy.noise import SecureSource, SeededSource
from ccfexp.privacy.plan import PrivacyConfig
from ccfexp.privacy.steps import Plan, PrivatePlan
from ccfexp.training import TrainConfig
from client.app import RequestRefusedError
from client.workbench import BenchPlan, SiteSource, Workbench
from configs.client_part import ClientPart

PRIVACY = PrivacyConfig(noise_multiplier=1.5, clipping_norm=0.5, sampling_rate=0.25, steps=100)
TRAIN = TrainConfig(batch_size=3)


def plan_of(
    privacy: PrivacyConfig | None, *, declared: int | None = 12, compute: ComputeConfig | None = None, number: int = 1
) -> Plan:
    """The plan of a round at a site that declares so many patients; nothing is loaded for it."""
    source = SiteSource("A", Path("nowhere/manifest.csv"), declared_patients=declared)
    bench = Workbench(BenchPlan("phantom-base", (source,), Path("nowhere"), compute=compute or ComputeConfig()))
    return bench._training_plan("A", ClientPart(AdapterConfig(), TRAIN, 0, privacy), TRAIN, 77, number)


def test_a_private_run_is_trained_with_its_own_values_and_what_the_site_declares() -> None:
    """The machine says only how it is computed."""
    plan = plan_of(PRIVACY, compute=ComputeConfig(rows_at_once=3, unit_gradients="opacus"))

    assert isinstance(plan, PrivatePlan)
    assert (plan.noise_multiplier, plan.clipping_norm, plan.sampling_rate) == (1.5, 0.5, 0.25)
    assert (plan.declared_patients, plan.expected, plan.rows_at_once) == (12, 3.0, 3)
    assert type(plan.engine) is OpacusEngine
    assert type(plan.source) is SecureSource


def test_a_simulation_s_luck_is_of_its_site_and_round() -> None:
    seeded = replace(PRIVACY, source="seeded")
    first, again, second = (
        cast("PrivatePlan", plan_of(seeded, number=number)).source.normal(4).tolist() for number in (1, 1, 2)
    )

    assert first == again == SeededSource((77, 1)).normal(4).tolist()
    assert first != second


@pytest.mark.parametrize("compute", [ComputeConfig(), ComputeConfig(compile=True)])
def test_an_ordinary_run_needs_no_declaration_and_any_machine(compute: ComputeConfig) -> None:
    assert plan_of(None, declared=None, compute=compute) == TRAIN.plan


@pytest.mark.parametrize(
    ("privacy", "declared", "compute", "message"),
    [
        (PRIVACY, None, ComputeConfig(), "this site declares no number of patients, which a private run needs"),
        (PRIVACY, 0, ComputeConfig(), "declared_patients=0 must be at least 1"),
        (PrivacyConfig(epsilon=8.0, steps=100), 12, ComputeConfig(), "has no noise multiplier yet"),
        (PRIVACY, 12, ComputeConfig(compile=True), "compile=true cannot go with a private run"),
        (PRIVACY, 12, ComputeConfig(checkpointing=True, unit_gradients="opacus"), "checkpointing=true cannot go"),
    ],
)
def test_a_private_run_that_cannot_be_kept_is_refused(
    privacy: PrivacyConfig, declared: int | None, compute: ComputeConfig, message: str
) -> None:
    """And never trained as an ordinary one."""
    with pytest.raises(RequestRefusedError, match=message):
        plan_of(privacy, declared=declared, compute=compute)
