"""Put trained weights into the package: half precision, hash table, model card."""

import json
from pathlib import Path

import torch
from safetensors.torch import save

from ccfexp._io import atomic_write_bytes, atomic_write_json, atomic_write_text, sha256_file
from ccfexp.weights import Tensors

WEIGHTS_FOLDER = Path(__file__).resolve().parents[1] / "assets" / "weights"


def ship(folder: Path, name: str, tensors: Tensors, metadata: dict[str, str], card: str) -> str:
    """Write ``name``.safetensors, its card and its line in SHA256.json; returns the SHA-256.

    Running statistics and parameters are stored in half precision (loading widens them again): a shipped network is
    *defined* by what is in the file, so nothing is lost that was ever measured.
    """
    half = {key: _half(value).contiguous() for key, value in tensors.items()}
    path = folder / f"{name}.safetensors"
    atomic_write_bytes(path, save(half, metadata))
    digest = sha256_file(path)
    table_path = folder / "SHA256.json"
    table = json.loads(table_path.read_text(encoding="utf-8")) if table_path.is_file() else {}
    atomic_write_json(table_path, dict(sorted((table | {name: digest}).items())))
    atomic_write_text(folder / f"{name}.md", card)
    return digest


def _half(value: torch.Tensor) -> torch.Tensor:
    if not value.is_floating_point():
        return value
    return value.detach().cpu().half()
