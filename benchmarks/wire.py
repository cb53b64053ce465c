"""What an update costs on the wire, and whether 8 bits a number are enough."""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from flwr.app import Metadata
from flwr.app.message.message import make_message
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects

import configs
from benchmarks._harness import Result, main
from ccfexp.adapter import AdapterConfig
from ccfexp.evaluation.cases import phantom_cases
from ccfexp.evaluation.judge import case_features, validation_loss
from ccfexp.model import OFFICIAL, CCFExp, FrozenEncoders
from configs.run import RunConfig
from simulation.federate import run_federation
from simulation.sites import prepare_sites
from strategies import coding
from strategies.packing import AdapterManifest
from strategies.wire import AdapterUpdate, Terms, encode_update

if TYPE_CHECKING:
    from strategies.coding import Coding
    from strategies.packing import FlatArray

_SEEDS = (1, 2, 3)
_RUN = [
    "name=benchmark", "federation.rounds=20", "federation.strategy=rolora", "federation.min_sites=2", "train.steps=2",
    "train.batch_size=4", "sites.0.subjects=6", "sites.1.subjects=6", "train.cycle_every=10",
]  # fmt: skip


def bytes_on_the_wire(manifest: AdapterManifest, change_P: FlatArray, written: Coding) -> int:
    """Size of everything that Flower sends for an update: the message and all objects nested in it."""
    terms = Terms(
        round_number=1, method="rolora", rank=8, alpha=8.0, config_sha256="0" * 64, base_sha256="0" * 64,
        trained="B", uploaded="B", coding=written,
    )  # fmt: skip
    metrics = {"loss": 0.1, "steps": 20.0, "patients": 8.0, "images": 160.0}
    rounded_P = coding.representable(change_P, written, np.random.default_rng(0))
    # The envelope of a real reply; its numbers are those of a message between a node and the coordinator.
    envelope = Metadata(2**62, "f" * 64, 2**62, 1, "f" * 64, "1", 1.8e9, 3600.0, "train")
    message = make_message(envelope, encode_update(AdapterUpdate(terms, manifest, rounded_P, 8.0, metrics)))
    return sum(len(part.deflate()) for part in get_all_nested_objects(message).values())


def sizes() -> tuple[dict[Coding, float], float]:
    """Bytes of an update over those of plain float32, by coding; and of the whole published model over an update.

    At the published size, default rank, averaged over a round of B and one of A. The model is sent in float32, as
    averaging whole models does; the update in 8 bits.
    """
    model = CCFExp(OFFICIAL, FrozenEncoders.load(CCFExp.from_base("phantom-base").config.encoders))
    whole = 4 * sum(parameter.numel() for parameter in model.parameters())
    model.attach_adapter(AdapterConfig(), seed=0)
    both = AdapterManifest.of(model.adapter_state())
    random = np.random.default_rng(0)
    parts = [both.only(letters) for letters in "BA"]
    # Changes as training makes them: each tensor of a size of its own.
    changes = [
        np.concatenate(
            [random.normal(0, 10 ** random.uniform(-5, -3), int(np.prod(shape))) for _, shape in part.entries]
        ).astype(np.float32)
        for part in parts
    ]
    sent = {
        written: sum(bytes_on_the_wire(part, change, written) for part, change in zip(parts, changes, strict=True))
        for written in coding.CODINGS
    }
    plain = 4 * both.parameters
    return {written: size / plain for written, size in sent.items()}, whole / (sent["int8"] / 2)


def final_losses(written: Coding, folder: Path) -> list[float]:
    """Validation loss of held-out people after twenty rounds, for each seed."""
    losses = []
    for seed in _SEEDS:
        config = configs.load("tiny", [*_RUN, f"seed={seed}", f"federation.upload={written}"], RunConfig)
        manifests = prepare_sites(config.hospitals, config.image_size, folder / "sites")
        out = folder / f"{written}-{seed}"
        progress = run_federation(config, manifests, out, cache_dir=folder / "features")
        model = CCFExp.from_base(config.base)
        model.attach_adapter(config.adapter, config.seed)
        model.load_adapter_state(progress.adapter)
        cases = phantom_cases(16, config.image_size, config.hospitals)
        losses.append(validation_loss(model, cases, case_features(model, cases)))
    return losses


def measure() -> Result:
    """Sizes of messages, then twenty rounds on phantoms in either coding."""
    shares, times_smaller = sizes()
    with tempfile.TemporaryDirectory() as folder:
        exact, rounded = (final_losses(written, Path(folder)) for written in ("float32", "int8"))
    noise = statistics.stdev(exact)
    apart = statistics.fmean(abs(one - other) for one, other in zip(exact, rounded, strict=True))
    rows = [(f"{written} over plain float32", f"{share:.3f}") for written, share in shares.items()]
    rows += [
        ("loss after 20 rounds, float32", ", ".join(f"{loss:.5f}" for loss in exact)),
        ("the same in 8 bits", ", ".join(f"{loss:.5f}" for loss in rounded)),
        ("standard deviation over seeds", f"{noise:.2g}"),
    ]
    also = (
        Result("float32_over_plain", shares["float32"], 1.05),
        Result("model_over_update", times_smaller, 300.0, at_most=False),
        Result("loss_apart_over_noise", apart / noise, 1.0),
    )
    return Result("wire", shares["int8"], 0.27, rows=tuple(rows), also=also)


if __name__ == "__main__":
    sys.exit(main(measure, about="Bytes of an 8-bit update over those of plain float32, and what it costs in quality"))
