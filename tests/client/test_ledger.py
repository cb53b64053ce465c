"""The ledger as its reader sees it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from client.ledger import EgressLedger
from client.ledger import main as read
from tests.client.sites import make_site


def test_the_table_shows_what_left_and_what_remains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Totals, epsilon in words, and what of the policy is left."""
    site = make_site(tmp_path)
    book = EgressLedger.of(site)
    book.record(
        "update", {"run": "7", "round": 1, "bytes": 1000, "signs": 50, "tensors": 2, "norm": 0.5, "epsilon": None}
    )
    book.record("refused", {"run": "7", "round": 2, "bytes": 100, "signs": 5, "reason": "not approved"})

    assert read(["--site-file", str(site.path)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "1 updates of 10 allowed, 9 left; 1,100 bytes of messages, 55 of requests" in shown
    assert "none" in shown
    assert "not anonymous" in shown
    assert read(["--site-file", str(site.path), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)["summary"]
    assert summary["runs"]["7"] == {
        "updates": 1, "bytes": 1100, "signs": 55, "withheld": 1, "epsilon": None, "last": summary["runs"]["7"]["last"],
    }  # fmt: skip


@pytest.mark.parametrize("reason", ["[/x]", "[bold red]all is well[/]", "a\x1b[2Jb", "\u202etxet"])
def test_no_reason_can_steer_or_break_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], reason: str
) -> None:
    """It is shown as it is, what is not printable written out."""
    site = make_site(tmp_path)
    EgressLedger.of(site).record("stopped", {"run": "7", "round": 1, "reason": reason})

    assert read(["--site-file", str(site.path)]) == 0
    shown = capsys.readouterr().out
    assert "[/" in shown or "x1b" in shown or "u202e" in shown
    assert not [sign for sign in shown if not (sign.isprintable() or sign == "\n")]


def test_an_altered_ledger_is_told_with_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And nothing of it is shown as if it were true."""
    site = make_site(tmp_path)
    book = EgressLedger.of(site)
    for number in range(3):
        book.record("update", {"run": "7", "round": number})
    book.chain.path.write_bytes(book.chain.path.read_bytes().replace(b'"round":1', b'"round":9'))

    assert read(["--site-file", str(site.path)]) == 1
    printed = capsys.readouterr()
    assert "line=2 was altered" in printed.err
    assert printed.out == ""
