"""The hospital's executor: takes tasks from the SuperNode, has approved code work on them, lets the result through.

For every message: is its bundle approved? does the policy allow the request? then the shut-in app works, the gate
checks and encodes what it answers, the ledger writes it down, and only then it is handed to the SuperNode.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flwr.app import Error, RecordDict
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as MessageProto

from ccfexp.errors import LedgerError, PolicyError, WireError
from client import guard, ledger
from client.approvals import Approvals, digest_of
from client.budget import Receipt
from client.flower_runtime import Runtime, Task, wire_bytes
from client.payment import Cohort, local_today, pay
from client.shown import printable
from client.site import Site
from client.workbench import HospitalBench
from client.worker import Enclosure, Worker, WorkerFailedError, WorkerStoppedError
from strategies import coding

if TYPE_CHECKING:
    from strategies.wire import AdapterMessage

log = logging.getLogger(__name__)
REFUSED, FAILED, UNAPPROVED, STOPPED = 101, 102, 103, 104
_TRAINING_S = 24 * 3600.0  # the coordinator stops waiting long before
_SLACK = 1 << 20  # bytes of a reply besides its numbers


@dataclass(frozen=True)
class Outcome:
    """How a message was dealt with: what goes out, what the ledger says, and whether the task was completed."""

    kind: str
    content: RecordDict | Error
    facts: Mapping[str, Any]


@dataclass
class Executor:
    """Works for one site until it is stopped.

    Attributes:
        site: whose.
        runtime: the SuperNode's local interface.
        base_sha256: of the installed base.
        cohort: who may be trained on.
        signs: asked for the bytes that went out besides messages since it was last asked.
        stop: ends the work: a message in progress is dropped, one being handed over is finished.
        today: the day, by which consents end.
    """

    site: Site
    runtime: Runtime
    base_sha256: str
    cohort: Cohort
    signs: Callable[[], int] = lambda: 0
    stop: threading.Event = field(default_factory=threading.Event)
    today: Callable[[], date] = local_today
    _worker: tuple[tuple[str, int], Worker] | None = None
    _task: Task | None = None
    _receipt: Receipt | None = None  # of the round that is worked on

    def step(self) -> bool:
        """Deal with the next message; False if there is none.

        Raises:
            RuntimeUnreachableError: the SuperNode does not answer.
            TaskLostError: it must be started anew.
            LedgerError: nothing can be written down, so nothing was sent.
        """
        task = self.runtime.acquire(self.stop)
        if task is None:
            return False
        completed = False
        try:
            completed = self._deal_with(task)
        finally:
            task.close(completed=completed)
        return True

    def finish(self) -> None:
        """The last word of a service that ends: what went out since the last entry. Raises LedgerError."""
        ledger.EgressLedger.of(self.site).record(ledger.ENDED, {"signs": self.signs()})

    def close(self) -> None:
        """End the app's process."""
        if self._worker is not None:
            self._worker[1].close()
            self._worker = None

    def _deal_with(self, task: Task) -> bool:
        """Answer a task; False if it was dropped."""
        self._task, self._receipt = task, None
        book = ledger.EgressLedger.of(self.site)
        about = {"run": f"{task.run}", "round": _round_of(task), "signs": self.signs()}
        try:
            outcome = self._outcome(task, book)
        except WorkerStoppedError:
            reason = "stopped while it was worked on; nothing was sent"
            book.record(ledger.DROPPED, about | self._witness() | {"reason": reason})
            log.info("a message was dropped: the site is stopping, or the coordinator no longer waits for it")
            return False
        reply = task.reply(outcome.content)
        about |= {"bytes": wire_bytes(reply), "message_sha256": _id_of(reply)}
        book.record(outcome.kind, about | self._witness() | dict(outcome.facts))  # before it is sent
        task.answer(reply)
        _tell(outcome, about)
        if outcome.kind == ledger.NAME:
            self._warm_up(task, book, about)
        return True

    def _outcome(self, task: Task, book: ledger.EgressLedger) -> Outcome:
        patients, declared = len(self.cohort.subjects), self.site.file.declared_patients
        standing = guard.Standing(self.site.name, self.base_sha256, patients, book.updates(), declared)
        try:
            digest = self._approved(task)
            request = guard.admit(task.message, self.site.policy, standing)
            if request.sent is not None:
                self.cohort.check(self.site.manifest, self.today())
            if request.cost is not None:
                self._receipt = pay(request.cost, self.site, self.cohort, book.chain.entries)
        except _UnapprovedError as error:
            return _refusal(UNAPPROVED, str(error), str(error))
        except WireError as error:
            return _refusal(REFUSED, str(error), str(error))
        except PolicyError as error:
            # The hospital's limits, and what is left of its budget, are nobody else's business.
            return _refusal(REFUSED, str(error), "this site's policy does not allow it; its operator finds more there")
        except LedgerError:
            raise
        except Exception as error:  # noqa: BLE001 (the border: whatever a message is made of, the site goes on)
            return _refusal(REFUSED, f"a message that cannot be read: {type(error).__name__}", "malformed message")
        if request.sent is None:  # the name is answered from here: no other code is needed for it
            return Outcome(ledger.NAME, guard.name(self.site.policy, standing), {})
        return self._trained(task, digest, request.sent, standing)

    def _witness(self) -> dict[str, Any]:
        return {} if self._receipt is None else self._receipt.witness

    def _trained(self, task: Task, digest: str, sent: AdapterMessage, standing: guard.Standing) -> Outcome:
        """What the app answers to a round, past the gate; or why nothing of it leaves."""
        try:
            answer = self._asked(task, self._process(digest, task.run), sent)
            released = guard.release(answer, sent, self.site.policy, standing, self._receipt)
        except PolicyError as error:
            return self._stopped_at_the_gate(str(error))
        except WireError as error:
            # Which check it was; what was found may itself be patient data, and this ends in a log.
            return self._stopped_at_the_gate(str(error).partition(":")[0])
        except WorkerFailedError as error:
            log.error("%s", error)  # noqa: TRY400
            reason = "training failed at the site; its operator finds more in the log there"
            return Outcome(ledger.FAILED, Error(FAILED, reason), {"reason": str(error)})
        except (WorkerStoppedError, LedgerError):
            raise
        except Exception as error:  # noqa: BLE001 (the border: whatever an answer is made of, the site goes on)
            return self._stopped_at_the_gate(f"an answer that cannot be read: {type(error).__name__}")
        return Outcome(ledger.UPDATE, released.content, released.facts)

    def _stopped_at_the_gate(self, reason: str) -> Outcome:
        """End the app; the reason stays here."""
        self.close()
        log.error("the gate stopped a reply: %s", printable(reason))
        return Outcome(ledger.STOPPED, Error(STOPPED, "stopped by this site's gate"), {"reason": reason})

    def _approved(self, task: Task) -> str:
        """The hash of the task's bundle. Raises _UnapprovedError if it may not run here."""
        approvals = Approvals.of(self.site)
        digest = digest_of(task.bundle)
        if digest not in approvals.approved():
            approvals.keep(task.bundle)
            raise _UnapprovedError(
                f"bundle {digest[:12]} is not approved at this site; its operator must review it "
                f"(client.run --approve {digest[:12]})"
            )
        return digest

    def _process(self, digest: str, run: int) -> Worker:
        """The process of an approved bundle and a run; the last one is kept. Raises as `Worker`, or PolicyError."""
        key = (digest, run)
        if self._worker is None or self._worker[0] != key or not self._worker[1].alive:
            self.close()
            self._worker = (key, Worker(self._enclosure(Approvals.of(self.site), digest), self._stopped))
        return self._worker[1]

    def _warm_up(self, task: Task, book: ledger.EgressLedger, about: Mapping[str, Any]) -> None:
        """Who asks for the name will soon ask for training: load the app meanwhile."""
        try:
            self._process(digest_of(task.bundle), task.run)
        except PolicyError as error:
            log.error("the app was stopped while it was loaded: %s", error)  # noqa: TRY400
            book.record(ledger.STOPPED, {"run": about["run"], "round": 0, "reason": str(error)})
        except (OSError, WorkerFailedError, WorkerStoppedError) as error:
            log.warning("the app could not be loaded ahead: %s", type(error).__name__)

    def _stopped(self) -> bool:
        return self.stop.is_set() or (self._task is not None and self._task.lost.is_set())

    def _asked(self, task: Task, worker: Worker, sent: AdapterMessage) -> RecordDict:
        """What the app answers, decoded; it is not trusted."""
        body = worker.ask(
            message_to_proto(task.message).SerializeToString(),
            seconds=_TRAINING_S,
            longest=coding.longest(sent.terms.coding, sent.uploaded.parameters) + _SLACK,
        )
        answer = message_from_proto(MessageProto.FromString(body))
        if answer.has_error():
            raise WorkerFailedError(f"the app answered with error={int(answer.error.code)}")
        return answer.content

    def _enclosure(self, approvals: Approvals, digest: str) -> Enclosure:
        site = self.site
        cache = site.cache / digest[:12]  # what one bundle wrote, another does not read
        bench = HospitalBench(
            base=site.base,
            site=site.name,
            manifest=str(site.manifest),
            cache=str(cache),
            memory=str(cache / "memory"),
            device=site.file.device,
            threads=site.file.threads,
            compute=site.file.compute,
            declared_patients=site.file.declared_patients,
        )
        data = [site.manifest.parent]
        if site.base.endswith(".safetensors"):
            data.append(Path(site.base).parent)
        log_file = site.work / "logs" / "app.log"
        return Enclosure(approvals.unpack(digest), tuple(data), cache, {"site": site.name}, bench.to_json(), log_file)


class _UnapprovedError(Exception):
    """The bundle of a run may not run here."""


def _refusal(code: int, reason: str, told: str) -> Outcome:
    """A refusal: the reason for the site's own books, and what the coordinator is told."""
    log.error("the coordinator's message is refused: %s", printable(reason))
    return Outcome(ledger.REFUSED, Error(code, told), {"reason": reason})


def _round_of(task: Task) -> int:
    group = task.message.metadata.group_id
    return int(group) if re.fullmatch("[0-9]{1,7}", group) else 0


def _id_of(reply: Any) -> str:  # noqa: ANN401 (Flower's message; its identifier is the hash of its content)
    return str(reply.object_id)


def _tell(outcome: Outcome, about: Mapping[str, Any]) -> None:
    if outcome.kind == ledger.UPDATE:
        log.info("round %s: an update of %s bytes is on its way", about["round"], f"{about['bytes']:,}")
    elif outcome.kind == ledger.NAME:
        log.info("the coordinator asked for this site's name")
