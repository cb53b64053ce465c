"""Whose budget it is: other patients have another, the same patients never two, whatever they are called."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ccfexp.errors import LedgerError
from ccfexp.privacy.accounting import epsilon
from client.budget import Budget
from tests.client.rounds import PLAN, STEPS, cost
from tests.client.spender import DELTA, SUBJECTS, budget


def pay(folder: Path) -> None:
    """A round with the data set that is named patients."""
    budget(folder).reserve(cost(), SUBJECTS, max_epsilon=None, delta=DELTA)


def test_a_ledger_of_another_data_set_is_refused(tmp_path: Path) -> None:
    """Of other patients, of another site, of another name."""
    pay(tmp_path)
    strangers = [f"stranger-{number}" for number in range(40)]
    with pytest.raises(LedgerError, match=r"data_set=patients has a ledger of patients=40, of whom .* give it in the"):
        budget(tmp_path).reserve(cost(), strangers, max_epsilon=None, delta=DELTA)
    with pytest.raises(LedgerError, match="is the ledger of site=A, data_set=patients, unit=patient, not of B"):
        Budget.of(tmp_path, "B", "patients", "patient").history()
    for path in list(tmp_path.glob("privacy-*")):
        path.with_name(path.name.replace("-patients-", "-renamed-")).write_bytes(path.read_bytes())
    with pytest.raises(LedgerError, match="put it back under its own name"):
        Budget.of(tmp_path, "A", "renamed", "patient").history()


def test_a_new_name_is_no_new_budget(tmp_path: Path) -> None:
    """One patient who has spent under the old one is enough; other patients and another unit are others."""
    pay(tmp_path)
    renamed = Budget.of(tmp_path, "A", "renamed", "patient")
    some = [SUBJECTS[0], *(f"stranger-{number}" for number in range(39))]

    with pytest.raises(LedgerError, match="patients=1 of this manifest have spent under data_set=patients"):
        renamed.reserve(cost(), some, max_epsilon=None, delta=DELTA)
    with pytest.raises(LedgerError, match="patients=1 of this manifest"):
        renamed.check(some, list)
    assert renamed.reserve(cost(), some[1:], max_epsilon=None, delta=DELTA).data_set == "renamed"
    image = cost(plan=replace(PLAN, unit="image", images_per_patient=1))
    other = Budget.of(tmp_path, "A", "patients", "image").reserve(image, SUBJECTS, max_epsilon=None, delta=DELTA)
    assert other.unit == "image"
    assert [(found.data_set, found.unit) for found in Budget.all_of(tmp_path, "A")] == [
        ("patients", "image"), ("patients", "patient"), ("renamed", "patient"),
    ]  # fmt: skip


def test_the_head_of_a_deleted_ledger_stops_other_names_too(tmp_path: Path) -> None:
    """Nobody can say any more who has spent under it."""
    pay(tmp_path)
    budget(tmp_path).chain.path.unlink()
    with pytest.raises(LedgerError, match="is missing but its head is there"):
        Budget.of(tmp_path, "A", "renamed", "patient").reserve(cost(), SUBJECTS, max_epsilon=None, delta=DELTA)


def test_new_patients_are_noted_once(tmp_path: Path) -> None:
    """They are known by their marks from then on, and share what was spent before them."""
    pay(tmp_path)
    grown = [*SUBJECTS[5:], "newcomer"]
    for _ in range(2):
        receipt = budget(tmp_path).reserve(cost(), grown, max_epsilon=None, delta=DELTA)

    kinds = [entry.kind for entry in budget(tmp_path).chain.entries()]
    assert kinds == ["opened", "reserved", "patients", "reserved", "reserved"]
    assert receipt.epsilon_total == epsilon([PLAN.spent(STEPS)] * 3, DELTA)
    with pytest.raises(LedgerError, match="patients=1 of this manifest"):
        Budget.of(tmp_path, "A", "more", "patient").reserve(cost(), ["newcomer"], max_epsilon=None, delta=DELTA)
