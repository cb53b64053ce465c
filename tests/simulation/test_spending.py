"""What a simulated site spends stands in its ledger before it trains, and is told with its update."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors

from ccfexp.privacy.accounting import epsilon
from client.app import RequestRefusedError, make_app
from configs.client_part import plan_text
from server.federation import Federation, Hooks
from server.journal import Journal, Reader
from simulation.grid import LocalGrid
from simulation.spending import ledger_of, spent_in, training_patients
from strategies import wire
from tests import toys
from tests.server.runs import StoppedError, stopping_at
from tests.simulation.spenders import PATIENTS, PLAN, STEPS, private, private_toy, spender


def run(federation: Federation, folder: Path) -> None:
    """A private run of the three toys, with ledgers in the folder."""
    bench = spender(folder, private_toy(folder))
    federation.run(LocalGrid(make_app(lambda: bench), len(toys.SITES)))


def message() -> wire.AdapterMessage:
    """What a site is sent in the first round of a private run."""
    federation = private(toys.federation(Path("never written")))
    return wire.AdapterMessage.of(federation.terms, federation.initial, federation.client_config)


def test_a_round_is_on_the_disk_before_it_is_trained(tmp_path: Path) -> None:
    bench = private_toy(tmp_path)
    update = spender(tmp_path, bench).train("north", message())

    assert bench.entries == [2], "the ledger's opening, and the round"
    cost = PLAN.epsilon_after(STEPS)
    assert update.metrics == {"steps": STEPS, "epsilon_run": cost, "epsilon_total": cost}
    assert update.weight == PATIENTS
    assert spent_in(message().terms.run, tmp_path / "privacy", "north", PLAN) == cost
    assert spent_in(message().terms.run, tmp_path / "privacy", "south", PLAN) is None


def test_training_that_fails_has_been_paid_for(tmp_path: Path) -> None:
    class FailingToy(toys.ToyHospital):
        def train(self, site: str, message: wire.AdapterMessage) -> wire.AdapterUpdate:  # noqa: ARG002
            raise MemoryError

    bench = spender(tmp_path, FailingToy())
    with pytest.raises(MemoryError):
        bench.train("north", message())
    assert len(ledger_of(bench.folder, "north", PLAN).history()) == 1


def test_an_ordinary_round_opens_no_ledger(tmp_path: Path) -> None:
    federation = private(toys.federation(tmp_path), plan=None)
    asked = wire.AdapterMessage.of(federation.terms, federation.initial, federation.client_config)
    bench = spender(tmp_path, toys.ToyHospital())

    assert "loss" in bench.train("north", asked).metrics
    assert not bench.folder.exists()


@pytest.mark.parametrize("text", ["", plan_text(replace(PLAN, noise_multiplier=2.0))])
def test_terms_of_another_plan_are_refused_and_cost_nothing(tmp_path: Path, text: str) -> None:
    asked = message()
    bench = spender(tmp_path, private_toy(tmp_path))

    with pytest.raises(RequestRefusedError, match="not the plan"):
        bench.train("north", replace(asked, terms=replace(asked.terms, privacy=text)))
    assert not bench.folder.exists()


def test_what_every_site_has_spent_is_in_the_history_and_the_journal(tmp_path: Path) -> None:
    """No loss is told; a mean of epsilons would be nobody's, so there is none."""
    journal = Journal(tmp_path / "progress.jsonl", 7)
    hooks = Hooks(on_reply=journal.site, on_complete=journal.round)
    federation = private(toys.federation(tmp_path, hooks=hooks))
    run(federation, tmp_path)
    state = json.loads((tmp_path / "checkpoint" / "state.json").read_text())
    after = [PLAN.epsilon_after(STEPS * number) for number in (1, 2, 3)]

    assert after == sorted(after)
    for number, record in enumerate(state["history"][1:]):
        assert record["weights"] == dict.fromkeys(toys.SITES, float(PATIENTS))
        spent = {"steps": STEPS, "epsilon_run": after[number], "epsilon_total": after[number]}
        assert record["metrics"] == dict.fromkeys(toys.SITES, spent)
    rounds = [event for event in Reader(journal.path).events() if event["kind"] == "round"]
    assert [event["epsilon"] for event in rounds] == after
    assert [event["loss"] for event in rounds] == [None] * 3
    with safetensors.safe_open(str(tmp_path / "adapter.safetensors"), "np") as file:
        assert json.loads(file.metadata()["ccfexp"])["privacy"] == plan_text(PLAN)


def test_a_round_that_is_repeated_is_charged_again(tmp_path: Path) -> None:
    """All sites had trained round 2 when the coordinator died."""
    with pytest.raises(StoppedError):
        run(private(toys.federation(tmp_path, hooks=stopping_at(2))), tmp_path)
    run(private(toys.federation(tmp_path)), tmp_path)
    state = json.loads((tmp_path / "checkpoint" / "state.json").read_text())
    rounds = ledger_of(tmp_path / "privacy", "north", PLAN).history()

    assert [item.round_number for item in rounds] == [1, 2, 2, 3]
    spent = spent_in(state["run"], tmp_path / "privacy", "north", PLAN)
    assert spent == epsilon([PLAN.spent(4 * STEPS)], PLAN.delta)
    assert state["history"][3]["metrics"]["north"]["epsilon_run"] == spent


def test_auto_is_fedsvd_where_training_is_private(tmp_path: Path) -> None:
    """Also where a site trains a smaller rank, which would else be flex."""
    hospital = private_toy(tmp_path, ranks=(2, 1, 2))
    bench = spender(tmp_path, hospital)
    federation = private(toys.federation(tmp_path, rounds=1, strategy="auto"))
    progress = federation.run(LocalGrid(make_app(lambda: bench), 3))

    assert progress.method == "fedsvd"


def test_held_out_patients_are_not_charged(tmp_path: Path) -> None:
    bench = spender(tmp_path, private_toy(tmp_path))
    assert len(training_patients(bench.manifests["north"])) == PATIENTS
