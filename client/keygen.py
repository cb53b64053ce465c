"""Make this hospital's key pair: ``python -m client.keygen --site A``. Only the file ending in .pub may travel."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ccfexp._io import atomic_write_bytes
from ccfexp.errors import CCFExpError, ConfigError
from client.site import add_site_arguments, chosen_site

if TYPE_CHECKING:
    from pathlib import Path


def make_keys(private: Path, comment: str) -> Path:
    """Write a private key (for its owner's eyes alone) and beside it the public one; returns the latter.

    The curve is P-384 and the form OpenSSH's, which is what Flower's SuperNode reads.

    Raises:
        ConfigError: there is a key already.
        OSError: the folder cannot be written.
    """
    public = private.with_name(private.name + ".pub")
    if private.exists() or public.exists():
        raise ConfigError(
            f"a key named {private.name} is there already and stays; to replace it have it revoked by the coordinator, "
            "move both files away and give this command again"
        )
    private.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP384R1())
    openssh = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    with os.fdopen(os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(openssh)
        file.flush()
        os.fsync(file.fileno())
    line = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    atomic_write_bytes(public, line + f" {comment}\n".encode())
    return public


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m client.keygen", description=__doc__)
    add_site_arguments(parser)
    chosen = parser.parse_args(arguments)
    try:
        site = chosen_site(chosen)
        public = make_keys(site.private_key, f"site-{site.name}")
    except (CCFExpError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"send this file, and nothing else, to the coordinator: {public}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
