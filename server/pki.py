"""The federation's own certificate authority and the certificate of its server.

Sites trust this one authority and no public one, so nobody else can issue a certificate that they accept. A hospital's
key is made at the hospital and never passes through here.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ccfexp.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

LOOPBACK = ("localhost", "127.0.0.1")
_MAX_DAYS = 3650
_BACKDATED = dt.timedelta(hours=1)  # a site's clock may be slow
_LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST_NAME = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(\.{_LABEL})*")


@dataclass(frozen=True)
class Issued:
    """A certificate and its private key, both PEM."""

    certificate: bytes
    key: bytes


def make_authority(days: int, now: dt.datetime) -> Issued:
    """A self-signed certificate authority that may sign end certificates only.

    Args:
        days: how long it is valid.
        now: its time of issue, with a time zone.

    Raises:
        ConfigError: `days` is out of its bounds.
    """
    _check_days(days)
    key = ec.generate_private_key(ec.SECP384R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "CCFExp federation CA")])
    certificate = (
        _dated(days, now)
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA384())
    )
    return _pem(certificate, key)


def issue_server(authority: Issued, hosts: Sequence[str], days: int, now: dt.datetime) -> Issued:
    """A server certificate for the loopback addresses and `hosts`.

    Args:
        authority: who signs.
        hosts: names and addresses by which sites reach the server.
        days: how long it is valid; not beyond the authority.
        now: its time of issue, with a time zone.

    Raises:
        ConfigError: a host that is neither a name nor an address; `days` out of its bounds; an authority that cannot be
            read or has expired.
    """
    _check_days(days)
    try:
        ca = x509.load_pem_x509_certificate(authority.certificate)
        ca_key = serialization.load_pem_private_key(authority.key, password=None)
    except ValueError as error:
        raise ConfigError("the certificate authority cannot be read; restore ca.crt and ca.key from a copy") from error
    if not isinstance(ca_key, ec.EllipticCurvePrivateKey) or ca_key.public_key() != ca.public_key():
        raise ConfigError("ca.key is not the key of ca.crt; restore both from one copy")
    left = (ca.not_valid_after_utc - now).days
    if left < 1:
        raise ConfigError(f"the certificate authority has days_left={left}, need at least 1; provision anew")
    key = ec.generate_private_key(ec.SECP384R1())
    names = list(dict.fromkeys([*LOOPBACK, *hosts]))
    certificate = (
        _dated(min(days, left), now)
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "CCFExp federation server")]))
        .issuer_name(ca.subject)
        .public_key(key.public_key())
        .add_extension(x509.SubjectAlternativeName([_general_name(host) for host in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA384())
    )
    return _pem(certificate, key)


def fingerprint(certificate: bytes) -> str:
    """SHA-256 of a PEM certificate as it is read aloud and as openssl prints it: pairs of digits between colons."""
    return x509.load_pem_x509_certificate(certificate).fingerprint(hashes.SHA256()).hex(":").upper()


def check_host(host: str) -> str:
    """The host itself. Raises ConfigError if it is neither an IP address nor a host name."""
    _general_name(host)
    return host


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        if _HOST_NAME.fullmatch(host) is None or re.fullmatch(r"[0-9.]+", host):
            raise ConfigError(
                f"host={host!r} must be a host name or an IP address without port or scheme; "
                "give the one by which sites reach this machine"
            ) from None
    return x509.DNSName(host.lower())


def _check_days(days: int) -> None:
    if not 1 <= days <= _MAX_DAYS:
        raise ConfigError(f"days={days} must be 1 to {_MAX_DAYS}; choose how long the certificate is valid")


def _dated(days: int, now: dt.datetime) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + dt.timedelta(days=days))
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Issued:
    return Issued(
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )
