"""The record of what was prepared: what is put in comes out, what is taken out is gone from the disk."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from ccfexp.data.rows import LandmarkSource, Movement, Role, Side, Split
from ccfexp.errors import ConfigError
from client.prepare.store import Item, Labels, Store

LABELS = Labels(
    movement=Movement.SNARL, side=Side.LEFT, grade=4, role=None, consent_generate=True, consent_expires=date(2030, 1, 2)
)
ITEM = Item(
    mark="m1", recipe="r", name="0" * 32, content="c", subject="S1", session="001", labels=LABELS, sha256="a",
    landmarks="1" * 32, landmarks_sha256="b", landmark_source=LandmarkSource.MANUAL, image_size=112,
    figures={"score": 0.5, "none": None}, crop=b"\x00\xff", number=7, added="2026-01-01T00:00:00.000+00:00",
)  # fmt: skip
OTHER = replace(
    ITEM,
    mark="m2",
    name="2" * 32,
    subject="S2",
    labels=replace(LABELS, role=Role.BOTH, grade=None, consent_expires=None),
)


def test_what_is_put_in_comes_out(tmp_path: Path) -> None:
    """Exactly, also after the file was closed; a second one of the same mark replaces the first."""
    with Store.open(tmp_path / "s", "key") as store:
        store.put([ITEM, OTHER])
        store.put([replace(ITEM, number=9)])
    with Store.open(tmp_path / "s", "key") as store:
        assert store.items() == {"m1": replace(ITEM, number=9), "m2": OTHER}
        store.remove(["m1"])
        assert store.items() == {"m2": OTHER}


def test_all_or_none_is_put_in(tmp_path: Path) -> None:
    """Two photographs may not have one file."""
    with pytest.raises(ConfigError, match="cannot be used"), Store.open(tmp_path / "s", "key") as store:
        store.put([ITEM, replace(OTHER, name=ITEM.name)])
    with Store.open(tmp_path / "s", "key") as store:
        assert store.items() == {}


def test_sessions_are_numbered_by_patient_and_stay(tmp_path: Path) -> None:
    """In the order in which they are first seen."""
    with Store.open(tmp_path / "s", "key") as store:
        numbers = [store.session(*key) for key in (("S1", "x"), ("S1", "y"), ("S2", "y"), ("S1", "x"))]

    assert numbers == ["001", "002", "001", "001"]


def test_nobody_changes_sides_of_the_split(tmp_path: Path) -> None:
    """Whoever was trained on can never be held out: it would tell nothing."""
    with Store.open(tmp_path / "s", "key") as store:
        store.assign({"S1": Split.TRAIN})
        store.assign({"S1": Split.HOLDOUT, "S2": Split.HOLDOUT})
        assert store.splits() == {"S1": Split.TRAIN, "S2": Split.HOLDOUT}


def test_forgotten_patient_is_gone_from_the_disk(tmp_path: Path) -> None:
    """Not merely unreachable: the bytes are not in the file any more."""
    path, planted = tmp_path / "s", b"a face of S1, as bytes" * 50
    with Store.open(path, "key") as store:
        store.put([replace(ITEM, subject="S1-to-forget", crop=planted), OTHER])
        store.session("S1-to-forget", "x")
        store.assign({"S1-to-forget": Split.TRAIN})
        assert planted in path.read_bytes()
        store.forget("S1-to-forget")
        assert store.items() == {"m2": OTHER}
    assert b"S1-to-forget" not in path.read_bytes()
    assert planted[:40] not in path.read_bytes()
    assert sorted(tmp_path.iterdir()) == [path]


def test_record_of_another_key_or_a_damaged_one_is_refused(tmp_path: Path) -> None:
    """Rather than that every patient becomes somebody else."""
    path = tmp_path / "s"
    with Store.open(path, "key"):
        pass
    with pytest.raises(ConfigError, match="another key of pseudonyms"), Store.open(path, "other"):
        pass
    path.write_bytes(b"SQLite format 3\x00" + b"rubbish" * 100)
    with pytest.raises(ConfigError, match="cannot be used"), Store.open(path, "key"):
        pass
