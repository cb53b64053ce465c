"""Canary patients: mixed-up phantoms, in or out by a coin, who share nothing with anybody."""

from __future__ import annotations

import pytest
import torch

from ccfexp.errors import ConfigError
from ccfexp.privacy.audit.canaries import MOVEMENTS, AuditedSite, audited_site
from tests.ccfexp import tiny

PATIENTS, CANARIES = 2, 8


@pytest.fixture(scope="module")
def site() -> AuditedSite:
    return audited_site(tiny.model(), PATIENTS, CANARIES, seed=1)


def test_who_is_there(site: AuditedSite) -> None:
    images = site.data.images
    pictures = torch.bincount(images.patient_N)

    assert images.patients == PATIENTS + CANARIES == len(pictures)
    assert pictures.tolist() == [1 + len(MOVEMENTS)] * PATIENTS + [2] * CANARIES
    assert site.canaries == CANARIES
    assert len(images.target_T) == PATIENTS * len(MOVEMENTS) + CANARIES
    assert all(images.movement_N[index] == "rest" for index in images.identity_N.tolist())
    assert torch.equal(images.patient_N[images.identity_N], images.patient_N)


def test_only_canaries_whose_coin_says_so_are_trained_on(site: AuditedSite) -> None:
    assert 0 < int(site.in_M.sum()) < CANARIES

    trained = site.trained.images
    drawn = set(trained.patient_N[trained.target_T].tolist())

    expected = set(range(PATIENTS)) | {PATIENTS + index for index in site.in_M.nonzero().flatten().tolist()}
    assert drawn == expected
    assert not any(len(others) for others in trained.repeats())  # nobody's picture stands in for another's


def test_a_canary_is_two_people(site: AuditedSite) -> None:
    """Background and light are those of the person photographed: alike within a patient, not within a canary."""
    image_N3HW = site.data.images.image_N3HW.float()

    def unlike(patient: int) -> float:
        first, second = image_N3HW[site.data.images.patient_N == patient][:2]
        return float((first[:, :4] - second[:, :4]).abs().mean())  # the top rows

    within = [unlike(patient) for patient in range(PATIENTS)]
    across = [unlike(patient) for patient in range(PATIENTS, PATIENTS + CANARIES)]
    assert max(within) < sorted(across)[1]  # two canaries in a row may be of one background


def test_the_seed_decides(site: AuditedSite) -> None:
    again, other = (audited_site(tiny.model(), PATIENTS, CANARIES, seed=seed) for seed in (1, 2))

    assert torch.equal(again.data.images.image_N3HW, site.data.images.image_N3HW)
    assert torch.equal(again.in_M, site.in_M)
    assert not torch.equal(other.in_M, site.in_M)
    assert not torch.equal(other.data.images.image_N3HW, site.data.images.image_N3HW)


def test_a_site_without_canaries() -> None:
    with pytest.raises(ConfigError, match="canaries=0"):
        audited_site(tiny.model(), 1, 0, seed=0)
