"""What a hospital says: an update, its name, or an error that gives nothing away."""

from __future__ import annotations

import logging
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from flwr.app import Array, ArrayRecord, Context, Message, MessageType, RecordDict

from ccfexp.errors import ManifestError
from client.app import FAILED, REFUSED, RequestRefusedError, make_app
from simulation.grid import LocalGrid
from strategies import wire
from tests import toys

if TYPE_CHECKING:
    from pathlib import Path

    from client.app import Trainer


def ask(hospital: Trainer, kind: str, records: RecordDict) -> Message:
    """One message to the first site through the in-process grid."""
    grid = LocalGrid(make_app(lambda: hospital), 3)
    (node, *_) = grid.get_node_ids()
    (reply,) = grid.send_and_receive([Message(records, node, kind)])
    return reply


def request(tmp_path: Path) -> RecordDict:
    """A sound message."""
    terms = toys.federation(tmp_path).terms
    return wire.encode_message(wire.AdapterMessage.of(terms, toys.initial(), "{}"))


class Secretive(toys.ToyHospital):
    """Fails with a text that names a patient's file."""

    def site(self, context: Context) -> str:  # noqa: ARG002 (the interface)
        """Fail for a partition that does not exist here."""
        raise KeyError("/data/patients/P0017")


class Unusable(toys.ToyHospital):
    """Has a manifest with a bad row."""

    def train(self, site: str, message: wire.AdapterMessage) -> wire.AdapterUpdate:  # noqa: ARG002 (the interface)
        """Refuse the data."""
        raise ManifestError("The manifest has 1 problem(s):", ["row 2: image is missing"])


class Strict(toys.ToyHospital):
    """Refuses every message."""

    def train(self, site: str, message: wire.AdapterMessage) -> wire.AdapterUpdate:  # noqa: ARG002 (the interface)
        """Refuse."""
        raise RequestRefusedError("base_sha256=bbbbbbbbbbbb of the message is not this site's cccccccccccc")


def test_a_query_is_answered_with_the_public_name() -> None:
    """And with nothing else."""
    reply = ask(toys.ToyHospital(), MessageType.QUERY, RecordDict())

    assert wire.decode_hello(reply.content) == wire.SiteHello("north", 256)
    assert set(reply.content.config_records["terms"]) == {"protocol", "site", "max_rank"}


def test_an_update_answers_a_message(tmp_path: Path) -> None:
    """With the terms that were sent."""
    reply = ask(toys.ToyHospital(), MessageType.TRAIN, request(tmp_path))
    sent = wire.decode_message(request(tmp_path))

    update = wire.decode_update(reply.content, wire.UpdateBounds(sent, 100.0, 100.0))

    assert update.terms == sent.terms
    assert set(update.metrics) == {"loss", "steps"}


def test_a_message_that_cannot_be_used_is_refused_with_its_reason(tmp_path: Path) -> None:
    """The coordinator learns what was wrong with what it sent."""
    records = request(tmp_path)
    records["adapter"] = ArrayRecord({"flat": Array("float32", (24,), "numpy.ndarray", b"no array")})

    damaged = ask(toys.ToyHospital(), MessageType.TRAIN, records)
    other_base = ask(Strict(), MessageType.TRAIN, request(tmp_path))

    assert (damaged.error.code, "wire check 'bytes' failed" in str(damaged.error.reason)) == (REFUSED, True)
    assert (other_base.error.code, str(other_base.error.reason)[:11]) == (REFUSED, "base_sha256")


@pytest.mark.parametrize("kind", [MessageType.QUERY, MessageType.TRAIN])
def test_a_failure_gives_nothing_away(tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """Neither to the coordinator nor to the log."""
    with caplog.at_level(logging.DEBUG):
        reply = ask(Secretive(), kind, request(tmp_path))

    assert reply.error.code == FAILED
    assert str(reply.error.reason).startswith("KeyError at the site")
    assert "P0017" not in str(reply.error.reason) + caplog.text
    assert "KeyError in site" in caplog.text


def test_the_operator_reads_which_rows_to_mend_and_the_coordinator_does_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The errors of this project hold nothing secret, but what is wrong with a site's data stays at the site."""
    reply = ask(Unusable(), MessageType.TRAIN, request(tmp_path))

    assert "row 2: image is missing" in caplog.text
    assert str(reply.error.reason).startswith("ManifestError at the site")
    assert "row 2" not in str(reply.error.reason)


@pytest.mark.slow
@pytest.mark.parametrize("module", ["client.app", "server.app"])
def test_importing_an_app_loads_no_model(module: str) -> None:
    """The module-level app is there, and what it needs comes with the first message."""
    code = f"import sys, {module} as m; assert m.app is not None; assert 'ccfexp.model' not in sys.modules"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert (finished.returncode, finished.stderr) == (0, "")
