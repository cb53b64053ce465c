"""One flat array and a manifest: an adapter as it travels and as it is averaged.

A round's cost is the number of tensors, not their bytes (every array is several objects on every hop), so an adapter
of a few hundred small LoRA factors is packed into one float32 vector `flat_P`, P = total number of adapter parameters,
in the order of the sorted tensor names. The manifest holds those names and shapes; two sides agree when its SHA-256 is
the same.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from ccfexp.errors import WireError

if TYPE_CHECKING:
    from collections.abc import Mapping

FlatArray = npt.NDArray[np.float32]

# The only tensors that may ever leave a hospital: the two factors of a low-rank adapter. Nothing else can be encoded.
# `residual` marks a product that an aggregation rule has moved into the base (see strategies.flora).
ALLOWED_NAME = re.compile(
    r"(?P<layer>[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*)\.lora_(?P<letter>[AB])(?P<residual>\.residual)?\.weight"
)
MAX_NAME = 200  # characters
MAX_TENSORS = 20_000
MAX_PARAMETERS = 200_000_000  # 800 MB of float32, several times the adapter of the published 93.6 M network
MAX_DIMENSIONS = 6
MAX_TAIL = 256  # components that a site of lower rank may get as part of its base, beside what a layer can hold


def refusal(check: str, name: str, value: object, bound: str) -> WireError:
    """A WireError that says which check failed, name=value and the bound. Foreign values are shortened."""
    shown = repr(value)
    if len(shown) > 80:
        shown = shown[:77] + "..."
    return WireError(f"wire check '{check}' failed: {name}={shown}, expected {bound}")


@dataclass(frozen=True)
class AdapterManifest:
    """Sorted names and shapes of an adapter; constructing one refuses every name outside the LoRA allow-list.

    Raises:
        WireError: a name that is not allowed, twice the same name, names not sorted, an impossible shape, too many
            parameters.
    """

    entries: tuple[tuple[str, tuple[int, ...]], ...]

    def __post_init__(self) -> None:
        if not 0 < len(self.entries) <= MAX_TENSORS:
            raise refusal("names", "tensors", len(self.entries), f"1 to {MAX_TENSORS}")
        for name, shape in self.entries:
            if len(name) > MAX_NAME or ALLOWED_NAME.fullmatch(name) is None:
                raise refusal("names", "tensor name", name, "a LoRA factor (....lora_A.weight or ....lora_B.weight)")
            if not 0 < len(shape) <= MAX_DIMENSIONS or any(size <= 0 for size in shape):
                raise refusal("shapes", f"shape of {name}", shape, f"1 to {MAX_DIMENSIONS} sizes above 0")
        if any(first >= second for first, second in itertools.pairwise(self.names)):
            raise refusal("names", "tensor names", "unsorted or repeated", "each name once, sorted")
        if self.parameters > MAX_PARAMETERS:
            raise refusal("shapes", "parameters", self.parameters, f"at most {MAX_PARAMETERS}")

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The tensor names, sorted."""
        return tuple(name for name, _ in self.entries)

    @cached_property
    def parameters(self) -> int:
        """P, the length of the flat array."""
        return sum(math.prod(shape) for _, shape in self.entries)

    @cached_property
    def text(self) -> str:
        """Canonical JSON, `[["name",[sizes]],...]`."""
        return json.dumps([[name, list(shape)] for name, shape in self.entries], separators=(",", ":"))

    @cached_property
    def sha256(self) -> str:
        """By which two sides know that they mean the same tensors."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @classmethod
    def of(cls, state: Mapping[str, torch.Tensor]) -> AdapterManifest:
        """The manifest of an adapter state. Raises WireError as the constructor."""
        return cls(tuple((name, tuple(state[name].shape)) for name in sorted(state)))

    @classmethod
    def parse(cls, text: str) -> AdapterManifest:
        """Reads a manifest received from elsewhere. Raises WireError on anything that is not exactly one."""
        try:
            found: Any = json.loads(text)
            entries = tuple((_text(name), tuple(_size(size) for size in shape)) for name, shape in found)
        except (ValueError, TypeError, RecursionError) as error:
            raise refusal("manifest", "manifest", text, "JSON [[name, [sizes]], ...]") from error
        return cls(entries)

    def only(self, letters: str) -> AdapterManifest:
        """The trained factors of these letters ("A", "B" or "AB"), without a base residual."""
        kept = (entry for entry in self.entries if trained_letter(entry[0]) in set(letters))
        return AdapterManifest(tuple(kept))

    def check_rank(self, rank: int) -> None:
        """Raises WireError unless every factor has this rank, and a base residual no more than its layer can hold.

        A site of lower rank gets what it cannot train as part of its base; more than the layer and that, no rule makes.
        """
        sizes = dict(self.entries)
        for name, shape in self.entries:
            match = ALLOWED_NAME.fullmatch(name)
            if match is None:
                continue
            own = shape[0] if match["letter"] == "A" else shape[1] if len(shape) > 1 else 0
            if not match["residual"] and own != rank:
                raise refusal("rank", f"rank of {name}", own, f"{rank}")
            up = sizes.get(f"{match['layer']}.lora_B.residual.weight", (0,))
            if match["residual"] and match["letter"] == "A" and own > min(up[0], math.prod(shape[1:])) + MAX_TAIL:
                raise refusal("rank", f"rank of {name}", own, f"at most {min(up[0], math.prod(shape[1:])) + MAX_TAIL}")

    def check_equal(self, expected: AdapterManifest) -> None:
        """Raises WireError naming the first difference unless both manifests are the same."""
        if self.entries == expected.entries:
            return
        mine, theirs = dict(self.entries), dict(expected.entries)
        for name in expected.names:
            if name not in mine:
                raise refusal("names", "tensors missing", min(theirs.keys() - mine.keys()), "every agreed tensor")
            if mine[name] != theirs[name]:
                raise refusal("shapes", f"shape of {name}", mine[name], f"{theirs[name]}")
        raise refusal("names", "tensor not agreed", min(mine.keys() - theirs.keys()), "only the agreed tensors")


def trained_letter(name: str) -> str | None:
    """Which factor a tensor is, "A" or "B"; None for one of a base residual."""
    match = ALLOWED_NAME.fullmatch(name)
    return None if match is None or match["residual"] else match["letter"]


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("a name is a string")
    return value


def _size(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError("a size is an integer")
    return value


def pack(state: Mapping[str, torch.Tensor]) -> tuple[AdapterManifest, FlatArray]:
    """Adapter state -> (manifest, flat_P float32), bit for bit.

    Raises:
        WireError: a name outside the allow-list, a tensor that is not float32, a value that is not finite.
    """
    manifest = AdapterManifest.of(state)
    for name in manifest.names:
        if state[name].dtype != torch.float32:
            raise refusal("dtype", f"dtype of {name}", str(state[name].dtype), "torch.float32")
    flat_P = np.concatenate([state[name].detach().cpu().numpy().ravel() for name in manifest.names])
    check_finite(manifest, flat_P)
    return manifest, flat_P


def unpack(manifest: AdapterManifest, flat_P: FlatArray) -> dict[str, torch.Tensor]:
    """(manifest, flat_P float32) -> adapter state of fresh CPU tensors. Raises WireError if the length does not fit."""
    if flat_P.shape != (manifest.parameters,):
        raise refusal("length", "array shape", flat_P.shape, f"({manifest.parameters},)")
    state, start = {}, 0
    for name, shape in manifest.entries:
        stop = start + math.prod(shape)
        state[name] = torch.from_numpy(flat_P[start:stop].reshape(shape).copy())
        start = stop
    return state


def narrowed(state: Mapping[str, torch.Tensor], rank: int) -> dict[str, torch.Tensor]:
    """The first components of every pair of factors; a base residual stays whole."""

    def first(name: str, value: torch.Tensor) -> torch.Tensor:
        letter = trained_letter(name)
        return value if letter is None else value[:rank] if letter == "A" else value[:, :rank]

    return {name: first(name, value) for name, value in state.items()}


def values_sha256(state: Mapping[str, torch.Tensor], letters: str) -> str:
    """SHA-256 of the trained factors of some letters: their manifest and their bits."""
    manifest, flat_P = pack({name: value for name, value in state.items() if trained_letter(name) in set(letters)})
    return hashlib.sha256(manifest.text.encode() + flat_P.tobytes()).hexdigest()


def check_finite(manifest: AdapterManifest, flat_P: FlatArray) -> None:
    """Raises WireError naming the first tensor with a value that is NaN or infinite."""
    finite_P = np.isfinite(flat_P)
    if finite_P.all():
        return
    first, start = int(np.argmin(finite_P)), 0
    for name, shape in manifest.entries:
        start += math.prod(shape)
        if first < start:
            raise refusal("finite", f"{name}", float(flat_P[first]), "finite values only")
