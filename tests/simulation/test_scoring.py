"""Pictures are drawn once for an adapter and the cases, and again whenever either is another."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import configs
from ccfexp.adapter import AdapterConfig, AdapterState
from ccfexp.bottleneck import Bottleneck
from ccfexp.evaluation.cases import HeldOutCases, phantom_cases
from ccfexp.model import CCFExp
from ccfexp.sampling import SamplingConfig
from configs.run import RunConfig
from simulation.progress import RunProgress
from simulation.scoring import Scorer
from simulation.stages import Plan


@pytest.fixture(scope="module")
def model() -> CCFExp:
    """The shipped base with an adapter."""
    config = configs.load("tiny", [], RunConfig)
    model = CCFExp.from_base(config.base)
    model.attach_adapter(config.adapter, config.seed)
    return model


def _changed(adapter: AdapterState) -> AdapterState:
    name = min(adapter)
    return {**adapter, name: adapter[name] + 1}


def test_what_was_drawn_is_used_again_only_for_the_same_work(model: CCFExp, tmp_path: Path) -> None:
    """The adapter, the photographs shown, the sampling and the seed are the work."""
    cases, adapter = phantom_cases(1, 64), model.adapter_state()
    first, black = SamplingConfig(steps=1), torch.zeros_like(cases.identity_C3HW)

    def scorer(given: HeldOutCases = cases, sampling: SamplingConfig = first, seed: int = 3) -> Scorer:
        return Scorer(model, given, sampling, seed, tmp_path)

    keys = {
        "same": scorer()._key(adapter),
        "again": scorer()._key(adapter),
        "adapter": scorer()._key(_changed(adapter)),
        "person": scorer(replace(cases, identity_C3HW=black))._key(adapter),
        "shown": scorer(replace(cases, expression_C3HW=black))._key(adapter),
        "sampling": scorer(sampling=SamplingConfig(steps=2))._key(adapter),
        "seed": scorer(seed=4)._key(adapter),
    }
    assert keys["again"] == keys["same"]
    assert len(set(keys.values())) == len(keys) - 1

    with RunProgress(100) as progress:
        drawn = scorer().draw("x", adapter, progress)
        file = tmp_path / "x.safetensors"
        written = file.stat().st_mtime_ns
        assert torch.equal(scorer().draw("x", adapter, progress), drawn)
        assert file.stat().st_mtime_ns == written
        scorer().draw("x", _changed(adapter), progress)
        assert file.stat().st_mtime_ns != written


def test_the_base_is_drawn_without_the_bottleneck_of_an_adapter(tmp_path: Path) -> None:
    """It never had one: pictures and loss are those of a run without, and pictures drawn otherwise are not kept."""
    narrow = CCFExp.from_base("phantom-base")
    narrow.attach_adapter(AdapterConfig(bottleneck=Bottleneck(grid=1, normalised=True)), 1)
    plain_one = CCFExp.from_base("phantom-base")
    plain_one.attach_adapter(AdapterConfig(), 1)
    cases, sampling = phantom_cases(1, 64), SamplingConfig(steps=1)
    plain = Scorer(plain_one, cases, sampling, 3, tmp_path / "plain")
    scorer = Scorer(narrow, cases, sampling, 3, tmp_path / "narrow")
    fresh = narrow.adapter_state()

    with RunProgress(100) as progress:
        base = scorer.draw("base", None, progress)
        assert torch.equal(base, plain.draw("base", None, progress))
        assert torch.equal(base, plain.draw("fresh", fresh, progress))
        assert not torch.equal(base, scorer.draw("fresh", fresh, progress))
    assert scorer.loss(None) == plain.loss(None) == plain.loss(fresh)
    assert scorer.loss(fresh) != scorer.loss(None)
    assert scorer._key(None) == plain._key(None)
    assert scorer._key(fresh) != plain._key(fresh)
    assert narrow.conditioner.bottleneck == Bottleneck(grid=1, normalised=True)


@pytest.mark.parametrize(
    ("overrides", "passes"),
    [(["train.cycle_every=1"], 2.0), (["train.cycle_every=4"], 1.25), (["train.cycle.cycle_weight=0"], 1.0)],
)
def test_a_step_counts_for_the_passes_that_it_takes(overrides: list[str], passes: float, tmp_path: Path) -> None:
    """Two images, three evaluations' worth of work a pass; federated, each of two sites alone, and pooled."""
    plan = Plan(configs.load("tiny", overrides, RunConfig), tmp_path, "command")

    assert plan.step_units == round(2 * 3 * passes)
    drawn = 5 * 2 * 6 * 2  # models, people, cases, sampling steps
    assert plan.work_units == 3 * 2 * 2 * 2 * plan.step_units + drawn
