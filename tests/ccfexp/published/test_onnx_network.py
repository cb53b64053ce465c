"""Recognisers from ONNX files: networks of the packs' layout with random weights, exported as theirs were."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ccfexp.errors import WeightsError
from ccfexp.published.onnx_network import load_onnx_encoder

onnx = pytest.importorskip("onnx")


class Block(nn.Module):
    """BN-conv-BN-PReLU-conv-BN; where the side halves, the shortcut is a convolution with BN."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(inputs), nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs),
            nn.PReLU(outputs), nn.Conv2d(outputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs),
        )  # fmt: skip
        self.down = (
            nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
            if stride != 1
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x) + self.down(x)
        return out


class Recogniser(nn.Module):
    """The packs' layout with fewer and narrower blocks; the full one has 3, 4, 14, 3 blocks of 64 to 512 channels."""

    def __init__(self, widths: tuple[int, ...], blocks: tuple[int, ...]) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 3, 1, 1, bias=False), nn.BatchNorm2d(widths[0])]
        layers.append(nn.PReLU(widths[0]))
        inputs = widths[0]
        for width, count in zip(widths, blocks, strict=True):
            for place in range(count):
                layers.append(Block(inputs, width, 2 if place == 0 else 1))
                inputs = width
        self.features = nn.Sequential(*layers, nn.BatchNorm2d(inputs))
        self.output = nn.Sequential(nn.Flatten(), nn.Linear(inputs * 49, 512), nn.BatchNorm1d(512))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.output(self.features(x))
        return out


def recogniser(widths: tuple[int, ...] = (8, 16, 16, 32), blocks: tuple[int, ...] = (1, 1, 2, 1)) -> Recogniser:
    torch.manual_seed(0)
    network = Recogniser(widths, blocks).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            nn.init.uniform_(module.running_var, 0.5, 2.0)  # type: ignore[arg-type]
            nn.init.normal_(module.running_mean, std=0.2)  # type: ignore[arg-type]
    return network


def export(network: nn.Module, path: Path, *, fold: bool) -> Path:
    """As the packs' files were made: the older exporter, operator set 11, any batch size."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network, (torch.zeros(1, 3, 112, 112),), str(path), dynamo=False, opset_version=11,
            input_names=["input.1"], dynamic_axes={"input.1": {0: "batch"}}, do_constant_folding=fold,
            training=torch.onnx.TrainingMode.EVAL if fold else torch.onnx.TrainingMode.PRESERVE,
        )  # fmt: skip
    return path


@pytest.mark.parametrize("fold", [True, False])
def test_output_map_and_gradient_are_those_of_the_network(tmp_path: Path, *, fold: bool) -> None:
    network = recogniser()
    encoder = load_onnx_encoder(export(network, tmp_path / "r.onnx", fold=fold))
    results = []
    forwards: tuple[Callable[[Tensor], Tensor], ...] = (network, lambda x: encoder(x).vector_BD)
    for vector_of in forwards:
        x_B3HW = (torch.rand(2, 3, 112, 112, generator=torch.Generator().manual_seed(1)) * 2 - 1).requires_grad_()
        vector_BD = vector_of(x_B3HW)
        (gradient,) = torch.autograd.grad(vector_BD.square().sum(), x_B3HW)
        results.append((vector_BD, gradient))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
    with torch.no_grad():
        x_B3HW = torch.rand(2, 3, 112, 112) * 2 - 1
        torch.testing.assert_close(encoder(x_B3HW).map_BCGG, network.features(x_B3HW), rtol=1e-3, atol=1e-3)
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


@pytest.mark.slow
def test_the_full_size_network(tmp_path: Path) -> None:
    """43.6 M parameters, as w600k_r50 is described; onnxruntime is asked at loading."""
    network = recogniser((64, 128, 256, 512), (3, 4, 14, 3))
    assert 43e6 < sum(p.numel() for p in network.parameters()) < 44e6
    encoder = load_onnx_encoder(export(network, tmp_path / "w600k_r50.onnx", fold=True))
    x_B3HW = torch.rand(1, 3, 112, 112) * 2 - 1
    with torch.no_grad():
        encoded = encoder(x_B3HW)
        torch.testing.assert_close(encoded.vector_BD, network(x_B3HW), rtol=1e-3, atol=1e-3)
    assert encoded.map_BCGG.shape == (1, 512, 7, 7)


def test_a_network_that_computes_something_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison with onnxruntime has teeth: an operator read wrongly does not pass."""
    path = export(recogniser(), tmp_path / "r.onnx", fold=True)
    from ccfexp.published import onnx_network

    monkeypatch.setitem(onnx_network._OPERATORS, "PRelu", lambda _, x, slope: x * slope)
    with pytest.raises(WeightsError, match="computes another vector than onnxruntime"):
        load_onnx_encoder(path)


def test_files_that_are_no_recogniser(tmp_path: Path) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(b"not a graph")
    with pytest.raises(WeightsError, match=r"the recogniser's ONNX file cannot be read"):
        load_onnx_encoder(path)
    with pytest.raises(WeightsError, match=r"the recogniser's ONNX file cannot be read"):
        load_onnx_encoder(tmp_path / "none.onnx")
    export(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sigmoid()), path, fold=True)
    with pytest.raises(WeightsError, match=r"operators that are not known: Sigmoid"):
        load_onnx_encoder(path)
