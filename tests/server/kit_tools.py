"""What the tests of the coordinator's programs share: kits for a test, hospital keys, free ports."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from server import bundle, provision
from server.kits import Addresses, Kits

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

BUNDLE = b"not a real bundle"


def addresses(
    folder: Path, *, hosts: tuple[str, ...] = ("127.0.0.1",), port: int = 8443, superlink: int = 8000
) -> Addresses:
    """Addresses whose runs lie below a folder."""
    return Addresses(hosts, port, superlink, str(folder / "runs"), "/usr/bin", bundle.sha256(BUNDLE))


def make_kits(folder: Path, sites: Sequence[str] = ("A", "B"), *, days: int = 30, **changed: object) -> Kits:
    """New kits below a folder."""
    return provision.provision(sites, folder / "kits", addresses(folder, **changed), BUNDLE, days)  # type: ignore[arg-type]


def make_key(folder: Path, name: str) -> tuple[Path, Path]:
    """A hospital's key pair as its own program makes it: private and public file."""
    key = ec.generate_private_key(ec.SECP384R1())
    private, public = folder / name, folder / f"{name}.pub"
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption())
    )
    private.chmod(0o600)
    public.write_bytes(
        key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    )
    return private, public


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for item in sockets:
            item.bind(("127.0.0.1", 0))
        return [int(item.getsockname()[1]) for item in sockets]
    finally:
        for item in sockets:
            item.close()
