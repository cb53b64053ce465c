"""Bytes on the wire over the raw bytes of the adapter, for one update of one hospital."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from flwr.app import Metadata
from flwr.app.message.message import make_message
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects

from benchmarks._harness import Result, main
from ccfexp.adapter import AdapterConfig
from ccfexp.model import CCFExp
from strategies.wire import AdapterUpdate, Terms, encode_update

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

BOUND = 1.05


def bytes_on_the_wire(state: Mapping[str, torch.Tensor], config: AdapterConfig) -> int:
    """Size of everything that Flower sends for this adapter: the message and all objects nested in it."""
    terms = Terms(
        round_number=1,
        method="fedit",
        rank=config.rank,
        alpha=config.alpha,
        config_sha256="0" * 64,
        base_sha256="0" * 64,
    )
    metrics = {"loss": 0.1, "steps": 20.0, "patients": 8.0, "images": 160.0}
    # The envelope of a real reply; its numbers are those of a message between a node and the coordinator.
    envelope = Metadata(2**62, "f" * 64, 2**62, 1, "f" * 64, "1", 1.8e9, 3600.0, "train")
    message = make_message(envelope, encode_update(AdapterUpdate.of(terms, state, 8.0, metrics)))
    return sum(len(part.deflate()) for part in get_all_nested_objects(message).values())


def raw_bytes(state: Mapping[str, torch.Tensor]) -> int:
    """Bytes of the adapter's numbers alone."""
    return sum(tensor.numel() * tensor.element_size() for tensor in state.values())


def measure() -> Result:
    """The default adapter of the phantom base."""
    config = AdapterConfig()
    model = CCFExp.from_base("phantom-base")
    model.attach_adapter(config, seed=0)
    state = model.adapter_state()
    # Content-addressed storage sends equal chunks once; a fresh adapter's zero factors must not profit from that.
    state = {name: tensor + 1e-3 for name, tensor in state.items()}
    wire, raw = bytes_on_the_wire(state, config), raw_bytes(state)
    rows = (("tensors", f"{len(state)}"), ("raw adapter", f"{raw:,} bytes"), ("on the wire", f"{wire:,} bytes"))
    return Result("wire", wire / raw, BOUND, rows=rows)


if __name__ == "__main__":
    sys.exit(main(measure, about="Bytes on the wire over raw adapter bytes, one update of one hospital"))
