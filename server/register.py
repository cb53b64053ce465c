"""Register a hospital's public key, so that its node may connect under its name; or end that.

    python -m server.register --kits kits/ --site A --key A.pub
    python -m server.register --kits kits/ --site A --revoke

The SuperLink must be running. A site has one key at a time: revoke the old one before a new one is registered. After a
revocation the node is shut out at once, and its key can never be registered again.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ccfexp.errors import CCFExpError, ConfigError
from server.kits import Kits
from server.superlink import SuperLink

if TYPE_CHECKING:
    from collections.abc import Sequence

_MAKE_A_KEY = "python -m client.keygen --site-file site.yaml"
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_MAX_BYTES = 10_000


def register(kits: Kits, site: str, key: Path) -> int:
    """Register a key for a site.

    Returns:
        The number of the site's node.

    Raises:
        ConfigError: no such kit; the site has a key already; the file is missing, is no public key, is a private one,
            or holds a key that is registered already.
        RoundError: the SuperLink does not answer or refuses.
    """
    kits.check_site(site)
    check_public_key(key)
    registered = kits.registered()
    if site in registered:
        raise ConfigError(
            f"site={site} is registered already (node {registered[site]}); to replace a lost or leaked key, "
            f"revoke it first: python -m server.register --kits {kits.folder} --site {site} --revoke"
        )
    node = SuperLink(kits).register(key, site)
    kits.write_registered(registered | {site: node})
    return node


def revoke(kits: Kits, site: str) -> int:
    """End a site's registration.

    Returns:
        The number that its node had.

    Raises:
        ConfigError: no such kit, or the site is not registered.
        RoundError: the SuperLink does not answer or refuses.
    """
    kits.check_site(site)
    registered = kits.registered()
    if site not in registered:
        raise ConfigError(f"site={site} is not registered; registered: {', '.join(registered) or 'none'}")
    node = registered.pop(site)
    SuperLink(kits).unregister(node)
    kits.write_registered(registered)
    return node


def check_public_key(path: Path) -> None:
    """Look at a key before it goes anywhere.

    Raises:
        ConfigError: the file is missing, is no public key in OpenSSH's form on a NIST curve, or is a private key.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES)
    except OSError as error:
        raise ConfigError(
            f"key={path} cannot be read ({error.strerror}); give the .pub file of the hospital"
        ) from error
    if b"PRIVATE KEY" in data:
        raise ConfigError(
            f"key={path} is a PRIVATE key, which must never leave the hospital. Delete this file and the message that "
            f"brought it. The hospital must not use it any more: it makes a new pair ({_MAKE_A_KEY}) and sends the "
            "file that ends in .pub"
        )
    try:
        key = serialization.load_ssh_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"key={path} is not a public key in OpenSSH's form; make one with: {_MAKE_A_KEY}") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, _CURVES):
        raise ConfigError(f"key={path} must be of a NIST curve (P-256, P-384 or P-521); make one with: {_MAKE_A_KEY}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code (0 done, 2 refused)."""
    parser = argparse.ArgumentParser(
        prog="python -m server.register", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kits", type=Path, default=Path("kits"), help="folder of the kits (default kits)")
    parser.add_argument("--site", required=True, help="name of the site, as in its kit")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--key", type=Path, metavar="FILE.pub", help="the public key that the hospital sent")
    what.add_argument("--revoke", action="store_true", help="shut the site out")
    chosen = parser.parse_args(arguments)
    try:
        kits = Kits.open(chosen.kits)
        if chosen.revoke:
            print(f"site {chosen.site} is shut out (it was node {revoke(kits, chosen.site)})")
        else:
            print(f"site {chosen.site} is registered as node {register(kits, chosen.site, chosen.key)}")
    except CCFExpError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: the disk refused: {error.strerror}; free some space and try again", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
