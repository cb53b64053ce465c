"""The source that a hospital's file names, and what is added to its entries."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from ccfexp.data.files import BadFileError
from ccfexp.errors import ConfigError
from client.prepare.sources.folder import FolderSource
from client.prepare.sources.labels import LabelBook, read_labels
from client.prepare.sources.layouts import aflfp_source, meei_source, yfp_source
from client.prepare.sources.listing import (
    LANDMARKS,
    PHOTOGRAPHS,
    VIDEOS,
    is_dicom,
    list_folder,
    resolve_folder,
    suffix_of,
)
from client.prepare.sources.table import TableSource

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path, PurePosixPath

    from client.prepare.entries import Entry, Source
    from client.prepare.settings import Consent, PrepareFile

_TABLES = frozenset((".csv", ".tsv", ".txt", ".xlsx", ".xlsm"))
_LAYOUTS = {"aflfp": aflfp_source, "meei": meei_source, "yfp": yfp_source}


def open_source(settings: PrepareFile, folder: Path) -> Source:
    """Make the source; no photograph is read.

    Args:
        settings: the hospital's file. ``kind: auto`` looks: a file is a table, a folder with a DICOM file in it is
            DICOM, any other a folder of photographs and videos.
        folder: in which the file lies; relative paths start here.

    Raises:
        ConfigError: there is no such file or folder, or it is not of this kind.
    """
    place = folder / settings.source
    # Unlike a Path's own questions these raise nothing where we may not look.
    is_file, is_folder = os.path.isfile(place), os.path.isdir(place)  # noqa: PTH112, PTH113
    if settings.kind == "table" or (settings.kind == "auto" and is_file):
        if is_folder:
            raise ConfigError("kind=table: source is a folder; name the table itself")
        if settings.kind == "auto" and suffix_of(place) not in _TABLES:
            raise ConfigError(
                f"kind=auto: source is a file, but none of {', '.join(sorted(_TABLES))}; name a table or a folder"
            )
        return TableSource(place.parent, place, settings.table)
    root = resolve_folder(place)
    if settings.kind in _LAYOUTS:
        return _LAYOUTS[settings.kind](root)
    if settings.kind == "dicom" or (settings.kind == "auto" and _has_dicom(root)):
        from client.prepare.sources.dicom import DicomSource

        listing = list_folder(root, lambda path: suffix_of(path) not in LANDMARKS)
        files = [listed.file or BadFileError(listed.reason) for listed in listing]
        return DicomSource(root, settings.dicom, files)
    return FolderSource(root)


def open_labels(settings: PrepareFile, folder: Path) -> LabelBook | None:
    """Read the table of labels; None = the hospital's file names none.

    Raises:
        ConfigError: it cannot be used.
    """
    if settings.labels is None:
        return None
    return read_labels(folder / settings.labels.file, settings.labels.table, settings.words)


def complete_entry(entry: Entry, labels: LabelBook | None, consent: Consent | None) -> Entry:
    """Add what the labels know of an entry, and the consent for all where nothing is said of this one's.

    A photograph of which either consent is said, by its source or by the labels, is not touched by the consent for all:
    an empty text beside it means that consent was not given.
    """
    return replace(entry, facts=complete_facts(entry.facts, labels, consent))


def complete_facts(own: Mapping[str, str], labels: LabelBook | None, consent: Consent | None) -> dict[str, str]:
    """The facts of an entry as `complete_entry` completes them."""
    facts = dict(own) if labels is None else labels.complete(own)
    is_said = any(facts.get(name, "").strip() for name in ("consent_train", "consent_generate"))
    if consent is not None and not is_said:
        facts["consent_train"] = str(consent.train).lower()
        facts["consent_generate"] = str(consent.generate).lower()
    return facts


def _has_dicom(root: Path) -> bool:
    """Whether a folder holds a DICOM file; one has any suffix or none, but never that of another known type."""
    known = PHOTOGRAPHS | VIDEOS | LANDMARKS | _TABLES

    def may_be(path: PurePosixPath) -> bool:
        return suffix_of(path) not in known

    return any(listed.file is not None and is_dicom(listed.file) for listed in list_folder(root, may_be))
