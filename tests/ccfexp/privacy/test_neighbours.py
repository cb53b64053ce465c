"""Through the whole step: one patient more or less moves what is released by the clipping norm and no more."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from ccfexp import training
from ccfexp.bottleneck import Bottleneck
from ccfexp.losses import Batch, CycleConfig
from ccfexp.model import CCFExp
from ccfexp.privacy import steps
from ccfexp.privacy.engines import OpacusEngine
from ccfexp.privacy.per_unit import clipped_sum
from ccfexp.privacy.steps import AutogradEngine, Draw, Engine, Losses, Outcome, Pool, PrivatePlan, Targets
from ccfexp.training import Examples, SiteData
from tests.ccfexp.privacy.neighbours import ONE_PASS, TRAIN, SameLuck, features, step, unreadable, without
from tests.ccfexp.privacy.patients import adapted, norm, plan

BOUND = 0.01  # below the norm of everybody's gradient
# A batch of another shape is rounded otherwise: by some 1e-6 of each gradient, in single precision.
ROUNDING = 1e-5
EVERYBODY = range(4)


@pytest.fixture(scope="module")
def model() -> CCFExp:
    """Nobody trains it."""
    return adapted("AB", torch.float32)


def private(present: Sequence[int] = EVERYBODY, seed: int = 2, rows_at_once: int = 64) -> PrivatePlan:
    """Everybody who is there is sampled, without noise."""
    return replace(plan(rows_at_once, clipping_norm=BOUND), source=SameLuck(seed, present, 4), draws_per_image=1)


def moved(model: CCFExp, data: SiteData, patient: int, cycle: CycleConfig = ONE_PASS, rows_at_once: int = 64) -> float:
    """How far the released sum is from that without the patient, in clipping norms."""
    others = [number for number in EVERYBODY if number != patient]
    whole, _ = step(model, data, private(rows_at_once=rows_at_once), cycle)
    fewer, _ = step(model, without(data, patient), private(others, rows_at_once=rows_at_once), cycle)
    return norm({name: part.double() - fewer[name].double() for name, part in whole.items()}) / BOUND


@pytest.mark.parametrize(("patient", "rows_at_once"), [(0, 64), (1, 2), (2, 3), (3, 1)])
def test_a_patient_moves_the_released_sum_by_the_clipping_norm(
    model: CCFExp, hospital: SiteData, patient: int, rows_at_once: int
) -> None:
    """Of anybody, with both passes, however the others come to be worked on; no less, for everybody's clip binds."""
    assert 1 - ROUNDING < moved(model, hospital, patient, CycleConfig(), rows_at_once) < 1 + ROUNDING


def _clip_of_each_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    def mechanism(gradients: Sequence[Tensor], bound: float) -> tuple[list[Tensor], Tensor]:
        return [clipped_sum([part], bound)[0][0] for part in gradients], clipped_sum(gradients, bound)[1]

    monkeypatch.setattr(steps, "clipped_sum", mechanism)


def _clip_of_the_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    def mechanism(gradients: Sequence[Tensor], bound: float) -> tuple[list[Tensor], Tensor]:
        units = len(gradients[0])
        sums, _ = clipped_sum([part.sum(0, keepdim=True) / units for part in gradients], bound)
        return [units * part for part in sums], clipped_sum(gradients, bound)[1]

    monkeypatch.setattr(steps, "clipped_sum", mechanism)


def _clip_of_each_row(monkeypatch: pytest.MonkeyPatch) -> None:
    own = PrivatePlan.draw

    def draw(self: PrivatePlan, targets: Targets, generator: torch.Generator) -> Draw:
        rows = own(self, targets, generator)
        alone = [random for random, size in zip(rows.random_U, rows.sizes, strict=True) for _ in range(size)]
        return Draw(rows.target_R, (1,) * len(rows.target_R), tuple(alone))

    monkeypatch.setattr(PrivatePlan, "draw", draw)


def _mean_over_who_came(monkeypatch: pytest.MonkeyPatch) -> None:
    own = PrivatePlan.backward

    def backward(
        self: PrivatePlan, model: nn.Module, draw: Draw, prepare: Callable[[Draw], Losses], pool: Pool
    ) -> Outcome:
        return own(replace(self, expected=len(draw.sizes)), model, draw, prepare, pool)

    monkeypatch.setattr(PrivatePlan, "backward", backward)


def _one_stream_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    own = PrivatePlan.draw
    monkeypatch.setattr(PrivatePlan, "draw", lambda *given: own(*given)._replace(random_U=()))


@pytest.mark.parametrize(
    "mutate", [_clip_of_each_tensor, _clip_of_the_mean, _clip_of_each_row, _mean_over_who_came, _one_stream_for_all]
)
def test_a_wrong_mechanism_is_caught(
    monkeypatch: pytest.MonkeyPatch, model: CCFExp, hospital: SiteData, mutate: Callable[[pytest.MonkeyPatch], None]
) -> None:
    """By the check above, which the right one passes, for one patient or another."""
    assert all(moved(model, hospital, patient) < 1 + ROUNDING for patient in (0, 1))
    mutate(monkeypatch)

    assert max(moved(model, hospital, patient) for patient in (0, 1)) > 1 + 100 * ROUNDING


class _Kept:
    """An engine that keeps what it found."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self.running = engine, engine.running
        self.found: list[Tensor] = []

    def gradients(
        self, trained: Sequence[nn.Parameter], unit_R: Tensor, units: int, loss: Callable[[], Tensor]
    ) -> list[Tensor]:
        self.found = self._engine.gradients(trained, unit_R, units, loss)
        return self.found


@pytest.mark.parametrize("engine", [AutogradEngine, OpacusEngine])
def test_a_patient_without_a_finite_gradient_changes_nothing_of_the_others(
    model: CCFExp, hospital: SiteData, engine: type[Engine]
) -> None:
    """Bit for bit, in the middle of the batch; it is left out, counted, and not heard of in the loss."""
    healthy, broken = _Kept(engine()), _Kept(engine())
    sums, outcome = step(model, hospital, replace(private(), engine=healthy), CycleConfig())
    fewer, told = step(model, unreadable(hospital, 2), replace(private(), engine=broken), CycleConfig())

    left = [0, 1, 3]
    for one, other in zip(healthy.found, broken.found, strict=True):
        assert torch.equal(one[left], other[left])
        one[2] = 0.0
    assert any(not part[2].isfinite().all() for part in broken.found)
    expected, _ = clipped_sum(healthy.found, BOUND)
    for part, wanted in zip(fewer.values(), expected, strict=True):
        torch.testing.assert_close(part, wanted.float(), rtol=1e-6, atol=0.0)
    assert norm({name: part - fewer[name] for name, part in sums.items()}) == pytest.approx(BOUND, rel=ROUNDING)
    assert (outcome.left_out, told.left_out) == (0, 1)
    assert math.isfinite(told.loss)


@pytest.mark.parametrize("rows_at_once", [1, 3])
def test_nobody_is_left_out_but_who_must_be(model: CCFExp, hospital: SiteData, rows_at_once: int) -> None:
    """Two of four, worked on in pieces; all four leave a step of noise alone."""
    broken = unreadable(unreadable(hospital, 0), 2)
    found, outcome = step(model, broken, private(rows_at_once=rows_at_once))
    assert outcome.left_out == 2
    assert 0 < norm(found) <= 2 * BOUND

    for patient in (1, 3):
        broken = unreadable(broken, patient)
    found, outcome = step(model, broken, private(rows_at_once=rows_at_once))
    assert outcome == (0.0, 4)
    assert norm(found) == 0


def drawn(monkeypatch: pytest.MonkeyPatch, model: CCFExp, data: SiteData, who: PrivatePlan) -> dict[int, list[Tensor]]:
    """Everything that each unit's loss is made from, by the unit's place."""
    seen: list[tuple[Batch, Tensor, Tensor]] = []
    units: dict[int, list[Tensor]] = {}
    monkeypatch.setattr(training, "losses_of", lambda _model, batch, t_B, eps, _cycle: seen.append((batch, t_B, eps)))
    targets = Targets(data.images.target_T, data.images.patient_N[data.images.target_T])
    generator = torch.Generator().manual_seed(3)
    draw = who.draw(targets, generator)
    for group in draw.groups(who.rows_at_once):
        Examples(model, data, TRAIN).losses(ONE_PASS, generator, group)
        batch, t_R, eps_R3HW = seen.pop()
        parts = [*batch[:1], *batch.identity, *batch.expression, *batch[3:], t_R, eps_R3HW]
        for place, rows in enumerate(zip(*(part.split(list(group.sizes)) for part in parts), strict=True), len(units)):
            units[place] = list(rows)
    return units


@pytest.mark.parametrize("patient", EVERYBODY)
def test_what_a_patient_is_drawn_with_does_not_depend_on_who_else_is_there(
    monkeypatch: pytest.MonkeyPatch, model: CCFExp, hospital: SiteData, patient: int
) -> None:
    """Photographs, sessions, timesteps, noise, lost maps, bit for bit; nor on how many are worked on together."""
    monkeypatch.setattr(model.conditioner, "bottleneck", Bottleneck(dropout=0.5))
    others = [number for number in EVERYBODY if number != patient]
    whole = drawn(monkeypatch, model, hospital, private())
    fewer = drawn(monkeypatch, model, without(hospital, patient), private(others, rows_at_once=3))

    assert len(whole) == 4
    assert len(fewer) == 3
    for place, number in enumerate(others):
        assert all(torch.equal(one, other) for one, other in zip(whole[number], fewer[place], strict=True))
    lost = [not row.any() for rows in whole.values() for row in rows[4]]
    assert 0 < sum(lost) < len(lost)


def test_a_patient_s_timesteps_are_in_strata_of_its_own(
    monkeypatch: pytest.MonkeyPatch, model: CCFExp, hospital: SiteData
) -> None:
    """One in each equal part of the timesteps; also of a photograph that is a unit by itself."""
    by_image = replace(private(range(10)), by_image=True, images_per_patient=1, draws_per_image=4)
    by_image = replace(by_image, source=SameLuck(2, range(10), 10))
    for who, sizes in ((replace(private(), draws_per_image=2), (4, 2, 4, 4)), (by_image, (4,) * 10)):
        units = drawn(monkeypatch, model, hospital, who)
        assert tuple(len(rows[-2]) for rows in units.values()) == sizes
        for *_, t_K, eps_K3HW in units.values():
            assert (t_K.sort().values * len(t_K) // 1000).tolist() == list(range(len(t_K)))
            assert len(eps_K3HW.flatten(1).unique(dim=0)) == len(t_K)


def test_the_hospital_of_these_tests_is_unlike_itself_without_a_patient(hospital: SiteData) -> None:
    """Nothing of the patient is left; the others have what they had."""
    fewer = without(hospital, 1)

    assert fewer.images.patients == 3
    assert len(fewer.images.target_T) == len(hospital.images.target_T) - 1
    for name, value in features(fewer).items():
        full = features(hospital)[name]
        assert torch.equal(value, torch.cat([full[:4], full[8:]]))
