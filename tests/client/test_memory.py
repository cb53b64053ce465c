"""What a site remembers is what was there before a round, however often the round is asked for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import pytest
import torch

from client.memory import SiteMemory, memory_of

Kind = Literal["personal", "left-over"]


def tensors(value: float) -> dict[str, torch.Tensor]:
    return {"layer.lora_B.weight": torch.full((4, 2), value)}


def value_before(memory: SiteMemory, round_number: int, kind: Kind = "personal") -> float | None:
    found = memory.before(kind, round_number)
    return found["layer.lora_B.weight"][0, 0].item() if found else None


def test_nothing_is_remembered_before_the_first_round(tmp_path: Path) -> None:
    """And nothing is written for having been asked."""
    assert SiteMemory(tmp_path / "site").before("personal", 1) == {}
    assert not (tmp_path / "site").exists()


def test_a_repeated_round_finds_what_the_first_one_found(tmp_path: Path) -> None:
    """Whether it is repeated before or after it was remembered, and by another process."""
    SiteMemory(tmp_path).remember("personal", 1, tensors(1.0))
    for _ in range(3):
        memory = SiteMemory(tmp_path)
        assert value_before(memory, 2) == 1.0
        memory.remember("personal", 2, tensors(2.0))
    assert value_before(SiteMemory(tmp_path), 3) == 2.0


def test_rounds_without_this_site_change_nothing(tmp_path: Path) -> None:
    """The last one counts, however long ago it was."""
    memory = SiteMemory(tmp_path)
    memory.remember("personal", 2, tensors(2.0))
    memory.remember("personal", 9, tensors(9.0))

    assert [value_before(memory, number) for number in (2, 3, 9, 10, 500)] == [None, 2.0, 2.0, 9.0, 9.0]


def test_no_more_than_two_rounds_are_kept(tmp_path: Path) -> None:
    """The last, and the one before it; also past round 999999, where the name grows longer."""
    memory = SiteMemory(tmp_path)
    for number in (1, 2, 3, 999_999, 1_000_000):
        memory.remember("personal", number, tensors(float(number)))
        assert len(list(tmp_path.iterdir())) <= 2

    assert value_before(memory, 1_000_000) == 999_999.0


def test_a_run_that_was_set_back_forgets_its_future(tmp_path: Path) -> None:
    """From a copy of an older checkpoint: rounds 8 and 9 have not happened."""
    memory = SiteMemory(tmp_path)
    for number in (7, 8, 9):
        memory.remember("personal", number, tensors(float(number)))

    assert value_before(memory, 9) == 8.0
    memory.remember("personal", 8, tensors(80.0))
    assert value_before(memory, 9) == 80.0
    assert value_before(memory, 10) == 80.0


def test_two_kinds_do_not_disturb_each_other(tmp_path: Path) -> None:
    """Nor does a file that is neither."""
    memory = SiteMemory(tmp_path)
    memory.remember("personal", 1, tensors(1.0))
    memory.remember("left-over", 1, tensors(-1.0))
    memory.remember("left-over", 2, tensors(-2.0))
    for name in ("personal-x.safetensors", "personal-000003.safetensors.bak", ".personal-000004.safetensors.tmp"):
        (tmp_path / name).touch()

    assert value_before(memory, 9, "personal") == 1.0
    assert value_before(memory, 9, "left-over") == -2.0


@pytest.mark.parametrize("damage", [b"", b"garbage", b"\xff" * 100])
def test_what_is_damaged_is_forgotten_and_the_operator_reads_of_it(
    tmp_path: Path, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """A round must not fail for it for ever, but a factor that never leaves a site is lost with it."""
    memory = SiteMemory(tmp_path)
    memory.remember("left-over", 1, tensors(1.0))
    (tmp_path / "left-over-000001.safetensors").write_bytes(damage)

    assert memory.before("left-over", 2) == {}
    assert caplog.messages == ["what was remembered of round 1 (left-over) is damaged: this site begins anew"]
    memory.remember("left-over", 2, tensors(2.0))
    assert value_before(memory, 3, "left-over") == 2.0


def test_a_disk_that_refuses_fails_the_round_and_keeps_what_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not remembered must not be sent."""
    memory = SiteMemory(tmp_path)
    memory.remember("personal", 1, tensors(1.0))

    def full(descriptor: int) -> None:  # noqa: ARG001 (the interface)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            memory.remember("personal", 2, tensors(2.0))

    assert value_before(memory, 2) == value_before(memory, 3) == 1.0
    assert [path.name for path in tmp_path.iterdir()] == ["personal-000001.safetensors"]


def test_tensors_come_back_bit_for_bit_however_they_lie_in_memory(tmp_path: Path) -> None:
    """A transposed view too."""
    value = torch.randn(3, 5, generator=torch.Generator().manual_seed(0)).T
    SiteMemory(tmp_path).remember("left-over", 1, {"x.lora_A.weight": value})

    assert torch.equal(SiteMemory(tmp_path).before("left-over", 2)["x.lora_A.weight"], value)


def test_of_earlier_runs_only_the_last_few_are_kept(tmp_path: Path) -> None:
    """And one run knows nothing of another."""
    for index in range(12):
        memory_of(tmp_path, f"{index:016x}", "A").remember("personal", 1, {"b": torch.ones(1)})
        os.utime(tmp_path / f"{index:016x}", (index, index))

    assert memory_of(tmp_path, "f" * 16, "A").before("personal", 9) == {}
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{index:016x}" for index in range(4, 12)]


def test_a_private_round_remembers_nothing_of_rounds_with_less_privacy(tmp_path: Path) -> None:
    """Whatever name a coordinator gives the run: nothing of ordinary rounds, nor of another plan, nor the reverse."""
    kinds: tuple[Kind, ...] = ("personal", "left-over")
    memories = [memory_of(tmp_path, "a" * 16, "A", plan) for plan in ("", "per image", "per patient")]
    for value, memory in enumerate(memories):
        for kind in kinds:
            assert value_before(memory, 9, kind) is None
            memory.remember(kind, 1, tensors(float(value)))

    for kind in kinds:
        assert [value_before(memory, 9, kind) for memory in memories] == [0.0, 1.0, 2.0]
