"""Shipped weights: whole, of the expected hash, or refused with both hashes and a remedy."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from ccfexp import weights
from ccfexp.errors import WeightsError
from ccfexp.model import CCFExp, config_to_json
from tests.ccfexp.tiny import TINY

TENSORS = {"a": torch.arange(4, dtype=torch.float16), "count": torch.tensor(7)}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package with one file of weights, called small."""
    folder = tmp_path / "assets" / "weights"
    folder.mkdir(parents=True)
    data = save(TENSORS, {"made": "by a test"})
    (folder / "small.safetensors").write_bytes(data)
    (folder / "SHA256.json").write_text(json.dumps({"small": hashlib.sha256(data).hexdigest()}))
    monkeypatch.setattr(weights, "files", lambda _: tmp_path)
    weights._hashes.cache_clear()
    yield folder
    weights._hashes.cache_clear()


@pytest.mark.usefixtures("folder")
def test_weights_come_in_single_precision_with_their_metadata() -> None:
    """Half precision on the disk is widened; counters stay whole numbers."""
    tensors, metadata = weights.load("small")

    assert weights.known() == ("small",)
    assert tensors["a"].dtype == torch.float32
    assert tensors["a"].tolist() == [0, 1, 2, 3]
    assert tensors["count"].dtype == torch.int64
    assert metadata == {"made": "by a test"}


def test_one_changed_byte(folder: Path) -> None:
    """The error names the file, the expected and the found hash, and how to restore it."""
    path = folder / "small.safetensors"
    expected = weights.sha256("small")
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    found = hashlib.sha256(path.read_bytes()).hexdigest()

    with pytest.raises(WeightsError) as refused:
        weights.load("small")

    assert all(part in str(refused.value) for part in ("small.safetensors", expected, found, "git checkout"))


def test_a_missing_file(folder: Path) -> None:
    """The error names the file, the expected hash and how to restore it."""
    (folder / "small.safetensors").unlink()

    expected = weights.sha256("small")

    with pytest.raises(
        WeightsError, match=f"missing weight file small.safetensors .expected sha256={expected}.*restore"
    ):
        weights.load("small")


def test_a_missing_table(folder: Path) -> None:
    """Without it no file can be trusted."""
    (folder / "SHA256.json").unlink()

    with pytest.raises(WeightsError, match=r"missing weight table .*SHA256.json; restore"):
        weights.load("small")


def test_a_damaged_table(folder: Path) -> None:
    """A table that was cut off is refused like one that is missing."""
    (folder / "SHA256.json").write_text('{"small": "ab', encoding="utf-8")

    with pytest.raises(WeightsError, match=r"damaged weight table .*SHA256.json; restore"):
        weights.load("small")


@pytest.mark.usefixtures("folder")
def test_an_unknown_name() -> None:
    """The nearest known one is suggested."""
    with pytest.raises(WeightsError, match=r"called 'smal'; known: small\. Did you mean 'small'\?"):
        weights.load("smal")


def test_every_shipped_file_has_its_hash_and_its_card() -> None:
    """No file beside the table, none missing, a card for each, and all together under 15 MB."""
    folder = Path(weights.__file__).parents[1] / "assets" / "weights"
    weights._hashes.cache_clear()
    names = {path.stem for path in folder.glob("*.safetensors")}

    assert names == set(weights.known()) == {path.stem for path in folder.glob("*.md")}
    for name in names:
        assert hashlib.sha256((folder / f"{name}.safetensors").read_bytes()).hexdigest() == weights.sha256(name)
    assert sum(path.stat().st_size for path in folder.iterdir()) < 15e6


@pytest.mark.parametrize("keep", [0, 5, 40, -10])
def test_a_cut_off_base(keep: int, tmp_path: Path) -> None:
    """A base given by path has no hash to compare with, but must be a readable file of a model."""
    path = tmp_path / "base.safetensors"
    path.write_bytes(save(TENSORS, {"model": "{}"})[:keep])

    with pytest.raises(WeightsError, match=r"^base.safetensors is not a readable safetensors file") as refused:
        CCFExp.from_base(path)
    assert "copy the file again" in str(refused.value)
    assert "git checkout" not in str(refused.value)
    assert str(tmp_path) not in str(refused.value)


def test_a_base_that_is_no_model(tmp_path: Path) -> None:
    """Other tensors, no metadata of a model, no file."""
    path = tmp_path / "other.safetensors"
    path.write_bytes(save(TENSORS, {"model": config_to_json(TINY)}))
    with pytest.raises(WeightsError, match=r"base weights 'other.safetensors' do not fit the model"):
        CCFExp.from_base(path)
    path.write_bytes(save(TENSORS))
    with pytest.raises(WeightsError, match=r"weights 'other.safetensors' do not say which model"):
        CCFExp.from_base(path)
    with pytest.raises(WeightsError, match="does not exist"):
        CCFExp.from_base(tmp_path / "none.safetensors")
    with pytest.raises(WeightsError, match="Did you mean 'phantom-base'"):
        CCFExp.from_base("phantom-bse")


def test_the_shipped_base_is_known_by_its_hash() -> None:
    """What sites compare before they train."""
    model = CCFExp.from_base("phantom-base")

    assert model.base_sha256 == weights.sha256("phantom-base")
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
