"""The privacy budget of a hospital: counted before it is spent, never given back, refused when it cannot be trusted."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccfexp.errors import LedgerError, PolicyError
from ccfexp.privacy.accounting import Spent, epsilon
from client import spending
from client.budget import Budget, Receipt
from client.chain import Entry
from client.spending import Cost
from tests.client.rounds import PLAN, STEPS, cost
from tests.client.spender import DELTA, PLANS, SUBJECTS, budget


def pay(folder: Path, asked: Cost | None = None, max_epsilon: float | None = None) -> Receipt:
    """Reserve a round as a service does that was started this moment."""
    return budget(folder).reserve(asked or cost(), SUBJECTS, max_epsilon=max_epsilon, delta=DELTA)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("privacy-*")}


def noted(receipts: Sequence[Receipt]) -> list[Entry]:
    """What the egress ledger says of rounds that were worked on."""
    return [Entry(1, "", "update", receipt.witness, "") for receipt in receipts]


def test_a_round_is_on_the_disk_when_it_is_admitted(tmp_path: Path) -> None:
    """With everything that it takes to count it again."""
    receipt = pay(tmp_path)
    (round_,) = budget(tmp_path).history()
    opened, reserved = budget(tmp_path).chain.entries()

    assert round_.spent == Spent(PLAN.sampling_rate, 1.5, STEPS)
    assert receipt.epsilon_run == receipt.epsilon_total == epsilon([round_.spent], DELTA)
    assert receipt.reservation == reserved.hash
    assert (opened.facts["site"], opened.facts["data_set"], opened.facts["unit"]) == ("A", "patients", "patient")
    assert len(opened.facts["patients"]) == len(SUBJECTS)
    assert reserved.facts["clipping_norm"] == PLAN.clipping_norm
    assert not [name for name, data in files(tmp_path).items() if b"patient-1" in data]


def test_a_repeated_round_and_another_run_cost_again(tmp_path: Path) -> None:
    """The same number, the same run, another one: whatever was admitted was admitted."""
    receipts = [pay(tmp_path, cost(run)) for run in ("a" * 16, "a" * 16, "b" * 16)]
    spent = Spent(PLAN.sampling_rate, 1.5, STEPS)

    assert [receipt.epsilon_total for receipt in receipts] == [epsilon([spent] * n, DELTA) for n in (1, 2, 3)]
    assert [receipt.epsilon_run for receipt in receipts] == [epsilon([spent] * n, DELTA) for n in (1, 2, 1)]


def test_the_run_is_told_at_its_delta_and_the_site_at_its_own(tmp_path: Path) -> None:
    """Without one of its own at the run's."""
    asked = cost(plan=replace(PLAN, delta=1e-4))
    receipt = budget(tmp_path).reserve(asked, SUBJECTS, max_epsilon=None, delta=1e-6)
    (round_,) = budget(tmp_path).history()

    assert receipt.epsilon_run == epsilon([round_.spent], 1e-4)
    assert receipt.epsilon_total == epsilon([round_.spent], 1e-6)
    receipt = budget(tmp_path).reserve(asked, SUBJECTS, max_epsilon=None, delta=None)
    assert receipt.epsilon_total == receipt.epsilon_run == epsilon([round_.spent] * 2, 1e-4)


STEPS_OF_A_LIFE = st.tuples(
    st.sampled_from(["a" * 16, "b" * 16]), st.integers(1, 2), st.sampled_from(PLANS), st.sampled_from([1, 16]),
    st.sampled_from(["", "half a line", "no head"]),
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(life=st.lists(STEPS_OF_A_LIFE, min_size=1, max_size=8), limit=st.sampled_from([None, 3.0, 6.0]))
def test_whatever_happens_everything_admitted_is_counted(
    tmp_path_factory: pytest.TempPathFactory, life: list[Any], limit: float | None
) -> None:
    """In any order of runs, plans, repeated rounds, restarts and crashes; and a refusal writes nothing."""
    folder = tmp_path_factory.mktemp("work")
    admitted: list[tuple[str, Spent]] = []
    before = 0.0
    for name, number, plan, steps, crash in life:
        run = f"{name[:-1]}{PLANS.index(plan)}"  # a run has one plan
        head = files(folder).get("privacy-patients-patient.jsonl.head")
        try:
            receipt = pay(folder, cost(run, number, plan, steps), limit)
        except PolicyError:
            assert [(item.run, item.spent) for item in budget(folder).history()] == admitted
            assert limit is not None
            assert epsilon([*(spent for _, spent in admitted), plan.spent(steps)], DELTA) > limit
            continue
        admitted.append((run, plan.spent(steps)))
        assert receipt.epsilon_total == epsilon([spent for _, spent in admitted], DELTA)
        assert receipt.epsilon_run == epsilon([spent for other, spent in admitted if other == run], DELTA)
        assert before < receipt.epsilon_total <= (limit or math.inf)
        before = receipt.epsilon_total
        assert [(item.run, item.spent) for item in budget(folder).history()] == admitted
        path = budget(folder).chain.path
        if crash == "half a line":
            path.write_bytes(path.read_bytes() + b'{"facts":{"clipping_norm"')
        elif crash == "no head" and head is not None and json.loads(head)["number"] == len(admitted):
            path.with_name(path.name + ".head").write_bytes(head)
    assert budget(folder).summary(max_epsilon=limit, delta=DELTA)["epsilon"] == before


def test_what_would_pass_the_limit_is_refused_and_told(tmp_path: Path) -> None:
    """A smaller round may still fit."""
    spent = pay(tmp_path, max_epsilon=3.0).epsilon_total
    before = files(tmp_path)

    with pytest.raises(PolicyError, match=rf"epsilon=3\.\d+ .* policy.max_epsilon=3.0; spent={spent:.6g} never"):
        pay(tmp_path, max_epsilon=3.0)
    assert files(tmp_path) == before
    assert pay(tmp_path, cost(steps=1), max_epsilon=3.0).epsilon_total > spent


@pytest.mark.parametrize(
    ("delta", "plan_delta", "subjects", "message"),
    [
        (1 / 40, 1e-3, SUBJECTS, r"delta=0.025 must be above 0 and below 1 / patients=0.025"),
        (1e-3, 1 / 40, SUBJECTS, r"delta=0.025 must be"),
        (None, 0.05, SUBJECTS, r"delta=0.05 must be"),
        (1e-3, 1e-3, (), "training patients=0 must be at least 1"),
    ],
)
def test_a_delta_that_gives_a_patient_away_is_refused(
    tmp_path: Path, delta: float | None, plan_delta: float, subjects: tuple[str, ...], message: str
) -> None:
    """The site's and the plan's."""
    asked = cost(plan=replace(PLAN, delta=plan_delta))
    with pytest.raises(PolicyError, match=message):
        budget(tmp_path).reserve(asked, subjects, max_epsilon=None, delta=delta)
    assert files(tmp_path) == {}


def test_a_cost_beyond_any_figure_is_refused(tmp_path: Path) -> None:
    """Also by a site without a limit: it would be no differential privacy."""
    with pytest.raises(PolicyError, match="beyond any figure"):
        pay(tmp_path, cost(plan=replace(PLAN, sampling_rate=1.0, noise_multiplier=0.2), steps=100_000))
    with pytest.raises(PolicyError, match="at delta=1e-18 is beyond any figure"):
        budget(tmp_path).reserve(cost(), SUBJECTS, max_epsilon=None, delta=1e-18)


@settings(max_examples=60, deadline=None)
@given(position=st.integers(0, 100_000), value=st.integers(0, 255), cut=st.booleans())
def test_an_edited_or_truncated_ledger_is_refused(
    tmp_path_factory: pytest.TempPathFactory, position: int, value: int, cut: bool
) -> None:
    """Nothing is admitted, nothing shown; of what a crash can leave, nothing less is counted."""
    folder = tmp_path_factory.mktemp("work")
    for number in (1, 2, 3):
        pay(folder, cost(number=number))
    path = budget(folder).chain.path
    content = path.read_bytes()
    position %= len(content)
    if not cut and content[position] == value:
        return
    path.write_bytes(content[:position] if cut else content[:position] + bytes([value]) + content[position + 1 :])

    with pytest.raises(LedgerError):
        budget(folder).history()
    with pytest.raises(LedgerError):
        pay(folder)


@pytest.mark.parametrize("gone", ["privacy-patients-patient.jsonl", "privacy-patients-patient.jsonl.head"])
def test_a_ledger_without_its_other_half_is_refused(tmp_path: Path, gone: str) -> None:
    """Deleting a file is no fresh budget."""
    pay(tmp_path)
    (tmp_path / gone).unlink()
    with pytest.raises(LedgerError):
        pay(tmp_path)


def test_a_ledger_that_was_removed_or_set_back_is_refused(tmp_path: Path) -> None:
    """Both its files, to nothing or to an older state that is right in itself: the egress ledger knows more."""
    folder, older = tmp_path / "work", tmp_path / "older"
    receipts = [pay(folder)]
    shutil.copytree(folder, older)
    receipts.append(pay(folder))
    budget(folder).confirm(lambda: noted(receipts))

    with pytest.raises(LedgerError, match="lacks rounds=1 of the 2"):
        budget(older).confirm(lambda: noted(receipts))
    shutil.rmtree(folder)
    with pytest.raises(LedgerError, match="lacks rounds=2 of the 2"):
        budget(folder).check(SUBJECTS, lambda: noted(receipts))
    with pytest.raises(LedgerError, match=r"privacy-patients-patient.jsonl lacks rounds=2"):
        Budget.of(folder, "A", "renamed", "patient").confirm(lambda: noted(receipts))  # whose patients are they?
    Budget.of(folder, "A", "patients", "image").confirm(lambda: noted(receipts))


def test_an_egress_ledger_that_was_removed_or_set_back_is_missed(tmp_path: Path) -> None:
    """The privacy ledger has seen more of it than there is now."""
    ledger, receipts = budget(tmp_path), [pay(tmp_path)]
    receipts.append(ledger.reserve(cost(number=2), SUBJECTS, max_epsilon=None, delta=DELTA, egress=1))
    ledger.confirm(lambda: noted(receipts))
    ledger.confirm(lambda: noted(receipts[:1]))
    with pytest.raises(LedgerError, match="egress ledger entries=0 must be at least 1"):
        ledger.confirm(list)


def test_a_run_has_one_plan(tmp_path: Path) -> None:
    """A coordinator that changes the noise from round to round is refused; another run may have another plan."""
    pay(tmp_path, cost("a" * 16))
    with pytest.raises(PolicyError, match="must be those of its run's first round"):
        pay(tmp_path, cost("a" * 16, 2, plan=replace(PLAN, noise_multiplier=5.0)))
    pay(tmp_path, cost("b" * 16, plan=replace(PLAN, noise_multiplier=5.0)))


def test_plans_in_one_ledger_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More of them would take minutes to count; what is there already may go on."""
    monkeypatch.setattr(spending, "_MOST_PLANS", 2)
    for number, noise in enumerate((4.0, 5.0)):
        pay(tmp_path, cost(f"{number:016x}", plan=replace(PLAN, noise_multiplier=noise)))
    with pytest.raises(PolicyError, match="plans=3 in one ledger must be at most 2"):
        pay(tmp_path, cost("c" * 16, plan=replace(PLAN, noise_multiplier=6.0)))
    pay(tmp_path, cost("d" * 16, plan=replace(PLAN, noise_multiplier=5.0)))


def test_a_ledger_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    """Something else lies in its place."""
    (tmp_path / "privacy-patients-patient.jsonl").mkdir(parents=True)
    with pytest.raises(LedgerError, match="cannot be written"):
        pay(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(LedgerError, match=r"privacy.lock cannot be written"):
        pay(tmp_path / "file")


@pytest.mark.parametrize(
    ("kind", "facts"),
    [
        ("refunded", {"run": "c" * 16}),
        ("opened", {"site": "A", "data_set": "patients", "unit": "patient", "salt": "0" * 32, "patients": []}),
        ("reserved", {}),
        ("reserved", {"steps": -16}),
        ("reserved", {"steps": True}),
        ("reserved", {"steps": 16.0}),
        ("reserved", {"noise_multiplier": "1.5"}),
        ("reserved", {"noise_multiplier": 1e9}),
        ("reserved", {"delta": 2.0}),
        ("reserved", {"run": 7}),
        ("patients", {"patients": [7]}),
    ],
)
def test_an_entry_that_is_none_is_refused(tmp_path: Path, kind: str, facts: dict[str, Any]) -> None:
    """Whoever wrote it, with every hash right: what is not understood is not taken for nothing spent."""
    pay(tmp_path)
    chain = budget(tmp_path).chain
    whole = dict(chain.entries()[-1].facts) if facts and kind == "reserved" else {}
    chain.append(kind, whole | facts)

    with pytest.raises(LedgerError, match="this release cannot read"):
        budget(tmp_path).history()
    with pytest.raises(LedgerError, match="this release cannot read"):
        pay(tmp_path)


def test_the_summary_tells_of_runs_and_of_all(tmp_path: Path) -> None:
    """And of an empty ledger that nothing is spent."""
    assert budget(tmp_path).summary(max_epsilon=4.0, delta=DELTA)["remaining"] == 4.0
    for run in ("a" * 16, "a" * 16, "b" * 16):
        total = pay(tmp_path, cost(run, steps=1)).epsilon_total
    told = budget(tmp_path).summary(max_epsilon=4.0, delta=DELTA)

    assert (told["rounds"], told["steps"], told["epsilon"]) == (3, 3, total)
    assert told["remaining"] == 4.0 - total
    assert {run: item["rounds"] for run, item in told["runs"].items()} == {"a" * 16: 2, "b" * 16: 1}
    assert told["runs"]["a" * 16]["epsilon"] == epsilon([PLAN.spent(2)], DELTA)
    assert budget(tmp_path).summary(max_epsilon=None, delta=None)["remaining"] is None
