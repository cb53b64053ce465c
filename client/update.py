"""A site's side of a rule: what to start a round from, and what of the outcome is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from client.app import RequestRefusedError
from strategies import coding, registry, wire
from strategies.packing import pack, trained_letter, unpack, values_sha256

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from ccfexp.adapter import AdapterState
    from client.memory import SiteMemory
    from strategies.packing import AdapterManifest, FlatArray


def start_of(
    message: wire.AdapterMessage, model: AdapterManifest, initial: AdapterState, memory: SiteMemory
) -> AdapterState:
    """The adapter that a round starts from.

    Args:
        message: what was sent; factors of a letter that it lacks are the site's own (trained here, never sent) or those
            that the run's seed gives.
        model: factors of the site's adapter at the rank of the message.
        initial: the run's first adapter, at that rank.
        memory: of this site and run.

    Raises:
        RequestRefusedError: what was sent is not of this adapter, or a factor that is not sent is not the agreed one.
    """
    terms, sent = message.terms, message.state()
    letters = {letter for name in sent if (letter := trained_letter(name)) is not None}
    message.manifest.only("".join(letters)).check_equal(model.only("".join(letters)))
    own = {name: value for name, value in initial.items() if trained_letter(name) not in letters}
    known = {name for name in own if (trained_letter(name) or "") not in terms.trained}
    if known and values_sha256(own, "".join({trained_letter(name) or "" for name in known})) != terms.known_sha256:
        raise RequestRefusedError(
            f"known_sha256={terms.known_sha256[:12]} of the message is not that of the factors that this site draws "
            "from the run's seed; coordinator and site need the same release"
        )
    remembered = memory.before("personal", terms.round_number)
    personal = {name: _fitted(remembered[name], own[name]) for name in own if name in remembered and name not in known}
    return own | personal | sent


def update_of(
    message: wire.AdapterMessage,
    start: AdapterState,
    trained: AdapterState,
    memory: SiteMemory,
    random: np.random.Generator,
) -> tuple[AdapterManifest, FlatArray]:
    """The change to send, in the coding of the round; what stays here is remembered.

    Rounding is unbiased, and where a rule keeps the basis of its factors what it took away is added to the next update
    of the same factors (error feedback, Karimireddy et al. 2019, arXiv:1901.09847), so that nothing is lost for good.

    Raises:
        OSError: the site's disk refuses; nothing is sent then.
    """
    terms = message.terms
    sent = message.manifest.names
    personal = {
        name: value
        for name, value in trained.items()
        if name not in sent and (trained_letter(name) or "") in terms.trained
    }
    if personal:
        memory.remember("personal", terms.round_number, personal)
    uploaded = message.uploaded
    change = {name: (trained[name].double() - start[name].double()).float() for name in uploaded.names}
    steady = terms.coding != "float32" and registry.make(terms.method).steady
    left_over = memory.before("left-over", terms.round_number) if steady else {}
    manifest, change_P = pack(_sum(change, left_over))
    rounded_P = coding.representable(change_P, terms.coding, random)
    if steady:
        rest = unpack(manifest, (change_P.astype(np.float64) - rounded_P).astype(np.float32))
        memory.remember("left-over", terms.round_number, left_over | rest)
    return manifest, rounded_P


def _fitted(value: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
    """A factor that may be of another rank than now: what it lacks is as in the run's first adapter."""
    if value.shape == first.shape:
        return value
    common = tuple(slice(min(sizes)) for sizes in zip(value.shape, first.shape, strict=True))
    fitted = first.clone()
    fitted[common] = value[common]
    return fitted


def _sum(change: Mapping[str, torch.Tensor], more: Mapping[str, torch.Tensor]) -> AdapterState:
    fits = {name: more[name] for name in change if name in more and more[name].shape == change[name].shape}
    return {name: value + fits[name] if name in fits else value for name, value in change.items()}
