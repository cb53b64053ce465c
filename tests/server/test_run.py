"""What `python -m server.run` refuses before anything starts, and what it prints."""

from __future__ import annotations

from pathlib import Path

import pytest

from ccfexp.errors import ConfigError
from server import run
from server.kits import Kits
from server.superlink import SuperLink
from tests.server.kit_tools import free_ports, make_kits


@pytest.fixture
def kits(tmp_path: Path) -> Kits:
    """Kits of two registered sites, whose SuperLink is not running."""
    proxy, superlink = free_ports(2)
    made = make_kits(tmp_path, ("A", "B"), port=proxy, superlink=superlink)
    made.write_registered({"A": 7, "B": 8})
    return made


def test_what_travels_holds_no_path(kits: Kits) -> None:
    asked = run.request(kits.folder, "tiny", ["train.steps=3", "federation.rounds=1"])

    assert asked.run_config() == {"config": "tiny", "hydra": "train.steps=3 federation.rounds=1", "sites": 2}
    assert asked.folder.name.startswith("tiny-"), "a changed configuration has a folder of its own"
    assert run.request(kits.folder, "tiny", []).folder.name == "tiny"


@pytest.mark.parametrize("override", ["base=/srv/base.safetensors", "base='/srv/base.safetensors'", "base='~/base'"])
def test_a_path_of_this_machine_is_refused(kits: Kits, override: str) -> None:
    with pytest.raises(ConfigError, match="path of this machine"):
        run.request(kits.folder, "tiny", [override])


def test_too_few_registered_sites(kits: Kits) -> None:
    kits.write_registered({"A": 7})

    with pytest.raises(ConfigError, match="registered sites=1"):
        run.request(kits.folder, "tiny", [])


def test_a_mistyped_configuration(kits: Kits, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["--kits", str(kits.folder), "--config", "tini"]) == 2
    assert "Did you mean 'tiny'" in capsys.readouterr().err


def test_a_run_that_was_never_submitted(kits: Kits, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["--kits", str(kits.folder), "--config", "tiny", "--stop"]) == 0
    assert "ever submitted" in capsys.readouterr().out


def test_a_superlink_that_is_down_when_a_run_is_stopped(kits: Kits, capsys: pytest.CaptureFixture[str]) -> None:
    (kits.folder.parent / "runs" / "tiny").mkdir(parents=True)
    (kits.folder.parent / "runs" / "tiny" / "flower.json").write_text('{"run_id": 3}')

    assert run.main(["--kits", str(kits.folder), "--config", "tiny", "--stop"]) == 1
    assert "superlink.sh" in capsys.readouterr().err


def test_an_unapproved_bundle_is_not_submitted(kits: Kits) -> None:
    """The kits of this test hold another bundle than today's source."""
    asked = run.request(kits.folder, "tiny", [])

    with pytest.raises(ConfigError, match=r"bundle_sha256=.*--renew"):
        run._submit(asked, SuperLink(kits))


def test_lines_of_a_round() -> None:
    site = {"kind": "site", "round": 2, "site": "A", "refused": None, "seconds": 9.14, "bytes": 1_440_000}
    complete = {"kind": "round", "round": 2, "sites": ["A"], "refused": {"B": "too late"}, "loss": 0.2, "seconds": 10.0}

    assert run.event_line(site | {"metrics": {"loss": 0.25}}, []) == (
        "round 2: site A answered after 9.1 s, loss 0.2500, 1.44 MB"
    )
    assert run.event_line(site | {"refused": "too late"}, []) == "round 2: site A not used after 9.1 s: too late"
    assert run.event_line(complete, ["A", "B", "C"]) == (
        "round 2 complete: 1 sites, mean loss 0.2000, 10.0 s; not connected: C"
    )
    assert run.event_line({"kind": "finished"}, []) == ""


def test_lines_of_a_private_round() -> None:
    """What a site has spent stands where its loss stood, rounded towards more."""
    site = {"kind": "site", "round": 2, "site": "A", "refused": None, "seconds": 9.14, "bytes": 1_440_000}
    told = {"steps": 8.0, "epsilon_run": 1.2301, "epsilon_total": 4.5}
    complete = {"kind": "round", "round": 2, "sites": ["A"], "refused": {}, "loss": None, "epsilon": 1.2301}

    assert run.event_line(site | {"metrics": told}, []) == (
        "round 2: site A answered after 9.1 s, epsilon 1.24, 1.44 MB"
    )
    assert run.event_line(complete | {"seconds": 10.0}, ["A"]) == (
        "round 2 complete: 1 sites, largest epsilon 1.24, 10.0 s"
    )


def test_an_epsilon_that_no_noise_gives(kits: Kits) -> None:
    with pytest.raises(ConfigError, match=r"epsilon=0.0001 .* cannot be reached"):
        run.request(kits.folder, "tiny", ["+privacy=patient", "privacy.epsilon=0.0001", "privacy.sampling_rate=1"])
