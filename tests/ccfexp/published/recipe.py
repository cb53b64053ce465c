"""Pseudo-random tensors by the recipe of the parity data: splitmix64 of (stream, place), so no weights are stored."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

PARITY = Path(__file__).parent / "parity"


def uniform(stream: int, shape: tuple[int, ...], low: float = -1.0, high: float = 1.0) -> torch.Tensor:
    """Numbers in [low, high): float32, made in double precision from 64-bit integers that wrap."""
    count = int(np.prod(shape)) if shape else 1
    z = np.arange(count, dtype=np.uint64) + np.uint64((stream << 32) + 1)
    z *= np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    fraction = (z >> np.uint64(40)).astype(np.float64) / 2**24
    return torch.from_numpy((low + (high - low) * fraction).astype(np.float32).reshape(shape))


def fill(shapes: dict[str, tuple[int, ...]], base: int) -> dict[str, torch.Tensor]:
    """A state dict: the k-th name in order of plain strings takes stream ``base + k``."""
    return {name: _value(name, tuple(shapes[name]), base + k) for k, name in enumerate(sorted(shapes))}


def _value(name: str, shape: tuple[int, ...], stream: int) -> torch.Tensor:
    if name.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    if name.endswith("running_mean"):
        return uniform(stream, shape, -0.1, 0.1)
    if name.endswith("running_var"):
        return uniform(stream, shape, 0.75, 1.25)
    if len(shape) >= 2:
        bound = float(np.sqrt(3 / np.prod(shape[1:])))
        return uniform(stream, shape, -bound, bound)
    if name.rpartition(".")[2] == "weight":
        return uniform(stream, shape, 0.4, 1.2)
    return uniform(stream, shape, -0.1, 0.1)


@cache
def facts(name: str) -> Any:  # noqa: ANN401 (parsed JSON)
    """A JSON file of the parity data."""
    return json.loads((PARITY / f"{name}.json").read_text(encoding="utf-8"))


def tensors(name: str) -> dict[str, torch.Tensor]:
    """A safetensors file of the parity data, widened to float32 where it is stored in half precision."""
    loaded = load_file(PARITY / f"{name}.safetensors")
    return {key: value.float() if value.is_floating_point() else value for key, value in loaded.items()}


def largest_difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest absolute difference; shapes must agree."""
    assert found.shape == expected.shape
    return float((found.detach().double() - expected.double()).abs().max())
