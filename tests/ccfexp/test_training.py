"""The one training loop: LoRA and nothing else is trained, and every run of it can be repeated bit for bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from ccfexp.adapter import AdapterConfig, Factors, train_only, trainable_names
from ccfexp.data.phantom.sites import PhantomSite, write_site
from ccfexp.errors import ConfigError, ManifestError
from ccfexp.losses import CycleConfig
from ccfexp.model import CCFExp
from ccfexp.privacy.steps import MeanPlan, Outcome
from ccfexp.training import SiteData, TrainConfig, stratified_timesteps, to_unit_range, train_local
from strategies import wire
from tests.ccfexp import tiny
from tests.ccfexp.residuals import moved

ADAPTER = AdapterConfig(rank=2, alpha=4.0)
TRAIN = TrainConfig(steps=3, batch_size=2, learning_rate=1e-2)
SITE = PhantomSite(
    "T", subjects=3, holdout=1, first_identity=70_000, sessions=2, movements=("smile_teeth", "brow_raise")
)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hospital of three phantom patients, one of them held out."""
    return write_site(SITE, tmp_path_factory.mktemp("site"), tiny.SIZE)


@pytest.fixture(scope="module")
def data(manifest: Path) -> SiteData:
    """Its training split with features."""
    return SiteData.prepare(tiny.model(), manifest)


def fresh() -> CCFExp:
    """The base with a new adapter."""
    model = tiny.model()
    model.attach_adapter(ADAPTER, 3)
    return model


def trained(data: SiteData, rounds: tuple[int, ...] = (1,), config: TrainConfig = TRAIN, seed: int = 5) -> CCFExp:
    """A fresh model after some rounds."""
    model = fresh()
    for number in rounds:
        train_local(model, data, config, seed=seed, round_number=number)
    return model


def equal(a: CCFExp, b: CCFExp) -> bool:
    """Whether two adapters are the same, bit for bit."""
    first, second = a.adapter_state(), b.adapter_state()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def one_round(data: SiteData) -> CCFExp:
    """A model after its first round; nobody trains it further."""
    return trained(data)


def _peft_name(parameter: str) -> str:
    return parameter.replace(".default.", ".")


@pytest.mark.parametrize("threads", [1, 2])
def test_lora_only(data: SiteData, threads: int) -> None:
    """Parameters with gradients, in the optimiser, changed, on the wire: one set of names; the base keeps its bits."""
    model = fresh()
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    encoders = (model.encoders.identity, model.encoders.face, model.encoders.landmark)
    for place, encoder in enumerate(encoders):
        assert isinstance(encoder, torch.nn.Module)
        tensors |= {f"encoder {place} {name}": value for name, value in encoder.state_dict().items()}
    before = {name: value.detach().clone() for name, value in tensors.items()}
    optimised: set[str] = set()

    def look(optimiser: torch.optim.Optimizer, *_: object) -> None:
        groups = optimiser.param_groups
        optimised.update(names[id(parameter)] for group in groups for parameter in group["params"])

    hook = register_optimizer_step_pre_hook(look)
    try:
        train_local(model, data, TRAIN, seed=5, round_number=1, threads=threads)
    finally:
        hook.remove()

    with_gradients = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    changed = {name for name, value in tensors.items() if not torch.equal(value, before[name])}
    terms = wire.Terms(1, "fedit", ADAPTER.rank, ADAPTER.alpha, "a" * 64, model.base_sha256)
    sent = wire.AdapterMessage.of(terms, fresh().adapter_state(), "{}")
    update = wire.AdapterUpdate.of(terms, model.adapter_state(), 2.0, {"loss": 0.1})
    bounds = wire.UpdateBounds(sent=sent, max_weight=10.0, max_update_norm=1e9)
    on_the_wire = wire.decode_update(wire.encode_update(update), bounds).state().keys()

    assert all("lora_" in name for name in changed)
    assert len(changed) == len(on_the_wire) > 50
    for found in (with_gradients, optimised, changed):
        assert {_peft_name(name) for name in found} == on_the_wire == trainable_names(model)


@pytest.mark.parametrize("factors", ["A", "B"])
@pytest.mark.parametrize(("threads", "average"), [(1, False), (2, True)])
def test_a_round_of_one_factor_leaves_the_other(data: SiteData, factors: Factors, threads: int, average: bool) -> None:
    """Bit for bit, after a round of both too; every factor that is trained moves."""
    model = fresh()
    model.load_adapter_state(moved(model.adapter_state()))
    train_local(model, data, replace(TRAIN, steps=1), seed=5, round_number=1)
    before = model.adapter_state()

    train_only(model, factors)
    train_local(model, data, replace(TRAIN, average=average), seed=5, round_number=2, threads=threads)

    changed = {name for name, value in model.adapter_state().items() if not torch.equal(value, before[name])}
    assert changed == trainable_names(model) == {name for name in before if f"lora_{factors}." in name}


def test_a_fresh_adapter_learns_nothing_by_its_a_alone(data: SiteData) -> None:
    """B = 0 hides A: its gradient is exactly zero, so the first round must train B."""
    model = fresh()
    before = model.adapter_state()
    train_only(model, "A")
    gradients: list[torch.Tensor] = []

    def look(optimiser: torch.optim.Optimizer, *_: object) -> None:
        gradients.extend(parameter.grad for parameter in optimiser.param_groups[0]["params"])

    hook = register_optimizer_step_pre_hook(look)
    try:
        result = train_local(model, data, TRAIN, seed=5, round_number=1)
    finally:
        hook.remove()

    assert result.loss > 0
    assert len(gradients) == TRAIN.steps * len(before) // 2
    assert not any(gradient.any() for gradient in gradients)
    assert all(torch.equal(value, before[name]) for name, value in model.adapter_state().items())
    train_only(model, "B")
    train_local(model, data, TRAIN, seed=5, round_number=1)
    after = model.adapter_state()
    assert all(torch.equal(value, before[name]) == ("lora_A" in name) for name, value in after.items())


def test_a_round_repeated_is_the_same_round(data: SiteData, one_round: CCFExp) -> None:
    """Bit for bit, whatever the global generator did; another round or seed is another."""
    torch.manual_seed(99)

    assert equal(trained(data), one_round)
    assert not equal(trained(data, (2,)), one_round)
    assert not equal(trained(data, seed=6), one_round)


@pytest.mark.parametrize("every", [1, 2])
def test_two_threads_train_the_same_adapter(data: SiteData, every: int) -> None:
    """Bit for bit among themselves, whatever their timing; up to rounding as one thread does."""
    config = replace(TRAIN, cycle_every=every)
    first, second = fresh(), fresh()
    for model in (first, second):
        train_local(model, data, config, seed=5, round_number=1, threads=2)

    assert equal(first, second)
    start, alone = fresh().adapter_state(), trained(data, config=config).adapter_state()
    # Adam divides by the gradient's own size, so the few gradients that are all rounding may take another way.
    together = torch.cat([(first.adapter_state()[name] - start[name]).flatten() for name in start])
    expected = torch.cat([(alone[name] - start[name]).flatten() for name in start])
    assert torch.nn.functional.cosine_similarity(together, expected, dim=0) > 0.99


def test_resuming_after_a_round_changes_nothing(data: SiteData, one_round: CCFExp) -> None:
    """The adapter alone carries a run from one round to the next."""
    whole = trained(data, (1, 2))
    resumed = fresh()
    resumed.load_adapter_state(one_round.adapter_state())

    train_local(resumed, data, TRAIN, seed=5, round_number=2)

    assert equal(resumed, whole)


def test_training_lowers_the_loss(data: SiteData) -> None:
    """On the same draws, which a round repeated sees again."""
    model = fresh()
    config = replace(TRAIN, steps=8, cycle=CycleConfig(cycle_weight=0.0))

    losses = [train_local(model, data, config, seed=5, round_number=1).loss for _ in range(3)]

    assert losses[2] < losses[1] < losses[0]


def test_what_is_said_of_a_round(data: SiteData) -> None:
    """Mean loss, steps, patients and target images; every step is reported."""
    seen: list[tuple[int, int, float]] = []

    result = train_local(fresh(), data, TRAIN, seed=5, round_number=1, on_step=lambda *step: seen.append(step))

    assert (result.steps, result.patients, result.images) == (3, 2, 12)
    assert [step[:2] for step in seen] == [(1, 3), (2, 3), (3, 3)]
    assert result.loss == pytest.approx(sum(step[2] for step in seen) / 3)


def test_features_kept_on_the_disk_train_the_same_adapter(manifest: Path, one_round: CCFExp, tmp_path: Path) -> None:
    """The first call writes one file and the second reads it; each split has its own."""
    model = tiny.model()
    SiteData.prepare(model, manifest, cache_dir=tmp_path)
    (path,) = tmp_path.iterdir()
    written = path.stat().st_mtime_ns

    second = SiteData.prepare(model, manifest, cache_dir=tmp_path)

    assert path.stat().st_mtime_ns == written
    assert equal(trained(second), one_round)
    held_out = SiteData.prepare(model, manifest, "holdout", tmp_path)
    assert len(held_out.images) == 6
    assert len(list(tmp_path.iterdir())) == 2


def test_features_are_those_of_the_encoders(data: SiteData) -> None:
    """The deviation is face minus identity; a batch's identity photograph is the person at rest."""
    model = tiny.model()
    x = to_unit_range(data.images.image_N3HW)
    identity, face = model.encoders.identity(x).vector_BD, model.encoders.face(x).vector_BD
    torch.testing.assert_close(data.deviation_ND, face - identity)

    target_B, shown_B = torch.tensor([0, 6]), torch.tensor([3, 9])
    batch = data.batch(target_B, shown_B, torch.device("cpu"))

    assert torch.equal(batch.target_B3HW, x[target_B])
    rest_B = data.images.identity_N[target_B]
    assert [data.images.movement_N[index] for index in rest_B.tolist()] == ["rest", "rest"]
    torch.testing.assert_close(batch.identity.vector_BD, identity[rest_B])
    torch.testing.assert_close(batch.target_identity_BD, identity[target_B])
    torch.testing.assert_close(batch.expression.deviation_BD, (face - identity)[shown_B])


def test_the_expression_comes_from_another_session(data: SiteData, one_round: CCFExp) -> None:
    """The same patient making the same movement on another day; as published, from the target itself."""
    images = data.images

    for index, others in enumerate(images.repeats()):
        assert len(others) == 1
        (other,) = others.tolist()
        assert images.patient_N[other] == images.patient_N[index]
        assert images.movement_N[other] == images.movement_N[index]
        assert images.identity_N[other] != images.identity_N[index]
    assert not equal(trained(data, config=replace(TRAIN, expression_from="target")), one_round)


def test_images_of_another_size_are_refused(manifest: Path) -> None:
    """The model says which size it needs."""
    config = replace(tiny.TINY, unet=replace(tiny.UNET, image_size=48))

    with pytest.raises(ManifestError, match=r"row 2: .*32"):
        SiteData.prepare(CCFExp(config, tiny.model().encoders), manifest)


def test_timesteps_are_stratified() -> None:
    """One in each equal stratum, in random order, and uniform over many draws."""
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack([stratified_timesteps(8, 1000, generator) for _ in range(400)])

    assert (draws.sort(1).values // 125 == torch.arange(8)).all()
    assert draws.float().mean(0).sub(499.5).abs().max() < 60  # no place of the batch prefers a noise level
    assert draws.min() < 20
    assert draws.max() > 979


def test_the_second_pass_of_some_steps_stands_for_that_of_all(data: SiteData) -> None:
    """Its mean weight over the rounds is the configured one, however short a round; it trains another adapter."""
    config = replace(TRAIN, cycle_every=4)  # three steps a round

    weights = [config.cycle_at(number, step).cycle_weight for number in (1, 2, 3, 4) for step in (1, 2, 3)]
    assert weights == [0, 0, 0, 1.2] * 3
    assert sum(weights) / 12 == pytest.approx(config.cycle.cycle_weight)
    assert [TRAIN.cycle_at(1, step) for step in (1, 2)] == [TRAIN.cycle] * 2
    one_pass = replace(TRAIN, cycle=CycleConfig(cycle_weight=0.0))
    assert equal(trained(data, config=config), trained(data, config=one_pass))
    assert not equal(trained(data, (1, 2), config), trained(data, (1, 2), one_pass))


def test_learning_rate_falls_over_the_rounds() -> None:
    """Linearly, step by step, to zero after the last; constant unless asked for."""
    falling = TrainConfig(steps=2, learning_rate=0.8, decay_rounds=4)

    assert [falling.rate_at(number, 1) for number in (1, 2, 4, 5, 9)] == pytest.approx([0.8, 0.6, 0.2, 0.0, 0.0])
    assert [falling.rate_at(4, step) for step in (1, 2)] == pytest.approx([0.2, 0.1])
    assert {TrainConfig(learning_rate=0.8).rate_at(number, 1) for number in (1, 50)} == {0.8}


def test_the_rate_of_every_step_reaches_the_optimiser(data: SiteData) -> None:
    """Second of two rounds of three steps: a half, a third and a sixth of the first rate."""
    rates: list[float] = []
    hook = register_optimizer_step_pre_hook(lambda optimiser, *_: rates.append(optimiser.param_groups[0]["lr"]))
    try:
        train_local(fresh(), data, replace(TRAIN, decay_rounds=2), seed=5, round_number=2)
    finally:
        hook.remove()

    assert rates == pytest.approx([TRAIN.learning_rate * share for share in (1 / 2, 1 / 3, 1 / 6)])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": 0}, "steps=0 must be >= 1"),
        ({"batch_size": -1}, "batch_size=-1 must be >= 1"),
        ({"learning_rate": 0.0}, "learning_rate=0.0 must be > 0"),
        ({"learning_rate": float("nan")}, "learning_rate=nan must be > 0"),
        ({"cycle_every": 0}, "cycle_every=0 must be >= 1"),
        ({"gradient_clip": 0.0}, "gradient_clip=0.0 must be > 0"),
        ({"expression_from": "nobody"}, "expression_from='nobody' must be target or other_session"),
        ({"decay_rounds": -1}, "decay_rounds=-1 must be >= 0"),
        ({"proximal": -0.1}, "proximal=-0.1 must be >= 0 and finite; 0 is no proximal term"),
        ({"proximal": float("nan")}, "proximal=nan must be >= 0 and finite"),
        ({"proximal": float("inf")}, "proximal=inf must be >= 0 and finite"),
    ],
)
def test_impossible_configurations(values: dict[str, Any], message: str) -> None:
    """The error names the value and the bound."""
    with pytest.raises(ConfigError, match=message):
        TrainConfig(**values)


def test_a_round_may_end_with_the_average_of_its_steps(data: SiteData) -> None:
    """Three steps: the second value, then 0.4054 of it and the rest of the third (decays of the published average)."""
    after = [trained(data, config=replace(TRAIN, steps=steps)).adapter_state() for steps in (2, 3)]
    averaged = trained(data, config=replace(TRAIN, average=True)).adapter_state()
    decay = 1 - 2**-0.75
    for name, value in averaged.items():
        torch.testing.assert_close(value, decay * after[0][name] + (1 - decay) * after[1][name])


class _Forgiving(MeanPlan):
    """Two units of every step have no finite gradient."""

    def backward(self, *step: Any) -> Outcome:  # noqa: ANN401 (as the plan that it stands for)
        return super().backward(*step)._replace(left_out=2)


def test_units_without_a_finite_gradient_are_told_in_the_site_s_log_alone(
    data: SiteData, caplog: pytest.LogCaptureFixture
) -> None:
    plan = _Forgiving(TRAIN.batch_size, TRAIN.gradient_clip)
    result = train_local(fresh(), data, TRAIN, seed=5, round_number=1, plan=plan)

    assert caplog.messages == ["6 times a patient's gradient was not finite and counted as none"]
    assert result == train_local(fresh(), data, TRAIN, seed=5, round_number=1)
    assert len(caplog.messages) == 1
