"""What is looked at before a key goes anywhere; the registration itself is in test_coordinator."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from ccfexp.errors import ConfigError
from server import register
from server.kits import Kits
from server.superlink import UnreachableError
from tests.server.kit_tools import free_ports, make_key, make_kits


@pytest.fixture
def kits(tmp_path: Path) -> Kits:
    """Kits of sites north and south, whose SuperLink is not running."""
    proxy, superlink = free_ports(2)
    return make_kits(tmp_path, ("north", "south"), port=proxy, superlink=superlink)


def test_a_public_key_passes(tmp_path: Path) -> None:
    _, public = make_key(tmp_path, "A")

    register.check_public_key(public)


def test_a_private_key_is_refused_loudly(tmp_path: Path) -> None:
    private, _ = make_key(tmp_path, "A")

    with pytest.raises(ConfigError, match=r"PRIVATE key.*makes a new pair"):
        register.check_public_key(private)


@pytest.mark.parametrize("text", ["", "hello", "ecdsa-sha2-nistp384 AAAA", "\0\0"])
def test_no_key_at_all(tmp_path: Path, text: str) -> None:
    path = tmp_path / "A.pub"
    path.write_text(text)

    with pytest.raises(ConfigError, match="not a public key"):
        register.check_public_key(path)


def test_a_key_of_another_kind(tmp_path: Path) -> None:
    path = tmp_path / "A.pub"
    key = ed25519.Ed25519PrivateKey.generate().public_key()
    path.write_bytes(key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH))

    with pytest.raises(ConfigError, match="NIST"):
        register.check_public_key(path)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        register.check_public_key(tmp_path / "A.pub")


def test_a_site_without_a_kit(kits: Kits, tmp_path: Path) -> None:
    _, public = make_key(tmp_path, "A")

    with pytest.raises(ConfigError, match="Did you mean 'north'"):
        register.register(kits, "nort", public)


def test_a_site_has_one_key_at_a_time(kits: Kits, tmp_path: Path) -> None:
    _, public = make_key(tmp_path, "A")
    kits.write_registered({"north": 7})

    with pytest.raises(ConfigError, match="--revoke"):
        register.register(kits, "north", public)


def test_nothing_to_revoke(kits: Kits) -> None:
    with pytest.raises(ConfigError, match="not registered"):
        register.revoke(kits, "north")


def test_a_superlink_that_is_down_and_nothing_is_remembered(kits: Kits, tmp_path: Path) -> None:
    _, public = make_key(tmp_path, "A")

    with pytest.raises(UnreachableError, match=r"superlink\.sh"):
        register.register(kits, "north", public)
    assert kits.registered() == {}


def test_the_command_line_refuses_in_one_line(kits: Kits, capsys: pytest.CaptureFixture[str]) -> None:
    assert register.main(["--kits", str(kits.folder), "--site", "west", "--revoke"]) == 2
    assert capsys.readouterr().err.startswith("error: site='west' has no kit")
