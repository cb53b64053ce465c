"""The attack on an adapter: its figures on scores that are known, and what it finds in one that learnt by heart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ccfexp.adapter import AdapterConfig
from ccfexp.data.phantom.sites import PhantomSite, write_site
from ccfexp.errors import ConfigError
from ccfexp.losses import CycleConfig
from ccfexp.model import CCFExp
from ccfexp.privacy.audit.membership import attack, auc, patient_losses, true_positive_rate
from ccfexp.training import SiteData, TrainConfig, train_local
from tests.ccfexp import tiny

SITE = PhantomSite("M", subjects=8, holdout=4, first_identity=71_000, sessions=1, movements=("smile_teeth", "frown"))


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> tuple[SiteData, SiteData]:
    manifest = write_site(SITE, tmp_path_factory.mktemp("site"), tiny.SIZE)
    model = tiny.model()
    return SiteData.prepare(model, manifest, "train"), SiteData.prepare(model, manifest, "holdout")


def test_figures_of_known_scores() -> None:
    """By hand: pairs in the right order, ties a half; the second highest of 100 others is the threshold."""
    score = np.array([3.0, 1.0, 2.0, 2.0, 0.0])
    member = np.array([True, True, False, True, False])
    assert auc(score, member) == pytest.approx((2 + 1 + 1.5) / 6)

    others = np.arange(100.0)
    members = np.array([98.0, 98.5, 99.0, 200.0])
    scores, inside = np.concatenate([members, others]), np.arange(104) < 4
    assert true_positive_rate(scores, inside) == 0.75


def test_chance_and_certainty() -> None:
    rng = np.random.default_rng(5)
    blind = attack(rng.normal(size=200), rng.normal(size=200))
    certain = attack(10 + rng.normal(size=150), rng.normal(size=150))

    assert blind.auc.low < 0.5 < blind.auc.high
    assert blind.true_positives is not None
    assert blind.true_positives.low <= 0.01 <= blind.true_positives.high
    assert certain.auc.estimate == 1
    assert certain.true_positives is not None
    assert certain.true_positives.estimate == 1


def test_too_few_others_for_one_per_cent() -> None:
    rng = np.random.default_rng(6)

    few, enough = (attack(rng.normal(size=30), rng.normal(size=n), resamples=20) for n in (99, 100))

    assert few.true_positives is None
    assert few.to_json()["true_positive_rate"] is None
    assert few.wanted == 100
    assert enough.true_positives is not None


def test_losses_are_each_patients_own(splits: tuple[SiteData, SiteData]) -> None:
    """The mean over a patient's photographs, whoever else is there and whatever is worked on together."""
    model = tiny.model()
    rows: list[int] = []

    together = patient_losses(model, splits[0], draws=5, seed=3, on_row=rows.append)

    assert together.shape == (4,)
    assert sum(rows) == 4 * 3 * 5
    images = splits[0].images
    alone = SiteData(
        images=type(images)(**{**vars(images), "target_T": images.target_T[images.patient_N[images.target_T] == 2]}),
        **{name: value for name, value in vars(splits[0]).items() if name != "images"},
    )
    torch.testing.assert_close(patient_losses(model, alone, draws=5, seed=3), together[2:3])


def test_an_adapter_that_changes_nothing_tells_nothing(splits: tuple[SiteData, SiteData]) -> None:
    """A fresh one has B = 0."""
    model = tiny.model()
    before = patient_losses(model, splits[0], draws=2)
    model.attach_adapter(AdapterConfig(rank=2, alpha=2.0), 3)

    torch.testing.assert_close(patient_losses(model, splits[0], draws=2), before)


def test_an_adapter_that_learnt_by_heart_is_found_out(tmp_path: Path) -> None:
    """A few steps on five people of the shipped base: every one of them is told from five others."""
    site = PhantomSite("M", subjects=10, holdout=5, first_identity=71_000, sessions=1, movements=("smile_teeth",))
    manifest, model = write_site(site, tmp_path, 64), CCFExp.from_base("phantom-base")
    data = [SiteData.prepare(model, manifest, split) for split in ("train", "holdout")]
    before = [patient_losses(model, part, draws=4) for part in data]
    model.attach_adapter(AdapterConfig(), 0)
    train = TrainConfig(
        steps=30, batch_size=8, learning_rate=3e-3, expression_from="target", cycle=CycleConfig(cycle_weight=0.0)
    )
    train_local(model, data[0], train, seed=5, round_number=1)
    after = [patient_losses(model, part, draws=4) for part in data]

    found = attack(*((base - trained).numpy() for base, trained in zip(before, after, strict=True)))

    assert (found.members, found.others) == (5, 5)
    assert found.auc.estimate == 1


def test_impossible_values(splits: tuple[SiteData, SiteData]) -> None:
    with pytest.raises(ConfigError, match="draws=0"):
        patient_losses(tiny.model(), splits[0], draws=0)
    with pytest.raises(ConfigError, match="others=0"):
        attack(np.ones(3), np.array([]))
    with pytest.raises(ConfigError, match="finite"):
        attack(np.ones(3), np.array([np.nan]))
