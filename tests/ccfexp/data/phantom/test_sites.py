"""Phantom hospitals: valid data sets that differ from each other, and the command line that writes them."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ccfexp.data.manifest import read_manifest
from ccfexp.data.phantom.__main__ import main
from ccfexp.data.phantom.head import FloatArray
from ccfexp.data.phantom.presets import SITES, site_preset
from ccfexp.data.phantom.sites import PhantomSite, patient_palsy, photograph, shared_phantom, write_site
from ccfexp.data.rows import LandmarkSource, Role
from ccfexp.errors import ConfigError

SMALL = PhantomSite("T", subjects=3, first_identity=70_000, sessions=2, movements=("smile_teeth",), holdout=1)
SIZE = 32


def _hashes(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("quality", [0, 90])
def test_a_site_is_a_valid_manifest_and_written_twice_the_same(tmp_path: Path, quality: int) -> None:
    """Every file; the rows say what was rendered."""
    site = replace(SMALL, jpeg_quality=quality)
    done: list[tuple[int, int]] = []
    path = write_site(site, tmp_path, SIZE, on_subject=lambda *counts: done.append(counts))
    before = _hashes(tmp_path)

    manifest = read_manifest(path, SIZE)

    assert write_site(site, tmp_path, SIZE) == path
    assert _hashes(tmp_path) == before
    assert done == [(1, 3), (2, 3), (3, 3)]
    assert len(manifest.rows) == site.images == 12
    assert len(before) == 1 + 2 * 12
    assert {row.subject_id for row in manifest.rows if row.split == "holdout"} == {"P070002"}
    assert all(row.consent_train and row.landmark_source is LandmarkSource.PHANTOM for row in manifest.rows)
    for row in manifest.rows:
        palsy = patient_palsy(site, int(row.subject_id[1:]))
        assert (row.side, row.grade) == (palsy.side, palsy.grade)
        assert (row.role is Role.BOTH) == (row.movement == "rest")
        assert row.path.endswith(".jpg" if quality else ".png")


def test_files_hold_what_is_rendered(tmp_path: Path) -> None:
    """Without JPEG to the last bit, landmarks always."""
    rows = read_manifest(write_site(SMALL, tmp_path, SIZE), SIZE).rows
    row = next(row for row in rows if row.session == "1" and row.movement == "smile_teeth")
    photo = photograph(SMALL, int(row.subject_id[1:]), 1, "smile_teeth", SIZE)

    with Image.open(tmp_path / row.path) as picture:
        assert np.array_equal(np.asarray(picture), photo.image_HW3)
    assert np.array_equal(np.load(tmp_path / row.landmarks), photo.landmark_682)


def test_sessions_are_other_days() -> None:
    """Another light and background, the same palsy."""
    first, second = (photograph(SMALL, 70_001, session, "rest", SIZE) for session in (0, 1))

    assert first.labels.palsy == second.labels.palsy
    assert np.abs(first.image_HW3.astype(int) - second.image_HW3).mean() > 3


def test_a_loose_photograph_shows_a_smaller_face() -> None:
    """As a camera sees it before detection and alignment."""
    loose, aligned = (photograph(SMALL, 70_000, 0, "rest", 112, loose=loose).landmark_682 for loose in (True, False))

    def width(landmark_682: FloatArray) -> float:
        return float(np.ptp(landmark_682[:17, 0]))

    assert width(loose) < 0.7 * width(aligned)
    assert (loose > 0).all()
    assert (loose < 112).all()


def test_sites_are_not_alike() -> None:
    """Sides, grades and skin of the shipped hospitals differ, and so do their photographs; nobody is in two."""
    people = range(80)
    palsies = {name: [patient_palsy(site, site.first_identity + k) for k in people] for name, site in SITES.items()}
    left = {
        name: np.mean([palsy.side == "left" for palsy in drawn if palsy.side != "none"])
        for name, drawn in palsies.items()
    }
    grade = {name: np.mean([palsy.grade for palsy in drawn]) for name, drawn in palsies.items()}
    skin = {
        name: np.mean([shared_phantom().identity(site.first_identity + k, site.prior).skin_3.mean() for k in range(12)])
        for name, site in SITES.items()
    }

    assert left["A"] > 0.7
    assert 0.35 < left["C"] < 0.65
    assert left["B"] < 0.3
    assert grade["B"] > grade["C"] > grade["A"]
    assert skin["A"] > skin["C"] > skin["B"]
    ranges = sorted((site.first_identity, site.first_identity + site.subjects) for site in SITES.values())
    assert all(last <= first for (_, last), (first, _) in itertools.pairwise(ranges))


def test_a_palsy_is_drawn_from_the_mix() -> None:
    """Only grades with a weight; the share of synkinesis at its ends."""
    site = replace(SMALL, grade_weights=(0.0, 0.0, 1.0, 0.0, 0.0, 1.0), synkinesis_share=1.0, left_share=0.0)
    palsies = [patient_palsy(site, seed) for seed in range(40)]

    assert {palsy.grade for palsy in palsies} == {3, 6}
    assert {palsy.side for palsy in palsies} == {"right"}
    assert all(0.2 <= palsy.synkinesis <= 0.9 for palsy in palsies)
    assert not any(patient_palsy(replace(site, synkinesis_share=0.0), seed).synkinesis for seed in range(40))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "../A"}, "name='../A' must be letters and digits"),
        ({"subjects": 0}, "subjects=0"),
        ({"sessions": 0}, "sessions=0"),
        ({"holdout": 8}, r"holdout=8 must lie in \[0, subjects=8\)"),
        ({"first_identity": -1}, "first_identity=-1 must be >= 0"),
        ({"movements": ("smile_clsed",)}, "movement='smile_clsed' is not known. Did you mean 'smile_closed'"),
        ({"movements": ("smil",)}, "movement='smil' is not known. .*Known: .*smile_closed, smile_teeth"),
        ({"grade_weights": (1.0, 1.0)}, "grade_weights=.* must be six numbers"),
        ({"grade_weights": (0.0,) * 6}, "grade_weights=.* must be six numbers"),
        ({"left_share": 1.2}, r"left_share=1.2 must lie in \[0, 1\]"),
        ({"synkinesis_share": -0.2}, "synkinesis_share=-0.2"),
        ({"jpeg_quality": 101}, "jpeg_quality=101"),
    ],
)
def test_impossible_sites(values: dict[str, Any], message: str) -> None:
    """The error names the value, the bound and the nearest word."""
    with pytest.raises(ConfigError, match=message):
        PhantomSite(**({"name": "T"} | values))


def test_unknown_preset() -> None:
    """The known ones are listed."""
    with pytest.raises(ConfigError, match="unknown phantom site='D'; known: A, B, C"):
        site_preset("D")


def test_command_line_writes_a_data_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As many patients as asked for; the last line counts."""
    assert main(["--out", str(tmp_path), "--subjects", "2", "--holdout", "1", "--site", "B", "--size", "32"]) == 0

    rows = read_manifest(tmp_path / "manifest.csv", SIZE).rows
    assert len({row.subject_id for row in rows}) == 2
    assert len({row.subject_id for row in rows if row.split == "holdout"}) == 1
    assert f"wrote {len(rows)} phantom images of 2 patients" in capsys.readouterr().out


def test_command_line_overwrites_no_manifest_but_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same arguments may be given again; others, or a hospital's own folder, are refused and left as they are."""
    own, theirs = tmp_path / "own", tmp_path / "theirs"
    command = ["--out", str(own), "--subjects", "1", "--size", "32"]
    assert main(command) == 0
    before = {path: path.read_bytes() for path in own.rglob("*") if path.is_file()}
    assert main(command) == 0
    for other in (["--subjects", "2"], ["--size", "64"], ["--site", "B"], ["--loose"]):
        assert main([*command, *other]) == 2
        assert "holds a manifest.csv that these arguments did not write; name another" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in own.rglob("*") if path.is_file()} == before
    theirs.mkdir()
    (theirs / "manifest.csv").write_text("patients", encoding="utf-8")
    assert main(["--out", str(theirs), "--subjects", "1", "--size", "32"]) == 2
    assert [(path.name, path.read_text(encoding="utf-8")) for path in theirs.iterdir()] == [
        ("manifest.csv", "patients")
    ]


def test_command_line_writes_a_contact_sheet(tmp_path: Path) -> None:
    """Six grades by eleven movements."""
    assert main(["--out", str(tmp_path / "sheet.png"), "--sheet", "--size", "24"]) == 0

    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (11 * 24, 6 * 24)


@pytest.mark.parametrize(
    ("words", "message"),
    [(["--site", "Z"], "unknown phantom site='Z'"), (["--subjects", "0"], "subjects=0"), (["--size", "8"], "size=8")],
)
def test_command_line_refuses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    """Exit code 2, one line on the error stream, nothing written."""
    assert main(["--out", str(tmp_path / "out"), *words]) == 2

    assert message in capsys.readouterr().err
    assert not list(tmp_path.rglob("*"))
