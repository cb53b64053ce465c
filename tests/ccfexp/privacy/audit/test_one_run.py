"""The audit of the real training step, on the shipped base: sound training passes, broken training is caught."""

from __future__ import annotations

import pytest

from ccfexp.adapter import AdapterConfig, train_only
from ccfexp.errors import ConfigError
from ccfexp.model import CCFExp
from ccfexp.privacy.audit.broken import BREAKS
from ccfexp.privacy.audit.canaries import AuditedSite, audited_site
from ccfexp.privacy.audit.one_run import OneRunConfig, OneRunResult, audit_training
from ccfexp.privacy.plan import PrivacyConfig

SMALL = OneRunConfig(
    PrivacyConfig(epsilon=0.25, sampling_rate=0.5, clipping_norm=0.001, steps=6, source="seeded"), draws=4, look_every=6
)
LARGE = OneRunConfig(
    PrivacyConfig(epsilon=1.0, sampling_rate=0.5, clipping_norm=0.003, steps=10, source="seeded"), draws=10
)


@pytest.fixture(scope="module")
def small() -> AuditedSite:
    return audited_site(CCFExp.from_base("phantom-base"), 1, 16, seed=0)


def audited(
    site: AuditedSite, config: OneRunConfig, broken: str, seed: int = 0, work: list[float] | None = None
) -> OneRunResult:
    model = CCFExp.from_base("phantom-base")
    model.attach_adapter(AdapterConfig(), seed)
    train_only(model, "B")
    told = [] if work is None else work
    return audit_training(
        model, site, config, seed=seed, spoil=BREAKS[broken], on_work=lambda units, _: told.append(units)
    )


@pytest.fixture(scope="module")
def sound(small: AuditedSite) -> tuple[OneRunResult, list[float]]:
    """The mechanism as it is, and the work that was told on the way."""
    work: list[float] = []
    return audited(small, SMALL, "nothing", work=work), work


def test_sound_training_is_not_refuted(sound: tuple[OneRunResult, list[float]]) -> None:
    result, work = sound

    assert 0.24 < result.claimed <= 0.25
    assert not result.refuted
    assert result.bound.epsilon <= result.claimed < result.highest
    assert result.to_json()["refuted"] is False
    assert sum(work) == pytest.approx(SMALL.work(1, 16))


@pytest.mark.parametrize("broken", ["noise", "clipping"])
def test_broken_training_is_refuted(small: AuditedSite, broken: str) -> None:
    """Few canaries and a small claim, which is that of the plan that was meant."""
    result = audited(small, SMALL, broken)

    assert 0.24 < result.claimed <= 0.25
    assert result.claimed < result.bound.epsilon <= result.highest
    assert result.refuted
    assert result.to_json()["refuted"] is True


@pytest.mark.slow
def test_repeatable_with_a_seeded_source(small: AuditedSite, sound: tuple[OneRunResult, list[float]]) -> None:
    assert audited(small, SMALL, "nothing") == sound[0]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0])
def test_epsilon_of_one(seed: int) -> None:
    """A claim in use: at most 1. Over a minute on one core for each seed."""
    site = audited_site(CCFExp.from_base("phantom-base"), 4, 48, seed)

    found = {broken: audited(site, LARGE, broken, seed) for broken in BREAKS}

    assert {broken: result.refuted for broken, result in found.items()} == {
        "nothing": False, "noise": True, "clipping": True,
    }  # fmt: skip
    assert found["nothing"].bound.epsilon < 0.5
    assert min(found["noise"].bound.epsilon, found["clipping"].bound.epsilon) > 1.5


def test_impossible_values() -> None:
    with pytest.raises(ConfigError, match="draws=0"):
        OneRunConfig(PrivacyConfig(epsilon=1.0, steps=5), draws=0)
    with pytest.raises(ConfigError, match=r"privacy\.steps=0"):
        OneRunConfig(PrivacyConfig(epsilon=1.0))
