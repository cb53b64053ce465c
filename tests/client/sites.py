"""Hospitals for tests: a site's file with everything that it names."""

from __future__ import annotations

from pathlib import Path

import yaml

from client.keygen import make_keys
from client.site import Site, load_site


def site_values(**changed: object) -> dict[str, object]:
    """The values of a site's file."""
    policy = {
        "messages": ["query", "train"],
        "max_rounds": 10,
        "max_bytes": 10_000_000,
        "max_update_norm": 100.0,
        "min_patients": 1,
        "max_rank": 256,
        "max_epsilon": None,
        "delta": None,
    }
    values: dict[str, object] = {
        "name": "A",
        "superlink": "127.0.0.1:8443",
        "root_certificate": "ca.crt",
        "private_key": "keys/A",
        "manifest": "data/manifest.csv",
        "work": "work",
        "base": "phantom-base",
        "policy": policy | dict(changed.pop("policy", {})),  # type: ignore[call-overload]
    }
    return values | changed


def write_site(folder: Path, **changed: object) -> Path:
    """A site's file in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "site.yaml"
    path.write_text(yaml.safe_dump(site_values(**changed)), encoding="utf-8")
    path.chmod(0o600)
    return path


def make_site(folder: Path, **changed: object) -> Site:
    """A site with its key; no data, no certificate."""
    site = load_site(None, write_site(folder, **changed))
    make_keys(site.private_key, "site-A")
    return site
