"""The files of a startup kit, made from the templates beside this package's modules."""

from __future__ import annotations

import json
import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import jinja2
import yaml

from ccfexp._io import atomic_write_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from server.kits import Addresses, Kits
    from server.pki import Issued

_TEMPLATES = Path(__file__).resolve().parent / "templates"
_FIRST_NODE_PORT = 9094
_NODE_PORTS = 1000  # after so many sites the ports begin anew; they matter for sites on one machine alone


@dataclass(frozen=True)
class Secret:
    """Bytes of a file that only its owner may read."""

    data: bytes


@dataclass(frozen=True)
class Program:
    """Bytes of a file that is executed."""

    data: bytes


Content = bytes | Secret | Program


def server_files(server: Issued) -> dict[str, Content]:
    """The server's certificate and key."""
    return {"server.crt": server.certificate, "server.key": Secret(server.key)}


def proxy_files(kits: Kits, addresses: Addresses) -> dict[str, Content]:
    """What starts the proxy and the SuperLink, and what Flower's command line reads.

    Args:
        kits: at the place where they will be used.
        addresses: ports and folders.
    """
    home, folder = kits.flower_home, kits.coordinator
    return {
        "nginx.conf": _render(
            "nginx.conf.j2",
            folder=shlex.quote(str(folder)),
            port=addresses.port,
            superlink_port=addresses.superlink_port,
            root=os.geteuid() == 0,
        ),
        "logs/.keep": b"",
        "tmp/.keep": b"",
        "superlink.sh": Program(
            _render(
                "superlink.sh.j2",
                environment=shlex.quote(addresses.environment),
                runs=shlex.quote(addresses.runs),
                superlink_port=addresses.superlink_port,
            )
        ),
        "flwr/config.toml": _render(
            "config.toml.j2",
            home=shlex.quote(str(home)),
            superlink_port=addresses.superlink_port,
            root_certificate=json.dumps(str(folder / "ca.crt"), ensure_ascii=False),  # as in TOML
        ),
    }


def hospital_files(name: str, addresses: Addresses, number: int, ca: bytes, bundle: bytes) -> dict[str, Content]:
    """What is sent to one hospital.

    Args:
        name: of the site.
        addresses: where it reaches the proxy.
        number: of the site, from 0; sites on one machine get different ports by it.
        ca: certificate of the authority, PEM.
        bundle: what will run there.
    """
    host = addresses.hosts[0]
    superlink = f"[{host}]:{addresses.port}" if ":" in host else f"{host}:{addresses.port}"
    node_port = _FIRST_NODE_PORT + number % _NODE_PORTS
    return {
        "site.yaml": _render("site.yaml.j2", name=name, superlink=superlink, node_port=node_port),
        "README.md": _render("README.md.j2", name=name, superlink=superlink),
        "ca.crt": ca,
        "bundle.fab": bundle,
    }


def write_files(folder: Path, files: Mapping[str, Content], *, secret: bool = False) -> None:
    """Write files below a folder, each wholly or not at all.

    Args:
        folder: made if it is not there.
        files: path below the folder -> content.
        secret: only the owner may enter the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if secret:
        folder.chmod(0o700)  # before anything is in it
    for path, content in files.items():
        destination = folder / path
        atomic_write_bytes(destination, content if isinstance(content, bytes) else content.data)
        if isinstance(content, Secret):
            destination.chmod(0o600)
        elif isinstance(content, Program):
            destination.chmod(0o755)


def _render(template: str, **values: object) -> bytes:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 (no HTML: shells and configuration files, whose values are quoted or checked)
    )
    environment.filters["yaml"] = _yaml
    return environment.get_template(template).render(**values).encode()


def _yaml(text: str) -> str:
    """A text as YAML, with quotes only where YAML would read something else: a site may be called 007 or No."""
    try:
        plain = yaml.safe_load(text) == text
    except yaml.YAMLError:
        plain = False
    return text if plain else json.dumps(text)
