"""Importing published checkpoints: synthetic files with exactly the published names and shapes, at full size."""

import json
import os
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ccfexp.checkpoint.__main__ import main
from ccfexp.checkpoint.importing import MODEL_FILE, import_checkpoint, verify_import
from ccfexp.checkpoint.layouts import sort_keys
from ccfexp.conditioning import ExpressionFeatures, IdentityFeatures
from ccfexp.errors import CheckpointError, WeightsError
from ccfexp.frozen import freeze_encoder
from ccfexp.model import OFFICIAL, CCFExp, FrozenEncoders
from ccfexp.published.encoder_files import load_encoder
from ccfexp.published.ir50 import IR50, IR50Encoder
from ccfexp.published.mobilefacenet import MobileFaceNet
from ccfexp.sampling import SamplingConfig, sample
from ccfexp.weights.imported import RECORD_FILE
from tests.ccfexp.published.recipe import facts, fill, uniform


def mobilefacenet_state() -> dict[str, Tensor]:
    return fill(facts("keys_modules")["mobilefacenet"], 20000)


@pytest.fixture(scope="module")
def ir50_state() -> dict[str, Tensor]:
    return fill(facts("keys_modules")["ir50_backbone"], 10000)


def saved(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


@torch.no_grad()
@pytest.mark.parametrize("several_gpus", [True, False])
def test_mobilefacenet(tmp_path: Path, *, several_gpus: bool) -> None:
    """With or without the prefix of a training on several GPUs, and the network computes the same afterwards."""
    state = mobilefacenet_state()
    prefix = "module." if several_gpus else ""
    source = saved(tmp_path / "landmarks.pth", {"state_dict": {prefix + key: value for key, value in state.items()}})
    record = import_checkpoint(source, tmp_path / "out")
    assert (record["layout"], record["keys"], record["mapped"], record["left"]) == ("MobileFaceNet", 333, 333, {})
    before = MobileFaceNet("published").eval()
    before.load_state_dict(state)
    after = load_encoder("landmark.safetensors", tmp_path / "out")
    x_B3HW = uniform(5, (1, 3, 112, 112))
    torch.testing.assert_close(after(x_B3HW).vector_BD, before(x_B3HW).vector_BD)
    verify_import(tmp_path / "out")


@torch.no_grad()
def test_adaface(tmp_path: Path, ir50_state: dict[str, Tensor]) -> None:
    """The backbone's keys carry ``model.``; the class head is left, by name and with the reason."""
    state = {f"model.{key}": value for key, value in ir50_state.items()} | {"head.kernel": torch.zeros(512, 3)}
    record = import_checkpoint(saved(tmp_path / "adaface.ckpt", {"state_dict": state, "epoch": 3}), tmp_path / "out")
    assert record["layout"] == "AdaFace IR-50"
    assert record["mapped"] == 467
    assert record["left"] == {"head.kernel": "class head of the recogniser's training"}
    bare = IR50().eval()
    bare.load_state_dict(ir50_state)
    x_B3HW = uniform(6, (1, 3, 112, 112))
    features = bare(x_B3HW.flip(1))
    after = load_encoder("identity.safetensors", tmp_path / "out")
    torch.testing.assert_close(after(x_B3HW).vector_BD, features.unit_BD * features.norm_B1, rtol=1e-3, atol=1e-3)


def test_affectnet_deviation_network_as_safetensors(tmp_path: Path, ir50_state: dict[str, Tensor]) -> None:
    """A flat state dict with a class head; safetensors files with the same keys are read too."""
    state = {f"backbone.{key}": value for key, value in ir50_state.items()}
    save_file(state | {"head.weight": torch.zeros(8, 512), "head.bias": torch.zeros(8)}, tmp_path / "face.safetensors")
    record = import_checkpoint(tmp_path / "face.safetensors", tmp_path / "out")
    assert record["layout"] == "AffectNet deviation IR-50"
    assert set(record["left"]) == {"head.weight", "head.bias"}
    assert set(load_file(tmp_path / "out" / "face.safetensors")) == set(state)


def trainer_state() -> dict[str, Tensor]:
    """All 2,943 keys of the published training module; the recogniser and the identity model are one network."""
    shapes: dict[str, list[int]] = facts("keys_trainer_full")["shapes"]
    assert len(shapes) == 2943
    state = fill({name: tuple(shape) for name, shape in shapes.items()}, 50000)
    for name in shapes:
        if name.startswith("id_model."):
            state[name] = state["recognition_model." + name.removeprefix("id_model.")]
    # A network whose outputs are zero at the start would say nothing: the recipe gives every layer some weight.
    return state


@pytest.mark.slow
@torch.no_grad()
def test_a_whole_official_checkpoint(tmp_path: Path) -> None:
    """2,943 keys, none unaccounted; what is drawn before and after is the same to 1e-5."""
    state = trainer_state()
    lightning = {
        "state_dict": state,
        "hyper_parameters": {"lr": 1e-4},
        "epoch": 9,
        "pytorch-lightning_version": "1.7.1",
    }
    source = saved(tmp_path / "CCFExp.ckpt", lightning)
    record = import_checkpoint(source, tmp_path / "out")
    assert (record["layout"], record["keys"]) == ("CCFExp", 2943)
    assert record["mapped"] + len(record["left"]) == 2943
    assert set(record["left"]) == {name for name in state if name.startswith("model.")}
    assert len(record["left"]) == 362
    assert "neutral.safetensors" not in record["files"]  # the same network as the recogniser, stored once

    _, found = sort_keys(state)
    networks: dict[str, Any] = {name: IR50Encoder() for name in ("identity", "face", "recogniser")}
    networks["landmark"] = MobileFaceNet("published")
    # Frozen and laid out alike on both sides: random weights magnify what another order of sums rounds off.
    encoders: dict[str, Any] = {}
    for name, network in networks.items():
        network.load_state_dict(found.parts[name])
        encoders[name] = freeze_encoder(network, 112)
    recogniser = encoders["recogniser"]
    frozen = FrozenEncoders(encoders["identity"], encoders["face"], encoders["landmark"], recogniser, recogniser)
    before = CCFExp(OFFICIAL, frozen)
    unet: Any = before.unet
    unet.load_state_dict(found.parts["unet"])
    before.conditioner.load_state_dict(found.parts["conditioner"])
    before.eval()
    unet.to(memory_format=torch.channels_last)
    after = CCFExp.from_base(tmp_path / "out" / MODEL_FILE)
    assert verify_import(tmp_path / "out") == OFFICIAL
    person, shown = uniform(1, (1, 3, 112, 112)), uniform(2, (1, 3, 112, 112))
    pictures = []
    for model in (before, after):
        identity: IdentityFeatures = model.encoders.identity_features(person)
        expression: ExpressionFeatures = model.encoders.expression_features(shown)
        pictures.append(sample(model, identity, expression, SamplingConfig(steps=2, eta=1.0), seed=3))
    assert float((pictures[0] - pictures[1]).abs().max()) <= 1e-5
    assert float(pictures[0].std()) > 0.05


def test_a_changed_file_of_an_import_is_noticed(tmp_path: Path) -> None:
    import_checkpoint(saved(tmp_path / "l.pth", mobilefacenet_state()), tmp_path / "out")
    path = tmp_path / "out" / "landmark.safetensors"
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\1")
    with pytest.raises(CheckpointError, match=r"altered file landmark.safetensors: expected sha256=\w+, found sha256="):
        verify_import(tmp_path / "out")
    with pytest.raises(WeightsError, match=r"altered weight file landmark.safetensors: .*; import the checkpoint"):
        load_encoder("landmark.safetensors", tmp_path / "out")
    path.unlink()
    with pytest.raises(CheckpointError, match=r"missing file landmark\.safetensors"):
        verify_import(tmp_path / "out")
    (tmp_path / "out" / RECORD_FILE).write_text("{}", encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"no readable import.json"):
        verify_import(tmp_path / "out")
    (tmp_path / "out" / RECORD_FILE).unlink()
    with pytest.raises(CheckpointError, match=r"no import.json in the folder; give a folder that an import made"):
        verify_import(tmp_path / "out")


def wrong(change: str) -> dict[str, Tensor]:
    state = mobilefacenet_state()
    if change == "shape":
        state["conv1.conv.weight"] = torch.zeros(32, 3, 3, 3)
    elif change == "missing":
        del state["conv_5.model.1.project.bn.bias"]
    elif change == "unexpected":
        state["conv_7.conv.weight"] = torch.zeros(1)
    elif change == "nan":
        state["conv1.bn.weight"][3] = float("nan")
    elif change == "another":
        state = {"encoder.layer.0.weight": torch.zeros(3)}
    return state


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("shape", r"conv1.conv.weight has shape \(32, 3, 3, 3\), expected \(64, 3, 3, 3\)"),
        ("missing", r"missing conv_5.model.1.project.bn.bias"),
        ("unexpected", r"unexpected conv_7.conv.weight"),
        ("nan", r"1 tensors hold NaN or infinity, the first is 'conv1.bn.weight'"),
        ("another", r"none of the 1 keys marks a known layout \(CCFExp, DCFace, AdaFace IR-50"),
    ],
)
def test_bad_state_dicts_are_refused_and_nothing_is_written(tmp_path: Path, change: str, message: str) -> None:
    source = saved(tmp_path / "bad.pth", wrong(change))
    with pytest.raises(CheckpointError, match=message):
        import_checkpoint(source, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["bad.pth"]


class Unsafe:
    """Would run a command if it were unpickled without care."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("ran",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not a checkpoint at all", "neither a torch checkpoint nor a safetensors file"),
        (b"", "neither a torch checkpoint nor a safetensors file"),
        (pickle.dumps({"state_dict": Unsafe()}), "refused by torch's safe loader"),
        (pickle.dumps([1, 2, 3]), "refused by torch's safe loader|found list|damaged"),
        (b"\x80", "damaged or truncated"),
        (b"\x80\x02", "damaged or truncated"),
        (b"\x80\x02K", "damaged or truncated"),
        (b"\x80\x02X\x05", "damaged or truncated"),
    ],
)
def test_files_that_are_no_checkpoints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, message: str
) -> None:
    (tmp_path / "bad.ckpt").write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        import_checkpoint(tmp_path / "bad.ckpt", tmp_path / "out")
    assert "ran" not in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_tensors_of_another_kind_are_refused_by_name(tmp_path: Path, suffix: str) -> None:
    state = mobilefacenet_state()
    state["conv1.bn.weight"] = state["conv1.bn.weight"].to(torch.float8_e4m3fn)
    source = tmp_path / f"odd.{suffix}"
    if suffix == "pth":
        state["conv1.conv.weight"] = state["conv1.conv.weight"].to_sparse()
        torch.save(state, source)
    else:
        save_file(state, source)
    first = "'conv1.bn.weight' (float8_e4m3fn strided)"
    with pytest.raises(CheckpointError, match=rf"{2 if suffix == 'pth' else 1} tensors .* {re.escape(first)}"):
        import_checkpoint(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_unsafe_content_in_a_torch_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = saved(tmp_path / "bad.ckpt", {"state_dict": mobilefacenet_state(), "hook": Unsafe()})
    with pytest.raises(CheckpointError, match=r"refused by torch's safe loader: .*print"):
        import_checkpoint(source, tmp_path / "out")
    assert "ran" not in capsys.readouterr().out


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_truncated_file_is_refused(tmp_path: Path, suffix: str) -> None:
    source = tmp_path / f"cut.{suffix}"
    if suffix == "pth":
        torch.save(mobilefacenet_state(), source)
    else:
        save_file(mobilefacenet_state(), source)
    source.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    with pytest.raises(CheckpointError, match="truncated"):
        import_checkpoint(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_output_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(CheckpointError, match="exists and is not empty"):
        import_checkpoint(tmp_path / "missing.ckpt", tmp_path / "out")
    assert (tmp_path / "out" / "thesis.txt").read_text(encoding="utf-8") == "mine"


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = saved(tmp_path / "l.pth", mobilefacenet_state())
    assert main(["import", str(source), "--out", str(tmp_path / "out")]) == 0
    assert "MobileFaceNet: 333 keys, 333 mapped, 0 left" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / RECORD_FILE).read_text(encoding="utf-8"))["layout"] == "MobileFaceNet"
    assert main(["check", str(tmp_path / "out")]) == 0
    assert "every file is as it was imported" in capsys.readouterr().out
    assert main(["import", str(tmp_path / "none.ckpt"), "--out", str(tmp_path / "other")]) == 2
    assert "error: the checkpoint file does not exist" in capsys.readouterr().err
    for nowhere in (source / "below", Path("/proc/none/out")):
        assert main(["import", str(source), "--out", str(nowhere)]) == 2
        assert "error: the disk refused" in capsys.readouterr().err


def test_the_folder_can_be_read_by_whom_its_files_can(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        import_checkpoint(saved(tmp_path / "l.pth", mobilefacenet_state()), tmp_path / "out")
    finally:
        os.umask(before)
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o750
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "out").iterdir()} == {0o640}
