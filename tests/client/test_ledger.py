"""The ledger as its reader sees it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from ccfexp.privacy.accounting import epsilon
from client.ledger import EgressLedger
from client.ledger import main as read
from client.shown import rounded_up
from client.site import Site
from tests.client.rounds import PLAN, STEPS, cost
from tests.client.sites import make_site
from tests.client.spender import SUBJECTS, budget


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


def paid(site: Site) -> None:
    """Two runs of two private rounds and of one, and one update without differential privacy."""
    book = EgressLedger.of(site)
    book.record("update", {"run": "7", "round": 1, "bytes": 1000, "tensors": 2, "norm": 0.5, "epsilon": None})
    for run in ("a" * 16, "a" * 16, "b" * 16):
        receipt = budget(site.work).reserve(cost(run), SUBJECTS, max_epsilon=8.0, delta=1e-4)
        facts = {"run": "8", "round": 1, "bytes": 1_234_567, "tensors": 2, "norm": 0.5, "epsilon": receipt.epsilon_run}
        book.record("update", facts | receipt.witness)


def test_spending_is_shown_by_run_and_what_remains(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a narrow terminal too; whose epsilon it is, and what it does not cover, stands beside it."""
    monkeypatch.setenv("COLUMNS", "80")
    site = make_site(tmp_path, policy={"max_epsilon": 8.0, "delta": 1e-4})
    paid(site)
    spent = PLAN.spent(STEPS)
    total, run = epsilon([spent] * 3, 1e-4), epsilon([spent] * 2, 1e-3)

    assert read(["--site-file", str(site.path)]) == 0
    shown = capsys.readouterr().out
    lines, words = shown.splitlines(), " ".join(shown.split())
    assert max(map(len, lines)) <= 80
    assert [line.split()[1:4] for line in lines if "a" * 16 in line] == [["2", "32", rounded_up(run)]]
    assert [line.split()[1:4] for line in lines if "b" * 16 in line] == [["1", "16", "2.479"]]
    assert "1,234,567" in words
    assert (
        f"epsilon={rounded_up(total)} at delta=0.0001 by 3 rounds; {math.floor((8 - total) * 1000) / 1000} of 8 left"
        in words
    )
    assert "add or remove one patient; never less than it is if patients are sampled and noise is drawn as the" in words
    assert "Updates that this does not cover: 1." in words

    assert read(["--site-file", str(site.path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    (privacy,) = told["privacy"]
    assert (privacy["data_set"], privacy["unit"], privacy["max_epsilon"]) == ("patients", "patient", 8.0)
    assert (privacy["epsilon"], privacy["remaining"], privacy["uncovered"]) == (total, 8.0 - total, 1)
    assert privacy["runs"]["a" * 16]["epsilon"] == run
    assert (told["summary"]["runs"]["7"]["epsilon"], told["summary"]["runs"]["8"]["epsilon"]) == (None, run)


def test_a_privacy_ledger_that_lacks_rounds_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And nothing is shown as if it were true."""
    site = make_site(tmp_path)
    paid(site)
    for path in site.work.glob("privacy-*"):
        path.unlink()

    assert read(["--site-file", str(site.path)]) == 1
    printed = capsys.readouterr()
    assert "lacks rounds=3 of the 3" in printed.err
    assert printed.out == ""


def test_a_cost_is_never_shown_as_less() -> None:
    """Not by rounding."""
    assert rounded_up(0.0) == "0"
    assert rounded_up(2.0001) == "2.001"
    assert rounded_up(12345.6781) == "12345.679"
    assert rounded_up(math.inf) == "beyond any figure"


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
