"""A face recogniser from an ONNX file as a differentiable torch network (ArcFace IR-50 of the insightface packs).

The file's graph is followed node by node, so it does not matter whether its exporter folded batch normalisation. Only
the operators of such networks are known; any other is refused. Where onnxruntime is installed the network is compared
with it on one input before it is used.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ccfexp.encoders import Encoded
from ccfexp.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_SIDE: Final = 112
_TOLERANCE: Final = 1e-3  # of the largest output, against onnxruntime


class OnnxEncoder(nn.Module):
    """An ONNX recogniser as an ``Encoder``: RGB in [-1, 1] in, vector [B,D] and the last map [B,C,7,7] out.

    Args:
        graph: the parsed graph of the file.

    Raises:
        WeightsError: an operator that is not known, or a graph of another kind.
    """

    def __init__(self, graph: Any) -> None:  # noqa: ANN401 (onnx has no types)
        super().__init__()
        from onnx import numpy_helper

        values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        self._buffers_of: dict[str, str] = {}
        for number, (name, value) in enumerate(values.items()):
            self._buffers_of[name] = f"constant_{number}"
            self.register_buffer(f"constant_{number}", torch.from_numpy(np.array(value)))
        inputs = [entry.name for entry in graph.input if entry.name not in values]
        if len(inputs) != 1 or len(graph.output) != 1:
            raise WeightsError(f"the graph has {len(inputs)} inputs and {len(graph.output)} outputs, expected one each")
        self._input, self._output = inputs[0], graph.output[0].name
        self._nodes = [_Node(node) for node in graph.node]
        unknown = sorted({node.kind for node in self._nodes} - set(_OPERATORS))
        if unknown:
            raise WeightsError(
                f"the graph uses operators that are not known: {', '.join(unknown)} (known: {', '.join(_OPERATORS)}); "
                "give a recogniser of the IR family"
            )

    def forward(self, x_B3HW: Tensor) -> Encoded:
        """Vector and the last map before it is flattened.

        Raises:
            WeightsError: the graph never flattens a map, so it is no recogniser of this kind.
        """
        values: dict[str, Tensor] = {self._input: x_B3HW}
        map_BCGG: Tensor | None = None
        for node in self._nodes:
            found = [values[name] if name in values else self._constant(name) for name in node.inputs if name]
            if node.kind in ("Flatten", "Reshape") and found[0].ndim == 4:
                map_BCGG = found[0]
            values[node.output] = _OPERATORS[node.kind](node.attributes, *found)
        if map_BCGG is None:
            raise WeightsError("the graph never flattens a map of features; give a recogniser of the IR family")
        return Encoded(values[self._output], map_BCGG)

    def _constant(self, name: str) -> Tensor:
        constant: Tensor = getattr(self, self._buffers_of[name])
        return constant


class _Node:
    """One operator: its kind, attributes, inputs and output."""

    def __init__(self, node: Any) -> None:  # noqa: ANN401
        from onnx import helper

        self.kind: str = node.op_type
        self.attributes: dict[str, Any] = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
        self.inputs: list[str] = list(node.input)
        self.output: str = node.output[0]


def _convolve(attributes: dict[str, Any], x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    top, left, bottom, right = attributes.get("pads", (0, 0, 0, 0))
    padded = functional.pad(x, (left, right, top, bottom)) if (top, left) != (bottom, right) else x
    padding = (0, 0) if padded is not x else (top, left)
    stride = tuple(attributes.get("strides", (1, 1)))
    return functional.conv2d(padded, weight, bias, stride, padding, groups=attributes.get("group", 1))


def _normalise(
    attributes: dict[str, Any], x: Tensor, scale: Tensor, shift: Tensor, mean: Tensor, variance: Tensor
) -> Tensor:
    return functional.batch_norm(x, mean, variance, scale, shift, eps=attributes.get("epsilon", 1e-5))


def _gemm(attributes: dict[str, Any], a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    left = a.T if attributes.get("transA", 0) else a
    right = b.T if attributes.get("transB", 0) else b
    product: Tensor = attributes.get("alpha", 1.0) * (left @ right)
    return product if c is None else product + attributes.get("beta", 1.0) * c


_OPERATORS: Final[dict[str, Callable[..., Tensor]]] = {
    "Conv": _convolve,
    "BatchNormalization": _normalise,
    "PRelu": lambda _, x, slope: torch.where(x >= 0, x, x * slope),
    "Relu": lambda _, x: functional.relu(x),
    "Add": lambda _, a, b: a + b,
    "Sub": lambda _, a, b: a - b,
    "Mul": lambda _, a, b: a * b,
    "Flatten": lambda attributes, x: x.flatten(attributes.get("axis", 1)),
    "Reshape": lambda _, x, shape: x.reshape([x.shape[0], *shape.tolist()[1:]]),
    "Unsqueeze": lambda attributes, x, *axes: _unsqueeze(x, attributes.get("axes") or axes[0].tolist()),
    "Gemm": _gemm,
    "Identity": lambda _, x: x,
}


def _unsqueeze(x: Tensor, axes: list[int]) -> Tensor:
    for axis in sorted(axes):
        x = x.unsqueeze(axis)
    return x


def load_onnx_encoder(path: Path) -> OnnxEncoder:
    """A frozen recogniser from an ONNX file, compared with onnxruntime where that is installed.

    Raises:
        WeightsError: onnx is not installed, the file is missing or damaged, its graph is of another kind, or the
            network does not compute what onnxruntime computes.
    """
    if importlib.util.find_spec("onnx") is None:
        raise WeightsError("reading an ONNX file needs the package onnx; install the extra `photos`")
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(str(path))
    except (OSError, DecodeError, ValueError) as error:
        raise WeightsError(
            f"the recogniser's ONNX file cannot be read ({type(error).__name__}); copy it again and check its hash"
        ) from error
    encoder = OnnxEncoder(model.graph)
    encoder.requires_grad_(False)
    encoder.eval()
    _compare(encoder, path)
    return encoder


def _compare(encoder: OnnxEncoder, path: Path) -> None:
    """One input through both; without onnxruntime nothing is compared."""
    if importlib.util.find_spec("onnxruntime") is None:
        return
    import onnxruntime

    generator = torch.Generator().manual_seed(0)
    x_B3HW = torch.rand(1, 3, _SIDE, _SIDE, generator=generator) * 2 - 1
    session: Any = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (theirs,) = session.run(None, {session.get_inputs()[0].name: x_B3HW.numpy()})
    with torch.no_grad():
        ours = encoder(x_B3HW).vector_BD.numpy()
    difference = float(np.abs(ours - theirs).max() / max(float(np.abs(theirs).max()), 1e-12))
    if ours.shape != theirs.shape or not difference <= _TOLERANCE:
        raise WeightsError(
            f"the recogniser computes another vector than onnxruntime (relative difference={difference:.2g}, bound "
            f"{_TOLERANCE}); the file is not the kind of network that it is read as"
        )
