"""What each option of ``python -m client.prepare`` does. Speaks of photographs by the number of their entry alone."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import configs
from ccfexp._io import atomic_write_text, sha256_file
from ccfexp.errors import ConfigError
from ccfexp.model import config_of_base
from ccfexp.progress import WorkProgress
from ccfexp.weights import local
from client.prepare.books import open_books
from client.prepare.crew import Crew
from client.prepare.entries import Refusal
from client.prepare.intake import candidates
from client.prepare.place import Place
from client.prepare.portrait import Recipe
from client.prepare.preparation import Preparation, Surroundings, numbered
from client.prepare.settings import PrepareFile
from client.prepare.sources.choose import open_source
from client.prepare.sources.labels import read_labels
from client.prepare.verify import counts, verify
from client.prepare.withdrawal import forget
from client.site import chosen_site

if TYPE_CHECKING:
    import argparse

    from client.prepare.preparation import Outcome
    from client.site import Site

_SHOWN = 20  # refusals that are told in the terminal; all are in the table
_PSEUDONYM = re.compile(r"S[0-9a-f]{20}")
_WEIGHTS = {"insightface": "insightface/det_10g.onnx", "fan": "face_alignment/2DFAN4-11f355bf06.pth.tar"}


def run(chosen: argparse.Namespace) -> int:
    """Do what the command line says; returns the exit code."""
    if chosen.template:
        print(resources.files("client.prepare").joinpath("templates/prepare.yaml").read_text("utf-8"), end="")
        return 0
    site = chosen_site(chosen)
    place = Place.of(site)
    if chosen.forget is not None:
        return _forget(place, chosen.forget, ask=not chosen.yes)
    if chosen.check or chosen.landmarks:
        size = _image_size(site, _settings_if_any(site, chosen))
        return _check(place, size) if chosen.check else _landmarks(place, size, chosen.port)
    settings, folder = _settings(site, chosen)
    if chosen.locate is not None:
        return _locate(settings, folder, chosen.locate)
    return _prepare(site, place, settings, folder)


def where(error: BaseException) -> str:
    """Kind and place in our own code of a fault: all that may be told of it."""
    trace, place = error.__traceback__, "?"
    while trace is not None:
        code = trace.tb_frame.f_code
        if "client" in Path(code.co_filename).parts or "ccfexp" in Path(code.co_filename).parts:
            place = f"{Path(code.co_filename).stem}:{trace.tb_lineno}"
        trace = trace.tb_next
    return f"{type(error).__name__} at {place}"


def _settings(site: Site, chosen: argparse.Namespace) -> tuple[PrepareFile, Path]:
    """The hospital's settings, and the folder that their paths start from."""
    path = chosen.settings or site.root / "prepare.yaml"
    source = None if chosen.source is None else str(chosen.source.absolute())
    if chosen.settings is None and not path.is_file():
        if source is None:
            raise ConfigError(
                "there is no prepare.yaml in the site's folder; write one (--template prints a beginning), or give "
                "--source FOLDER or TABLE"
            )
        return PrepareFile(source), site.root
    settings = configs.load_file(path, PrepareFile)
    settings = settings if source is None else replace(settings, source=source)
    return _absolute(settings, path.absolute().parent), path.absolute().parent


def _absolute(settings: PrepareFile, folder: Path) -> PrepareFile:
    faces = settings.faces
    if faces.weights is None:
        return settings
    return replace(settings, faces=replace(faces, weights=str((folder / Path(faces.weights).expanduser()).absolute())))


def _image_size(site: Site, settings: PrepareFile | None) -> int:
    """Side of the prepared photographs: as the hospital says, else as its base draws."""
    if settings is not None and settings.image_size is not None:
        return settings.image_size
    return config_of_base(site.base).unet.image_size


def _settings_if_any(site: Site, chosen: argparse.Namespace) -> PrepareFile | None:
    try:
        return _settings(site, chosen)[0]
    except ConfigError:
        if chosen.settings is not None:
            raise
        return None


def _recipe(site: Site, settings: PrepareFile) -> Recipe:
    """How photographs are prepared; raises WeightsError before any is opened where something is missing."""
    faces = settings.faces
    names = [_WEIGHTS[kind] for kind in (faces.detector, faces.landmarks) if kind in _WEIGHTS]
    hashes = tuple(sha256_file(local.require(Path(faces.weights or ""), name)) for name in names)
    return Recipe(_image_size(site, settings), faces, settings.limits, hashes)


def _prepare(site: Site, place: Place, settings: PrepareFile, folder: Path) -> int:
    recipe = _recipe(site, settings)
    source = open_source(settings, folder)
    labels = None if settings.labels is None else read_labels(settings.labels, folder)
    with WorkProgress(1) as bar:
        around = Surroundings(progress=_Told(bar))
        with open_books(place, around.clock) as books, Crew.of(settings.processes, settings.limits.seconds) as crew:
            preparation = Preparation(
                place, settings, recipe, books.pseudonyms, books.store, books.withdrawals, around
            )
            outcome = preparation.run(source, labels, crew)
            items = books.store.items()
    atomic_write_text(place.refused, numbered(outcome.refusals))
    verdict = verify(place, recipe.image_size, around.today()) if outcome.rows else None
    write_preparation_report(place, outcome, items, around)
    return _say(outcome, verdict)
