"""The simulated hospitals' data on disk, made once per configuration.

    python -m simulation.sites demo --out runs/demo-sites     every site's photographs and manifest, below DIR/<SITE>

They are the ones that a simulation of the same configuration trains on.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

from ccfexp._io import atomic_write_json
from ccfexp.data.manifest import read_manifest
from ccfexp.data.phantom.sites import PhantomSite, write_site
from ccfexp.errors import CCFExpError, ManifestError
from ccfexp.evaluation.report import SiteComposition
from configs import available
from configs.named import load_named

K = TypeVar("K", str, int)
OnSubject = Callable[[str, int, int], None]  # site, patients done, patients


def prepare_sites(
    sites: tuple[PhantomSite, ...], image_size: int, folder: Path, on_subject: OnSubject | None = None
) -> dict[str, Path]:
    """Write every site's photographs unless they are there already; site name -> manifest.csv."""
    return {site.name: _prepare(site, image_size, folder / site.name, on_subject) for site in sites}


def _prepare(site: PhantomSite, image_size: int, folder: Path, on_subject: OnSubject | None) -> Path:
    record_path, manifest = folder / "site.json", folder / "manifest.csv"
    record = json.loads(json.dumps({"image_size": image_size, **asdict(site)}))
    if record_path.is_file() and manifest.is_file() and json.loads(record_path.read_text(encoding="utf-8")) == record:
        return manifest

    def report(done: int, total: int) -> None:
        if on_subject is not None:
            on_subject(site.name, done, total)

    write_site(site, folder, image_size, on_subject=report)
    atomic_write_json(record_path, record)  # last: its presence says that the data set is whole
    return manifest


def composition(name: str, manifest: Path, image_size: int) -> SiteComposition:
    """Counts of a site for the report (training patients).

    Raises:
        ManifestError: files of the site were altered; all rows at once.
    """
    try:
        rows = [row for row in read_manifest(manifest, image_size).rows if row.split == "train"]
    except ManifestError as error:
        remedy = "delete the run's folder of this site and give the same command again to render it anew"
        raise ManifestError(f"site {name}: the data set was altered; {remedy}:", error.problems) from error
    return SiteComposition(
        name=name,
        patients=len({row.subject_id for row in rows}),
        images=len(rows),
        sides=_counts([str(row.side) for row in rows]),
        grades=_counts([row.grade for row in rows if row.grade is not None]),
        movements=_counts([str(row.movement) for row in rows]),
    )


def _counts(values: list[K]) -> dict[K, int]:
    return {value: values.count(value) for value in sorted(set(values))}


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code (0 done, 2 refused)."""
    parser = argparse.ArgumentParser(
        prog="python -m simulation.sites", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help=f"one of {', '.join(available())}")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="overrides of the configuration")
    parser.add_argument("--out", type=Path, required=True, help="folder that gets one folder a site")
    chosen = parser.parse_intermixed_args(arguments)
    try:
        config = load_named(chosen.config, chosen.overrides)
        manifests = prepare_sites(config.hospitals, config.image_size, chosen.out)
    except CCFExpError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: the disk refused: {error.strerror}; free some space or choose another --out", file=sys.stderr)
        return 2
    for name, manifest in manifests.items():
        print(f"{name}  {manifest}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
