"""Five hundred inputs that cannot be used: each has its reason, their good neighbours are all kept, nothing crashes."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from ccfexp.data.rows import LandmarkSource
from tests.client.prepare.clinic import Clinic, shots, write_csv, write_folder, write_table
from tests.client.prepare.malformed import ROWS, malform_folder

FILES, TABLE_ROWS = 360, 5 * len(ROWS)
# What a bit flip leaves readable is a photograph; about one in three of these stays one.
MAY_PASS = FILES // 11


def refused(clinic: Clinic) -> dict[int, str]:
    """What was not taken, by entry."""
    with clinic.place.refused.open(newline="") as file:
        return {int(row["entry"]): row["reason"] for row in csv.DictReader(file)}


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a table."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def own_files(folder: Path, row: dict[str, str], index: int) -> dict[str, str]:
    """The row with copies of its files, so that nothing but what is planted is wrong with it."""
    copies = {name: f"pictures/copy {index}{Path(row[name]).suffix}" for name in ("path", "landmarks")}
    for name, copy in copies.items():
        (folder / copy).write_bytes((folder / row[name]).read_bytes())
    return row | copies


@pytest.mark.slow
def test_malformed_files_are_refused_one_by_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Cut, changed, of other formats, bombs, bad landmarks, unknown words, strange names, links and pipes."""
    clinic, taken = Clinic.at(tmp_path), shots()
    root = clinic.inbox / "photos"
    write_folder(root, taken)
    malform_folder(root, taken, FILES, seed=1)
    patients = [path.name for path in root.iterdir()]
    labels = [{"subject": name, "side": "left", "grade": "", "consent_train": "yes"} for name in patients]
    write_csv(clinic.inbox / "labels.csv", labels)
    clinic.settings(source=str(root), labels={"file": str(clinic.inbox / "labels.csv")}, limits={"seconds": 20.0})

    assert clinic.prepare() == 0
    reasons = refused(clinic)
    out = capsys.readouterr()
    rows = clinic.manifest().rows
    assert len(taken) <= len(rows) <= len(taken) + MAY_PASS
    assert len(reasons) >= FILES - MAY_PASS
    assert len(reasons) + len(rows) == int(out.out.split(" entries:")[0].splitlines()[-1])
    for reason in reasons.values():
        assert len(reason) > 15, reason
        assert not any(text in reason for text in ("bad patient", "hostname", "nowhere", "Traceback", "\n")), reason
        assert "crashed" not in reason, reason
        assert "limits.seconds" not in reason, reason
    # Words of Python's own would help nobody.
    unexplained = [reason for reason in reasons.values() if "cannot be used (" in reason]
    assert unexplained == []
    assert {row.landmark_source for row in rows} == {LandmarkSource.IMPORTED}


@pytest.mark.slow
def test_malformed_rows_are_refused_one_by_one(tmp_path: Path) -> None:
    """Paths out of the folder, missing facts and consents, words and days that are none; and rows that stand twice."""
    clinic, taken = Clinic.at(tmp_path), shots()
    others = write_table(clinic.inbox / "others.csv", shots(first=700))
    table = write_table(clinic.inbox / "table.csv", taken)
    good, other = read_csv(table), read_csv(others)
    rows = [dict.fromkeys([*good[0], "role", "mm_per_pixel", "consent_expires", "start_s"], "") | row for row in good]
    bad = [
        own_files(table.parent, dict.fromkeys(rows[0], "") | other[index % len(other)], index)
        for index in range(TABLE_ROWS)
    ]
    bad = [row | ROWS[index % len(ROWS)] for index, row in enumerate(bad)]
    write_csv(table, [*bad[: TABLE_ROWS // 2], *rows, *bad[TABLE_ROWS // 2 :]])
    clinic.settings(source=str(table))

    code = clinic.prepare()
    reasons = refused(clinic)
    assert code == 0, reasons
    assert len(clinic.manifest().rows) == len(taken)
    assert len(reasons) == TABLE_ROWS
    first_good = TABLE_ROWS // 2 + 2
    assert set(reasons) == set(range(2, TABLE_ROWS + len(rows) + 2)) - set(range(first_good, first_good + len(rows)))
    assert not any("passwd" in reason or "MRN" in reason or "links" in reason for reason in reasons.values())
