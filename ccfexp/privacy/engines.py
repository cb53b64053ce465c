"""A second way to tell units apart: Opacus' hooks, an independent implementation to compare with.

Opacus keeps the gradient of every row (not of every unit), so it needs more memory and time, and it counts a layer that
is computed twice, as checkpointing does, as two rows.
"""

from __future__ import annotations

import threading
import warnings
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from ccfexp.errors import ConfigError
from ccfexp.privacy.per_unit import UnitConv2d, UnitLinear, into_units
from ccfexp.privacy.steps import AutogradEngine, Engine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ccfexp.compute import ComputeConfig


def engine_of(compute: ComputeConfig) -> Engine:
    """The engine that a machine has chosen.

    Raises:
        ConfigError: the machine computes in a way in which gradients cannot be told apart.
    """
    if compute.compile:
        raise ConfigError(
            "compute.compile=true cannot go with a private run: a compiled network does not tell patients apart; set "
            "it to false"
        )
    if compute.unit_gradients == "autograd":
        return AutogradEngine()
    if compute.checkpointing:
        raise ConfigError(
            "compute.checkpointing=true cannot go with compute.unit_gradients=opacus, which takes a layer that is "
            "computed again for another patient; set unit_gradients to autograd"
        )
    return OpacusEngine()


class OpacusEngine:
    """Gradients of rows by Opacus' `GradSampleHooks`, summed by unit before the clip; one thread at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def running(self, model: nn.Module) -> AbstractContextManager[None]:
        """Hooks on the adapter's plain layers, for all steps of a round."""
        return _hooked(model)

    def gradients(
        self, trained: Sequence[nn.Parameter], unit_R: Tensor, units: int, loss: Callable[[], Tensor]
    ) -> list[Tensor]:
        """By hooks."""
        with self._lock, warnings.catch_warnings():
            # The first layer's input is data and asks for no gradient, which is as it must be.
            warnings.filterwarnings("ignore", "Full backward hook is firing", UserWarning)
            loss().backward()
            found = []
            for weight in trained:
                parameter: Any = weight
                rows = parameter.grad_sample
                seen = len(rows) if isinstance(rows, Tensor) else 0
                if seen != len(unit_R):
                    raise ConfigError(f"rows={seen} with a gradient must be those of the batch, {len(unit_R)}")
                found.append(into_units(rows, unit_R, units))
                parameter.grad = parameter.grad_sample = None
            return found


@contextmanager
def _hooked(model: nn.Module) -> Iterator[None]:
    from opacus.grad_sample import GradSampleHooks

    with _plain(model):
        hooks = GradSampleHooks(model, loss_reduction="sum")
        hooks.forbid_grad_accumulation()
        try:
            yield
        finally:
            hooks.cleanup()


@contextmanager
def _plain(model: nn.Module) -> Iterator[None]:
    """The adapter computed by peft's and torch's own layers, in the mode in which hooks are called."""
    own_forwards = {module: module.__dict__.pop("forward") for module in model.modules() if "forward" in vars(module)}
    factors: list[Any] = [module for module in model.modules() if isinstance(module, UnitLinear | UnitConv2d)]
    kinds = [type(factor) for factor in factors]
    # Opacus unfolds a convolution's input as if its last dimensions were its last in memory, and says nothing if not.
    in_rows = [factor.register_forward_pre_hook(_in_order) for factor in factors if isinstance(factor, nn.Conv2d)]
    for factor in factors:
        factor.__class__ = nn.Linear if isinstance(factor, nn.Linear) else nn.Conv2d
        factor.train()
    try:
        yield
    finally:
        for factor, kind in zip(factors, kinds, strict=True):
            factor.__class__ = kind
            factor.eval()
        for hook in in_rows:
            hook.remove()
        for module, forward in own_forwards.items():
            module.__dict__["forward"] = forward


def _in_order(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(x.contiguous() for x in inputs)
