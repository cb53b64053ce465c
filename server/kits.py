"""The folder of startup kits: where the coordinator's and the hospitals' files lie, and which sites are registered.

kits/coordinator/coordinator.json   addresses, ports, the folder of runs and the SHA-256 of the bundle
kits/coordinator/sites.json         site name -> node number, for the registered sites
kits/<SITE>/                        what is sent to a hospital
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import configs
from ccfexp._io import atomic_write_json
from ccfexp.errors import ConfigError, did_you_mean
from strategies.messages import SITE_NAME

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

COORDINATOR = "coordinator"
CONNECTION = "coordinator"
"""The name of the SuperLink in the configuration of Flower's command line."""


@dataclass(frozen=True)
class Addresses:
    """What a provisioning was made for.

    Raises:
        ConfigError: a port out of its bounds, the same port twice, no host.
    """

    hosts: tuple[str, ...]  # by which sites reach the proxy; the first one is written into the kits
    port: int  # of the proxy
    superlink_port: int  # of the SuperLink, on loopback
    runs: str  # absolute folder of runs
    environment: str  # folder of the Python environment's programs
    bundle_sha256: str

    def __post_init__(self) -> None:
        """Check every bound."""
        for name in ("port", "superlink_port"):
            if not 1 <= getattr(self, name) <= 65535:
                raise ConfigError(f"{name}={getattr(self, name)} must be 1 to 65535; choose a free port")
        if self.port == self.superlink_port:
            raise ConfigError(f"port={self.port} must differ from superlink_port={self.superlink_port}; change one")
        if not self.hosts:
            raise ConfigError("hosts=() must name at least one host; give --host")


@dataclass(frozen=True)
class Kits:
    """A folder that `python -m server.provision` has made."""

    folder: Path

    @classmethod
    def open(cls, folder: Path) -> Kits:
        """Kits that exist.

        Raises:
            ConfigError: there is no coordinator's folder, or its record cannot be read.
        """
        kits = cls(folder.resolve())
        if not (kits.coordinator / "coordinator.json").is_file():
            raise ConfigError(
                f"kits={folder} holds no coordinator.json; make the kits first: "
                f"python -m server.provision --sites A,B --out {folder}"
            )
        kits.addresses()
        return kits

    @property
    def coordinator(self) -> Path:
        """The coordinator's own folder."""
        return self.folder / COORDINATOR

    @property
    def flower_home(self) -> Path:
        """FLWR_HOME of Flower's command line here."""
        return self.coordinator / "flwr"

    def addresses(self) -> Addresses:
        """What the kits were made for. Raises ConfigError if the record cannot be read."""
        return configs.build(Addresses, _read(self.coordinator / "coordinator.json"))

    def write_addresses(self, addresses: Addresses) -> None:
        """Replace the record."""
        atomic_write_json(self.coordinator / "coordinator.json", {**asdict(addresses), "hosts": list(addresses.hosts)})

    def sites(self) -> list[str]:
        """The sites that have a kit, sorted."""
        return sorted(path.parent.name for path in self.folder.glob("*/site.yaml"))

    def check_site(self, name: str) -> None:
        """Raises ConfigError if no kit has this name."""
        known = self.sites()
        if name not in known:
            raise ConfigError(
                f"site={name!r} has no kit.{did_you_mean(name, known)} Known: {', '.join(known) or 'none'}; "
                f"a new one is made by: python -m server.provision --add-sites NAME --out {self.folder}"
            )

    def registered(self) -> dict[str, int]:
        """Site -> node number. Raises ConfigError if the record cannot be read."""
        path = self.coordinator / "sites.json"
        if not path.is_file():
            return {}
        record = _read(path)
        if not all(isinstance(node, int) for node in record.values()):
            raise ConfigError("sites.json must hold node numbers; restore it from a copy")
        return {str(site): int(str(node)) for site, node in sorted(record.items())}

    def write_registered(self, nodes: Mapping[str, int]) -> None:
        """Replace the record of registered sites."""
        atomic_write_json(self.coordinator / "sites.json", dict(nodes))


def check_site_names(names: Sequence[str]) -> tuple[str, ...]:
    """The names of new sites.

    Raises:
        ConfigError: none, an impossible one, one twice (also where only the case differs, because not every file system
            tells such folders apart), or the coordinator's own.
    """
    if not names:
        raise ConfigError("sites= must name at least one site; give --sites A,B,C")
    for name in names:
        if SITE_NAME.fullmatch(name) is None:
            raise ConfigError(
                f"site={name!r} must be 1 to 64 letters, digits, '_', '.', '-', the first a letter or digit; rename it"
            )
        if name.lower() == COORDINATOR:
            raise ConfigError(f"site={name!r} must not be called as the coordinator's folder; rename it")
    lower = [name.lower() for name in names]
    twice = sorted({name for name in names if lower.count(name.lower()) > 1})
    if twice:
        raise ConfigError(f"sites={', '.join(twice)} must have names that differ in more than case; rename one")
    return tuple(names)


def _read(path: Path) -> dict[str, object]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path.name} cannot be read ({type(error).__name__}); restore it from a copy") from error
    if not isinstance(record, dict):
        raise ConfigError(f"{path.name} must hold names and values; restore it from a copy")
    return record
