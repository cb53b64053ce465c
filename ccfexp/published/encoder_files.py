"""Encoders by name: shipped with the package, or safetensors files beside a base that say which network they are."""

import json
from pathlib import Path
from typing import Any, Final

from torch import nn

from ccfexp import weights
from ccfexp._io import sha256_file
from ccfexp.encoders import Encoder, load_phantom_encoder
from ccfexp.errors import WeightsError
from ccfexp.frozen import freeze_encoder
from ccfexp.published.fan import load_fan
from ccfexp.published.ir50 import SIDE, IR50Encoder
from ccfexp.published.mobilefacenet import MobileFaceNet
from ccfexp.published.onnx_network import load_onnx_encoder
from ccfexp.weights.imported import RESTORE, check_imported
from ccfexp.weights.local import KNOWN, require

SUFFIX: Final = ".safetensors"


def describe(network: nn.Module) -> str:
    """What a file records of its network, from which ``load_encoder`` builds it again.

    Raises:
        TypeError: no published encoder.
    """
    if isinstance(network, IR50Encoder):
        return json.dumps({"network": "ir50"})
    if isinstance(network, MobileFaceNet):
        return json.dumps({"network": "mobilefacenet", "input_range": network.input_range}, sort_keys=True)
    raise TypeError(f"{type(network).__name__} is no published encoder")


def load_encoder(name: str, folder: Path | None) -> Encoder:
    """A frozen encoder in evaluation mode.

    Args:
        name: of shipped weights, or of a file in ``folder``: .safetensors as the importer writes it, .onnx for a
            recogniser of the insightface packs, .pth.tar for FAN.
        folder: where files are.

    Raises:
        WeightsError: missing, damaged, altered since its import, or not an encoder.
    """
    if not is_file_name(name):
        return load_phantom_encoder(name)
    if folder is None or not (folder / name).is_file():
        raise WeightsError(
            f"encoder file {name!r} does not lie beside the base; import the checkpoint that it belongs to again, or "
            "place the file there (`python -m ccfexp.weights check` says where it comes from)"
        )
    if name in {known.name for known in KNOWN}:
        require(folder, name)
    if name.endswith(".onnx"):
        return load_onnx_encoder(folder / name)
    if name.endswith(".pth.tar"):
        return load_fan(folder / name)
    data = (folder / name).read_bytes()
    check_imported(folder / name, data)
    tensors, metadata = weights.parse(data, name, RESTORE)
    network = _build(metadata.get("encoder", ""), name)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise WeightsError(f"encoder file {name!r} does not fit the network that it names: {error}") from error
    encoder: Any = freeze_encoder(network, SIDE)
    typed: Encoder = encoder
    return typed


def is_file_name(name: str) -> bool:
    """Whether an encoder's name is that of a file, not of shipped weights."""
    return name.endswith((SUFFIX, ".onnx", ".pth.tar"))


def _build(record: str, name: str) -> nn.Module:
    try:
        fields = json.loads(record)
        if fields["network"] == "ir50":
            return IR50Encoder()
        if fields["network"] == "mobilefacenet":
            return MobileFaceNet(fields["input_range"])
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"encoder file {name!r} does not say which network it holds; import it again") from error
    raise WeightsError(f"encoder file {name!r} names network={fields['network']!r}; known: ir50, mobilefacenet")


def encoder_hashes(names: object, folder: Path | None) -> list[str]:
    """SHA-256 of every named encoder, in the order of the fields; empty names are left out."""
    wanted: list[str] = list(vars(names).values())
    return [encoder_hash(name, folder) for name in wanted if name]


def encoder_hash(name: str, folder: Path | None) -> str:
    """SHA-256 of an encoder by name: of shipped weights, or of a file in ``folder``."""
    return sha256_file(folder / name) if folder is not None and is_file_name(name) else weights.sha256(name)
