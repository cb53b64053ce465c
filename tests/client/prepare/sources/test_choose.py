"""Which source a hospital's file means, and what is added to its entries."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ccfexp.errors import ConfigError
from client.prepare.entries import Entry, Material
from client.prepare.settings import Consent, Labels, PrepareFile
from client.prepare.sources.choose import complete_entry, open_labels, open_source
from client.prepare.sources.dicom import DicomSource
from client.prepare.sources.folder import FolderSource
from client.prepare.sources.labels import LabelBook
from client.prepare.sources.table import TableSource
from tests.client.prepare.sources.tables import facts_of, write_photographs

ENTRY = Entry(number=2, facts={"subject": "7"}, material=Material(kind="photograph", file=Path("a.jpg")))
TERMS = Consent(train=True, generate=True, basis="terms of a data set")


def test_auto_looks(tmp_path: Path) -> None:
    """A table is a file, photographs and videos are in a folder; paths start at the hospital's file."""
    write_photographs(tmp_path, "data/7/rest.jpg", "films/7/rest.mp4")
    (tmp_path / "data" / "table.csv").write_text("path,subject\n7/rest.jpg,7\n")

    table = open_source(PrepareFile(source="data/table.csv"), tmp_path)
    photographs = open_source(PrepareFile(source="data"), tmp_path)
    videos = open_source(PrepareFile(source="films"), tmp_path / "data" / "..")

    assert isinstance(table, TableSource)
    assert isinstance(photographs, FolderSource)
    assert facts_of(list(table.entries())) == [{"subject": "7"}]
    assert facts_of(list(photographs.entries())) == [{"subject": "7", "movement": "rest"}]
    assert [entry.material.kind for entry in videos.entries() if isinstance(entry, Entry)] == ["video"]


@pytest.mark.parametrize("name", ["IM0001", "1.2.840.10008.5", "x.dcm"])
def test_auto_finds_dicom_by_its_magic(tmp_path: Path, name: str) -> None:
    """In any folder, under any name."""
    write_photographs(tmp_path, "a/b/notes.txt", "a/other", "a/photo.jpg")
    assert isinstance(open_source(PrepareFile(source="."), tmp_path), FolderSource)
    (tmp_path / "a" / "b" / name).write_bytes(bytes(128) + b"DICM")

    for settings in (PrepareFile(source="."), PrepareFile(source="a", kind="dicom")):
        source = open_source(settings, tmp_path)
        assert isinstance(source, DicomSource)
        assert source.root == tmp_path / settings.source


@pytest.mark.parametrize(
    ("kind", "path"),
    [("aflfp", "3/3-frown_1.jpg"), ("meei", "Normals/Normal1/Normal1_1.jpg"), ("yfp", "Image/3/1.bmp")],
)
def test_layouts_are_named(tmp_path: Path, kind: str, path: str) -> None:
    """They are never guessed."""
    write_photographs(tmp_path, path)

    named = open_source(PrepareFile(source=".", kind=kind), tmp_path)  # type: ignore[arg-type]

    assert len(facts_of(list(named.entries()))) == 1


def test_a_source_that_is_not_there(tmp_path: Path) -> None:
    """Is named by its key alone."""
    write_photographs(tmp_path, "smith.doc")
    for settings, reason in (
        (PrepareFile(source="smith"), "the source's folder cannot be read"),
        (PrepareFile(source="smith.doc"), "kind=auto: source is a file, but none of"),
        (PrepareFile(source=".", kind="table"), "kind=table: source is a folder"),
        (PrepareFile(source="smith.doc", kind="folder"), "the source's folder cannot be read"),
        (PrepareFile(source="smith\0"), "the source's folder cannot be read"),
    ):
        with pytest.raises(ConfigError, match=reason) as caught:
            open_source(settings, tmp_path)
        assert "smith" not in str(caught.value)


def test_labels_are_read_from_the_hospitals_file(tmp_path: Path) -> None:
    """With the hospital's own words."""
    (tmp_path / "labels.csv").write_text("subject,movement,side\n7,Ruhe,left\n")
    settings = PrepareFile(source=".", labels=Labels(file="labels.csv"), words={"ruhe": "rest"})

    labels = open_labels(settings, tmp_path)

    assert labels is not None
    assert labels.complete({"subject": "7", "movement": "resting"})["side"] == "left"
    assert open_labels(replace(settings, labels=None), tmp_path) is None


def test_the_consent_for_all_fills_where_nothing_is_said() -> None:
    """And makes no new entry of an old one."""
    completed = complete_entry(ENTRY, None, TERMS)

    assert completed.facts == {"subject": "7", "consent_train": "true", "consent_generate": "true"}
    assert ENTRY.facts == {"subject": "7"}
    assert complete_entry(ENTRY, None, None) == ENTRY
    only_training = complete_entry(ENTRY, None, replace(TERMS, generate=False))
    assert only_training.facts["consent_generate"] == "false"


@pytest.mark.parametrize("said", [{"consent_train": "false"}, {"consent_train": "true"}, {"consent_generate": "no"}])
def test_what_is_said_of_one_patient_is_all_of_it(said: dict[str, str], tmp_path: Path) -> None:
    """An empty text beside it is no consent; whether the source or the labels say it."""
    by_source = complete_entry(replace(ENTRY, facts={"subject": "7"} | said), None, TERMS)
    (name, text), *_ = said.items()
    (tmp_path / "labels.csv").write_text(f"subject,{name}\n7,{text}\n")
    labels = open_labels(PrepareFile(source=".", labels=Labels(file="labels.csv")), tmp_path)
    by_labels = complete_entry(ENTRY, labels, TERMS)

    assert by_source.facts == by_labels.facts == {"subject": "7"} | said


def test_labels_come_before_the_consent_for_all() -> None:
    """Which fills what they leave open of another patient."""
    assert complete_entry(ENTRY, LabelBook({}, {}), TERMS).facts["consent_train"] == "true"
