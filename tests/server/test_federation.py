"""Who is drawn, where a run goes on, and what is refused."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import Message

from ccfexp.adapter import AdapterState
from ccfexp.errors import ConfigError
from configs.federation import FederationConfig
from simulation.grid import LocalGrid
from strategies.options import CombineOptions, ServerOptimiser
from tests import toys
from tests.server.grids import Scripted
from tests.server.runs import StoppedError, added, app_of, bits, final_bytes, interrupted, stopping_at

FIVE = ("a", "b", "c", "d", "e")


# --- who is asked -----------------------------------------------------------------------------------------------------


def test_the_sites_of_a_round_are_drawn_from_the_seed(tmp_path: Path) -> None:
    """Others every round, the same in the same run, others in another one; nobody else is asked."""
    drawn = {}
    for folder, seed in (("one", 7), ("two", 7), ("three", 8)):
        hospital = toys.ToyHospital(FIVE, steps=1)
        plan = toys.federation(tmp_path / folder, rounds=8, wanted=5, seed=seed, sites_per_round=2)
        progress = plan.run(LocalGrid(app_of(hospital), 5))
        drawn[folder] = [tuple(record.weights) for record in progress.history[1:]]
        assert [(site, number) for number, sites in enumerate(drawn[folder], 1) for site in sites] == hospital.calls

    assert all(len(sites) == 2 for sites in drawn["one"])
    assert len(set(drawn["one"])) >= 4
    assert {site for sites in drawn["one"] for site in sites} == set(FIVE)
    assert drawn["one"] == drawn["two"] != drawn["three"]
    assert final_bytes(tmp_path / "one") == final_bytes(tmp_path / "two")


def test_the_draws_survive_a_resume(tmp_path: Path) -> None:
    """The round that was interrupted asks the same sites again."""
    options: dict[str, Any] = {"rounds": 6, "seed": 3, "sites_per_round": 3, "strategy": "rolora", "upload": "int8"}
    hospital = toys.ToyHospital(FIVE)
    resumed = interrupted(tmp_path / "cut", hospital, 4, **options)
    whole = toys.federation(tmp_path / "whole", wanted=5, **options).run(LocalGrid(app_of(toys.ToyHospital(FIVE)), 5))

    assert [list(record.weights) for record in resumed.history] == [list(record.weights) for record in whole.history]
    assert len([call for call in hospital.calls if call[1] == 4]) == 6
    assert final_bytes(tmp_path / "cut") == final_bytes(tmp_path / "whole")


def test_a_repeated_round_has_the_same_noise(tmp_path: Path) -> None:
    """Two draws for one round would be a mean of both; another run has another, which nobody knows."""
    options: dict[str, Any] = {"rounds": 3, "strategy": "fedit", "central_noise": 1e-5, "wanted": 3}
    with pytest.raises(StoppedError):
        toys.federation(tmp_path / "a", hooks=stopping_at(2), **options).run(LocalGrid(toys.toy_app(), 3))
    shutil.copytree(tmp_path / "a", tmp_path / "b")

    for folder in ("a", "b", "other"):
        toys.federation(tmp_path / folder, **options).run(LocalGrid(toys.toy_app(), 3))

    assert final_bytes(tmp_path / "a") == final_bytes(tmp_path / "b") != final_bytes(tmp_path / "other")


@pytest.mark.parametrize("rule", ["flora", "flex"])
def test_a_site_that_was_away_comes_back_to_the_current_state(tmp_path: Path, rule: str) -> None:
    """It gets what has been moved into the base meanwhile, and the model is the sum of what was used."""
    hospital = toys.ToyHospital()
    combine = CombineOptions(residual=rule == "flex")

    def south_fails(site: str, number: int, reply: Message) -> Iterable[Message]:
        return [] if (site, number) == ("south", 2) else [reply]

    plan = toys.federation(tmp_path, rounds=3, strategy=rule, combine=combine, timeout_s=0.2)
    progress = plan.run(Scripted(app_of(hospital), south_fails))

    assert list(progress.history[2].refused) == ["south"]
    assert list(progress.history[3].weights) == list(toys.SITES)
    north, south = hospital.starts["north", 3], hospital.starts["south", 3]
    assert {name: bits(value) for name, value in north.items()} == {name: bits(value) for name, value in south.items()}
    assert north[toys.A_MOVED].abs().sum() > 0
    for number in (1, 2, 3):
        weights = progress.history[number].weights
        start = added(hospital.starts["north", number]) - added(hospital.starts["north", number] | no_residual())
        trained = [added(hospital.ends[site, number]) * weight for site, weight in weights.items()]
        expected = start + torch.stack(trained).sum(0) / sum(weights.values())
        after = progress.adapter if number == 3 else hospital.starts["north", number + 1]
        torch.testing.assert_close(added(after), expected, rtol=1e-5, atol=1e-5)


def no_residual() -> AdapterState:
    return {toys.A_MOVED: torch.zeros(1, 6), toys.B_MOVED: torch.zeros(6, 1)}


# --- what is refused --------------------------------------------------------------------------------------------------

MOMENTUM = ServerOptimiser("momentum")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strategy": "flora", "central_noise": 1.0}, "strategy=flora is not linear.*central_noise"),
        ({"strategy": "flex", "secure_aggregation": True}, "strategy=flex is not linear.*secure_aggregation"),
        ({"strategy": "fedit", "secure_aggregation": True}, "this release has no protocol"),
        ({"strategy": "fedit", "central_noise": 1.0, "combine": CombineOptions("median")}, "compares them one with an"),
        ({"strategy": "ffa", "central_noise": 1.0, "combine": CombineOptions(norm_filter=3)}, "combine.norm_filter=0"),
        ({"strategy": "fedsvd", "optimiser": MOMENTUM}, "kind=momentum remembers.*strategy=fedsvd"),
        ({"strategy": "flora", "optimiser": ServerOptimiser("adam", rate=0.01)}, "kind=adam remembers.*strategy=flora"),
        ({"strategy": "flex", "combine": CombineOptions("median")}, "centre=median compares.*strategy=flex"),
        ({"strategy": "rolora", "combine": CombineOptions(residual=True)}, "combine.residual is of strategy=flex"),
        ({"strategy": "fedavg"}, "strategy='fedavg' is unknown"),
        ({"sites_per_round": 1}, "sites_per_round=1 must be at least min_sites=2"),
        ({"min_fraction": 1.5}, "min_fraction=1.5 must lie in"),
        ({"grace_s": 0.0}, "grace_s=0.0 must be finite and above 0"),
        ({"weight_cap": -1.0}, "weight_cap=-1.0 must be"),
        ({"central_noise": -1.0}, "central_noise=-1.0 must be"),
    ],
)
def test_what_does_not_go_together_is_refused(options: dict[str, Any], message: str) -> None:
    """Before anything is asked of anybody."""
    with pytest.raises(ConfigError, match=message):
        FederationConfig(**options)


@pytest.mark.parametrize(
    "options",
    [{"combine": CombineOptions("median")}, {"optimiser": MOMENTUM}, {"central_noise": 1e-6}],
)
def test_an_option_that_the_rule_of_mixed_ranks_cannot_have_is_refused_not_dropped(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    """With strategy=auto the rule is known when the sites are: nobody trains, and no noise is silently left out."""
    hospital = toys.ToyHospital(ranks=(1, 2, 2))
    plan = toys.federation(tmp_path, strategy="auto", min_sites=3, **options)

    with pytest.raises(ConfigError, match="strategy=flex"):
        plan.run(LocalGrid(app_of(hospital), 3))

    assert hospital.calls == []
    equal = toys.federation(tmp_path, strategy="auto", min_sites=3, **options).run(LocalGrid(toys.toy_app(), 3))
    assert equal.method == "rolora"
