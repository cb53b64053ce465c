"""The coordinator's progress on disk: one adapter and one state file per run, replaced after every round.

    checkpoint/adapter-0003.safetensors   the adapter after round 3, written first
    checkpoint/memory-0003.safetensors    what the rule keeps, where it keeps something
    checkpoint/state.json                 names those files and their SHA-256; its renaming completes the round

A kill, a full disk or Ctrl-C at any instant therefore leaves the last complete round: the state still names the
previous files, which are deleted only after the new state is in place.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors
import safetensors.torch
import torch

from ccfexp._io import atomic_write_bytes, atomic_write_json, canonical_json
from ccfexp.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping


_FORMAT = 2
_SPENT = "epsilon_run"  # of what a site tells, what its run has cost so far


@dataclass(frozen=True)
class RoundRecord:
    """What is known of one round: everything in it is public."""

    round_number: int  # 0 is the adapter before training
    seconds: float
    weights: dict[str, float] = field(default_factory=dict)  # site -> public weight
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)  # site -> public numbers
    refused: dict[str, str] = field(default_factory=dict)  # site -> why its reply was not used
    received_bytes: dict[str, int] = field(default_factory=dict)  # site -> size of the arrays in its reply, used or not
    evaluation: dict[str, float] = field(default_factory=dict)  # what the on_round hook measured
    sent_bytes: dict[str, int] = field(default_factory=dict)  # site -> size of the arrays that it was sent
    ranks: dict[str, int] = field(default_factory=dict)  # site -> rank that it trained
    bias: float | None = None  # |applied update - ideal sum_i p_i s_i B_i A_i| / |ideal|, where the ideal is known

    def means(self) -> dict[str, float]:
        """The sites' public numbers averaged by public weight, and how many sites were used and refused."""
        names = sorted({name for told in self.metrics.values() for name in told if not name.startswith("epsilon")})
        means: dict[str, float] = {"sites": float(len(self.weights)), "refused": float(len(self.refused))}
        for name in names:
            sites = [site for site in sorted(self.metrics) if name in self.metrics[site]]
            total = sum(self.weights[site] for site in sites)
            means[name] = sum(self.weights[site] * self.metrics[site][name] for site in sites) / total
        return means

    def epsilon(self) -> float | None:
        """What the site with the largest one has spent in this run; a mean would be nobody's. None without privacy."""
        return max((told[_SPENT] for told in self.metrics.values() if _SPENT in told), default=None)


@dataclass(frozen=True)
class Progress:
    """Where a federation stands after its last complete round.

    Attributes:
        round_number: of that round; 0 before the first.
        adapter: its factors, and what a rule has moved into the base.
        history: of all rounds so far, round 0 included.
        method: name of the aggregation rule; empty before the first round.
        memory: what the rule or the server optimiser keeps, float64.
        run: drawn when the run began, by which sites tell it from others.
        noise_seed: of the coordinator's noise; nobody else may know it. None where there is no noise.
    """

    round_number: int
    adapter: dict[str, torch.Tensor]
    history: tuple[RoundRecord, ...]
    method: str = ""
    memory: dict[str, torch.Tensor] = field(default_factory=dict)
    noise_seed: int | None = None
    run: str = "0" * 16


class CheckpointFolder:
    """Reads and writes the progress of the run with one configuration and base.

    Args:
        folder: made when first written to.
        config_sha256: of the resolved configuration; another one is refused.
        base_sha256: of the frozen base.
    """

    def __init__(self, folder: Path, *, config_sha256: str, base_sha256: str) -> None:
        """Remember where; nothing is read or written yet."""
        self._folder = folder
        self._identity = {"format": _FORMAT, "config_sha256": config_sha256, "base_sha256": base_sha256}

    def load(self) -> Progress | None:
        """The last complete round, or None in a new run.

        Raises:
            ConfigError: the folder holds a run of another configuration or base.
            CheckpointError: a file is missing, damaged or not one of ours.
        """
        state_path = self._folder / "state.json"
        if not state_path.exists():
            return None
        try:
            state: dict[str, Any] = json.loads(state_path.read_text(encoding="utf-8"))
            self._check_identity(state)
            history = tuple(RoundRecord(**record) for record in state["history"])
            adapter = self._read_tensors(str(state["adapter"]), str(state["adapter_sha256"]))
            kept = state["memory"]
            memory = {} if kept is None else self._read_tensors(str(kept), str(state["memory_sha256"]))
            seed = state["noise_seed"]
            progress = Progress(
                int(state["round"]),
                adapter,
                history,
                str(state["method"]),
                memory,
                None if seed is None else int(seed),
                str(state["run"]),
            )
        except ConfigError:
            raise
        except (OSError, ValueError, KeyError, TypeError, AttributeError, safetensors.SafetensorError) as error:
            raise CheckpointError(
                f"checkpoint state.json cannot be used ({type(error).__name__}); "
                "restore the run folder from a copy or start again in a new one"
            ) from error
        self._delete_others({state["adapter"], state["memory"]})
        return progress

    def save(self, progress: Progress) -> None:
        """Complete a round.

        Raises:
            CheckpointError: the disk refused; the previous round is still in place.
        """
        data = adapter_bytes(progress.adapter, {**self._identity, "round": progress.round_number})
        name = f"adapter-{progress.round_number:04d}.safetensors"
        state = {
            **self._identity,
            "round": progress.round_number,
            "adapter": name,
            "adapter_sha256": hashlib.sha256(data).hexdigest(),
            "memory": None,
            "method": progress.method,
            "noise_seed": progress.noise_seed,
            "run": progress.run,
            "history": [asdict(record) for record in progress.history],
        }
        files = {name: data}
        if progress.memory:
            kept = f"memory-{progress.round_number:04d}.safetensors"
            files[kept] = adapter_bytes(progress.memory, {"round": progress.round_number})
            state |= {"memory": kept, "memory_sha256": hashlib.sha256(files[kept]).hexdigest()}
        try:
            for file, content in files.items():
                atomic_write_bytes(self._folder / file, content)
            atomic_write_json(self._folder / "state.json", state)
        except OSError as error:
            raise CheckpointError(
                f"checkpoint of round={progress.round_number} could not be written ({error.strerror}); "
                "the previous round is kept: free the disk and run the same command again"
            ) from error
        self._delete_others(set(files))

    def _check_identity(self, state: Mapping[str, object]) -> None:
        for name, expected in self._identity.items():
            if state.get(name) != expected:
                raise ConfigError(
                    f"this run folder is of {name}={str(state.get(name))[:12]}, now it is {str(expected)[:12]}; "
                    "run with the configuration it was started with, or choose another name for the new run"
                )

    def _read_tensors(self, name: str, sha256: str) -> dict[str, torch.Tensor]:
        data = (self._folder / Path(name).name).read_bytes()
        found = hashlib.sha256(data).hexdigest()
        if found != sha256:
            raise CheckpointError(
                f"checkpoint {Path(name).name} has sha256={found[:12]}, expected {sha256[:12]}; "
                "restore the run folder from a copy or start again in a new one"
            )
        tensors: dict[str, torch.Tensor] = safetensors.torch.load(data)
        return tensors

    def _delete_others(self, kept: set[str | None]) -> None:
        """Remove superseded files and what killed writers left behind."""
        for path in [*self._folder.glob("*-*.safetensors"), *self._folder.glob(".*.tmp")]:
            if path.name not in kept:
                path.unlink(missing_ok=True)


def adapter_bytes(adapter: Mapping[str, torch.Tensor], about: Mapping[str, object]) -> bytes:
    """An adapter as safetensors; the same tensors and facts give the same bytes.

    The facts are one JSON text under one key because the order of several metadata keys in the file is not defined.
    """
    tensors = {name: adapter[name].contiguous() for name in sorted(adapter)}
    data: bytes = safetensors.torch.save(tensors, metadata={"ccfexp": canonical_json(dict(about))})
    return data
