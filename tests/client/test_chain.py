"""The hash-chained file: nothing is changed, removed or added unnoticed, and a crash costs nothing."""

from __future__ import annotations

import json
import multiprocessing
import resource
import signal
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccfexp.errors import LedgerError
from client.chain import Chain, Draft, Entry

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


def written(folder: Path, entries: int = 4) -> Chain:
    """A chain with entries."""
    chain = Chain(folder / "egress.jsonl", lambda: NOON)
    for number in range(entries):
        chain.append("update", {"round": number, "norm": 0.5})
    return chain


def test_entries_come_back_in_order(tmp_path: Path) -> None:
    """Numbers, times, kinds and facts are those that were written."""
    entries = written(tmp_path).entries()

    assert [entry.number for entry in entries] == [1, 2, 3, 4]
    assert [entry.facts["round"] for entry in entries] == [0, 1, 2, 3]
    assert {entry.time for entry in entries} == {"2026-01-02T12:00:00.000+00:00"}
    assert Chain(tmp_path / "none.jsonl").entries() == []


def test_only_the_owner_may_read_it(tmp_path: Path) -> None:
    """A ledger is nobody else's business."""
    assert written(tmp_path).path.stat().st_mode & 0o077 == 0


@settings(max_examples=150, deadline=None)
@given(position=st.integers(0, 10_000), value=st.integers(0, 255))
def test_any_changed_byte_is_found(tmp_path_factory: pytest.TempPathFactory, position: int, value: int) -> None:
    """Wherever it is, whatever it becomes."""
    chain = written(tmp_path_factory.mktemp("chain"), 3)
    content = bytearray(chain.path.read_bytes())
    position %= len(content)
    if content[position] == value:
        return
    content[position] = value
    chain.path.write_bytes(bytes(content))

    with pytest.raises(LedgerError):
        chain.entries()


@pytest.mark.parametrize("lines", [[0, 1, 2], [1, 2, 3], [0, 2, 3], [0, 2, 1, 3], [0, 1, 1, 2, 3], [0, 1, 2, 3, 3], []])
def test_lines_removed_moved_or_repeated_are_found(tmp_path: Path, lines: list[int]) -> None:
    """Also at the end, where the head counts; reading and writing refuse alike."""
    chain = written(tmp_path)
    before = chain.path.read_bytes().splitlines(keepends=True)
    chain.path.write_bytes(b"".join(before[line] for line in lines))

    with pytest.raises(LedgerError):
        chain.entries()
    with pytest.raises(LedgerError):
        chain.append("update", {})


def test_a_file_made_anew_is_found(tmp_path: Path) -> None:
    """Deleting the ledger, or replacing it by a shorter one that is right in itself."""
    chain = written(tmp_path)
    other = written(tmp_path / "other", 2)
    chain.path.write_bytes(other.path.read_bytes())
    with pytest.raises(LedgerError, match="head counts 4"):
        chain.entries()
    chain.path.unlink()
    with pytest.raises(LedgerError, match="missing"):
        chain.entries()


def test_a_line_that_was_rewritten_with_its_hash_is_found(tmp_path: Path) -> None:
    """A forger who recomputes the hash of one line breaks the link to the next."""
    chain = written(tmp_path)
    forged = Chain(tmp_path / "forged.jsonl", lambda: NOON)
    for number in (0, 9, 2, 3):
        forged.append("update", {"round": number, "norm": 0.5})
    lines = chain.path.read_bytes().splitlines(keepends=True)
    lines[1] = forged.path.read_bytes().splitlines(keepends=True)[1]
    chain.path.write_bytes(b"".join(lines))

    with pytest.raises(LedgerError, match="line=3"):
        chain.entries()


def test_a_crash_before_the_head_leaves_one_line_more(tmp_path: Path) -> None:
    """The line counts, and the next one follows it."""
    chain = written(tmp_path, 3)
    head = chain.path.with_name("egress.jsonl.head").read_bytes()
    chain.append("update", {"round": 3})
    chain.path.with_name("egress.jsonl.head").write_bytes(head)

    assert len(chain.entries()) == 4
    assert chain.append("update", {"round": 4}).number == 5
    assert len(chain.entries()) == 5


def test_two_crashes_before_the_head_leave_a_chain_that_is_whole(tmp_path: Path) -> None:
    """The head is told of the first one's line before the second one's is written."""
    chain = written(tmp_path, 3)
    head = chain.path.with_name("egress.jsonl.head")
    before = head.read_bytes()
    chain.append("update", {"round": 3})
    head.write_bytes(before)
    with pytest.raises(ValueError, match="crash"):
        chain.append_decided(_crash)
    before = head.read_bytes()
    chain.append("update", {"round": 4})
    head.write_bytes(before)

    assert [entry.facts["round"] for entry in chain.entries()] == [0, 1, 2, 3, 4]


def _crash(_: Sequence[Entry]) -> list[Draft]:
    raise ValueError("crash")


def test_what_is_decided_is_added_together(tmp_path: Path) -> None:
    """From the entries so far, in order; what is refused leaves all as it was."""
    chain = written(tmp_path, 2)
    added = chain.append_decided(lambda entries: [("a", {"seen": len(entries)}), ("b", {})])
    before = chain.path.read_bytes()

    assert [(entry.number, entry.kind) for entry in added] == [(3, "a"), (4, "b")]
    assert chain.entries()[2].facts == {"seen": 2}
    assert chain.entries()[2:] == added
    assert chain.append_decided(lambda _: []) == []
    with pytest.raises(ValueError, match="crash"):
        chain.append_decided(_crash)
    assert chain.path.read_bytes() == before


def test_half_a_line_is_cut_off_by_the_next(tmp_path: Path) -> None:
    """A power cut in the middle of a line: what it was to tell of has not happened."""
    chain = written(tmp_path, 2)
    with chain.path.open("ab") as file:
        file.write(b'{"facts":{"round"')

    assert len(chain.entries()) == 2
    assert chain.append("update", {"round": 2}).number == 3
    assert [entry.facts["round"] for entry in chain.entries()] == [0, 1, 2]


def _append_many(path: str, count: int) -> None:
    for number in range(count):
        Chain(Path(path)).append("update", {"round": number})


def test_processes_take_turns(tmp_path: Path) -> None:
    """Three writers at once: every entry is there, and the chain is whole."""
    context = multiprocessing.get_context("spawn")
    path = str(tmp_path / "egress.jsonl")
    writers = [context.Process(target=_append_many, args=(path, 20)) for _ in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()

    assert [entry.number for entry in Chain(Path(path)).entries()] == list(range(1, 61))


def _fill_up(path: str, answers: multiprocessing.Queue[str]) -> None:
    chain = written(Path(path), 2)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (chain.path.stat().st_size + 40, resource.RLIM_INFINITY))
    try:
        chain.append("update", {"round": 2, "much": "x" * 200})
    except LedgerError as error:
        answers.put(str(error))
    else:
        answers.put("written")


def test_a_full_disk_refuses_and_leaves_what_was_there(tmp_path: Path) -> None:
    """No half line, no entry, a clear reason; with room again it goes on."""
    context = multiprocessing.get_context("spawn")
    answers: multiprocessing.Queue[str] = context.Queue()
    process = context.Process(target=_fill_up, args=(str(tmp_path), answers))
    process.start()
    reason = answers.get(timeout=60)
    process.join()

    assert "cannot be written" in reason
    chain = Chain(tmp_path / "egress.jsonl")
    assert len(chain.entries()) == 2
    assert chain.path.read_bytes().endswith(b"\n")
    assert chain.append("update", {}).number == 3


def test_lines_are_plain_json(tmp_path: Path) -> None:
    """An auditor needs no program of ours to read them."""
    lines = written(tmp_path).path.read_text().splitlines()

    assert [json.loads(line)["kind"] for line in lines] == ["update"] * 4
