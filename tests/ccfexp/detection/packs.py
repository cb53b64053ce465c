"""Files of weights with the real names, outputs and layouts, and no training: made at test time, never stored."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from ccfexp._io import sha256_file
from ccfexp.weights import local

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

DETECTOR = "insightface/det_10g.onnx"
LANDMARKER = "face_alignment/2DFAN4-11f355bf06.pth.tar"
STRIDES = (8, 16, 32)
ANCHORS = 2
NAMES = ("448", "471", "494", "451", "474", "497", "454", "477", "500")  # of det_10g: scores, boxes, points


def random_detector(path: Path, seed: int = 0) -> Path:
    """A detector of SCRFD's interface whose answers depend on the picture and mean nothing."""
    rng = np.random.default_rng(seed)

    def branch(stride: int, width: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        weight = rng.normal(0, 1 / stride, (ANCHORS * width, 3, stride, stride)).astype(np.float32)
        return weight, rng.normal(0, 1, ANCHORS * width).astype(np.float32)

    return _save(path, {(stride, width): branch(stride, width) for stride in STRIDES for width in (1, 4, 10)})


def planted_detector(path: Path, point_52: np.ndarray[Any, Any], brightness: float = 250.0) -> Path:
    """A detector that finds a face around a white square of 32 pixels, wherever that is, and nothing else.

    Args:
        path: where to write.
        point_52: the five points relative to the square's outer corner, in pixels of the network's picture; the box is
            theirs, 20 pixels larger on every side.
        brightness: from which value a cell of 32 pixels counts as white.
    """
    low, high = point_52.min(0) - 20, point_52.max(0) + 20
    offsets = {
        1: np.zeros(1),
        4: np.array([-low[0], -low[1], high[0], high[1]]) / 32,
        10: point_52.ravel() / 32,
    }
    branches = {}
    for stride in STRIDES:
        for width in (1, 4, 10):
            weight = np.zeros((ANCHORS * width, 3, stride, stride), np.float32)
            bias = np.tile(offsets[width], ANCHORS).astype(np.float32)
            if width == 1:
                # The mean of the cell, as the network sees pixels, against the threshold, steep enough for certainty.
                if stride == 32:
                    weight[0] = 1000 / (3 * stride * stride)
                bias[:] = (-1000 * (brightness - 127.5) / 128, -1000) if stride == 32 else (-1000, -1000)
            branches[stride, width] = weight, bias
    return _save(path, branches)


def _save(path: Path, branches: dict[tuple[int, int], tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]) -> Path:
    """One convolution for each stride and kind of answer, in the order and the shapes that insightface reads."""
    nodes, weights, outputs = [], [], []
    names = iter(NAMES)
    for width in (1, 4, 10):
        for stride in STRIDES:
            name = next(names)
            weight, bias = branches[stride, width]
            weights += [
                numpy_helper.from_array(weight, f"w{name}"),
                numpy_helper.from_array(bias, f"b{name}"),
                numpy_helper.from_array(np.array([-1, width], np.int64), f"s{name}"),
            ]
            last = f"r{name}" if width == 1 else name
            nodes += [
                helper.make_node("Conv", ["input.1", f"w{name}", f"b{name}"], [f"c{name}"], strides=[stride, stride]),
                helper.make_node("Transpose", [f"c{name}"], [f"t{name}"], perm=[2, 3, 0, 1]),
                helper.make_node("Reshape", [f"t{name}", f"s{name}"], [last]),
            ]
            if width == 1:
                nodes.append(helper.make_node("Sigmoid", [last], [name]))
            rows = (640 // stride) ** 2 * ANCHORS
            outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [rows, width]))
    picture = helper.make_tensor_value_info("input.1", TensorProto.FLOAT, [1, 3, "?", "?"])
    graph = helper.make_graph(nodes, "det_10g", [picture], outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(path))
    return path


def random_landmarker(path: Path, seed: int = 0) -> Path:
    """FAN's state, 23.8 million numbers drawn at random, as the package stores it."""
    from face_alignment.models import FAN

    path.parent.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        torch.save(FAN(4).state_dict(), path)
    return path


def publish(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the table of known files name the hashes of this folder's files, as if they were the published ones.

    Only the table is replaced: the comparison is the one that runs in a hospital.
    """
    known = tuple(
        replace(file, sha256=sha256_file(folder / file.name)) if (folder / file.name).is_file() else file
        for file in local.KNOWN
    )
    monkeypatch.setattr(local, "KNOWN", known)


def single_output(path: Path) -> Path:
    """A network that answers one number for each of 112x112 pixels: no detector."""
    picture = helper.make_tensor_value_info("input.1", TensorProto.FLOAT, [1, 3, 112, 112])
    answer = helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 3, 112, 112])
    graph = helper.make_graph([helper.make_node("Relu", ["input.1"], ["out"])], "other", [picture], [answer])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6), str(path))
    return path
