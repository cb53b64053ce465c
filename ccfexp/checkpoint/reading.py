"""Reading a checkpoint that nobody here made: tensors only, never code.

A pickle can run anything when it is loaded. Only torch's safe loader is used, which refuses every object but tensors
and plain containers; safetensors files hold nothing else to begin with.
"""

import pickle
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ccfexp.errors import CheckpointError

_KINDS: Final = (
    torch.float16, torch.bfloat16, torch.float32, torch.float64,
    torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool,
)  # fmt: skip
# What torch's loader was seen to raise on a few bytes of rubbish that begin as a pickle does.
_DAMAGED: Final = (
    RuntimeError, EOFError, ValueError, LookupError, OSError, TypeError, AttributeError, AssertionError,
    ArithmeticError, MemoryError, struct.error,
)  # fmt: skip


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The state dict of a checkpoint (its entry ``state_dict`` where it has one), on the CPU.

    Raises:
        CheckpointError: missing, truncated, not a checkpoint, with content other than tensors, or with tensors that
            are of an unknown kind or not finite.
    """
    if not path.is_file():
        raise CheckpointError("the checkpoint file does not exist; give the path of an existing file")
    state = _load_safetensors(path) if path.suffix == ".safetensors" else _state_of(_load_safely(path))
    _check_kinds(state)
    broken = sorted(
        name for name, value in state.items() if value.is_floating_point() and not bool(value.isfinite().all())
    )
    if broken:
        raise CheckpointError(
            f"{len(broken)} tensors hold NaN or infinity, the first is {broken[0]!r}; the training that wrote this "
            "checkpoint diverged, take an earlier one"
        )
    return state


def _check_kinds(state: dict[str, Tensor]) -> None:
    """Refuse what no published checkpoint holds and few operations are defined for: float8, sparse, quantised ..."""
    odd = {
        name: f"{str(value.dtype).removeprefix('torch.')} {str(value.layout).removeprefix('torch.')}"
        for name, value in state.items()
        if value.dtype not in _KINDS or value.layout != torch.strided or value.is_meta or value.is_nested
    }
    if odd:
        first = min(odd)
        raise CheckpointError(
            f"{len(odd)} tensors are of a kind that cannot be read, the first is {first!r} ({odd[first]}); save them "
            "as dense float16, bfloat16, float32 or float64 and give that file"
        )


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    """By its name; a file that is named so and is none is refused."""
    try:
        return load_file(path)
    except (SafetensorError, OSError, LookupError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"not a readable safetensors file, or a truncated one ({type(error).__name__}); copy it again"
        ) from error


def _load_safely(path: Path) -> object:
    if not zipfile.is_zipfile(path) and not _is_pickle(path):
        raise CheckpointError(
            "neither a torch checkpoint nor a safetensors file, or a truncated one; compare its size and hash with the "
            "source and copy it again"
        )
    try:
        with warnings.catch_warnings():
            # Another pickle protocol than torch's own is worth no word: it loads, or is refused with an error.
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"refused by torch's safe loader: {_refusal(error)}. A checkpoint that needs more than tensors can run "
            "code; whoever trusts its source may save its state_dict alone with torch.save and import that"
        ) from error
    except _DAMAGED as error:
        raise CheckpointError(
            f"the checkpoint is damaged or truncated ({type(error).__name__}); compare its size and hash with the "
            "source and copy it again"
        ) from error


def _is_pickle(path: Path) -> bool:
    """Old checkpoints are bare pickles, whose first byte is the protocol mark."""
    with path.open("rb") as file:
        return file.read(1) == b"\x80"


def _refusal(error: pickle.UnpicklingError) -> str:
    """What was refused, in one line: the loader names the global that the file asked for."""
    lines = [line.strip() for line in str(error).splitlines() if "GLOBAL" in line or "Unsupported" in line]
    return (lines[0] if lines else "it holds something other than tensors").rstrip(".")


def _state_of(loaded: object) -> dict[str, Tensor]:
    """The tensors of a bare state dict, or of the entry ``state_dict`` of a training checkpoint."""
    content: Any = loaded
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not content or not all(isinstance(name, str) for name in content):
        raise CheckpointError(
            f"expected a state dict or a dict with the entry 'state_dict', found {type(content).__name__}; "
            "give a checkpoint of CCFExp, DCFace, AdaFace, the AffectNet deviation network or MobileFaceNet"
        )
    others = [name for name, value in content.items() if not isinstance(value, Tensor)]
    if others:
        raise CheckpointError(f"{len(others)} entries are no tensors, the first is {others[0]!r}; give a state dict")
    return content
