"""What each option of ``python -m client.prepare`` does. Speaks of photographs by the number of their entry alone."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Final

import configs
from ccfexp._io import atomic_write_text, sha256_file
from ccfexp.errors import ConfigError
from ccfexp.model import config_of_base
from ccfexp.progress import WorkProgress
from ccfexp.weights import local
from client.chain import utc_now
from client.payment import local_today
from client.prepare import publish
from client.prepare.books import open_books
from client.prepare.crew import Crew
from client.prepare.entries import Refusal
from client.prepare.facts import same_subject
from client.prepare.landmarks_page.app import serve
from client.prepare.landmarks_page.manifest_desk import ManifestDesk
from client.prepare.place import Place
from client.prepare.portrait import Recipe
from client.prepare.preparation import Preparation, Surroundings, numbered
from client.prepare.settings import PrepareFile
from client.prepare.sources.choose import open_labels, open_source
from client.prepare.summary import flags_of, write_preparation_report
from client.prepare.verify import Verdict, verify
from client.prepare.withdrawal import forget
from client.site import chosen_site

if TYPE_CHECKING:
    import argparse

    from client.prepare.preparation import Outcome
    from client.site import Site

_SHOWN = 20  # refusals that are told in the terminal; all are in the table
_PSEUDONYM = re.compile(r"S[0-9a-f]{20}")
_VALUE = re.compile(r"([a-z_]+(?:\.[a-z_]+)*)[^=]*=.* (is [a-zA-Z]+, expected .*)")
_UNKNOWN = re.compile(r"Unknown key .*?\.(?= Did| Known|$)")
_WEIGHTS = {"insightface": "insightface/det_10g.onnx", "fan": "face_alignment/2DFAN4-11f355bf06.pth.tar"}


def run(chosen: argparse.Namespace) -> int:
    """Do what the command line says; returns the exit code."""
    if chosen.template:
        print(resources.files("client.prepare").joinpath("templates/prepare.yaml").read_text("utf-8"), end="")
        return 0
    site = chosen_site(chosen)
    place = Place.of(site)
    if chosen.forget is not None:
        return _forget(place, chosen.forget, ask=not chosen.yes, unknown=chosen.unknown)
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
    settings = _read_settings(path)
    settings = settings if source is None else replace(settings, source=source)
    return _absolute(settings, path.absolute().parent), path.absolute().parent


def _read_settings(path: Path) -> PrepareFile:
    """The hospital's settings; what is wrong with them is told without the values, which may be names or paths."""
    try:
        return configs.load_file(path, PrepareFile)
    except ConfigError as error:
        lines = [_VALUE.sub(r"\1 \2", line) for line in str(error).splitlines()]
        lines = ["words: each must be the name of a movement" if line.startswith("words.") else line for line in lines]
        text = "\n  ".join(_UNKNOWN.sub("there is an unknown key.", line) for line in lines)
        if "cannot be read" in text:
            text = "it cannot be read as a YAML file of keys and values"
    raise ConfigError(f"the settings of the preparation (--template prints a beginning) do not fit:\n  {text}")


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
    _check_apart(place, folder / settings.source)
    source, labels = open_source(settings, folder), open_labels(settings, folder)
    with WorkProgress(1) as bar:
        around = Surroundings(progress=_Told(bar))
        with open_books(place, around.clock) as books, Crew.of(settings.processes, settings.limits.seconds) as crew:
            outcome = Preparation(books, settings, recipe, around).run(source, labels, crew)
            items, barred = books.store.items(), books.withdrawals.subjects()
    atomic_write_text(place.refused, numbered(outcome.refusals))
    kept = publish.paths_of(items.values())
    verdict = verify(place, recipe.image_size, around.today(), barred, kept) if outcome.rows else Verdict((), (), ())
    write_preparation_report(place, site.name, settings, outcome, verdict, items, around.clock())
    return _say(outcome, verdict)


def _check_apart(place: Place, source: Path) -> None:
    """Raises ConfigError where photographs would be read from where they are written, or the other way round."""
    data, folder = place.data.resolve(), source.resolve()
    inside = folder.is_relative_to(data) or (folder.is_dir() and data.is_relative_to(folder))
    if inside:
        raise ConfigError(
            "the source and the folder of the site's manifest lie one in the other; keep the photographs elsewhere, or "
            "name another `manifest` in the site's file"
        )


class _Told:
    """Passes steps on to the bar: files are read quickly, faces are found slowly."""

    _SHARES: Final = {"files read": 0.1, "photographs prepared": 0.9}

    def __init__(self, bar: WorkProgress) -> None:
        self._bar, self._at = bar, 0.0

    def __call__(self, step: str, done: int, of: int) -> None:
        shares = list(self._SHARES)
        before = sum(self._SHARES[name] for name in shares[: shares.index(step)])
        at = before + self._SHARES[step] * done / of
        self._bar.advance(at - self._at, f"{step} {done}/{of}")
        self._at = at


def _say(outcome: Outcome, verdict: Verdict) -> int:
    print(
        f"{outcome.offered} entries: {outcome.prepared} prepared now, {outcome.kept} known already, "
        f"{len(outcome.refusals)} not taken"
    )
    for refusal in outcome.refusals[:_SHOWN]:
        print(f"  entry {refusal.number}: {refusal.reason}")
    if len(outcome.refusals) > _SHOWN:
        print(f"  ... and {len(outcome.refusals) - _SHOWN} more, all in prepare/refused.csv of the work folder")
    if outcome.refusals:
        print("  --locate ENTRY tells in a terminal which file or row that is")
    if outcome.removed:
        print(f"{outcome.removed} photographs were taken out: they may not be used any more")
    if outcome.absent:
        print(
            f"{outcome.absent} photographs that were prepared before are not offered now and stay; a patient who has "
            "withdrawn is taken out by --forget"
        )
    return _judge(verdict, changed=outcome.changed)


def _judge(verdict: Verdict, *, changed: bool) -> int:
    for warning in verdict.warnings:
        print(f"warning: {warning}")
    if verdict.problems:
        print(f"the data set has {len(verdict.problems)} problem(s):")
        for problem in verdict.problems[:_SHOWN]:
            print(f"  {problem}")
        return 1
    if not verdict.rows:
        print("nothing is prepared: there is no manifest")
        return 1
    print(f"the manifest is whole{' and new' if changed else ''}: {verdict.summary}")
    if changed:
        print("a service that runs (client.run) must be started again to use it")
    return 0


def _check(place: Place, image_size: int) -> int:
    if not place.record.exists():  # a data set that was made elsewhere
        return _judge(verify(place, image_size, local_today()), changed=False)
    with open_books(place, utc_now) as books:
        kept = publish.paths_of(books.store.items().values())
        verdict = verify(place, image_size, local_today(), books.withdrawals.subjects(), kept)
    return _judge(verdict, changed=False)


def _locate(settings: PrepareFile, folder: Path, number: int) -> int:
    """Tell a person at a terminal which file an entry is; a pipe or a file could be a log."""
    if not sys.stdout.isatty():
        raise ConfigError("--locate tells names of files, which could be those of patients, to a terminal alone")
    for entry in open_source(settings, folder).entries():
        if entry.number == number:
            file = entry.file if isinstance(entry, Refusal) else entry.material.file
            print(f"entry {number}: row {number} of the table" if file is None else f"entry {number}: {file}")
            return 0
    raise ConfigError(f"entry={number} is none of this source; entries are numbered from 1, rows of a table from 2")


def _forget(place: Place, subject: str, *, ask: bool, unknown: bool) -> int:
    identifier = (sys.stdin.readline() if subject == "-" else subject).strip()
    if not same_subject(identifier):
        raise ConfigError(
            "--forget needs the hospital's number of a patient, or a pseudonym of the report; it is empty"
        )
    with place.unserved(), open_books(place, utc_now) as books:
        items = books.store.items().values()
        known = {item.subject for item in items}
        pseudonym = identifier if identifier in known else books.pseudonyms.subject(identifier)
        own = sum(item.subject == pseudonym for item in items)
        if not own and pseudonym not in books.store.splits() and (not unknown or _PSEUDONYM.fullmatch(identifier)):
            raise ConfigError(
                "nothing of this patient is prepared here, and nothing was changed; check the number. To refuse a "
                "patient's photographs before any is prepared, add --unknown"
            )
        print(f"{own} photographs of this patient are prepared here; they, all caches and the report are deleted")
        if ask and not _agreed():
            print("nothing was changed")
            return 1
        facts = forget(pseudonym, place, books.store, books.withdrawals)
    print(f"withdrawn: {facts['photographs']} photographs deleted; photographs of this patient are refused from now on")
    if facts["runs"]:
        print("updates were trained with them, which cannot be called back; tell the coordinator, who has these runs:")
        for run, told in facts["runs"].items():
            print(f"  run {run}: {told['rounds']} rounds, {told['first']} to {told['last']}, epsilon {told['epsilon']}")
    print("delete the photographs themselves and the backups of this data set; start the service again")
    return 0


def _agreed() -> bool:
    try:
        return input("Type yes: ").strip() == "yes"
    except EOFError:  # nobody is there to answer
        return False


def _landmarks(place: Place, image_size: int, port: int) -> int:
    if not place.record.exists():  # a data set that was made elsewhere
        with place.alone():
            serve(ManifestDesk(place.manifest, image_size), port)
        return 0
    with open_books(place, utc_now) as books:
        items = books.store.items().values()
        flags = {item.image_path: tuple(flags_of(item.figures, item.landmark_source)) for item in items}
        serve(ManifestDesk(place.manifest, image_size, flags=flags), port)
    return 0
