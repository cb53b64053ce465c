"""The executor and a private round: paid for, trained by a real closed process, and let out; or none of it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import cast

import pytest
from flwr.app import Error, Message, RecordDict

from ccfexp._io import sha256_file
from client import ledger
from client.approvals import Approvals
from client.budget import Budget
from client.chain import Entry
from client.executor import REFUSED, STOPPED, Executor
from client.flower_runtime import Runtime, Task
from client.payment import Cohort
from client.site import Site, load_site
from client.worker import Worker
from strategies import wire
from tests.client.bundles import bundle
from tests.client.rounds import PLAN, TERMS, asked_for
from tests.client.sites import write_site
from tests.toys import BASE

pytestmark = pytest.mark.usefixtures("task_identity")
SUBJECTS = frozenset(f"patient-{number}" for number in range(40))
PRIVATE = 'content["terms"]["weight"] = 40.0; content["metrics"] = MetricRecord({"steps": 16})'
HONEST = bundle(PRIVATE)
POLICY = {"max_epsilon": 3.0, "delta": 1e-3}
GENERIC = "this site's policy does not allow it; its operator finds more there"


@dataclass
class FakeTask:
    """A task of a SuperNode that is not there; what is answered is kept."""

    message: Message
    bundle: bytes
    run: int = 7
    lost: threading.Event = field(default_factory=threading.Event)
    answers: list[Message] = field(default_factory=list)

    def reply(self, content: RecordDict | Error) -> Message:
        """As the real one."""
        return Message(content, reply_to=self.message)

    def answer(self, reply: Message) -> None:
        """Keep it."""
        self.answers.append(reply)

    def close(self, *, completed: bool) -> None:
        """Nobody to give it back to."""


@dataclass
class FakeRuntime:
    """Hands out tasks."""

    tasks: list[FakeTask]

    def acquire(self, stop: threading.Event) -> Task | None:  # noqa: ARG002 (the interface)
        """The next one."""
        return cast("Task", self.tasks.pop(0)) if self.tasks else None


@dataclass
class Hospital:
    """A site with an executor; the same again is a service that was started anew."""

    site: Site
    content: bytes = HONEST

    def __post_init__(self) -> None:
        self.runtime = FakeRuntime([])
        cohort = Cohort(SUBJECTS, sha256_file(self.site.manifest))
        self.executor = Executor(self.site, cast("Runtime", self.runtime), BASE, cohort)

    def asks(self, sent: wire.AdapterMessage) -> Message:
        """What the coordinator hears."""
        message = Message(wire.encode_message(sent), dst_node_id=7, message_type="train", group_id="2")
        task = FakeTask(message, self.content)
        self.runtime.tasks.append(task)
        assert self.executor.step()
        return task.answers[0]

    @property
    def egress(self) -> list[Entry]:
        """What was written down."""
        return ledger.EgressLedger.of(self.site).chain.entries()

    @property
    def budget(self) -> Budget:
        """What was paid."""
        return Budget.of(self.site.work, "A", "patients", "patient")


Start = Callable[..., Hospital]


@pytest.fixture
def hospital(tmp_path: Path) -> Iterator[Start]:
    """Makes a hospital in the folder of the test, by the values of its file and the code that it approved."""
    made: list[Hospital] = []

    def make(content: bytes = HONEST, **changed: object) -> Hospital:
        values: dict[str, object] = {"declared_patients": 40, "policy": POLICY} | changed
        site = load_site(None, write_site(tmp_path / "site", **values))
        site.manifest.parent.mkdir(parents=True, exist_ok=True)
        if not site.manifest.exists():
            site.manifest.write_text("the table")
        approvals = Approvals.of(site)
        approvals.approve(content, "IT of A")
        made.append(Hospital(site, content))
        return made[-1]

    yield make
    for each in made:
        each.executor.close()


def private(number: int = 2, run: str = TERMS.run) -> wire.AdapterMessage:
    return asked_for(PLAN, replace(TERMS, round_number=number, run=run))


def test_a_private_round_is_paid_for_and_leaves_with_its_cost(hospital: Start) -> None:
    """The coordinator learns epsilon; the two ledgers know of each other."""
    at = hospital()
    sent = private()
    reply = at.asks(sent)
    update = wire.decode_update(reply.content, wire.UpdateBounds(sent, 100.0, 40.0))
    (entry,) = at.egress
    (paid,) = at.budget.history()

    assert update.metrics.keys() == {"steps", "epsilon_run", "epsilon_total"}
    assert entry.kind == ledger.UPDATE
    assert entry.facts["epsilon"] == update.metrics["epsilon_run"] == paid_epsilon(at)
    assert (entry.facts["unit"], entry.facts["data_set"], entry.facts["delta"]) == ("patient", "patients", 1e-3)
    assert paid.run == TERMS.run
    at.budget.confirm(lambda: at.egress)


def paid_epsilon(at: Hospital) -> float:
    return float(at.budget.summary(max_epsilon=None, delta=1e-3)["epsilon"])


def test_the_cost_is_on_the_disk_before_the_app_is_asked(hospital: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what fails then is not refunded."""
    at = hospital(bundle("raise ValueError('no memory')"))
    ask, seen = Executor._asked, []

    def asked(executor: Executor, task: Task, worker: Worker, sent: wire.AdapterMessage) -> RecordDict:
        seen.append(len(at.budget.history()))
        return ask(executor, task, worker, sent)

    monkeypatch.setattr(Executor, "_asked", asked)
    reply = at.asks(private())

    assert reply.has_error()
    assert seen == [1]
    assert at.egress[-1].kind == ledger.FAILED
    assert at.egress[-1].facts["reservation"] == at.budget.chain.entries()[-1].hash
    at.budget.confirm(lambda: at.egress)


@pytest.mark.parametrize(
    "extra",
    [
        'content["terms"]["weight"] = 39.0; content["metrics"] = MetricRecord({"steps": 16})',
        PRIVATE.replace("16", "17"),
        PRIVATE.replace('"steps": 16', '"steps": 16, "loss": 0.5'),
    ],
)
def test_an_app_that_says_more_is_stopped_and_has_cost_all_the_same(hospital: Start, extra: str) -> None:
    """How many patients there are, other steps than were paid for, a loss."""
    at = hospital(bundle(extra))
    reply = at.asks(private())

    assert reply.error.code == STOPPED
    assert "39" not in str(reply.error.reason)
    assert len(at.budget.history()) == 1


def test_a_spent_budget_is_refused_over_restarts_and_runs(hospital: Start) -> None:
    """In a word that tells the coordinator nothing of the limit, and without a gradient."""
    assert not hospital().asks(private()).has_error()
    at = hospital()
    reply = at.asks(private(1, "d" * 16))

    assert (reply.error.code, reply.error.reason) == (REFUSED, GENERIC)
    assert "policy.max_epsilon=3.0; spent=" in at.egress[-1].facts["reason"]
    assert at.executor._worker is None, "the app was not even started"
    assert len(at.budget.history()) == 1


@pytest.mark.parametrize("harm", ["edited", "removed", "set back"])
def test_a_ledger_that_cannot_be_trusted_stops_private_rounds_alone(hospital: Start, harm: str) -> None:
    """The site goes on, says why in its own books, and answers in general words."""
    at = hospital(policy={"max_epsilon": None, "delta": 1e-3})
    path = at.budget.chain.path
    head = path.with_name(path.name + ".head")
    if harm == "set back":
        at.asks(private())
        before = path.read_bytes(), head.read_bytes()
    at.asks(private())
    if harm == "edited":
        path.write_bytes(path.read_bytes().replace(b'"steps":16', b'"steps":1'))
    elif harm == "removed":
        path.unlink()
        head.unlink()
    else:
        path.write_bytes(before[0])
        head.write_bytes(before[1])
    reply = at.asks(private())

    assert (reply.error.code, reply.error.reason) == (REFUSED, GENERIC)
    assert at.egress[-1].facts["reason"].startswith("no private round is trained: privacy-patients-patient.jsonl")
    at.content = bundle()
    Approvals.of(at.site).approve(at.content, "IT of A")
    ordinary = replace(asked_for(), terms=replace(TERMS, run="e" * 16))
    assert not at.asks(ordinary).has_error()
    assert at.egress[-1].facts["epsilon"] is None


def test_another_manifest_than_the_one_that_was_checked_is_refused(hospital: Start) -> None:
    """Nobody would know whose privacy a round costs; gone, or of other patients."""
    at = hospital()
    at.site.manifest.write_text("another table")
    assert at.asks(private()).error.reason == GENERIC
    assert "manifest has changed" in at.egress[-1].facts["reason"]
    at.site.manifest.unlink()
    assert at.asks(private()).error.reason == GENERIC
    assert "manifest cannot be read" in at.egress[-1].facts["reason"]
    assert at.budget.history() == []


def test_nothing_is_trained_on_a_manifest_from_which_somebody_may_have_withdrawn(hospital: Start) -> None:
    """The app holds the photographs of the manifest that it has read: also an ordinary round ends here."""
    at = hospital(bundle(), policy=POLICY | {"max_epsilon": None})
    at.site.manifest.write_text("a table with one patient less")
    ordinary = replace(asked_for(), terms=replace(TERMS, run="e" * 16))
    assert at.asks(ordinary).error.reason == GENERIC
    assert "manifest has changed" in at.egress[-1].facts["reason"]


@pytest.mark.parametrize(("today", "trained"), [(date(2026, 5, 31), True), (date(2026, 6, 1), False)])
def test_nothing_is_trained_after_the_last_day_of_a_consent(hospital: Start, today: date, trained: bool) -> None:
    """A service runs for months, and consents end meanwhile."""
    at = hospital(bundle(), policy=POLICY | {"max_epsilon": None})
    at.executor.cohort = replace(at.executor.cohort, consent_ends=date(2026, 5, 31))
    at.executor.today = lambda: today
    ordinary = replace(asked_for(), terms=replace(TERMS, run="e" * 16))
    assert at.asks(ordinary).has_error() is not trained
    if not trained:
        assert "consent of a training patient has ended" in at.egress[-1].facts["reason"]


def test_a_machine_that_could_not_train_a_private_round_pays_for_none(hospital: Start) -> None:
    """The reason, with its remedy, stays in the site's own books."""
    at = hospital(compute={"compile": True})
    assert at.asks(private()).error.reason == GENERIC
    assert "compute.compile=true cannot go with a private run" in at.egress[-1].facts["reason"]
    assert at.budget.history() == []


def test_what_the_app_is_told_of_the_patients(hospital: Start) -> None:
    """The number that the hospital declares, for the sum's constant."""
    at = hospital(declared_patients=41)
    enclosure = at.executor._enclosure(Approvals.of(at.site), Approvals.of(at.site).approved()[0])

    assert json.loads(enclosure.bench)["declared_patients"] == 41
