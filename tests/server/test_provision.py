"""Startup kits: what is in them, what is not, and that nothing is overwritten or half made."""

from __future__ import annotations

import re
import stat
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from cryptography import x509

from ccfexp.errors import ConfigError
from server import provision
from server.kits import Addresses, Kits
from tests.server.kit_tools import BUNDLE, addresses, make_kits

SITE_KEYS = [
    "name", "superlink", "root_certificate", "private_key", "manifest", "data_set", "declared_patients", "work", "base",
    "device", "threads", "port", "poll_s", "policy",
]  # fmt: skip
POLICY_KEYS = [
    "messages", "max_rounds", "max_bytes", "max_update_norm", "min_patients", "max_rank", "max_epsilon", "delta",
]  # fmt: skip
KIT = ["README.md", "bundle.fab", "ca.crt", "site.yaml"]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_kit_holds_four_files_and_no_key(tmp_path: Path) -> None:
    kits = make_kits(tmp_path, ("A", "St.Mary-2"))

    assert kits.sites() == ["A", "St.Mary-2"]
    for name in kits.sites():
        assert sorted(path.name for path in (kits.folder / name).rglob("*")) == KIT
        assert not any(b"PRIVATE KEY" in data for data in snapshot(kits.folder / name).values())
        assert (kits.folder / name / "ca.crt").read_bytes() == (kits.coordinator / "ca.crt").read_bytes()
        assert (kits.folder / name / "bundle.fab").read_bytes() == BUNDLE


def test_private_keys_are_the_owners_alone(tmp_path: Path) -> None:
    kits = make_kits(tmp_path)
    keys = [path for path in kits.coordinator.rglob("*") if path.is_file() and b"PRIVATE KEY" in path.read_bytes()]

    assert sorted(path.name for path in keys) == ["ca.key", "server.key"]
    assert {mode(path) for path in keys} == {0o600}
    assert mode(kits.coordinator) == 0o700


def test_the_site_file_is_filled_in(tmp_path: Path) -> None:
    kits = make_kits(tmp_path, ("A", "B"), hosts=("fl.example.org", "10.0.0.1"), port=443)
    files = [yaml.safe_load((kits.folder / name / "site.yaml").read_text()) for name in ("A", "B")]

    assert [list(file) for file in files] == [SITE_KEYS] * 2
    assert list(files[0]["policy"]) == POLICY_KEYS
    assert files[1]["name"] == "B"
    assert files[1]["superlink"] == "fl.example.org:443"
    assert files[1]["private_key"] == "keys/B"
    assert files[0]["port"] != files[1]["port"], "two sites on one machine need two ports"
    assert files[0]["policy"]["max_epsilon"] is None


@pytest.mark.parametrize("name", ["1", "007", "1e3", "null", "true", "No", "1.5", "2026-01-01"])
def test_a_name_that_yaml_would_read_as_something_else(tmp_path: Path, name: str) -> None:
    kits = make_kits(tmp_path, (name,))
    file = yaml.safe_load((kits.folder / name / "site.yaml").read_text())

    assert (file["name"], file["private_key"]) == (name, f"keys/{name}")


def test_an_address_of_the_sixth_version(tmp_path: Path) -> None:
    kits = make_kits(tmp_path, ("A",), hosts=("2001:db8::1",))

    assert yaml.safe_load((kits.folder / "A" / "site.yaml").read_text())["superlink"] == "[2001:db8::1]:8443"


def test_the_files_of_the_coordinator(tmp_path: Path) -> None:
    folder = tmp_path / "a folder with 'quotes'"
    kits = make_kits(folder, superlink=8123)
    connection = tomllib.loads((kits.flower_home / "config.toml").read_text())["superlink"]
    script = kits.coordinator / "superlink.sh"
    nginx = (kits.coordinator / "nginx.conf").read_text()

    assert connection["default"] == "coordinator"
    assert connection["coordinator"] == {
        "address": "127.0.0.1:8123",
        "root-certificates": str(kits.coordinator / "ca.crt"),
    }
    assert mode(script) & stat.S_IXUSR
    subprocess.run(["/bin/bash", "-n", str(script)], check=True)
    for flag in ("--enable-supernode-auth", "--database", "--disable-runtime-dependency-installation"):
        assert flag in script.read_text()
    assert "register-node" not in nginx
    assert "proxy_ssl_verify on" in nginx


def test_the_readme_gives_the_commands(tmp_path: Path) -> None:
    text = (make_kits(tmp_path).folder / "A" / "README.md").read_text()

    for words in ("client.keygen", "client.run --site-file site.yaml --approve bundle.fab", "--check", "fingerprint"):
        assert words in text
    assert len(text.splitlines()) < 60, "one page"


def test_an_existing_authority_is_not_replaced(tmp_path: Path) -> None:
    kits = make_kits(tmp_path)
    before = snapshot(kits.folder)

    with pytest.raises(ConfigError, match="--add-sites"):
        make_kits(tmp_path, ("C",))
    assert snapshot(kits.folder) == before


def test_a_site_is_added_and_nothing_else_changes(tmp_path: Path) -> None:
    kits = make_kits(tmp_path)
    before = snapshot(kits.folder)

    provision.add_sites(["C", "D"], kits)

    after = snapshot(kits.folder)
    assert kits.sites() == ["A", "B", "C", "D"]
    assert {path: data for path, data in after.items() if path[0] not in "CD"} == before
    assert sorted(path.name for path in (kits.folder / "D").rglob("*")) == KIT


@pytest.mark.parametrize("name", ["A", "a", "coordinator", "../x", ""])
def test_a_site_that_cannot_be_added(tmp_path: Path, name: str) -> None:
    kits = make_kits(tmp_path)
    before = snapshot(tmp_path)

    with pytest.raises(ConfigError, match="site"):
        provision.add_sites(["C", name], kits)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    "sites", [(), ("A", "A"), ("A", "a"), ("a/b",), ("",), (".a",), ("Coordinator",), ("x" * 65,), ("ä",), ("a b",)]
)
def test_impossible_sites_leave_nothing(tmp_path: Path, sites: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="site"):
        make_kits(tmp_path, sites)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_in_the_middle_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the disk were full at the second kit."""

    def full(folder: Path, *_: object, **__: object) -> None:
        if folder.name == "B":
            raise OSError(28, "No space left on device")
        folder.mkdir(parents=True, exist_ok=True)

    monkeypatch.setattr(provision, "write_files", full)

    with pytest.raises(OSError, match="No space"):
        make_kits(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("port", "superlink"), [(0, 8000), (65536, 8000), (8443, -1), (8000, 8000)])
def test_impossible_ports(tmp_path: Path, port: int, superlink: int) -> None:
    with pytest.raises(ConfigError, match="port="):
        addresses(tmp_path, port=port, superlink=superlink)


def test_an_impossible_host_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="host="):
        make_kits(tmp_path, hosts=("https://x",))
    assert list(tmp_path.iterdir()) == []


def test_renewing_keeps_the_authority_and_replaces_the_certificate_and_the_bundle(tmp_path: Path) -> None:
    kits = make_kits(tmp_path)
    before = snapshot(kits.folder)

    provision.renew(kits, ["new.example.org"], b"new", 30)

    after = snapshot(kits.folder)
    changed = {path for path in before if before[path] != after[path]}
    assert changed == {
        "coordinator/server.crt", "coordinator/server.key", "coordinator/bundle.fab", "coordinator/coordinator.json",
        "A/bundle.fab", "B/bundle.fab",
    }  # fmt: skip
    certificate = x509.load_pem_x509_certificate(after["coordinator/server.crt"])
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "new.example.org" in [str(name.value) for name in names]
    assert mode(kits.coordinator / "server.key") == 0o600


def test_renewing_without_the_authoritys_key_says_where_it_belongs(tmp_path: Path) -> None:
    kits = make_kits(tmp_path)
    (kits.coordinator / "ca.key").unlink()

    with pytest.raises(ConfigError, match=r"ca\.key"):
        provision.renew(kits, [], b"new", 30)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    kits = make_kits(tmp_path)

    assert Kits.open(kits.folder).addresses() == addresses(tmp_path)
    assert isinstance(kits.addresses(), Addresses)


def test_a_folder_without_kits(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape("python -m server.provision")):
        Kits.open(tmp_path)


def test_the_command_line_prints_what_is_compared_on_the_telephone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = provision.main(["--sites", "A, B", "--out", str(tmp_path / "kits"), "--runs", str(tmp_path / "runs")])

    text = capsys.readouterr().out
    assert code == 0
    assert re.search(r"fingerprint of ca.crt   ([0-9A-F]{2}:){31}[0-9A-F]{2}\n", text)
    assert Kits(tmp_path / "kits").addresses().bundle_sha256 in text


def test_the_command_line_refuses_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = provision.main(["--sites", "A,A", "--out", str(tmp_path / "kits")])

    assert code == 2
    assert capsys.readouterr().err.startswith("error: sites=A ")
