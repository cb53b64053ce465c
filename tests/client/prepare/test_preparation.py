"""From photographs to a manifest: what comes out is what went in, once, and again without change."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from ccfexp.adapter import AdapterConfig
from ccfexp.data.alignment import five_points, similarity
from ccfexp.data.dataset import load_split
from ccfexp.data.phantom.sites import shared_phantom
from ccfexp.data.rows import LandmarkSource, Role, Split
from ccfexp.evaluation.measures import eye_distance
from ccfexp.model import CCFExp
from ccfexp.training import SiteData, TrainConfig, train_local
from client.chain import Chain, utc_now
from client.ledger import UPDATE, EgressLedger
from client.prepare.withdrawal import Withdrawals
from tests.client.prepare.clinic import SIZE, Clinic, Shot, shots, write_csv, write_folder, write_table
from tests.client.prepare.dicoms import write_dicom
from tests.client.prepare.films import phantom_film, write_video

Fill = Callable[[Clinic, list[Shot]], None]
ADAPTER = AdapterConfig(rank=2, alpha=4.0)


@pytest.fixture(scope="module")
def taken() -> list[Shot]:
    """Three patients, two photographs each."""
    return shots()


@pytest.fixture
def clinic(tmp_path: Path) -> Clinic:
    """A hospital with an empty inbox."""
    return Clinic.at(tmp_path)


def as_folder(clinic: Clinic, taken: list[Shot]) -> None:
    write_folder(clinic.inbox / "photos", taken)
    clinic.settings(source=str(clinic.inbox / "photos"), labels={"file": str(clinic.inbox / "labels.csv")})


def as_csv(clinic: Clinic, taken: list[Shot]) -> None:
    clinic.settings(source=str(write_table(clinic.inbox / "table.csv", taken)))


def as_xlsx(clinic: Clinic, taken: list[Shot]) -> None:
    clinic.settings(source=str(write_table(clinic.inbox / "table.xlsx", taken)))


MARKED = (36, 45, 30, 48, 54)  # outer eye corners, nose tip, oral commissures
MAGENTA = np.array([255, 0, 255])


def marked(shot: Shot) -> Shot:
    """The photograph with a dot of a colour that no face has at some of its landmarks."""
    y_HW, x_HW = np.mgrid[0 : shot.image_HW3.shape[0], 0 : shot.image_HW3.shape[1]] + 0.5
    image_HW3 = shot.image_HW3.copy()
    for x, y in shot.landmark_682[list(MARKED)]:
        image_HW3[np.hypot(x_HW - x, y_HW - y) <= 2.5] = MAGENTA
    return replace(shot, image_HW3=image_HW3)


def dot_near(image_HW3: npt.NDArray[np.uint8], point_2: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """The middle of the dot of that colour around a point."""
    y_HW, x_HW = np.mgrid[0 : image_HW3.shape[0], 0 : image_HW3.shape[1]] + 0.5
    colour_HW3 = image_HW3.astype(float)
    weight_HW = np.clip(np.minimum(colour_HW3[..., 0], colour_HW3[..., 2]) - colour_HW3[..., 1] - 60, 0, None)
    weight_HW = weight_HW * (np.hypot(x_HW - point_2[0], y_HW - point_2[1]) < 6)
    assert weight_HW.sum() > 0
    middle_2: npt.NDArray[np.float64] = np.array([(weight_HW * x_HW).sum(), (weight_HW * y_HW).sum()]) / weight_HW.sum()
    return middle_2


@pytest.mark.parametrize("fill", [as_folder, as_csv, as_xlsx])
def test_photographs_become_a_manifest_with_their_landmarks_in_place(
    clinic: Clinic, taken: list[Shot], fill: Fill, capsys: pytest.CaptureFixture[str]
) -> None:
    """Facts as they were said, landmarks within a twentieth of the distance between the eyes, patients whole."""
    fill(clinic, taken)
    assert clinic.prepare() == 0, capsys.readouterr()

    rows = clinic.manifest().rows
    assert len(rows) == len(taken)
    expected = sorted((shot.movement, shot.side, shot.grade) for shot in taken)
    assert sorted((row.movement, row.side, row.grade) for row in rows) == expected
    assert {row.role for row in rows if row.movement == "rest"} == {Role.BOTH}
    assert {row.landmark_source for row in rows} == {LandmarkSource.IMPORTED}
    assert all(row.consent_train and not row.consent_generate for row in rows)
    assert {row.split for row in rows} == {Split.TRAIN, Split.HOLDOUT}


@pytest.mark.parametrize("size", [64, 112, 224])
def test_landmarks_lie_in_the_prepared_picture_where_they_are_seen(clinic: Clinic, size: int) -> None:
    """By dots drawn into the photographs: within a twentieth of the distance between the eyes, on every picture."""
    as_csv(clinic, [marked(shot) for shot in shots(2, size=384)])
    clinic.settings(source=str(clinic.inbox / "table.csv"), image_size=size)
    assert clinic.prepare() == 0

    rows = clinic.manifest(size).rows
    assert len(rows) == 4
    for row in rows:
        image_HW3 = np.asarray(Image.open(clinic.place.data / row.path))
        point_682 = np.load(clinic.place.data / row.landmarks)
        seen_52 = np.stack([dot_near(image_HW3, point_682[index]) for index in MARKED])
        errors_5 = np.linalg.norm(seen_52 - point_682[list(MARKED)], axis=-1) / eye_distance(point_682)
        assert errors_5.max() < 0.05


def test_dicom_and_video_become_a_manifest(clinic: Clinic) -> None:
    """A patient's rest from a photograph, the peak of a smile from a film; both of one patient by the same number."""
    subject = "MRN-SECRET-77"
    film = phantom_film(shared_phantom(), 500, "smile_teeth", size=128)
    folder = clinic.inbox / "films" / subject
    write_video(folder / "smile_teeth.mp4", film.images)
    np.save(folder / "smile_teeth.npy", film.landmark_T682)
    labels = [{"subject": subject, "side": "none", "grade": "I", "consent_train": "yes"}]
    write_csv(clinic.inbox / "labels.csv", labels)
    write_dicom(clinic.inbox / "dicom" / "a.dcm", film.images[0], subject=subject, movement="Resting")
    np.save(clinic.inbox / "dicom" / "a.npy", film.landmark_T682[0])

    clinic.settings(source=str(clinic.inbox / "dicom"), labels={"file": str(clinic.inbox / "labels.csv")}, holdout=0.0)
    assert clinic.prepare() == 0
    assert clinic.prepare("--source", str(clinic.inbox / "films")) == 0

    rows = clinic.manifest().rows
    assert sorted(row.movement for row in rows) == ["rest", "smile_teeth"]
    assert len({row.subject_id for row in rows}) == 1


def test_the_training_loop_runs_on_what_was_prepared(clinic: Clinic, taken: list[Shot]) -> None:
    """The one loop of every run, on the shipped base, unchanged."""
    as_csv(clinic, taken)
    assert clinic.prepare() == 0
    model = CCFExp.from_base("phantom-base")
    data = SiteData.prepare(model, clinic.site.manifest)
    model.attach_adapter(ADAPTER, 0)
    before = {name: value.clone() for name, value in model.adapter_state().items()}
    result = train_local(model, data, TrainConfig(steps=2, batch_size=2), seed=0, round_number=1)

    assert np.isfinite(result.loss)
    assert any(not before[name].equal(value) for name, value in model.adapter_state().items())
    assert load_split(clinic.manifest(), "holdout").patients == 1


def snapshot(clinic: Clinic) -> dict[str, tuple[bytes, int]]:
    """Content and time of every file that a second run could touch."""
    return {
        str(path): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in clinic.written()
        if path.is_relative_to(clinic.place.data)
    }


def test_second_run_changes_nothing(clinic: Clinic, taken: list[Shot], capsys: pytest.CaptureFixture[str]) -> None:
    """Not a byte and not a time of the data set."""
    as_csv(clinic, taken)
    assert clinic.prepare() == 0
    before = snapshot(clinic)
    capsys.readouterr()

    assert clinic.prepare() == 0
    assert snapshot(clinic) == before
    assert f"{len(taken)} entries: 0 prepared now, {len(taken)} known already, 0 not taken" in capsys.readouterr().out


def test_added_photographs_alone_are_prepared(
    clinic: Clinic, taken: list[Shot], capsys: pytest.CaptureFixture[str]
) -> None:
    """The others keep their files, their split and their pseudonyms; the table may be sorted anew."""
    as_csv(clinic, taken)
    assert clinic.prepare() == 0
    before, old = clinic.manifest().rows, snapshot(clinic)
    capsys.readouterr()

    as_csv(clinic, [*shots(1, first=900), *taken])
    assert clinic.prepare() == 0
    assert "8 entries: 2 prepared now, 6 known already" in capsys.readouterr().out
    after, new = clinic.manifest().rows, snapshot(clinic)
    assert set(before) < set(after)
    assert {name: kept for name, kept in new.items() if name in old and "manifest" not in name} == {
        name: kept for name, kept in old.items() if "manifest" not in name
    }


def test_corrected_facts_are_taken_over(clinic: Clinic, taken: list[Shot]) -> None:
    """A grade that was wrong in the table is right in the manifest after the next run."""
    as_csv(clinic, taken)
    assert clinic.prepare() == 0
    clinic.settings(source=str(write_table(clinic.inbox / "table.csv", taken, grade="")))
    assert clinic.prepare() == 0

    assert {row.grade for row in clinic.manifest().rows} == {None}
    assert len(list((clinic.place.data / "images").iterdir())) == len(taken)


@pytest.mark.parametrize(
    "column", [{"consent_train": "false"}, {"consent_train": ""}, {"consent_expires": "2020-01-01"}]
)
def test_photographs_whose_consent_ends_go(
    clinic: Clinic, taken: list[Shot], column: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows, images, landmarks; and it is written down that they were there."""
    as_csv(clinic, taken)
    assert clinic.prepare() == 0
    clinic.settings(source=str(write_table(clinic.inbox / "table.csv", taken, **column)))

    assert clinic.prepare() == 1
    assert "consent" in capsys.readouterr().out
    assert not clinic.site.manifest.exists()
    assert [*(clinic.place.data / "images").iterdir(), *(clinic.place.data / "landmarks").iterdir()] == []
    entries = Chain(clinic.place.private / "withdrawals.jsonl").entries()
    assert [entry.kind for entry in entries] == ["removed"] * 3
    assert sum(entry.facts["photographs"] for entry in entries) == len(taken)


def test_withdrawal_leaves_nothing_and_says_what_was_trained(
    clinic: Clinic, taken: list[Shot], capsys: pytest.CaptureFixture[str]
) -> None:
    """Files, rows, caches, record and report; and the patient is not taken again from the same folder."""
    as_csv(clinic, taken)
    assert clinic.prepare() == 0
    subject = next(row.subject_id for row in clinic.manifest().rows if row.split is Split.TRAIN)
    number = next(shot.subject for shot in taken if _pseudonym(clinic, shot.subject) == subject)
    EgressLedger.of(clinic.site).record(UPDATE, {"run": "42", "round": 1, "epsilon": None})
    (clinic.site.cache / "ab").mkdir(parents=True)
    (clinic.site.cache / "ab" / "features-1.safetensors").write_bytes(b"features")
    capsys.readouterr()

    assert clinic.prepare("--forget", number.lower(), "--yes") == 0
    said = capsys.readouterr().out
    assert "run 42: 1 rounds" in said
    assert number not in said
    assert not clinic.site.cache.exists()
    assert not clinic.place.report.exists()
    rows = clinic.manifest().rows
    assert subject not in {row.subject_id for row in rows}
    assert len(list((clinic.place.data / "images").iterdir())) == len(rows) == len(taken) - 2
    entry = Chain(clinic.place.private / "withdrawals.jsonl").entries()[-1]
    assert (entry.kind, entry.facts["subject"], entry.facts["photographs"]) == ("withdrawn", subject, 2)
    assert entry.facts["runs"]["42"]["rounds"] == 1

    assert clinic.prepare() == 0
    assert "the patient has withdrawn at this hospital" in capsys.readouterr().out
    assert clinic.manifest().rows == rows
    assert clinic.prepare("--check") == 0


def test_withdrawal_is_asked_about_and_waits_for_the_service(
    clinic: Clinic, taken: list[Shot], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody answers yes, nothing happens; and a service that runs holds photographs in memory."""
    as_csv(clinic, taken)
    assert clinic.prepare() == 0
    monkeypatch.setattr("builtins.input", lambda _: "no")
    assert clinic.prepare("--forget", taken[0].subject) == 1
    with clinic.place.unserved():
        assert clinic.prepare("--forget", taken[0].subject, "--yes") == 2
    assert "the site's service (client.run) runs" in capsys.readouterr().err
    assert len(clinic.manifest().rows) == len(taken)


def test_corrections_by_hand_stay(clinic: Clinic, taken: list[Shot]) -> None:
    """Through a second run, and through a preparation at another size, where they are carried over."""
    as_csv(clinic, taken)
    assert clinic.prepare() == 0
    from client.prepare.landmarks_page.manifest_desk import ManifestDesk

    desk = ManifestDesk(clinic.site.manifest, SIZE)
    face = desk.faces()[0]
    placed = desk.placed(face.number)
    points = placed.point_682.copy()
    points[48] += (3.0, -2.0)
    desk.save(face.number, points, placed.version)
    path = next(row.path for row in clinic.manifest().rows if row.landmark_source is LandmarkSource.MANUAL)

    assert clinic.prepare() == 0
    row = next(row for row in clinic.manifest().rows if row.path == path)
    assert row.landmark_source is LandmarkSource.MANUAL
    np.testing.assert_allclose(np.load(clinic.place.data / row.landmarks), points, atol=1e-4)

    clinic.settings(source=str(clinic.inbox / "table.csv"), image_size=112)
    assert clinic.prepare() == 0
    manual = [row for row in clinic.manifest(112).rows if row.landmark_source is LandmarkSource.MANUAL]
    assert len(manual) == 1
    # The frame itself follows the corrected points, so what stays is their place on the face, not the pixel.
    moved = similarity(five_points(points), 112).points(points)
    np.testing.assert_allclose(np.load(clinic.place.data / manual[0].landmarks), moved, atol=0.01)


def test_foreign_manifest_is_not_overwritten(
    clinic: Clinic, taken: list[Shot], capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever has another data set there keeps it."""
    as_csv(clinic, taken)
    other = Clinic.at(clinic.site.root / "other")
    as_csv(other, taken)
    assert other.prepare() == 0
    clinic.place.data.mkdir(parents=True)
    clinic.site.manifest.write_bytes(other.site.manifest.read_bytes())

    assert clinic.prepare() == 2
    assert "rows=6 that this command did not prepare" in capsys.readouterr().err
    assert clinic.site.manifest.read_bytes() == other.site.manifest.read_bytes()


def test_lost_key_is_not_replaced(clinic: Clinic, taken: list[Shot], capsys: pytest.CaptureFixture[str]) -> None:
    """Every patient would be somebody else, with a new privacy budget."""
    as_csv(clinic, taken)
    assert clinic.prepare() == 0
    clinic.place.key.unlink()

    assert clinic.prepare() == 2
    assert "the key of the pseudonyms is missing" in capsys.readouterr().err


def test_check_finds_what_is_wrong(clinic: Clinic, taken: list[Shot], capsys: pytest.CaptureFixture[str]) -> None:
    """An altered image, altered landmarks, a file beside."""
    as_csv(clinic, taken)
    assert clinic.prepare() == 0
    assert clinic.prepare("--check") == 0
    assert "the manifest is whole: 6 photographs of 2 patients to train on and 1 held out" in capsys.readouterr().out

    rows = clinic.manifest().rows
    (clinic.place.data / "images" / "left over.png").write_bytes(b"a face")
    assert clinic.prepare("--check") == 1
    assert "files=1 in images/ and landmarks/ are named by no row" in capsys.readouterr().out
    (clinic.place.data / rows[1].landmarks).write_bytes((clinic.place.data / rows[0].landmarks).read_bytes())
    assert clinic.prepare("--check") == 1
    assert "row 3: landmarks differ from landmarks_sha256" in capsys.readouterr().out


def test_entries_are_located_in_a_terminal_alone(
    clinic: Clinic, taken: list[Shot], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A pipe could end in a log."""
    as_folder(clinic, taken)
    assert clinic.prepare("--locate", "2") == 2
    assert "to a terminal alone" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert clinic.prepare("--locate", "2") == 0
    assert "smile_teeth_1.png" in capsys.readouterr().out


def test_unknown_key_of_the_settings_is_refused(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    """With the nearest known one; and nothing is made."""
    clinic.settings(hold_out=0.1)
    assert clinic.prepare() == 2
    assert "Did you mean 'holdout'?" in capsys.readouterr().err
    assert not clinic.site.manifest.exists()


def _pseudonym(clinic: Clinic, number: str) -> str:
    from client.prepare.pseudonyms import Pseudonyms

    return Pseudonyms.of(clinic.place.key, make=False).subject(number)


# --- consent that is taken back, in whatever way it is said ----------------------------------------------------------


def rewrite(clinic: Clinic, change: Callable[[list[dict[str, str]]], object]) -> None:
    """Change the rows of the table."""
    path = clinic.inbox / "table.csv"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    change(rows)
    write_csv(path, rows)


def subjects(clinic: Clinic) -> set[str]:
    """Pseudonyms in the manifest."""
    return {row.subject_id for row in clinic.manifest().rows}


def test_consent_counts_although_the_photographs_are_gone(clinic: Clinic, taken: list[Shot]) -> None:
    """Whoever withdraws is set to false in the table, and the photographs are deleted: the natural way."""
    as_csv(clinic, taken)
    assert clinic.prepare() == 0
    number = taken[2].subject

    def withdraw(rows: list[dict[str, str]]) -> None:
        for row in rows:
            if row["subject"] == number:
                row["consent_train"] = "false"
                (clinic.inbox / row["path"]).unlink()

    rewrite(clinic, withdraw)
    (clinic.site.cache).mkdir(parents=True)
    assert clinic.prepare() == 0
    assert _pseudonym(clinic, number) not in subjects(clinic)
    assert not clinic.site.cache.exists()


def test_no_consent_of_a_copy_is_no_consent(
    clinic: Clinic, taken: list[Shot], capsys: pytest.CaptureFixture[str]
) -> None:
    """One photograph in two rows, of which one does not agree: it is not taken, in either order."""
    as_csv(clinic, taken)
    rewrite(clinic, lambda rows: rows.append(rows[0] | {"consent_train": "false"}))
    rewrite(clinic, lambda rows: rows.insert(0, rows[3] | {"consent_train": "no"}))
    assert clinic.prepare() == 0
    assert capsys.readouterr().out.count("whose patient does not agree to training") == 2
    assert len(clinic.manifest().rows) <= len(taken) - 2


def test_withdrawn_photographs_are_known_under_another_number(
    clinic: Clinic, taken: list[Shot], capsys: pytest.CaptureFixture[str]
) -> None:
    """By what stands in them."""
    as_csv(clinic, taken)
    assert clinic.prepare() == 0
    assert clinic.prepare("--forget", taken[0].subject, "--yes") == 0
    rewrite(clinic, lambda rows: [row.update(subject="somebody else") for row in rows[:2]])
    assert clinic.prepare() == 0
    assert "has withdrawn; find out whose it is" in capsys.readouterr().out
    assert len(subjects(clinic)) == 2


def test_withdrawal_that_was_cut_off_is_completed(clinic: Clinic, taken: list[Shot]) -> None:
    """The record stands and nothing else was done, and the source is gone by now; the check sees it, too."""
    as_csv(clinic, taken)
    assert clinic.prepare() == 0
    subject = _pseudonym(clinic, taken[0].subject)
    Withdrawals.of(clinic.place, utc_now).withdrawn(subject, [], None)
    assert clinic.prepare("--check") == 1
    rewrite(clinic, lambda rows: rows.__delitem__(slice(0, 2)))
    assert clinic.prepare() == 0
    assert subject not in subjects(clinic)
    assert clinic.prepare("--check") == 0


def test_runs_that_were_trained_before_are_remembered(clinic: Clinic, taken: list[Shot]) -> None:
    """Also when the consent went first and the withdrawal came later."""
    as_csv(clinic, taken)
    assert clinic.prepare() == 0
    number = next(shot.subject for shot in taken if _split(clinic, shot.subject) is Split.TRAIN)
    EgressLedger.of(clinic.site).record(UPDATE, {"run": "77", "round": 1, "epsilon": None})
    rewrite(clinic, lambda rows: [row.update(consent_train="false") for row in rows if row["subject"] == number])
    assert clinic.prepare() == 0
    assert clinic.prepare("--forget", number, "--yes") == 0
    entry = Chain(clinic.place.private / "withdrawals.jsonl").entries()[-1]
    assert (entry.kind, list(entry.facts["runs"])) == ("withdrawn", ["77"])


@pytest.mark.parametrize("who", ["", " ", "NOBODY99", "S" + "0" * 20])
def test_nobody_is_forgotten_by_mistake(
    clinic: Clinic, taken: list[Shot], who: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A number that nothing is known of is probably mistyped, and whoever withdrew would stay."""
    as_csv(clinic, taken)
    assert clinic.prepare() == 0
    assert clinic.prepare("--forget", who, "--yes") == 2
    assert clinic.place.report.exists()
    assert not who.strip() or who not in capsys.readouterr().err
    if who == "NOBODY99":
        assert clinic.prepare("--forget", who, "--yes", "--unknown") == 0


def test_what_cannot_be_prepared_anew_does_not_stay_as_it_was(clinic: Clinic, taken: list[Shot]) -> None:
    """Its labels may be others by now."""
    as_csv(clinic, taken)
    assert clinic.prepare() == 0
    (clinic.inbox / "pictures").joinpath(f"photo 1 {taken[1].subject}.npy").write_bytes(b"no points")
    rewrite(clinic, lambda rows: [row.update(consent_generate="true") for row in rows])
    assert clinic.prepare() == 0
    rows = clinic.manifest().rows
    assert len(rows) == len(taken) - 1
    assert all(row.consent_generate for row in rows)


def test_files_of_others_are_left_alone(clinic: Clinic, taken: list[Shot], capsys: pytest.CaptureFixture[str]) -> None:
    """Another data set in the same folder, a file with a name like ours; and the photographs themselves."""
    as_csv(clinic, taken)
    (clinic.place.data / "images").mkdir(parents=True)
    other = clinic.place.data / "images" / ("a" * 32 + ".png")
    other.write_bytes(b"somebody's")
    clinic.prepare()
    assert other.exists()
    assert clinic.prepare("--source", str(clinic.place.data)) == 2
    assert clinic.prepare("--source", str(clinic.site.root)) == 2
    assert "lie one in the other" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text",
    [
        "source: [Anna_Schmidt]\n", "source: a\nprocesses: Anna_Schmidt\n", "Anna_Schmidt: 1\nsource: a\n",
        "source: 'Anna_Schmidt", "source: a\nwords: {anna_schmidt: smle}\n", "source: a\nwords: {Anna_Schmidt: 5}\n",
        "source: a\nlabels: Anna_Schmidt.csv\n",
    ],
)  # fmt: skip
def test_values_of_the_settings_are_not_repeated(clinic: Clinic, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """They may be names and paths; what is wrong is said all the same."""
    (clinic.site.root / "prepare.yaml").write_text(text)
    assert clinic.prepare() == 2
    err = capsys.readouterr().err
    assert "schmidt" not in err.casefold()
    assert str(clinic.site.root) not in err
    assert any(word in err for word in ("expected", "unknown key", "cannot be read", "movement"))


@pytest.mark.parametrize("arguments", [("--locate", "Schmidt_Anna"), ("--forget", "Anna", "Schmidt"), ("--Schmidt",)])
def test_arguments_are_not_repeated(
    clinic: Clinic, arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """An error ends in logs."""
    with pytest.raises(SystemExit):
        clinic.prepare(*arguments)
    assert "Schmidt" not in capsys.readouterr().err


def _split(clinic: Clinic, number: str) -> Split:
    pseudonym = _pseudonym(clinic, number)
    return next(row.split for row in clinic.manifest().rows if row.subject_id == pseudonym)
