"""Adapters on disk, in peft's own format, written whole or not at all."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save

from ccfexp._io import atomic_write_bytes, atomic_write_json, canonical_json, sha256_file
from ccfexp.adapter import AdapterConfig, AdapterState, lora_config, targets_of
from ccfexp.bottleneck import Bottleneck
from ccfexp.errors import CheckpointError
from ccfexp.model import CCFExp
from ccfexp.residual import stack, unstack

_PREFIX = "base_model.model."
_BOTTLENECK = "bottleneck"
_WEIGHTS, _CONFIG = "adapter_model.safetensors", "adapter_config.json"


def save_adapter(
    folder: Path, state: AdapterState, model: CCFExp, config: AdapterConfig, metadata: dict[str, str]
) -> None:
    """Write ``adapter_model.safetensors`` and ``adapter_config.json`` so that peft alone can load them.

    A residual of the base becomes part of its layer's factors, which then have a rank of their own and scale 1.

    Args:
        folder: made if it does not exist.
        state: factors by peft's names, with or without residuals.
        model: the base without an adapter (its layers are named in the configuration) or with one.
        config: rank, alpha and targets.
        metadata: public facts kept in the safetensors header (base hash, configuration hash ...).

    Raises:
        CheckpointError: residuals that are not of these factors.
    """
    factors, ranks = stack(state, config.alpha / config.rank)
    peft_config: dict[str, Any] = lora_config_of(model, config) | {"rank_pattern": ranks, "alpha_pattern": ranks}
    own = {"format": "pt"}
    if config.bottleneck != Bottleneck():
        own[_BOTTLENECK] = canonical_json(asdict(config.bottleneck))
    tensors = {_PREFIX + name: value.contiguous() for name, value in factors.items()}
    atomic_write_bytes(folder / _WEIGHTS, _sorted_header(save(tensors, metadata | own)))
    atomic_write_json(folder / _CONFIG, peft_config)


def _sorted_header(data: bytes) -> bytes:
    """The same safetensors file with its header in one order, so that equal adapters are equal files."""
    length = int.from_bytes(data[:8], "little")
    header = canonical_json(json.loads(data[8 : 8 + length])).encode()
    header += b" " * (-len(header) % 8)  # the tensors stay aligned
    return len(header).to_bytes(8, "little") + header + data[8 + length :]


def lora_config_of(model: CCFExp, config: AdapterConfig) -> dict[str, Any]:
    """Peft's configuration as JSON; works whether or not the adapter is already attached."""
    layers = getattr(model, "adapter_layers", None)
    peft_config = layers if layers is not None else lora_config(model, config)
    record = peft_config.to_dict()
    record["target_modules"] = sorted(record["target_modules"])
    loaded: dict[str, Any] = json.loads(json.dumps(record, default=str))
    return loaded


def load_adapter(folder: Path) -> tuple[AdapterState, AdapterConfig]:
    """State (factors, and residuals where there are any) and configuration of a saved adapter.

    Raises:
        CheckpointError: a file is missing or damaged.
    """
    try:
        tensors = load_file(folder / _WEIGHTS)
        with safe_open(folder / _WEIGHTS, "pt") as file:
            narrow = Bottleneck(**json.loads((file.metadata() or {}).get(_BOTTLENECK, "{}")))
        record = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
        targets = targets_of(record["target_modules"])
        config = AdapterConfig(int(record["r"]), float(record["lora_alpha"]), targets, narrow)
        ranks = {layer: int(rank) for layer, rank in dict(record["rank_pattern"]).items()}
        if record["alpha_pattern"] != ranks:
            raise ValueError("factors of a rank of their own must have scale 1")
        factors = {name.removeprefix(_PREFIX): value for name, value in tensors.items()}
        return unstack(factors, ranks, config.rank, config.alpha / config.rank), config
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise CheckpointError(
            f"adapter cannot be read ({type(error).__name__}); it needs {_WEIGHTS} and {_CONFIG} as a run writes them"
        ) from error


def attach_saved_adapter(model: CCFExp, folder: Path) -> str:
    """Put a saved adapter on its base; returns the SHA-256 of its weights.

    Raises:
        CheckpointError: missing, damaged, made for another base, or with factors that do not fit.
    """
    state, config = load_adapter(folder)
    with safe_open(folder / _WEIGHTS, "pt") as file:
        made_for = (file.metadata() or {}).get("base_sha256", "")
    if made_for and made_for != model.base_sha256:
        raise CheckpointError(
            f"the adapter was trained on the base with sha256={made_for}, not on this one "
            f"(sha256={model.base_sha256}); give its own base"
        )
    model.attach_adapter(config, seed=0)
    model.load_adapter_state(state)
    return sha256_file(folder / _WEIGHTS)
