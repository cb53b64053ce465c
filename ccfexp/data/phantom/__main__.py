"""Write a phantom hospital's data set, or a contact sheet of it.

python -m ccfexp.data.phantom --out DIR --subjects 8 --site A     images, landmarks, manifest.csv
                                              --size 64           of the size that the shipped base draws
python -m ccfexp.data.phantom --out sheet.png --sheet --site A    grades (rows) by movements (columns)
"""

import argparse
import io
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from ccfexp._io import atomic_write_bytes, atomic_write_json
from ccfexp.data.phantom.camera import Scene
from ccfexp.data.phantom.expression import HOUSE_BRACKMANN, MOVEMENTS, Palsy
from ccfexp.data.phantom.presets import SITES, site_preset
from ccfexp.data.phantom.sites import PhantomSite, shared_phantom, write_site
from ccfexp.errors import CCFExpError, ConfigError

_RECORD: Final = "phantom.json"


def contact_sheet(site: PhantomSite, size: int) -> Image.Image:
    """House-Brackmann grades I to VI (rows, another person each) by movements (columns), left palsy."""
    phantom = shared_phantom()
    rows = []
    for grade in HOUSE_BRACKMANN:
        seed = site.first_identity + grade
        identity, scene = phantom.identity(seed, site.prior), Scene.draw(seed, 0, site.style)
        palsy = Palsy.of_grade(grade, "left")
        rows.append(
            np.concatenate(
                [
                    phantom.render(identity, movement, 1.0, palsy, 0, size, scene=scene).image_HW3
                    for movement in MOVEMENTS
                ],
                1,
            )
        )
    return Image.fromarray(np.concatenate(rows, 0))


def _check_folder(folder: Path, record: dict[str, Any]) -> None:
    """Raises ConfigError where the folder holds a manifest that these arguments did not write; nothing is changed."""
    if not (folder / "manifest.csv").exists():
        return
    try:
        before = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        before = None
    if before != record:
        raise ConfigError(
            "the folder given as --out holds a manifest.csv that these arguments did not write; name another folder, "
            "or give the arguments that wrote it"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m ccfexp.data.phantom", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the data set, or file of the sheet")
    parser.add_argument("--site", default="A", help=f"phantom hospital: {', '.join(SITES)}")
    parser.add_argument("--subjects", type=int, default=None, help="number of patients (default: as the site has)")
    parser.add_argument("--holdout", type=int, default=None, help="patients to hold out (default: as the site has)")
    parser.add_argument("--size", type=int, default=112, help="image side in pixels (the shipped base: 64)")
    parser.add_argument("--loose", action="store_true", help="loosely framed photographs, for testing preparation")
    parser.add_argument("--sheet", action="store_true", help="write a contact sheet (PNG) instead of a data set")
    chosen = parser.parse_args(arguments)
    try:
        site = site_preset(chosen.site)
        site = replace(
            site,
            subjects=site.subjects if chosen.subjects is None else chosen.subjects,
            holdout=site.holdout if chosen.holdout is None else chosen.holdout,
        )
        if chosen.sheet:
            buffer = io.BytesIO()
            contact_sheet(site, chosen.size).save(buffer, "PNG")
            atomic_write_bytes(chosen.out, buffer.getvalue())
            print("wrote a contact sheet: House-Brackmann I to VI (rows) by movements (columns), left palsy")
            return 0
        record = json.loads(json.dumps({"image_size": chosen.size, "loose": chosen.loose, **asdict(site)}))
        _check_folder(chosen.out, record)
        write_site(site, chosen.out, chosen.size, loose=chosen.loose)
        atomic_write_json(chosen.out / _RECORD, record)
    except CCFExpError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: the disk refused: {error.strerror}; free some space or choose another --out", file=sys.stderr)
        return 2
    print(f"wrote {site.images} phantom images of {site.subjects} patients and their manifest.csv")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
