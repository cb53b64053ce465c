"""A published checkpoint becomes safetensors files, a configuration and a record with hashes: all of it, or nothing."""

import json
import shutil
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import save
from torch import Tensor

from ccfexp._io import atomic_write_bytes, atomic_write_json, sha256_file, umask
from ccfexp.checkpoint.layouts import CONDITIONER, ENCODERS, UNET, Sorted, State, sort_keys
from ccfexp.checkpoint.reading import read_tensors
from ccfexp.errors import CheckpointError, WeightsError
from ccfexp.model import OFFICIAL, EncoderNames, ModelConfig, config_to_json
from ccfexp.published.encoder_files import SUFFIX, describe
from ccfexp.weights.imported import RECORD_FILE, imported_hashes

MODEL_FILE: Final = "model.safetensors"
_CONFIG_FILE: Final = "config.json"


def import_checkpoint(source: Path, out: Path, weights: str = "average") -> dict[str, Any]:
    """Read ``source`` and write the folder ``out``; returns the record, which is also written there.

    Args:
        source: a published checkpoint (torch, or safetensors with the same keys).
        out: a folder that does not exist yet, or is empty.
        weights: "average" or "last", which U-Net of a training checkpoint.

    Raises:
        CheckpointError: ``source`` cannot be used, or ``out`` is in use. Nothing is written then.
        OSError: ``out`` cannot be written.
    """
    if weights not in ("average", "last"):
        raise CheckpointError(f"weights={weights!r} must be average or last; choose one")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CheckpointError("the output folder exists and is not empty; name a new one")
    state = read_tensors(source)
    layout, found = sort_keys(state, weights)
    out.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    try:
        files = _write_parts(building, found)
        record = {
            "layout": layout,
            "source_sha256": sha256_file(source),
            "keys": len(state),
            "mapped": len(state) - len(found.left),
            "left": dict(sorted(found.left.items())),
            "unet_weights": weights if layout == "CCFExp" else None,
            "files": files,
        }
        atomic_write_json(building / RECORD_FILE, record)
        if out.exists():
            out.rmdir()
        building.chmod(0o777 & ~umask())  # a temporary folder is its owner's alone; the files in it are not
        building.rename(out)
    except BaseException:  # also Ctrl-C and a full disk: no half import stays
        shutil.rmtree(building, ignore_errors=True)
        raise
    return record


def _write_parts(folder: Path, found: Sorted) -> dict[str, dict[str, Any]]:
    """Every part as a file; SHA-256 and bytes of each by name."""
    parts = dict(found.parts)
    unet, conditioner = parts.pop(UNET, None), parts.pop(CONDITIONER, None)
    names = _write_encoders(folder, parts)
    if unet is not None and conditioner is not None:
        config = replace(OFFICIAL, encoders=EncoderNames(**names))
        tensors = {f"unet.{k}": v for k, v in unet.items()} | {f"conditioner.{k}": v for k, v in conditioner.items()}
        _write(folder / MODEL_FILE, tensors, {"model": config_to_json(config)})
        atomic_write_json(folder / _CONFIG_FILE, asdict(config))
    elif unet is not None:
        _write(folder / "unet.safetensors", unet, {"unet": json.dumps(asdict(OFFICIAL.unet), sort_keys=True)})
        atomic_write_json(folder / _CONFIG_FILE, asdict(OFFICIAL.unet))
    else:
        atomic_write_json(folder / _CONFIG_FILE, names)
    return {path.name: {"sha256": sha256_file(path), "bytes": path.stat().st_size} for path in sorted(folder.iterdir())}


def _write_encoders(folder: Path, parts: dict[str, State]) -> dict[str, str]:
    """The file name of each encoder; two that are equal bit for bit share one file (the published ones do)."""
    names: dict[str, str] = {}
    for part, state in parts.items():
        twin = next((other for other in names if _equal(parts[other], state)), None)
        names[part] = names[twin] if twin else part + SUFFIX
        if twin is None:
            _write(folder / names[part], state, {"encoder": describe(_network(part))})
    return names


def _network(part: str) -> torch.nn.Module:
    with torch.device("meta"):
        return ENCODERS[part]()


def _equal(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def _write(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    single = {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}
    atomic_write_bytes(path, save({k: v.contiguous().clone() for k, v in sorted(single.items())}, metadata))


def verify_import(folder: Path) -> ModelConfig | None:
    """Check every file of an import against its record; the model's configuration where it holds a whole model.

    Raises:
        CheckpointError: no record, or a file that is missing or altered.
    """
    try:
        files = imported_hashes(folder)
    except WeightsError as error:
        raise CheckpointError(str(error)) from error
    if not files:
        raise CheckpointError(f"no {RECORD_FILE} in the folder; give a folder that an import made")
    for name, expected in files.items():
        if not (folder / name).is_file():
            raise CheckpointError(f"missing file {name} of the import; import the checkpoint again")
        found = sha256_file(folder / name)
        if found != expected:
            raise CheckpointError(
                f"altered file {name}: expected sha256={expected}, found sha256={found}; import the checkpoint again"
            )
    return OFFICIAL if MODEL_FILE in files else None
