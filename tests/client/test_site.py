"""A hospital's own file: what it may say, and what it is told when it says something else."""

from __future__ import annotations

from pathlib import Path

import pytest

from ccfexp.errors import ConfigError
from client.keygen import main as keygen
from client.run import main as run
from client.site import load_site
from tests.client.sites import make_site, site_values, write_site


def test_paths_start_at_the_file(tmp_path: Path) -> None:
    """Wherever the program is started."""
    site = load_site(None, write_site(tmp_path / "hospital"))

    assert site.manifest == tmp_path / "hospital" / "data" / "manifest.csv"
    assert site.private_key == tmp_path / "hospital" / "keys" / "A"
    assert site.address == ("127.0.0.1", 8443)
    assert site.base == "phantom-base"


def test_an_own_base_is_a_path(tmp_path: Path) -> None:
    """A name stays a name."""
    site = load_site(None, write_site(tmp_path, base="weights/base.safetensors"))

    assert site.base == str(tmp_path / "weights" / "base.safetensors")


def test_an_unknown_site_lists_the_known_ones() -> None:
    """And says how a hospital names its own."""
    with pytest.raises(ConfigError, match=r"unknown site='D'.*Known: A, B, C; a hospital gives --site-file"):
        load_site("D", None)


@pytest.mark.parametrize("given", [(None, None), ("A", Path("x.yaml"))])
def test_exactly_one_way_to_name_a_site(given: tuple[str | None, Path | None]) -> None:
    """Neither none nor both."""
    with pytest.raises(ConfigError, match="--site NAME"):
        load_site(*given)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"manifst": "x"}, "Did you mean 'manifest'"),
        ({"policy": {"max_round": 3}}, "Did you mean 'max_rounds'"),
        ({"policy": {"messages": ["query", "evaluate"]}}, "policy.messages"),
        ({"policy": {"max_rounds": 0}}, r"policy.max_rounds=0 must be at least 1"),
        ({"policy": {"max_update_norm": float("inf")}}, "policy.max_update_norm=inf is not finite"),
        ({"policy": {"max_epsilon": -1.0}}, "policy.max_epsilon=-1.0 must be finite and above 0"),
        ({"policy": {"max_epsilon": 3.0}}, "policy.delta=null must be a number with policy.max_epsilon=3.0"),
        ({"policy": {"max_epsilon": 3.0, "delta": 0.1}}, r"policy.delta=0.1 must lie in \(0, 0.1\)"),
        ({"policy": {"delta": 0.0}}, r"policy.delta=0.0 must lie in \(0, 0.1\)"),
        ({"data_set": "../x"}, "data_set='../x' must be 1 to 64 letters"),
        ({"data_set": ""}, "data_set='' must be"),
        ({"declared_patients": 0}, "declared_patients=0 must be at least 1"),
        ({"policy": {"min_patients": "many"}}, "policy.min_patients"),
        ({"name": "../A"}, "name='../A' must be 1 to 64 letters"),
        ({"superlink": "https://example.org/"}, "must be host:port"),
        ({"superlink": "example.org:99999"}, "must be host:port"),
        ({"port": 80}, "port=80 must be 1024 to 65535"),
        ({"poll_s": 0.0}, "poll_s=0.0 must be 0.05 to 60"),
        ({"compute": {"precision": "float8"}}, "compute.precision"),
    ],
)
def test_a_value_that_does_not_fit_is_named(tmp_path: Path, changed: dict[str, object], message: str) -> None:
    """With its bound, or with the nearest key."""
    with pytest.raises(ConfigError, match=message):
        load_site(None, write_site(tmp_path, **changed))


@pytest.mark.parametrize("missing", sorted(site_values()["policy"]))  # type: ignore[call-overload]
def test_no_limit_may_be_left_out(tmp_path: Path, missing: str) -> None:
    """A limit that is not written down is not taken to be any value."""
    path = write_site(tmp_path)
    lines = path.read_text().splitlines()
    start = next(number for number, line in enumerate(lines) if line.strip().startswith(f"{missing}:"))
    stop = next((n for n in range(start + 1, len(lines)) if not lines[n].strip().startswith("- ")), len(lines))
    path.write_text("\n".join(lines[:start] + lines[stop:]))

    with pytest.raises(ConfigError, match=f"policy.{missing}"):
        load_site(None, path)


@pytest.mark.parametrize("text", ["a: [", "- a", "name: A\nname: B", ""])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    """Broken YAML, a list, a key twice, nothing at all."""
    path = tmp_path / "site.yaml"
    path.write_text(text)

    with pytest.raises(ConfigError):
        load_site(None, path)


def test_a_key_pair_is_made_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The private key is its owner's alone, the public one is one line, and neither is ever replaced."""
    path = write_site(tmp_path)

    assert keygen(["--site-file", str(path)]) == 0
    private, public = tmp_path / "keys" / "A", tmp_path / "keys" / "A.pub"
    assert private.stat().st_mode & 0o777 == 0o600
    assert private.parent.stat().st_mode & 0o077 == 0
    assert public.read_text().startswith("ecdsa-sha2-nistp384 ")
    assert public.read_text().endswith(" site-A\n")
    before = private.read_bytes()
    assert keygen(["--site-file", str(path)]) == 2
    assert "is there already and stays" in capsys.readouterr().err
    assert private.read_bytes() == before


def test_the_command_line_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line, no traceback."""
    assert run(["--site", "Z"]) == 2
    assert "Known: A, B, C" in capsys.readouterr().err
    make_site(tmp_path)
    assert run(["--site-file", str(tmp_path / "site.yaml"), "--approve", "nothing"]) == 2
    assert "no file and no bundle kept here; kept: none" in capsys.readouterr().err
