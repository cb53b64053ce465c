"""The federation's authority and its server certificate, checked by the TLS of this Python."""

from __future__ import annotations

import datetime as dt
import socket
import ssl
import threading
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from ccfexp.errors import ConfigError
from server import pki

NOW = dt.datetime.now(dt.UTC)


@pytest.fixture(scope="module")
def authority() -> pki.Issued:
    return pki.make_authority(300, NOW)


def names(issued: pki.Issued) -> list[str]:
    certificate = x509.load_pem_x509_certificate(issued.certificate)
    extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return [str(name.value) for name in extension.value]


def verify(issued: pki.Issued, authority: pki.Issued, host: str) -> None:
    store = Store([x509.load_pem_x509_certificate(authority.certificate)])
    certificate = x509.load_pem_x509_certificate(issued.certificate)
    PolicyBuilder().store(store).build_server_verifier(x509.DNSName(host)).verify(certificate, [])


def test_loopback_and_the_given_hosts_are_named_once(authority: pki.Issued) -> None:
    issued = pki.issue_server(authority, ["fl.example.org", "10.1.2.3", "localhost", "::1"], 30, NOW)

    assert names(issued) == ["localhost", "127.0.0.1", "fl.example.org", "10.1.2.3", "::1"]


def test_the_chain_verifies_and_another_authority_does_not(authority: pki.Issued) -> None:
    issued = pki.issue_server(authority, ["fl.example.org"], 30, NOW)

    verify(issued, authority, "fl.example.org")
    with pytest.raises(VerificationError):
        verify(issued, authority, "other.example.org")
    with pytest.raises(VerificationError):
        verify(issued, pki.make_authority(300, NOW), "fl.example.org")


def test_a_tls_connection_is_made(authority: pki.Issued, tmp_path: Path) -> None:
    """As a site makes it: by address, trusting this authority alone."""
    issued = pki.issue_server(authority, [], 30, NOW)
    for name, data in (("c", issued.certificate), ("k", issued.key), ("ca", authority.certificate)):
        (tmp_path / name).write_bytes(data)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "c", tmp_path / "k")
    client = ssl.create_default_context(cafile=tmp_path / "ca")
    client.verify_flags |= ssl.VERIFY_X509_STRICT

    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with server.wrap_socket(connection, server_side=True) as secure:
                secure.sendall(b"hello")

        thread = threading.Thread(target=answer)
        thread.start()
        with (
            socket.create_connection(listener.getsockname()) as plain,
            client.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
        ):
            assert secure.recv(5) == b"hello"
        thread.join()


def test_the_authority_signs_end_certificates_only(authority: pki.Issued) -> None:
    certificate = x509.load_pem_x509_certificate(authority.certificate)
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)

    assert constraints.critical
    assert constraints.value.ca
    assert constraints.value.path_length == 0


def test_validity_never_outlasts_the_authority(authority: pki.Issued) -> None:
    ca = x509.load_pem_x509_certificate(authority.certificate)
    issued = x509.load_pem_x509_certificate(pki.issue_server(authority, [], 3650, NOW).certificate)

    assert issued.not_valid_after_utc <= ca.not_valid_after_utc
    assert issued.not_valid_before_utc < NOW


def test_an_expired_authority_issues_nothing(authority: pki.Issued) -> None:
    with pytest.raises(ConfigError, match="days_left="):
        pki.issue_server(authority, [], 30, NOW + dt.timedelta(days=400))


def test_the_key_of_another_authority_is_refused(authority: pki.Issued) -> None:
    other = pki.make_authority(300, NOW)

    with pytest.raises(ConfigError, match="not the key"):
        pki.issue_server(pki.Issued(authority.certificate, other.key), [], 30, NOW)


def test_the_key_fits_the_certificate(authority: pki.Issued) -> None:
    issued = pki.issue_server(authority, [], 30, NOW)
    key = serialization.load_pem_private_key(issued.key, None)

    assert key.public_key() == x509.load_pem_x509_certificate(issued.certificate).public_key()


def test_a_fingerprint_is_read_aloud_in_pairs(authority: pki.Issued) -> None:
    pairs = pki.fingerprint(authority.certificate).split(":")

    assert len(pairs) == 32
    assert all(len(pair) == 2 and pair == pair.upper() for pair in pairs)


@pytest.mark.parametrize("host", ["", "https://a.b", "a.b:8443", "a b", "-a", "256.1.1.1", "a..b", "a/b", "x" * 300])
def test_impossible_hosts(host: str) -> None:
    with pytest.raises(ConfigError, match="host="):
        pki.check_host(host)


@pytest.mark.parametrize("host", ["localhost", "fl.example.org", "10.0.0.1", "::1", "a-b.c"])
def test_possible_hosts(host: str) -> None:
    assert pki.check_host(host) == host


@pytest.mark.parametrize("days", [0, -1, 3651])
def test_impossible_days(days: int) -> None:
    with pytest.raises(ConfigError, match="days="):
        pki.make_authority(days, NOW)
