"""Who is waited for, whose reply is used, and how much it counts."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Message, RecordDict

from ccfexp.adapter import AdapterState
from ccfexp.errors import RoundError
from client.app import make_app
from server.checkpoint import Progress, RoundRecord
from server.federation import Answer, Hooks
from server.round import Round
from server.shelf import Shelf
from server.standing import Messages, state_of
from simulation.grid import LocalGrid
from strategies import registry, wire
from strategies.options import CombineOptions
from strategies.packing import pack
from tests import toys
from tests.server.grids import Scripted, Slow


def run(folder: Path, grid: LocalGrid, **options: Any) -> Progress:  # noqa: ANN401 (of the federation)
    """A federation on a grid."""
    return toys.federation(folder, **options).run(grid)


def final_bytes(folder: Path) -> bytes:
    return (folder / "adapter.safetensors").read_bytes()


def dropping(*lost: tuple[str, int]) -> Scripted:
    """A network that loses the replies of some sites in some rounds."""

    def script(site: str, number: int, reply: Message) -> Iterable[Message]:
        return [] if (site, number) in lost else [reply]

    return Scripted(toys.toy_app(), script)


# --- the wait ---------------------------------------------------------------------------------------------------------


def test_a_site_that_never_answers_is_recorded_and_left_out_at_the_deadline(tmp_path: Path) -> None:
    """In that round, and in no other."""
    heard: list[Answer] = []

    progress = run(tmp_path, dropping(("south", 2)), timeout_s=0.4, hooks=Hooks(on_reply=heard.append))

    record = progress.history[2]
    assert list(record.weights) == list(record.metrics) == ["north", "west"]
    assert record.refused == {
        "south": "wire check 'reply' failed: reply=None, expected one in time; the site is offline or too slow"
    }
    assert record.received_bytes["south"] == 0 < record.sent_bytes["south"] == record.sent_bytes["north"]
    assert 0.4 <= record.seconds < 5.0
    assert [list(progress.history[number].weights) for number in (1, 3)] == [list(toys.SITES)] * 2
    assert [answer.site for answer in heard if answer.refused] == ["south"]


def test_too_few_answers_at_the_deadline_fail_the_round(tmp_path: Path) -> None:
    """And the same call goes on before it."""
    with pytest.raises(
        RoundError, match=r"round 2: usable updates=1, need at least 2 \(south: .*west: .* after round 1"
    ):
        run(tmp_path / "a", dropping(("south", 2), ("west", 2)), timeout_s=0.2)
    run(tmp_path / "a", LocalGrid(toys.toy_app(), 3))
    run(tmp_path / "b", LocalGrid(toys.toy_app(), 3))

    assert final_bytes(tmp_path / "a") == final_bytes(tmp_path / "b")


def test_when_enough_have_answered_the_others_have_the_grace_and_no_more(tmp_path: Path) -> None:
    """West would be waited for a minute."""
    grid = Slow(toys.toy_app(), {"south": 0.3, "west": 30.0})
    began = time.monotonic()

    progress = run(tmp_path, grid, rounds=1, grace_s=0.3)

    assert list(progress.history[1].weights) == ["north", "south"]
    assert "too slow" in progress.history[1].refused["west"]
    assert 0.6 <= time.monotonic() - began < 10.0


def test_who_answers_within_the_grace_is_used(tmp_path: Path) -> None:
    grid = Slow(toys.toy_app(), {"west": 0.3})

    assert list(run(tmp_path, grid, rounds=1, grace_s=20.0).history[1].weights) == list(toys.SITES)


def test_a_reply_that_is_refused_does_not_end_the_wait(tmp_path: Path) -> None:
    """Else one site that answers nonsense at once keeps every slower one out, and fails the round."""
    spoiled = toys.spoiled(toys.toy_app(), 0, {1}, RecordDict.clear)
    grid = Slow(spoiled, {"west": 0.5})

    progress = run(tmp_path, grid, rounds=1, grace_s=0.05)

    assert list(progress.history[1].weights) == ["south", "west"]


def test_sites_that_queue_for_one_machine_have_no_grace(tmp_path: Path) -> None:
    """In a simulation nobody is slow: the last site has not begun when enough have answered."""
    plan = toys.federation(tmp_path, rounds=1, grace_s=0.01)
    plan = replace(plan, patience=replace(plan.patience, timeout_s=math.inf))

    progress = plan.run(Slow(toys.toy_app(), {"south": 0.2, "west": 0.4}))

    assert list(progress.history[1].weights) == list(toys.SITES)


@pytest.mark.parametrize(("share", "enough"), [(0.0, True), (0.66, True), (0.67, False), (1.0, False)])
def test_a_share_of_the_sites_that_were_asked_must_be_usable(tmp_path: Path, share: float, enough: bool) -> None:
    """Two of three are."""
    grid = dropping(("south", 1))
    options = {"rounds": 1, "timeout_s": 0.1, "min_fraction": share, "min_sites": 1}

    if enough:
        assert len(run(tmp_path, grid, **options).history[1].weights) == 2
    else:
        with pytest.raises(RoundError, match="usable updates=2, need at least 3"):
            run(tmp_path, grid, **options)


def a_round(tmp_path: Path, **options: Any) -> Round:  # noqa: ANN401 (of the configuration)
    """Round 1 of the toy, before anybody is asked."""
    plan = toys.federation(tmp_path, **options)
    roles = registry.make("fedit").roles(1)
    messages = Messages(state_of(Progress(0, plan.initial, ()), 1.0), plan.terms, roles, "{}", keep_tail=False)
    return Round(plan.config, messages, RoundRecord(1, 0.0), plan.patience, Shelf(tmp_path / "waiting"), gather=False)


@pytest.mark.parametrize(
    ("share", "asked", "needed"), [(0.55, 100, 55), (0.07, 100, 7), (0.5, 5, 3), (0.1, 5, 2), (1.0, 7, 7), (0.34, 3, 2)]
)
def test_a_share_of_whole_sites_is_not_rounded_up_to_one_more(
    tmp_path: Path, share: float, asked: int, needed: int
) -> None:
    """0.55 of 100 is 55.00000000000001 in binary."""
    assert a_round(tmp_path, min_fraction=share)._needed(asked) == needed


def test_replies_that_come_late_or_twice_are_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An answer to round 1 in round 2, before and after the right one, which comes twice itself."""
    kept: dict[tuple[str, int], Message] = {}

    def script(site: str, number: int, reply: Message) -> Iterable[Message]:
        kept[site, number] = reply
        old = kept.get((site, number - 1))
        return [reply] if old is None else [old, reply, reply, old]

    run(tmp_path / "a", Scripted(toys.toy_app(), script))
    run(tmp_path / "b", LocalGrid(toys.toy_app(), 3))

    assert final_bytes(tmp_path / "a") == final_bytes(tmp_path / "b")
    assert caplog.messages.count("a second or unasked reply is not used") == 3 * 2 * 3


def test_nothing_waits_on_the_disk_after_a_round_that_failed(tmp_path: Path) -> None:
    """West has answered and south never does."""
    with pytest.raises(RoundError, match="usable updates=2"):
        run(tmp_path, dropping(("south", 1)), min_sites=3, timeout_s=0.1)

    assert not (tmp_path / "waiting").exists()


# --- weights and filters ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "weights"),
    [
        ({}, [1.0, 2.0, 3.0]),
        ({"weighting": "equal"}, [1.0, 1.0, 1.0]),
        ({"weight_cap": 1.5}, [1.0, 1.5, 1.5]),
        ({"weight_cap": 0.5}, [0.5, 0.5, 0.5]),
        ({"weighting": "equal", "weight_cap": 1.5}, [1.0, 1.0, 1.0]),
    ],
)
def test_how_much_a_site_counts(tmp_path: Path, options: dict[str, Any], weights: list[float]) -> None:
    """In the mean of the changes, in the record and in the means of the public numbers."""
    hospital = toys.ToyHospital()

    progress = run(tmp_path, LocalGrid(make_app(lambda: hospital), 3), rounds=1, **options)

    record = progress.history[1]
    assert list(record.weights.values()) == weights
    start_P = pack(toys.initial())[1]
    ends = [pack(hospital.ends[site, 1])[1].astype(np.float64) for site in toys.SITES]
    expected_P = start_P + np.average([end_P - start_P for end_P in ends], axis=0, weights=weights)
    np.testing.assert_allclose(pack(progress.adapter)[1], expected_P, rtol=1e-6, atol=1e-7)
    losses = [record.metrics[site]["loss"] for site in toys.SITES]
    assert record.means()["loss"] == pytest.approx(np.average(losses, weights=weights))


class Hostile(toys.ToyHospital):
    """South sends its change a hundred times as long, and the other way."""

    def fit(self, place: int, terms: wire.Terms, start: AdapterState) -> tuple[AdapterState, float]:
        trained, loss = super().fit(place, terms, start)
        if place == 1:
            trained = {name: start[name] - 100 * (value - start[name]) for name, value in trained.items()}
        return trained, loss


@pytest.mark.parametrize("rule", ["fedit", "flora"])
def test_the_norm_filter_leaves_out_the_long_update_and_says_so(
    tmp_path: Path, rule: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The round is what it would have been without that site."""
    hostile = Hostile()
    options = {"rounds": 2, "strategy": rule, "combine": CombineOptions(norm_filter=3.0)}

    progress = run(tmp_path / "hostile", LocalGrid(make_app(lambda: hostile), 3), **options)
    run(tmp_path / "without", dropping(("south", 1), ("south", 2)), timeout_s=0.1, **options)

    for record in progress.history[1:]:
        assert list(record.weights) == list(record.metrics) == ["north", "west"]
        reason = record.refused["south"]
        assert reason.startswith("wire check 'norm filter' failed: update norm=")
        assert "3 times the median of this round" in reason
        assert f"round {record.round_number}: the reply of site south is not used: {reason}" in caplog.messages
    assert final_bytes(tmp_path / "hostile") == final_bytes(tmp_path / "without")


def test_the_norm_filter_can_leave_too_few(tmp_path: Path) -> None:
    hostile = Hostile()

    with pytest.raises(RoundError, match=r"usable updates=2, need at least 3 \(south: wire check 'norm filter'"):
        run(tmp_path, LocalGrid(make_app(lambda: hostile), 3), min_sites=3, combine=CombineOptions(norm_filter=3.0))


@pytest.mark.parametrize("centre", ["median", "trimmed_mean"])
def test_one_hostile_site_cannot_move_a_robust_centre_past_the_honest_ones(tmp_path: Path, centre: str) -> None:
    """Number by number; the mean is moved far."""
    sites = ("north", "south", "west", "xeno", "york")
    moved = {}
    for kind in (centre, "mean"):
        hospital = Hostile(sites)
        options = CombineOptions(centre=kind)  # type: ignore[arg-type]
        plan = toys.federation(tmp_path / kind, rounds=1, wanted=5, min_sites=5, combine=options)
        moved[kind] = plan.run(LocalGrid(make_app(lambda bench=hospital: bench), 5)).adapter[toys.B]  # type: ignore[misc]
        honest = torch.stack([hospital.ends[site, 1][toys.B] for site in sites if site != "south"])

    inside = (moved[centre] >= honest.amin(0) - 1e-6) & (moved[centre] <= honest.amax(0) + 1e-6)
    assert inside.all()
    assert (moved["mean"] < honest.amin(0)).any()
