"""The command that draws pictures: on the shipped base, with real files and a real adapter."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ccfexp.adapter import AdapterConfig
from ccfexp.checkpoint import save_adapter
from ccfexp.data.phantom.expression import Palsy
from ccfexp.data.phantom.render import Phantom
from ccfexp.model import CCFExp
from ccfexp.sample import main
from ccfexp.sample_folder import MANIFEST, SETTINGS, SOURCES

SIZE = 64


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two people at rest, three expressions of others."""
    folder, phantom = tmp_path_factory.mktemp("photographs"), Phantom()
    for kind, count, movement in (("people", 2, "rest"), ("shown", 3, "smile_teeth")):
        (folder / kind).mkdir()
        for number in range(count):
            person = phantom.identity(70_200 + number + 10 * (kind == "shown"))
            palsy = Palsy.of_grade(5, "left") if kind == "shown" else Palsy()
            image = phantom.render(person, movement, 1.0, palsy, 0, SIZE).image_HW3
            Image.fromarray(image).save(folder / kind / f"{kind[0]}{number}.png")
    return folder


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that changes something, in the files of a run."""
    folder = tmp_path_factory.mktemp("adapter")
    config, model = AdapterConfig(rank=2, alpha=4.0), CCFExp.from_base("phantom-base")
    model.attach_adapter(config, seed=1)
    generator = torch.Generator().manual_seed(2)
    state = {
        key: 0.05 * torch.randn(value.shape, generator=generator) if "lora_B" in key else value
        for key, value in model.adapter_state().items()
    }
    save_adapter(folder, state, model, config, {"base_sha256": model.base_sha256})
    return folder


def pixels(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    with Image.open(path) as image:
        assert image.info["Comment"].startswith("synthetic")
        return np.array(image)


def test_one_picture_and_what_the_adapter_does_to_it(photographs: Path, adapter: Path, tmp_path: Path) -> None:
    common = ["--identity", str(photographs / "people/p0.png"), "--expression", str(photographs / "shown/s0.png")]
    assert main([*common, "--out", str(tmp_path / "base.png")]) == 0
    assert main([*common, "--out", str(tmp_path / "again.png")]) == 0
    assert main([*common, "--out", str(tmp_path / "other.png"), "--seed", "1"]) == 0
    assert main([*common, "--adapter", str(adapter), "--out", str(tmp_path / "adapted.png")]) == 0
    base = pixels(tmp_path / "base.png")
    assert base.shape == (SIZE, SIZE, 3)
    assert np.array_equal(base, pixels(tmp_path / "again.png"))
    assert not np.array_equal(base, pixels(tmp_path / "other.png"))
    assert np.abs(base.astype(int) - pixels(tmp_path / "adapted.png")).mean() > 1
    person = pixels_of_photograph(photographs / "people/p0.png")
    stranger = pixels_of_photograph(photographs / "people/p1.png")
    assert np.abs(base.astype(int) - person).mean() < np.abs(base.astype(int) - stranger).mean()


def pixels_of_photograph(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    with Image.open(path) as image:
        return np.array(image).astype(np.int64)


def batch(photographs: Path, out: Path, *extra: str) -> list[str]:
    command = ["--identity", str(photographs / "people"), "--expression", str(photographs / "shown")]
    return [*command, "--out", str(out), "--steps", "2", *extra]


def lines(folder: Path) -> list[dict[str, str]]:
    with (folder / MANIFEST).open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_folders_give_every_pair_in_order_and_go_on(
    photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The pictures do not change when the command is given again; the manifest names all by number."""
    out = tmp_path / "out"
    assert main(batch(photographs, out)) == 0
    rows = lines(out)
    assert [(row["identity"], row["expression"]) for row in rows] == [
        (f"000{p}", f"000{s}") for p in (1, 2) for s in (1, 2, 3)
    ]
    assert {row["file"] for row in rows} | {MANIFEST, SETTINGS, SOURCES} == {path.name for path in out.iterdir()}
    assert rows[4]["file"] == "0002_0002.png"
    first = {row["file"]: pixels(out / row["file"]) for row in rows}
    (out / rows[4]["file"]).unlink()
    assert main(batch(photographs, out)) == 0
    assert "5 of 6 pictures are there already" in capsys.readouterr().err
    assert np.array_equal(pixels(out / rows[4]["file"]), first[rows[4]["file"]])
    assert all(row["sampler"] == "dpm" and row["steps"] == "2" and len(row["base_sha256"]) == 64 for row in rows)
    assert len({row["seed"] for row in rows}) == 6


def test_names_of_files_stay_in_the_file_that_is_not_shared(photographs: Path, tmp_path: Path) -> None:
    """A picture's seed follows from what is in the photographs, so that it tells nothing of their names either."""
    for kind in ("people", "shown"):
        shutil.copytree(photographs / kind, tmp_path / kind)
    (tmp_path / "people/p0.png").rename(tmp_path / "people/Ada Lovelace.png")
    for folder, out in ((photographs, "plain"), (tmp_path, "named")):
        assert main(batch(folder, tmp_path / out, "--steps", "1")) == 0
    assert lines(tmp_path / "plain") == lines(tmp_path / "named")
    written = {path.name: path.read_bytes() for path in (tmp_path / "named").iterdir()}
    sources = json.loads(written.pop(SOURCES))
    assert sources["identity"]["0001"]["file"] == "Ada Lovelace.png"
    assert "never shared" in sources["warning"]
    assert not any(b"Lovelace" in content or "Lovelace" in name for name, content in written.items())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (["--steps", "3"], "steps=2, now 3"),
        (["--seed", "4"], "seed=0, now 4"),
        (["--guidance", "1.5"], "guidance=1.0, now 1.5"),
        (["--adapter"], "adapter_sha256='', now '"),
        (["another photograph"], "expressions=3, now 4"),
    ],
)
def test_a_folder_drawn_from_something_else_is_refused_and_left_as_it_is(
    photographs: Path, adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: list[str], told: str
) -> None:
    out, shown = tmp_path / "out", tmp_path / "photographs"
    shutil.copytree(photographs, shown)
    assert main(batch(shown, out)) == 0
    next(out.glob("*.png")).unlink()
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    extra = [*change, str(adapter)] if change == ["--adapter"] else change
    if change == ["another photograph"]:
        shutil.copy(shown / "people/p0.png", shown / "shown/later.png")
        extra = []
    capsys.readouterr()

    assert main(batch(shown, out, *extra)) == 2
    said = capsys.readouterr().err
    assert told in said
    assert "name another --out" in said
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_what_a_folder_is_drawn_from_stands_there_before_its_first_picture(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An interrupted command leaves no picture without a record, and the same command goes on."""
    out = tmp_path / "out"

    def interrupted(*_: object) -> Iterator[None]:
        assert len(lines(out)) == 6
        assert json.loads((out / SETTINGS).read_text(encoding="utf-8"))["steps"] == 2
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("ccfexp.sample.draw", interrupted)
        assert main(batch(photographs, out)) == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert main(batch(photographs, out)) == 0
    assert len(list(out.glob("*.png"))) == 6


def test_pictures_of_unknown_origin_are_refused(
    photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/0001_0002.png").write_bytes(b"somebody's")
    assert main(batch(photographs, tmp_path / "out")) == 2
    assert "holds pictures without settings.json" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["0001_0002.png"]


def test_photographs_that_are_no_face_crops(
    photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All at once, with the remedy, and without a file's name: it may be a patient's."""
    (tmp_path / "shown").mkdir()
    Image.new("RGB", (200, 100)).save(tmp_path / "shown/secret.png")
    (tmp_path / "shown/other.jpg").write_bytes(b"no picture")
    command = ["--identity", str(photographs / "people"), "--expression", str(tmp_path / "shown")]
    assert main([*command, "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "2 photographs (counted in the order given: identities, then expressions, by name)" in said
    assert "no aligned face crops of 64 x 64 pixels, the size of the base; prepare them first" in said
    assert "python -m ccfexp.data.phantom --size 64" in said
    assert "photograph 4: image is 200x100 pixels" in said
    assert "secret" not in said
    assert not (tmp_path / "out").exists()


def test_an_adapter_of_another_base_is_refused(
    photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, model = AdapterConfig(rank=2, alpha=4.0), CCFExp.from_base("phantom-base")
    model.attach_adapter(config, seed=1)
    save_adapter(tmp_path / "other", model.adapter_state(), model, config, {"base_sha256": "0" * 64})
    common = ["--identity", str(photographs / "people/p0.png"), "--expression", str(photographs / "shown/s0.png")]
    for folder, message in (
        (tmp_path / "other", "the adapter was trained on the base with sha256=0000"),
        (tmp_path / "none", "adapter cannot be read"),
    ):
        assert main([*common, "--adapter", str(folder), "--out", str(tmp_path / "out.png")]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out.png").exists()


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--steps", "0"], "sampling steps=0 must be >= 1"),
        (["--eta", "1.0"], "sampling eta=1.0 must be 0 with sampler='dpm'"),
        (["--sampler", "ddim", "--steps", "1001"], "sampling steps=1001 must lie in"),
        (["--steps", "2000"], "sampling steps=2000 must lie in [1, 1000]; take fewer"),
        (["--seed", "99999999999999999999999"], "--seed=99999999999999999999999 must be 0 to 2^63 - 1"),
        (["--seed", "-1"], "--seed=-1 must be 0 to 2^63 - 1"),
        (["--identity", "nowhere.png"], "what is given as --identity does not exist"),
    ],
)
def test_impossible_orders(
    photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], extra: list[str], message: str
) -> None:
    common = ["--identity", str(photographs / "people/p0.png"), "--expression", str(photographs / "shown/s0.png")]
    assert main([*common, "--out", str(tmp_path / "out.png"), *extra]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out.png").exists()


def test_an_output_that_cannot_be_written(
    photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    assert main(batch(photographs, tmp_path / "file/below")) == 2
    assert "the output cannot be written" in capsys.readouterr().err
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"
