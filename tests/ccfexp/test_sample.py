"""The command that draws pictures: on the shipped base, with real files and a real adapter."""

from __future__ import annotations

import csv
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


def test_folders_give_every_pair_in_order_and_go_on(
    photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The pictures do not change when the command is given again or a file comes along; the manifest names all."""
    command = ["--identity", str(photographs / "people"), "--expression", str(photographs / "shown")]
    command += ["--out", str(tmp_path / "out"), "--steps", "2"]
    assert main(command) == 0
    with (tmp_path / "out/manifest.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["identity"], row["expression"]) for row in rows] == [
        (f"p{p}.png", f"s{s}.png") for p in range(2) for s in range(3)
    ]
    assert {row["file"] for row in rows} | {"manifest.csv"} == {path.name for path in (tmp_path / "out").iterdir()}
    first = {row["file"]: pixels(tmp_path / "out" / row["file"]) for row in rows}
    (tmp_path / "out" / rows[4]["file"]).unlink()
    assert main(command) == 0
    assert "5 of 6 pictures are there already" in capsys.readouterr().err
    assert np.array_equal(pixels(tmp_path / "out" / rows[4]["file"]), first[rows[4]["file"]])
    assert all(row["sampler"] == "dpm" and row["steps"] == "2" and len(row["base_sha256"]) == 64 for row in rows)


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
    assert "2 photographs (counted in the order of their names) are no aligned face crops of 64 x 64 pixels" in said
    assert "prepare them first" in said
    assert "image is 200x100 pixels" in said
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
