"""The app bundle: what a run executes at every hospital, byte for byte as `flwr run` submits it.

    python -m server.bundle --out FILE.fab        write it and print its SHA-256

The same source gives the same bytes, whatever its folder is called and whenever its files were written, so that a
hospital which approved a bundle approved every run of it.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import shutil
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

from ccfexp._io import atomic_write_bytes
from ccfexp.errors import CCFExpError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).resolve().parent.parent
"""The project's folder, when the project runs from its sources."""


@contextlib.contextmanager
def staged(root: Path = ROOT) -> Iterator[Path]:
    """A temporary copy of what the bundle is made of, in a folder whose name Flower accepts.

    Flower builds from a folder, wants its name to be that of an app, and walks all of it; a clone may be called
    anything, and holds runs and environments beside the source.

    Raises:
        ConfigError: the project's source is not there, or a listed file is missing.
    """
    try:
        project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
        name, patterns = str(project["project"]["name"]), project["tool"]["flwr"]["app"]["fab-include"]
    except (OSError, KeyError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(
            "the bundle is built from the project's source and pyproject.toml is not there; "
            "run the command in a clone of the project"
        ) from error
    with tempfile.TemporaryDirectory(prefix="bundle-") as folder:
        stage = Path(folder) / name
        for source in ["pyproject.toml", ".gitignore", *_listed(root, patterns)]:
            (stage / source).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / source, stage / source)
        yield stage


def build(root: Path = ROOT) -> bytes:
    """The bundle of the source in `root`.

    Raises:
        ConfigError: the source is not there or Flower refuses it.
    """
    from flwr.cli.build import build_fab_from_disk  # Flower's command line takes a second to import

    with staged(root) as stage:
        try:
            data: bytes = build_fab_from_disk(stage)
        except ValueError as error:
            raise ConfigError(f"Flower refuses the bundle: {error}; mend [tool.flwr.app] in pyproject.toml") from error
    return data


def sha256(bundle: bytes) -> str:
    """By what a hospital approves a bundle, and Flower knows it."""
    return hashlib.sha256(bundle).hexdigest()


def _listed(root: Path, patterns: Sequence[str]) -> list[str]:
    files: set[str] = set()
    for pattern in patterns:
        found = {path.relative_to(root).as_posix() for path in root.glob(pattern) if path.is_file()}
        if not found:
            raise ConfigError(f"fab-include {pattern!r} names no file of the source; mend pyproject.toml")
        files |= found
    return sorted(files)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code (0 done, 2 refused)."""
    parser = argparse.ArgumentParser(
        prog="python -m server.bundle", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.fab", help="where the bundle is written")
    chosen = parser.parse_args(arguments)
    try:
        data = build()
        atomic_write_bytes(chosen.out, data)
    except (CCFExpError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{sha256(data)}  {chosen.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
