"""A whole federation through the real ServerApp, ClientApp and in-process grid."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MessageType, RecordDict

from ccfexp.errors import CheckpointError, ConfigError, RoundError
from client.app import make_app
from server import checkpoint
from server.exchange import Envelope, Patience, exchange
from server.federation import Answer, Hooks
from simulation.engines import run_apps
from simulation.grid import LocalGrid
from strategies import wire
from strategies.packing import pack
from tests import toys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from flwr.app import Message


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def final_bytes(out_dir: Path) -> bytes:
    """What a run leaves as its result."""
    return (out_dir / "adapter.safetensors").read_bytes()


def test_the_adapter_is_the_weighted_mean_of_what_the_sites_trained(tmp_path: Path) -> None:
    """One round against numpy's average of the same sites trained by hand."""
    progress = run_apps(toys.federation(tmp_path, rounds=1), toys.toy_app(), 3)

    terms = toys.federation(tmp_path).terms
    hospital = toys.ToyHospital()
    trained = [hospital.train(site, wire.AdapterMessage.of(terms, toys.initial(), "{}")) for site in toys.SITES]
    start_P = pack(toys.initial())[1]
    expected_P = start_P + np.average([update.change_P for update in trained], axis=0, weights=[1, 2, 3])
    np.testing.assert_allclose(pack(progress.adapter)[1], expected_P, rtol=1e-6, atol=1e-7)
    assert progress.history[1].weights == {"north": 1.0, "south": 2.0, "west": 3.0}


def test_training_lowers_the_loss_and_the_same_run_gives_the_same_bits(tmp_path: Path) -> None:
    """Determinism, and that rounds follow one another."""
    progress = run_apps(toys.federation(tmp_path / "one", rounds=30), toys.toy_app(), 3)
    run_apps(toys.federation(tmp_path / "two", rounds=30), toys.toy_app(), 3)

    losses = [record.means()["loss"] for record in progress.history[1:]]
    assert losses[-1] < 0.7 * losses[0]
    assert [record.round_number for record in progress.history] == list(range(31))
    assert final_bytes(tmp_path / "one") == final_bytes(tmp_path / "two")


def nan(records: RecordDict) -> None:
    """One value that is not a number."""
    toys.write_changes(records, np.where(np.arange(24) == 3, np.nan, 0.1))


def wrong_shape(records: RecordDict) -> None:
    """One number too few."""
    toys.write_changes(records, np.zeros(23))


def garbage(records: RecordDict) -> None:
    """Bytes that nothing can read."""
    records["adapter"] = ArrayRecord({"flat": Array("uint8", (24,), "numpy.ndarray", b"\x93NUMPYgarbage")})


def negative_weight(records: RecordDict) -> None:
    """A weight that would turn a site's training against it."""
    records["terms"] = ConfigRecord({**records.config_records["terms"], "weight": -5.0})


def old_round(records: RecordDict) -> None:
    """An answer to another round."""
    records["terms"] = ConfigRecord({**records.config_records["terms"], "round_number": 1})


def huge(records: RecordDict) -> None:
    """An update far away from what was sent."""
    toys.write_changes(records, np.full(24, 1e6))


@pytest.mark.parametrize(
    ("spoil", "check"),
    [
        (nan, "finite"),
        (wrong_shape, "length"),
        (garbage, "bytes"),
        (negative_weight, "weight"),
        (old_round, "round"),
        (huge, "norm"),
        (RecordDict.clear, "records"),
    ],
)
def test_a_bad_reply_is_recorded_and_the_round_goes_on_without_it(
    tmp_path: Path, spoil: Callable[[RecordDict], None], check: str
) -> None:
    """The other sites' mean is what it would have been had the site not been there."""
    app = toys.spoiled(toys.toy_app(), 1, {2}, spoil)
    heard: list[Answer] = []

    progress = run_apps(toys.federation(tmp_path, hooks=Hooks(on_reply=heard.append)), app, 3)

    assert list(progress.history[2].refused) == ["south"]
    assert f"check '{check}'" in progress.history[2].refused["south"]
    assert list(progress.history[2].weights) == ["north", "west"]
    assert list(progress.history[3].weights) == list(toys.SITES)
    assert all(torch.isfinite(tensor).all() for tensor in progress.adapter.values())
    assert [(answer.round_number, answer.site) for answer in heard if answer.refused] == [(2, "south")]
    assert len(heard) == 9


class FailingHospital(toys.ToyHospital):
    """Fails at one site in some rounds, with a text that must not leave."""

    def __init__(self, site: str, rounds: set[int]) -> None:
        """Name the site and the rounds."""
        super().__init__()
        self._failing = (site, rounds)

    def train(self, site: str, message: wire.AdapterMessage) -> wire.AdapterUpdate:
        """Fail, or train as usual."""
        if site == self._failing[0] and message.terms.round_number in self._failing[1]:
            raise OSError("/data/patients/P0017/rest.png is unreadable")
        return super().train(site, message)


def test_a_failing_site_says_only_what_kind_of_failure_it_was(tmp_path: Path) -> None:
    """No path and no identifier in the reply, the record or the files of the run."""
    progress = run_apps(toys.federation(tmp_path), toys.toy_app(FailingHospital("west", {1, 2})), 3)

    assert "OSError" in progress.history[1].refused["west"]
    assert "error=102" in progress.history[1].refused["west"]
    assert "P0017" not in (tmp_path / "checkpoint" / "state.json").read_text()
    assert list(progress.history[3].weights) == list(toys.SITES)


def test_too_few_sites_fail_the_round_and_the_same_call_goes_on(tmp_path: Path) -> None:
    """The rounds before the failure are kept, and the end is the same as without the failure."""
    broken = toys.toy_app(FailingHospital("west", {3}))
    with pytest.raises(RoundError, match=r"round 3: usable updates=2, need at least 3 \(west: .*OSError.*same command"):
        run_apps(toys.federation(tmp_path / "a", rounds=4, min_sites=3), broken, 3)
    hospital = toys.ToyHospital()
    run_apps(toys.federation(tmp_path / "a", rounds=4, min_sites=3), toys.toy_app(hospital), 3)
    run_apps(toys.federation(tmp_path / "b", rounds=4, min_sites=3), toys.toy_app(), 3)

    assert {number for _, number in hospital.calls} == {3, 4}
    assert final_bytes(tmp_path / "a") == final_bytes(tmp_path / "b")


def test_a_missing_site_is_waited_for_only_so_long(tmp_path: Path) -> None:
    """With enough sites the run goes on, with too few it says how many came."""
    progress = run_apps(toys.federation(tmp_path / "enough", wanted=4, rounds=1), toys.toy_app(), 3)
    assert list(progress.history[1].weights) == list(toys.SITES)

    with pytest.raises(RoundError, match="sites=1 connected after 0 s, need at least 2"):
        run_apps(toys.federation(tmp_path / "few"), toys.toy_app(), 1)


def test_two_nodes_with_one_name_are_both_left_out(tmp_path: Path) -> None:
    """Nobody can say which of the two is the hospital."""
    app = toys.toy_app(toys.ToyHospital(("north", "south", "north", "west")))

    progress = run_apps(toys.federation(tmp_path, rounds=1), app, 4)

    assert list(progress.history[1].weights) == ["south", "west"]


def test_a_reply_is_used_once(tmp_path: Path) -> None:
    """A grid that delivers every reply twice changes nothing."""

    class Stutter(LocalGrid):
        def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
            return [reply for reply in super().pull_messages(message_ids) for _ in range(2)]

    stuttered = toys.federation(tmp_path / "twice").run(Stutter(toys.toy_app(), 3))
    once = run_apps(toys.federation(tmp_path / "once"), toys.toy_app(), 3)

    assert pack(stuttered.adapter)[1].tobytes() == pack(once.adapter)[1].tobytes()


@pytest.mark.parametrize("instant", range(1, 40, 3))
def test_a_crash_at_any_write_loses_at_most_the_current_round(
    tmp_path: Path, instant: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every file operation of a checkpoint fails once; the same call then ends in the uninterrupted run's bits."""
    count = 0
    real_fsync = os.fsync

    def failing_fsync(descriptor: int) -> None:
        nonlocal count
        count += 1
        if count == instant:
            raise OSError(28, "No space left on device")
        real_fsync(descriptor)

    undisturbed = run_apps(toys.federation(tmp_path / "whole"), toys.toy_app(), 3)
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", failing_fsync)
        try:
            run_apps(toys.federation(tmp_path / "cut"), toys.toy_app(), 3)
            interrupted = False
        except (CheckpointError, OSError):
            interrupted = True
    resumed = run_apps(toys.federation(tmp_path / "cut"), toys.toy_app(), 3)

    assert interrupted == (count >= instant)
    assert final_bytes(tmp_path / "cut") == final_bytes(tmp_path / "whole")
    assert len(resumed.history) == len(undisturbed.history)
    assert len(list((tmp_path / "cut" / "checkpoint").iterdir())) == 2


def test_resuming_with_another_configuration_is_refused(tmp_path: Path) -> None:
    """Nothing in the folder changes."""
    run_apps(toys.federation(tmp_path, rounds=1), toys.toy_app(), 3)
    before = final_bytes(tmp_path)

    with pytest.raises(ConfigError, match=r"config_sha256=aaaaaaaaaaaa, now it is cccccccccccc; run with"):
        run_apps(toys.federation(tmp_path, rounds=1, config_sha256="c" * 64), toys.toy_app(), 3)
    assert final_bytes(tmp_path) == before


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    """A flipped bit in the adapter, and a state that is no JSON."""
    run_apps(toys.federation(tmp_path, rounds=1), toys.toy_app(), 3)
    path = tmp_path / "checkpoint" / "adapter-0001.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(CheckpointError, match=r"adapter-0001.safetensors has sha256="):
        run_apps(toys.federation(tmp_path, rounds=1), toys.toy_app(), 3)

    (tmp_path / "checkpoint" / "state.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"state.json cannot be used \(JSONDecodeError\)"):
        run_apps(toys.federation(tmp_path, rounds=1), toys.toy_app(), 3)

    (tmp_path / "checkpoint" / "state.json").write_text("[]")
    with pytest.raises(CheckpointError, match=r"state.json cannot be used"):
        run_apps(toys.federation(tmp_path, rounds=1), toys.toy_app(), 3)


def test_the_hook_sees_every_adapter_once_and_its_numbers_are_kept(tmp_path: Path) -> None:
    """Round 0 is the adapter before training; a resumed run does not measure again."""
    seen: list[tuple[int, dict[str, float]]] = []

    def measure(number: int, adapter: dict[str, torch.Tensor], means: dict[str, float]) -> dict[str, float]:
        seen.append((number, means))
        return {"size": float(adapter[toys.B].abs().sum())}

    progress = run_apps(toys.federation(tmp_path, hooks=Hooks(on_round=measure)), toys.toy_app(), 3)
    run_apps(toys.federation(tmp_path, hooks=Hooks(on_round=measure)), toys.toy_app(), 3)

    state = json.loads((tmp_path / "checkpoint" / "state.json").read_text())
    assert [number for number, _ in seen] == [0, 1, 2, 3]
    assert seen[1][1].keys() == {"sites", "refused", "loss", "steps"}
    assert progress.history[0].evaluation == {"size": 0.0}
    assert state["history"][3]["evaluation"]["size"] > 0


class Deaf(LocalGrid):
    """Takes messages and never answers."""

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:  # noqa: ARG002 (the interface)
        """Nothing."""
        return []


def test_a_stopped_run_ends_while_it_waits(tmp_path: Path) -> None:
    """The bell that the parallel engine rings when its runtime ends."""
    plan = toys.federation(tmp_path, wait_s=60.0)
    plan.patience.stop.set()

    with pytest.raises(RoundError, match="stopped"):
        plan.run(Deaf(toys.toy_app(), 3))


def test_a_late_reply_is_a_missing_one() -> None:
    """A grid that never answers: the wait ends with the timeout and says so."""
    grid = Deaf(toys.toy_app(), 1)
    replies = list(exchange(grid, [Envelope("a", 1001, RecordDict())], MessageType.QUERY, "", Patience(0.05, 0.01)))

    assert replies == [("a", None)]


def test_a_hundred_sites_need_no_more_memory_than_ten(tmp_path: Path) -> None:
    """Adapters of 1 MB: a hundred kept at once would be 100 MB."""

    class WideHospital(toys.ToyHospital):
        def train(self, site: str, message: wire.AdapterMessage) -> wire.AdapterUpdate:  # noqa: ARG002
            state = {name: tensor + 0.01 for name, tensor in message.state().items()}
            peak.append(resident())
            return wire.AdapterUpdate.of(message.terms, state, 1.0, {"loss": 0.0})

    peak: list[int] = []
    start = {toys.A: torch.zeros(2, 60_000), toys.B: torch.zeros(60_000, 2)}
    for sites, folder in ((10, "ten"), (100, "hundred")):
        hospital = WideHospital(tuple(f"site-{index:03d}" for index in range(sites)))
        plan = toys.federation(tmp_path / folder, rounds=2, wanted=sites, start=start)
        run_apps(plan, make_app(lambda bench=hospital: bench), sites)  # type: ignore[misc]

    ten, hundred = max(peak[:20]), max(peak[20:])
    assert len(peak) == 220
    assert hundred - ten < 25 * 2**20


def test_the_files_of_a_run_hold_public_things_only(tmp_path: Path) -> None:
    """Names of sites, weights, losses: and no path of this machine."""
    run_apps(toys.federation(tmp_path), toys.toy_app(), 3)

    text = (tmp_path / "checkpoint" / "state.json").read_text()
    assert re.search(str(tmp_path), text) is None
    assert set(json.loads(text)["history"][1]) == {
        "round_number", "seconds", "weights", "metrics", "refused", "received_bytes", "evaluation",
        "sent_bytes", "ranks", "bias",
    }  # fmt: skip
    assert checkpoint.RoundRecord(**json.loads(text)["history"][1]).means()["sites"] == 3.0
