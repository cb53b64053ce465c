"""A thousand spoiled replies through a whole federation: none is used, and it ends as if nobody had sent them."""

from __future__ import annotations

import copy
import dataclasses
import random
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Error, Message, RecordDict
from flwr.app.message import make_message
from flwr.common.serde import message_from_proto, message_to_proto

from client.app import make_app
from server.checkpoint import Progress
from strategies import wire
from strategies.coding import Coding, representable
from strategies.packing import AdapterManifest
from tests import toys
from tests.server.grids import Script, Scripted
from tests.server.mutants import arrays, fields
from tests.server.mutants.passed_over import PASSED_OVER
from tests.server.mutants.sample import MAX_NORM, MAX_WEIGHT, MUTATORS, Sample, long_text

HOSTILE = tuple(f"evil-{index:02d}" for index in range(22))
SITES = ("ada", *HOSTILE, "zoe")  # one honest site is combined before and one after all the others
RUNS: list[tuple[str, Coding]] = [
    ("fedit", "float32"),
    ("ffa", "int8"),
    ("rolora", "int8"),
    ("fedsvd", "float16"),
    ("flora", "bfloat16"),
    ("flex", "int8"),
    ("fedsa", "float16"),
]
ROUNDS = 7
START = toys.initial(width=25)  # 50 or 100 numbers: the last block of int8 is not full
assert arrays.MUTATORS is fields.MUTATORS is MUTATORS  # both have listed theirs
OF_OTHER_CODINGS = {True: "not_a_number", False: "a_block_that_is_not_canonical"}  # by whether the coding is int8
CHECKS = {name: checks for name, (checks, _) in MUTATORS.items()} | {
    "an_error": {"reply"},
    "an_old_one": {"round", "names"},
}
REASON = re.compile(r"wire check '([a-z ]+)' failed: .+")


@dataclass
class Evil:
    """Spoils the replies of the hostile sites, with every mutator in turn, and remembers with which."""

    coding: Coding
    draw: random.Random
    done: dict[tuple[int, str], str] = field(default_factory=dict)
    earlier: dict[str, RecordDict] = field(default_factory=dict)

    def __call__(self, site: str, number: int, reply: Message) -> Iterable[Message]:
        """What is delivered instead of a reply."""
        if site in HOSTILE:
            names = [name for name in CHECKS if name != OF_OTHER_CODINGS[self.coding == "int8"]]
            name = names[len(self.done) % len(names)]
            if name == "an_old_one" and number == 1:
                name = "an_error"
            self.done[number, site] = name
            honest, reply = copy.deepcopy(reply.content), self._spoiled(name, site, reply)
            self.earlier[site] = honest
            assert reply.has_error() or repr(reply.content) != repr(honest), f"{name} changed nothing"
        return [message_from_proto(message_to_proto(reply))]  # as it comes out of Flower's own serialisation

    def _spoiled(self, name: str, site: str, reply: Message) -> Message:
        if name == "an_error":
            reason = self.draw.choice([None, "", long_text(self.draw)])
            return make_message(reply.metadata, error=Error(self.draw.randint(-9, 999), reason))
        if name == "an_old_one":
            reply.content = self.earlier[site]
        else:
            MUTATORS[name][1](sample_of(reply.content), self.draw)
        return reply


def sample_of(records: RecordDict) -> Sample:
    """A reply, to be spoiled in place."""
    public = dict(records.config_records["terms"])
    values: dict[str, Any] = {item.name: public[item.name] for item in dataclasses.fields(wire.Terms)}
    return Sample(records, wire.Terms(**values), AdapterManifest.parse(str(public["manifest"])))


@dataclass
class Hospitals(toys.ToyHospital):
    """The honest sites train; the others make up a valid update, or say nothing at all."""

    silent: bool = False

    def train(self, site: str, message: wire.AdapterMessage) -> wire.AdapterUpdate:
        """An update of random numbers from a hostile site, or its failure."""
        if site not in HOSTILE:
            return super().train(site, message)
        if self.silent:
            raise OSError
        random = np.random.default_rng([self.sites.index(site), message.terms.round_number])
        value_P = random.normal(size=message.uploaded.parameters).astype(np.float32)
        change_P = representable(value_P, message.terms.coding, random)
        return wire.AdapterUpdate(message.terms, message.uploaded, change_P, 5.0, {"loss": 0.5, "images": 7})


def federated(
    folder: Path, rule: str, coding: Coding, script: Script, *, rounds: int = ROUNDS, silent: bool = False
) -> Progress:
    """A run of all sites."""
    hospital = Hospitals(SITES, steps=1, first=START, silent=silent)
    plan = toys.federation(
        folder, rounds=rounds, wanted=len(SITES), start=START, strategy=rule, upload=coding,
        max_update_norm=MAX_NORM, max_weight=MAX_WEIGHT,
    )  # fmt: skip
    return plan.run(Scripted(make_app(lambda: hospital), script, SITES))


def as_they_are(site: str, number: int, reply: Message) -> Iterable[Message]:  # noqa: ARG001 (the interface)
    """Nothing happens to the replies but the serialisation."""
    return [message_from_proto(message_to_proto(reply))]


def test_the_replies_are_valid_before_they_are_spoiled(tmp_path: Path) -> None:
    """And as many as they are said to be."""
    for rule, coding in RUNS:
        progress = federated(tmp_path / rule, rule, coding, as_they_are, rounds=2)
        assert [list(record.weights) for record in progress.history[1:]] == [list(SITES)] * 2
    assert len(RUNS) * len(HOSTILE) * ROUNDS >= 1000


@pytest.mark.parametrize(("rule", "coding"), RUNS)
def test_no_spoiled_reply_is_used_and_the_run_goes_on(
    tmp_path: Path, rule: str, coding: Coding, caplog: pytest.LogCaptureFixture
) -> None:
    """Every refusal names its check and its site, repeats little, and leaves the bits of the result alone."""
    evil = Evil(coding, random.Random(f"{rule} {coding}"))

    progress = federated(tmp_path / "among", rule, coding, evil)
    federated(tmp_path / "alone", rule, coding, as_they_are, silent=True)

    logged = set(caplog.messages)
    assert len(evil.done) == len(HOSTILE) * ROUNDS
    assert len(set(evil.done.values())) == len(CHECKS) - 1
    for record in progress.history[1:]:
        assert list(record.weights) == list(record.metrics) == ["ada", "zoe"]
        assert list(record.refused) == list(HOSTILE)
        for site, reason in record.refused.items():
            name = evil.done[record.round_number, site]
            found = REASON.match(reason)
            assert found is not None, (name, reason)
            assert found[1] in CHECKS[name], (name, reason)
            assert len(reason) <= 400, (name, reason)
            assert reason.isprintable(), (name, reason)
            assert f"round {record.round_number}: the reply of site {site} is not used: {reason}" in logged
    among, alone = ((tmp_path / name / "adapter.safetensors").read_bytes() for name in ("among", "alone"))
    assert among == alone


@pytest.mark.parametrize("name", PASSED_OVER)
def test_a_reply_that_says_more_than_it_should_is_refused(tmp_path: Path, name: str) -> None:
    """Its numbers are right, but no site's encoder writes it: there is room for a message beside the update."""

    def spoil(site: str, number: int, reply: Message) -> Iterable[Message]:
        if site in HOSTILE:
            PASSED_OVER[name](sample_of(reply.content), random.Random(site))
        return as_they_are(site, number, reply)

    progress = federated(tmp_path, "fedit", "float32", spoil, rounds=1)

    assert list(progress.history[1].weights) == ["ada", "zoe"]
