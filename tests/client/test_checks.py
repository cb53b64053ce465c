"""Is a hospital ready: every check against a real file, a real port, a real certificate."""

from __future__ import annotations

import http.server
import ssl
import threading
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from client import checks, coordinator
from client.approvals import Approvals
from client.ledger import EgressLedger
from tests.client.bundles import bundle
from tests.client.sites import make_site

if TYPE_CHECKING:
    from collections.abc import Iterator

    from client.site import Site

NOW = datetime.now(UTC)


def certificate(folder: Path, name: str, *, days: int = 90, host: str = "localhost", age: int = 1) -> tuple[Path, Path]:
    """A certificate that signs itself, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signed = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - timedelta(days=age))
        .not_valid_after(NOW + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / f"{name}.crt", folder / f"{name}.key"
    paths[0].write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    paths[1].write_bytes(private)
    return paths


@contextmanager
def served(pair: tuple[Path, Path] | None, clock_s: float = 0.0) -> Iterator[int]:
    """A port that answers as the coordinator's proxy does; without a certificate it speaks plain HTTP."""

    class Door(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(403)
            self.end_headers()

        def date_time_string(self, timestamp: float | None = None) -> str:
            then = (timestamp or datetime.now(UTC).timestamp()) + clock_s
            return super().date_time_string(int(then))

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Door)
    if pair is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*pair)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield int(server.server_address[1])
    server.shutdown()
    server.server_close()
    thread.join()


def looked(port: int, root: Path, host: str = "localhost") -> dict[str, tuple[str, str]]:
    """The checks of a coordinator's port by name."""
    return {name: (level, text) for name, level, text in coordinator.examine(host, port, root)}


def test_a_coordinator_with_its_certificate_is_ready(tmp_path: Path) -> None:
    """It answers, by its own authority's certificate, and the clocks agree."""
    pair = certificate(tmp_path, "ca")
    with served(pair) as port:
        found = looked(port, pair[0])

    assert {name: level for name, (level, _) in found.items()} == {
        "root certificate": "ready",
        "coordinator": "ready",
        "clock": "ready",
    }


@pytest.mark.parametrize(
    ("changed", "message"),
    [({"days": -1, "age": 9}, "certificate has expired"), ({"host": "elsewhere.example"}, "Hostname mismatch")],
)
def test_a_wrong_certificate_is_refused_with_its_reason(
    tmp_path: Path, changed: dict[str, object], message: str
) -> None:
    """Expired, or another machine's."""
    pair = certificate(tmp_path, "server", **changed)  # type: ignore[arg-type]
    with served(pair) as port:
        level, text = looked(port, pair[0]).get("coordinator", looked(port, pair[0])["root certificate"])

    assert level == "not ready"
    assert message in text or "ask for a new one" in text


def test_a_foreign_authority_is_refused(tmp_path: Path) -> None:
    """Somebody between hospital and coordinator."""
    ours, theirs = certificate(tmp_path, "ours"), certificate(tmp_path, "theirs")
    with served(theirs) as port:
        level, text = looked(port, ours[0])["coordinator"]

    assert level == "not ready"
    assert "do not go around it" in text


def test_a_port_without_tls_is_refused(tmp_path: Path) -> None:
    """Nothing is said in clear."""
    root, _ = certificate(tmp_path, "ca")
    with served(None) as port:
        level, text = looked(port, root)["coordinator"]

    assert level == "not ready"
    assert "does not speak TLS" in text


@pytest.mark.parametrize(("clock_s", "level"), [(-60.0, "not ready"), (60.0, "ready"), (600.0, "not ready")])
def test_a_wrong_clock_is_found_before_every_message_is_refused(tmp_path: Path, clock_s: float, level: str) -> None:
    """Flower bears five seconds ahead of it and five minutes behind."""
    pair = certificate(tmp_path, "ca")
    with served(pair, clock_s) as port:
        assert looked(port, pair[0])["clock"][0] == level


def test_a_coordinator_that_is_away_is_a_warning(tmp_path: Path) -> None:
    """The site goes on trying; that is no reason not to start."""
    root, _ = certificate(tmp_path, "ca")
    with served(None) as port:
        pass
    assert looked(port, root)["coordinator"][0] == "warning"
    assert "name is not known" in looked(443, root, "nowhere.invalid")["coordinator"][1]


@pytest.mark.parametrize(
    ("days", "age", "level", "message"),
    [(3650, 1, "ready", "valid until"), (10, 1, "warning", "valid until"), (-1, 9, "not ready", "ask for a new one")],
)
def test_the_root_certificate_s_time_is_checked(tmp_path: Path, days: int, age: int, level: str, message: str) -> None:
    """Before it ends, there is time to get another."""
    root, _ = certificate(tmp_path, "ca", days=days, age=age)
    found = looked(1, root)["root certificate"]

    assert found[0] == level
    assert message in found[1]


@pytest.mark.parametrize("content", [None, b"", b"not a certificate"])
def test_a_root_certificate_that_is_none_is_told(tmp_path: Path, content: bytes | None) -> None:
    """Missing, empty, something else."""
    root = tmp_path / "ca.crt"
    if content is not None:
        root.write_bytes(content)

    assert looked(1, root)["root certificate"][0] == "not ready"


@pytest.fixture
def site(tmp_path: Path, phantoms: Path) -> Site:
    """A hospital that lacks nothing but a coordinator."""
    certificate(tmp_path, "ca")
    made = make_site(tmp_path, manifest=str(phantoms / "manifest.csv"), superlink="127.0.0.1:1")
    Approvals.of(made).approve(bundle(), "IT of A")
    return made


def levels(site: Site) -> dict[str, str]:
    """The checks by name."""
    return {check.name: check.level for check in checks.examine(site).checks}


def test_a_hospital_that_lacks_nothing_is_ready(site: Site) -> None:
    """All there is to know is found: the hash of the base, the patients."""
    readiness = checks.examine(site)

    assert readiness.ready, readiness.checks
    assert readiness.patients == 2
    assert len(readiness.base_sha256) == 64


def test_everything_that_is_wrong_is_told_at_once(site: Site) -> None:
    """Each check has its own line."""
    site.private_key.chmod(0o644)
    site.path.chmod(0o666)
    Approvals.of(site).withdraw(Approvals.of(site).approved()[0], "IT of A")
    book = EgressLedger.of(site)
    book.record("update", {"round": 1})
    book.chain.path.write_bytes(book.chain.path.read_bytes().replace(b'"round":1', b'"round":2'))

    found = levels(site)
    for name in ("private key", "site file", "approved bundles", "egress ledger"):
        assert found[name] == "not ready"


@pytest.mark.parametrize("secret", ["work", "private_key"])
def test_secrets_where_approved_code_may_read_are_told(
    tmp_path: Path, phantoms: Path, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Below a folder of the system, or beside the photographs."""
    manifest = str(phantoms / "manifest.csv")
    value = {secret: str(phantoms / f"inside-{secret}" / "A")}
    assert levels(make_site(tmp_path / "a", manifest=manifest, **value))["isolation"] == "not ready"
    monkeypatch.setattr(checks, "readable_roots", lambda: [str(tmp_path)])
    assert levels(make_site(tmp_path / "b", manifest=manifest))["isolation"] == "not ready"


def test_a_key_that_is_no_key_is_told(site: Site) -> None:
    """Missing, or something else."""
    site.private_key.write_bytes(b"-----BEGIN OPENSSH PRIVATE KEY-----\n")
    assert levels(site)["private key"] == "not ready"
    site.private_key.unlink()
    assert levels(site)["private key"] == "not ready"


def test_too_few_patients_and_altered_images_are_told(tmp_path: Path, phantoms: Path) -> None:
    """With the policy's own number; never with a patient's."""
    few = make_site(tmp_path / "few", manifest=str(phantoms / "manifest.csv"), policy={"min_patients": 3})
    found = next(check for check in checks.examine(few).checks if check.name == "manifest")
    assert found.level == "not ready"
    assert "training patients=2 are fewer than policy.min_patients=3" in found.text


def test_a_port_in_use_and_spent_rounds_are_told(tmp_path: Path, phantoms: Path) -> None:
    """Before anything is started."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        busy = make_site(
            tmp_path,
            manifest=str(phantoms / "manifest.csv"),
            port=server.getsockname()[1],
            policy={"max_rounds": 1},
        )
        EgressLedger.of(busy).record("update", {"round": 1})
        found = levels(busy)

    assert found["local port"] == "not ready"
    assert found["egress ledger"] == "not ready"
    assert found["approved bundles"] == "not ready"


def test_a_missing_base_and_device_are_told(tmp_path: Path, phantoms: Path) -> None:
    """And the rest is looked at all the same."""
    manifest = str(phantoms / "manifest.csv")
    found = levels(make_site(tmp_path / "a", manifest=manifest, base="nothing.safetensors"))
    assert found["base and encoders"] == "not ready"
    assert "disk" in found
    import torch

    if not torch.cuda.is_available():
        found = levels(make_site(tmp_path / "b", manifest=manifest, device="cuda"))
        assert found["device"] == "not ready"
