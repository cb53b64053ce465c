"""Adapters on disk: peft alone can load them, damage is refused, and what is not the adapter is not written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors import safe_open

from ccfexp.adapter import AdapterConfig
from ccfexp.checkpoint import attach_saved_adapter, load_adapter, save_adapter
from ccfexp.errors import CheckpointError
from ccfexp.model import CCFExp
from tests.ccfexp import tiny
from tests.ccfexp.residuals import layers_of, moved, with_residual

CONFIG = AdapterConfig(rank=2, alpha=3.0, targets=("attention", "fusion"))
T_B = torch.tensor([100, 600, 900])
_QUERY = "unet.mid_block.attentions.0.to_q"


@pytest.fixture(scope="module")
def trained() -> CCFExp:
    """A model whose adapter says something."""
    model = tiny.model()
    model.attach_adapter(CONFIG, 0)
    generator = torch.Generator().manual_seed(5)
    state = model.adapter_state()
    model.load_adapter_state({k: v + 0.2 * torch.randn(v.shape, generator=generator) for k, v in state.items()})
    return model


@pytest.fixture
def folder(trained: CCFExp, tmp_path: Path) -> Path:
    """Where the adapter of that model is saved."""
    save_adapter(tmp_path / "adapter", trained.adapter_state(), trained, CONFIG, {"base_sha256": trained.base_sha256})
    return tmp_path / "adapter"


def _prediction(model: CCFExp) -> torch.Tensor:
    batch = tiny.batch(model)
    with torch.no_grad():
        prediction: torch.Tensor = model(tiny.noise(), T_B, model.condition(batch.identity, batch.expression))
    return prediction


def test_peft_alone_loads_it_to_the_same_output(trained: CCFExp, folder: Path) -> None:
    """On a fresh base, without any code of ours."""
    plain = tiny.model()
    before = _prediction(plain)

    loaded: Any = PeftModel.from_pretrained(plain, str(folder))

    expected = _prediction(trained)
    torch.testing.assert_close(_prediction(loaded.base_model.model), expected, rtol=0, atol=1e-5)
    assert not torch.allclose(before, expected, atol=1e-3)


def test_it_comes_back_with_its_configuration(trained: CCFExp, folder: Path) -> None:
    """Tensors, rank, alpha and targets; a fresh model takes it as it is."""
    state, config = load_adapter(folder)
    fresh = tiny.model()
    fresh.attach_adapter(config, 77)
    fresh.load_adapter_state(state)

    assert config == CONFIG
    torch.testing.assert_close(_prediction(fresh), _prediction(trained), rtol=0, atol=1e-5)
    assert all(torch.equal(value, trained.adapter_state()[name]) for name, value in list(state.items())[:4])


def test_the_file_does_not_depend_on_whether_the_adapter_is_attached(
    trained: CCFExp, folder: Path, tmp_path: Path
) -> None:
    """The bare base names the same layers, one by one; equal adapters are equal files, byte by byte."""
    save_adapter(tmp_path / "bare", trained.adapter_state(), tiny.model(), CONFIG, {"base_sha256": trained.base_sha256})

    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (tmp_path / "bare" / name).read_bytes() == (folder / name).read_bytes(), name
    layers = json.loads((folder / "adapter_config.json").read_text())["target_modules"]
    assert len(layers) == len(trained.adapter_state()) // 2


def test_only_lora_factors_and_public_facts_are_written(trained: CCFExp, folder: Path) -> None:
    """Two files; the tensors of the adapter and no others."""
    with safe_open(folder / "adapter_model.safetensors", "pt") as file:
        names, metadata = set(file.keys()), file.metadata()

    assert {path.name for path in folder.iterdir()} == {"adapter_model.safetensors", "adapter_config.json"}
    assert names == {f"base_model.model.{name}" for name in trained.adapter_state()}
    assert metadata == {"base_sha256": trained.base_sha256, "format": "pt"}
    record = json.loads((folder / "adapter_config.json").read_text())
    assert (record["r"], record["lora_alpha"], record["peft_type"]) == (2, 3.0, "LORA")


def test_a_residual_of_the_base_becomes_a_stock_adapter(tmp_path: Path) -> None:
    """Peft alone, a fresh model of ours and the model it was saved from: one output, of convolutions too."""
    config = AdapterConfig(rank=2, alpha=3.0)
    model, stock, fresh = tiny.model(), tiny.model(), tiny.model()
    model.attach_adapter(config, 0)
    factors = moved(model.adapter_state(), size=0.05)
    state = with_residual(factors)
    model.load_adapter_state(factors)
    without = _prediction(model)
    model.load_adapter_state(state)
    expected = _prediction(model)
    save_adapter(tmp_path, state, tiny.model(), config, {"base_sha256": model.base_sha256})

    theirs: Any = PeftModel.from_pretrained(stock, str(tmp_path))
    attach_saved_adapter(fresh, tmp_path)

    torch.testing.assert_close(_prediction(theirs.base_model.model), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(_prediction(fresh), expected, rtol=0, atol=1e-5)
    assert not torch.allclose(without, expected, atol=1e-2)
    loaded, again = load_adapter(tmp_path)
    assert again == config
    assert loaded.keys() == state.keys()
    with safe_open(tmp_path / "adapter_model.safetensors", "pt") as file:
        assert set(file.keys()) == {f"base_model.model.{name}" for name in factors}
    record = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (record["r"], record["lora_alpha"]) == (2, 3.0)
    assert set(record["rank_pattern"].values()) == {3, 4, 5, 6}
    assert record["alpha_pattern"] == record["rank_pattern"]


def test_a_residual_of_other_factors_is_not_written(trained: CCFExp, tmp_path: Path) -> None:
    """Nothing is left of it, not even a folder."""
    state = with_residual(trained.adapter_state())
    del state[f"{layers_of(state)[0]}.lora_A.weight"]

    with pytest.raises(CheckpointError, match="1 of layers without factors"):
        save_adapter(tmp_path / "adapter", state, trained, CONFIG, {})

    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("ranks", "alphas"),
    [
        ({_QUERY: 2}, {}),
        ({_QUERY: 1}, {_QUERY: 1}),
        ({_QUERY: 3}, {_QUERY: 3}),
        ({"nobody": 2}, {"nobody": 2}),
        (None, None),
    ],
    ids=["scale", "less than the others", "not its own", "unknown", "none"],
)
def test_ranks_that_are_not_those_of_the_factors(folder: Path, ranks: object, alphas: object) -> None:
    """A stranger's patterns are refused before anything is attached."""
    path = folder / "adapter_config.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"rank_pattern": ranks, "alpha_pattern": alphas}))

    with pytest.raises(CheckpointError, match="adapter cannot be read"):
        load_adapter(folder)


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json"])
@pytest.mark.parametrize("keep", [None, 0, 30, -5])
def test_missing_and_damaged_files(folder: Path, name: str, keep: int | None) -> None:
    """One clear error whichever file it is."""
    path = folder / name
    if keep is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:keep])

    with pytest.raises(CheckpointError, match=r"adapter cannot be read .* it needs adapter_model.safetensors"):
        load_adapter(folder)
