"""Rounds of private training: the same loop, other plans."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from ccfexp.adapter import AdapterConfig, Factors, train_only
from ccfexp.errors import ConfigError, RoundError
from ccfexp.losses import CycleConfig
from ccfexp.model import CCFExp
from ccfexp.privacy.engines import OpacusEngine
from ccfexp.privacy.noise import SecureSource, SeededSource
from ccfexp.privacy.plan import PrivacyConfig
from ccfexp.privacy.steps import AutogradEngine, Engine, MeanPlan, Plan, Released
from ccfexp.training import OnStep, SiteData, TrainConfig, TrainResult, train_local
from tests.ccfexp import tiny
from tests.ccfexp.privacy.neighbours import unreadable
from tests.ccfexp.residuals import moved

TRAIN = TrainConfig(steps=3, batch_size=2, learning_rate=1e-2, cycle=CycleConfig(cycle_weight=0.0))
PRIVACY = PrivacyConfig(noise_multiplier=0.5, clipping_norm=0.1, sampling_rate=0.5, draws_per_image=1, source="seeded")
State = dict[str, torch.Tensor]


def fresh() -> CCFExp:
    """The base with an adapter whose factors both say something."""
    model = tiny.model()
    model.attach_adapter(AdapterConfig(rank=2, alpha=4.0), 3)
    model.load_adapter_state(moved(model.adapter_state()))
    return model


def private(
    number: int = 1, privacy: PrivacyConfig = PRIVACY, rows_at_once: int = 16, engine: Engine | None = None
) -> Plan:
    """The plan of a round, its luck seeded by the round's number as at a site."""
    source = privacy.source_of(5, number)
    return privacy.make(declared_patients=4, source=source, rows_at_once=rows_at_once, engine=engine)


def trained(
    data: SiteData, plan: Plan | None, number: int = 1, threads: int = 1, on_step: OnStep | None = None
) -> tuple[State, TrainResult]:
    """The adapter after one round."""
    model = fresh()
    result = train_local(model, data, TRAIN, seed=5, round_number=number, plan=plan, threads=threads, on_step=on_step)
    return model.adapter_state(), result


def same(one: State, other: State) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_round_without_a_plan_is_one_of_ordinary_steps(hospital: SiteData, threads: int) -> None:
    """Bit for bit."""
    without, of_none = trained(hospital, None, threads=threads)
    ordinary, of_mean = trained(hospital, TRAIN.plan, threads=threads)

    assert same(without, ordinary)
    assert of_none == of_mean
    assert TRAIN.plan == MeanPlan(2, TRAIN.gradient_clip)


def test_a_seeded_round_repeats_and_no_other_is_like_it(hospital: SiteData) -> None:
    """Bit for bit, all that its result says too; another round, another seed or a secure source give another."""
    first, result = trained(hospital, private())
    again, same_result = trained(hospital, private())
    assert same(first, again)
    assert result == same_result

    others = [
        private(2),
        private(privacy=replace(PRIVACY, source="secure")),
        private(privacy=replace(PRIVACY, clipping_norm=0.2)),
    ]
    for plan in others:
        other, _ = trained(hospital, plan)
        assert not any(torch.equal(first[name], other[name]) for name in first)


def test_a_killed_round_is_repeated_to_the_same_bits(hospital: SiteData) -> None:
    """From the adapter that it began with and a plan made anew."""

    def kill(step: int, _steps: int, _loss: float) -> None:
        if step == 2:
            raise KeyboardInterrupt

    whole, _ = trained(hospital, private())
    with pytest.raises(KeyboardInterrupt):
        trained(hospital, private(), on_step=kill)

    assert same(whole, trained(hospital, private())[0])


def test_secure_rounds_never_repeat(hospital: SiteData) -> None:
    secure = replace(PRIVACY, source="secure")
    first, second = (trained(hospital, private(privacy=secure))[0] for _ in range(2))

    assert not any(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("factors", ["A", "B"])
def test_a_private_round_trains_what_is_asked_for(hospital: SiteData, factors: Factors) -> None:
    """Noise too comes upon those factors alone."""
    model = fresh()
    before = model.adapter_state()
    train_only(model, factors)

    train_local(model, hospital, TRAIN, seed=5, round_number=1, plan=private(), threads=2)

    changed = {name for name, value in model.adapter_state().items() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if f"lora_{factors}." in name}


@pytest.mark.parametrize(
    ("rows_at_once", "engine", "threads"), [(1, AutogradEngine(), 1), (16, OpacusEngine(), 1), (4, AutogradEngine(), 2)]
)
def test_how_it_is_computed_is_a_question_of_speed_alone(
    hospital: SiteData, rows_at_once: int, engine: Engine, threads: int
) -> None:
    """The same luck and the same adapter to rounding, by either engine, in any pieces, on any threads."""
    one, told = trained(hospital, private())
    two, also = trained(hospital, private(rows_at_once=rows_at_once, engine=engine), threads=threads)

    for name, value in one.items():
        torch.testing.assert_close(value, two[name], rtol=0.0, atol=1e-4)
    assert told.loss == pytest.approx(also.loss, rel=1e-4)


@pytest.mark.parametrize("engine", [None, OpacusEngine()])
def test_steps_to_which_nobody_comes_are_taken(hospital: SiteData, engine: OpacusEngine | None) -> None:
    """They are noise, and count."""
    rarely = replace(PRIVACY, sampling_rate=1e-9)
    reported: list[float] = []

    after, result = trained(
        hospital, private(privacy=rarely, engine=engine), on_step=lambda *step: reported.append(step[2])
    )

    assert reported == [0.0] * 3
    assert (result.loss, result.steps) == (0.0, 3)
    start = fresh().adapter_state()
    assert all((after[name] != start[name]).any() and after[name].isfinite().all() for name in start)


def test_a_patient_who_diverges_ends_no_round(hospital: SiteData) -> None:
    """Nor would all four; an ordinary round cannot go on, and says so."""
    broken = unreadable(hospital, 2)
    everybody = replace(PRIVACY, sampling_rate=1.0)
    after, result = trained(broken, private(privacy=everybody))
    assert all(value.isfinite().all() for value in after.values())
    assert result.loss > 0

    for patient in (0, 1, 3):
        broken = unreadable(broken, patient)
    after, result = trained(broken, private(privacy=everybody))
    assert all(value.isfinite().all() for value in after.values())
    assert result.loss == 0
    with pytest.raises(RoundError, match="training diverged"):
        trained(broken, None)


def test_a_private_round_tells_what_everybody_knows(hospital: SiteData) -> None:
    """The declared weight and the steps; an ordinary one tells its loss and who was there."""
    _, result = trained(hospital, private())

    assert private().released(**vars(result)) == Released(4.0, {"steps": 3})
    told = TRAIN.plan.released(**vars(result))
    assert told == Released(4.0, {"loss": result.loss, "steps": 3, "patients": 4, "images": 10})


def test_a_model_that_mixes_patients_is_not_trained(hospital: SiteData) -> None:
    """A weight outside of the adapter, no adapter, statistics over a batch that appear in the middle of a round."""
    model: Any = fresh()
    model.unet.conv_in.weight.requires_grad_()
    with pytest.raises(ConfigError, match="private training takes adapters alone"):
        train_local(model, hospital, TRAIN, seed=5, round_number=1, plan=private())

    model = fresh()
    model.statistics = torch.nn.BatchNorm1d(2).requires_grad_(False).eval()
    taken: list[int] = []

    def flip(step: int, _steps: int, _loss: float) -> None:
        taken.append(step)
        model.statistics.train()

    with pytest.raises(ConfigError, match="mixes patients"):
        train_local(model, hospital, TRAIN, seed=5, round_number=1, plan=private(), on_step=flip)
    assert taken == [1]


def test_the_plan_of_a_round_divides_by_what_is_declared() -> None:
    """Whoever is there; without a declaration, or a noise multiplier, there is no plan."""
    source = SeededSource((1,))
    plan = PRIVACY.make(declared_patients=40, source=source)
    assert (plan.expected, plan.declared_patients, plan.source) == (20.0, 40, source)
    assert (plan.noise_multiplier, plan.clipping_norm, plan.sampling_rate) == (0.5, 0.1, 0.5)

    for none in (0, -3):
        with pytest.raises(ConfigError, match=f"declared_patients={none} must be at least 1; say how many"):
            PRIVACY.make(declared_patients=none, source=source)
    with pytest.raises(ConfigError, match="has no noise multiplier yet; calibrate it first"):
        PrivacyConfig(epsilon=8.0).make(declared_patients=40, source=source)


def test_the_source_is_the_one_that_was_asked_for() -> None:
    """Secure unless a simulation asks for another; the seed is all that a seeded one depends on."""
    secure, seeded = (PrivacyConfig(noise_multiplier=1.0), PRIVACY)

    assert type(secure.source_of(1, 2)) is SecureSource
    assert seeded.source_of(1, 2).normal(3).tolist() == SeededSource((1, 2)).normal(3).tolist()
