"""The journal: whole lines, public words, and only what is new."""

from __future__ import annotations

import json
from pathlib import Path

from ccfexp.errors import RoundError
from server.checkpoint import RoundRecord
from server.federation import Answer
from server.journal import Journal, Reader


def test_what_is_written_is_read_once(tmp_path: Path) -> None:
    path = tmp_path / "run" / "progress.jsonl"
    reader = Reader(path)
    journal = Journal(path, 7)

    assert list(reader.events()) == []
    journal.started(config_sha256="a" * 64, rounds=2, after=0)
    journal.site(Answer(1, "A", None, 1.5, 4000, {"loss": 0.25}))
    assert [event["kind"] for event in reader.events()] == ["started", "site"]
    journal.round(RoundRecord(1, 2.0, {"A": 3.0}, {"A": {"loss": 0.25}}, {"B": "too late"}))
    journal.finished(1)

    last_round, finished = reader.events()
    assert (last_round["sites"], last_round["refused"], last_round["loss"]) == (["A"], {"B": "too late"}, 0.25)
    assert (finished["kind"], finished["run_id"]) == ("finished", 7)
    assert list(reader.events()) == []


def test_half_a_line_waits_for_its_end(tmp_path: Path) -> None:
    path = tmp_path / "progress.jsonl"
    reader = Reader(path)
    line = json.dumps({"kind": "finished", "run_id": 1}) + "\n"

    path.write_text(line[:10])
    assert list(reader.events()) == []
    path.write_text(line)
    assert len(list(reader.events())) == 1


def test_a_damaged_line_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "progress.jsonl"
    path.write_text('{"kind": "star\n[1]\n{"kind": "finished"}\n')

    assert list(Reader(path).events()) == [{"kind": "finished"}]


def test_only_our_own_errors_are_quoted(tmp_path: Path) -> None:
    path = tmp_path / "progress.jsonl"
    journal = Journal(path, 1)

    journal.failed(RoundError("round 1: usable updates=1, need at least 2"))
    journal.failed(FileNotFoundError("/secret/place"))

    ours, other = Reader(path).events()
    assert ours["reason"].startswith("round 1")
    assert other["error"] == "FileNotFoundError"
    assert "secret" not in path.read_text()
