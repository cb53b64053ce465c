"""The weights that travel with the package: named, hashed, in safetensors.

Every file under ``ccfexp/assets/weights`` has an entry in ``SHA256.json`` there; a file that is missing or altered is
refused before a single tensor of it is used. Tensors are stored in half precision and returned in single precision.
"""

import hashlib
import json
from functools import cache
from importlib.resources import files

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors

from ccfexp.errors import WeightsError, did_you_mean

Tensors = dict[str, torch.Tensor]
_RESTORE = "restore it with `git checkout -- ccfexp/assets/weights` or by installing the package again"


@cache
def _hashes() -> dict[str, str]:
    table = files("ccfexp") / "assets" / "weights" / "SHA256.json"
    if not table.is_file():
        raise WeightsError(f"missing weight table ccfexp/assets/weights/SHA256.json; {_RESTORE}")
    try:
        loaded: dict[str, str] = json.loads(table.read_text(encoding="utf-8"))
    except ValueError as error:
        raise WeightsError(f"damaged weight table ccfexp/assets/weights/SHA256.json; {_RESTORE}") from error
    return loaded


def known() -> tuple[str, ...]:
    """Names of the shipped weights."""
    return tuple(sorted(_hashes()))


def sha256(name: str) -> str:
    """Expected SHA-256 of a shipped file.

    Raises:
        WeightsError: no such weights.
    """
    try:
        return _hashes()[name]
    except KeyError:
        hint = did_you_mean(name, known())
        raise WeightsError(f"no shipped weights are called {name!r}; known: {', '.join(known())}.{hint}") from None


def load(name: str) -> tuple[Tensors, dict[str, str]]:
    """Tensors (single precision) and metadata of shipped weights, after their hash has been checked.

    Raises:
        WeightsError: unknown name, missing file, or a hash other than the expected one.
    """
    expected = sha256(name)
    path = files("ccfexp") / "assets" / "weights" / f"{name}.safetensors"
    if not path.is_file():
        raise WeightsError(f"missing weight file {name}.safetensors (expected sha256={expected}); {_RESTORE}")
    data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != expected:
        raise WeightsError(
            f"altered weight file {name}.safetensors: expected sha256={expected}, found sha256={found}; {_RESTORE}"
        )
    return parse(data, f"{name}.safetensors", _RESTORE)


def parse(data: bytes, name: str, remedy: str) -> tuple[Tensors, dict[str, str]]:
    """Tensors (single precision) and metadata of a safetensors file's bytes.

    Args:
        data: of the whole file.
        name: of the file, without its folder, for messages.
        remedy: how a damaged file of this origin is restored.

    Raises:
        WeightsError: the bytes are not a safetensors file.
    """
    try:
        length = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + length]).get("__metadata__", {})
        tensors = load_tensors(data)
    except (ValueError, KeyError, AttributeError, RuntimeError, SafetensorError) as error:
        raise WeightsError(f"{name} is not a readable safetensors file ({type(error).__name__}); {remedy}") from error
    return {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}, metadata
