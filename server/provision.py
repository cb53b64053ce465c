"""Make what a federation needs before its first run: certificates, the coordinator's files and a kit for each hospital.

    python -m server.provision --sites A,B,C --out kits/ --host federation.example.org
    python -m server.provision --add-sites D --out kits/     a kit for one more hospital
    python -m server.provision --renew --out kits/           a new server certificate and the bundle of today's source

Everything is made or nothing: a folder that is half made is never left behind, and an existing authority is never
replaced, because every hospital would have to be called again. No hospital's private key is made here.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import shlex
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ccfexp.errors import CCFExpError, ConfigError
from server import bundle, pki
from server.kit_files import Content, Secret, hospital_files, proxy_files, server_files, write_files
from server.kits import Addresses, Kits, check_site_names

if TYPE_CHECKING:
    from collections.abc import Sequence


def provision(sites: Sequence[str], out: Path, addresses: Addresses, bundle_bytes: bytes, days: int) -> Kits:
    """Make a new folder of kits.

    Args:
        sites: names of the hospitals.
        out: the folder; absent or empty.
        addresses: where everything is reached.
        bundle_bytes: what will run at the hospitals.
        days: how long the server's certificate is valid; the authority is valid ten times as long, ten years at most.

    Raises:
        ConfigError: an impossible or repeated name, an impossible host or number of days, a folder that is in use.
    """
    names = check_site_names(sites)
    out = out.resolve()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(
            f"out={out} is in use, and its certificates are not replaced; add hospitals with --add-sites, renew the "
            "server's certificate with --renew, or choose another folder"
        )
    now = dt.datetime.now(dt.UTC)
    authority = pki.make_authority(min(10 * days, 3650), now)
    server = pki.issue_server(authority, addresses.hosts, days, now)
    kits = Kits(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
        stage = Path(folder) / "kits"
        files: dict[str, Content] = {
            "ca.crt": authority.certificate,
            "ca.key": Secret(authority.key),
            "bundle.fab": bundle_bytes,
        }
        files |= {"bundle.fab": bundle_bytes} | server_files(server) | proxy_files(kits, addresses)
        write_files(stage / kits.coordinator.name, files, secret=True)
        Kits(stage).write_addresses(addresses)
        for number, name in enumerate(names):
            kit = hospital_files(name, addresses, number, authority.certificate, bundle_bytes)
            write_files(stage / name, kit)
        if out.exists():
            out.rmdir()  # it is empty; a rename replaces no folder everywhere
        stage.rename(out)
    return kits


def add_sites(sites: Sequence[str], kits: Kits) -> None:
    """Make kits for more hospitals; what is there already stays as it is.

    Raises:
        ConfigError: an impossible name, or one that has a kit.
    """
    known = kits.sites()
    check_site_names([*known, *sites])
    authority = (kits.coordinator / "ca.crt").read_bytes()
    bundle_bytes = (kits.coordinator / "bundle.fab").read_bytes()
    with tempfile.TemporaryDirectory(dir=kits.folder, prefix=".new.") as folder:
        for number, name in enumerate(check_site_names(sites), start=len(known)):
            kit = hospital_files(name, kits.addresses(), number, authority, bundle_bytes)
            write_files(Path(folder) / name, kit)
        for name in sites:
            (Path(folder) / name).rename(kits.folder / name)


def renew(kits: Kits, hosts: Sequence[str], bundle_bytes: bytes, days: int) -> None:
    """A new server certificate, the coordinator's files for where the folder is now, and another bundle in every kit.

    Args:
        kits: what to renew.
        hosts: the names of the server from now on; none keeps them.
        bundle_bytes: what will run at the hospitals.
        days: how long the new certificate is valid.

    Raises:
        ConfigError: an impossible host or number of days; the authority's key is not there or has expired.
    """
    addresses = replace(kits.addresses(), bundle_sha256=bundle.sha256(bundle_bytes))
    if hosts:
        addresses = replace(addresses, hosts=tuple(hosts))
    key = kits.coordinator / "ca.key"
    if not key.is_file():
        raise ConfigError("ca.key is not in the coordinator's folder; bring it back from where it is kept, then renew")
    authority = pki.Issued((kits.coordinator / "ca.crt").read_bytes(), key.read_bytes())
    server = pki.issue_server(authority, addresses.hosts, days, dt.datetime.now(dt.UTC))
    files = server_files(server) | proxy_files(kits, addresses) | {"bundle.fab": bundle_bytes}
    write_files(kits.coordinator, files, secret=True)
    for name in kits.sites():
        write_files(kits.folder / name, {"bundle.fab": bundle_bytes})
    kits.write_addresses(addresses)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code (0 done, 2 refused)."""
    chosen = _parser().parse_args(arguments)
    try:
        kits = _do(chosen)
    except CCFExpError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: the disk refused: {error.strerror}; nothing was changed", file=sys.stderr)
        return 2
    print(f"kits for {', '.join(kits.sites())} in {kits.folder}")
    print(f"fingerprint of ca.crt   {pki.fingerprint((kits.coordinator / 'ca.crt').read_bytes())}")
    print(f"SHA-256 of bundle.fab   {kits.addresses().bundle_sha256}")
    where = shlex.quote(str(kits.coordinator))
    print(f"Start, each in a terminal of its own:  bash {where}/superlink.sh   and   nginx -p {where} -c nginx.conf")
    return 0


def _do(chosen: argparse.Namespace) -> Kits:
    for host in chosen.host:
        pki.check_host(host)
    if chosen.add_sites is not None:
        kits = Kits.open(chosen.out)
        add_sites(_names(chosen.add_sites), kits)
        return kits
    bundle_bytes = bundle.build()
    if chosen.renew:
        kits = Kits.open(chosen.out)
        renew(kits, chosen.host, bundle_bytes, chosen.days)
        return kits
    addresses = Addresses(
        hosts=tuple(chosen.host) or ("127.0.0.1",),
        port=chosen.port,
        superlink_port=chosen.superlink_port,
        runs=str(Path(chosen.runs).resolve()),
        environment=str(Path(sys.executable).parent),
        bundle_sha256=bundle.sha256(bundle_bytes),
    )
    return provision(_names(chosen.sites), chosen.out, addresses, bundle_bytes, chosen.days)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m server.provision", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--sites", metavar="A,B,C", help="make a new folder of kits for these hospitals")
    what.add_argument("--add-sites", metavar="D", help="add kits to a folder")
    what.add_argument("--renew", action="store_true", help="new server certificate and bundle; other --host if given")
    parser.add_argument("--out", type=Path, default=Path("kits"), help="folder of the kits (default kits)")
    parser.add_argument(
        "--host", action="append", default=[], help="by which sites reach this machine; may be repeated, first is used"
    )
    parser.add_argument("--port", type=int, default=8443, help="of the proxy, open to the sites (default 8443)")
    parser.add_argument("--superlink-port", type=int, default=8000, help="of the SuperLink, on loopback (default 8000)")
    parser.add_argument("--days", type=int, default=365, help="how long the server's certificate is valid")
    parser.add_argument("--runs", default=os.environ.get("CCFEXP_RUNS", "runs"), help="folder of runs (default runs)")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
