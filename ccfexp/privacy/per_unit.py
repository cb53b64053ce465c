"""The gradient of every unit (patient) apart, by autograd itself: nothing is hooked, so nothing can be missed.

A trained layer is computed with its shared weight, as always. Backward hands its weight gradient, row by row summed
into units, to a stand-in of the weight with one copy per unit: an expanded view that needs no memory. Autograd adds up
what several uses of a layer give (the two passes of the cycle loss, gradient checkpointing), because to autograd the
stand-in is a tensor like any other. The weight itself gets no gradient at all, so a step that forgets to clip has
nothing to take.

Shapes: B rows, U units, N positions of all rows, I inputs, O outputs, R rank.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from ccfexp.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

T = TypeVar("T")


class Units:
    """Which unit every row of a piece of work belongs to, and the stand-ins that collect the units' gradients.

    Args:
        parameters: what is trained; each must be a weight that is used through this module.
        unit_B: int64 in [0, count), the unit of each row.
        count: U.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], unit_B: Tensor, count: int) -> None:
        self.unit_B = unit_B
        self._stand_ins = {
            id(parameter): parameter.detach().unsqueeze(0).expand(count, *parameter.shape).requires_grad_()
            for parameter in parameters
        }

    def of(self, weight: Tensor) -> Tensor | None:
        """The stand-in [U, *weight.shape] of a trained weight, None of a frozen one."""
        return self._stand_ins.get(id(weight))

    def gradients(self, loss: Tensor) -> list[Tensor]:
        """The gradient [U, *shape] of a sum over rows, for each parameter in the order given; it uses up the graph."""
        return list(torch.autograd.grad(loss, list(self._stand_ins.values()), materialize_grads=True))

    def check_rows(self, rows: int) -> None:
        """Raises ConfigError if a layer sees another number of rows than units were named for."""
        if rows != len(self.unit_B):
            raise ConfigError(
                f"rows={rows} at a trained layer must be those of the batch, {len(self.unit_B)}; a layer that mixes or "
                "repeats rows cannot be trained with per-unit clipping"
            )

    @contextmanager
    def active(self) -> Iterator[None]:
        """Within it, and in this thread, trained layers hand their gradients to the stand-ins."""
        token = _ACTIVE.set(self)
        try:
            yield
        finally:
            _ACTIVE.reset(token)


_ACTIVE: ContextVar[Units | None] = ContextVar("units", default=None)


def active_units() -> Units | None:
    """The units of this thread's work; None outside of such work and where nothing asks for gradients."""
    return _ACTIVE.get() if torch.is_grad_enabled() else None


def carried(function: Callable[..., T]) -> Callable[..., T]:
    """The function as it is called now, whenever and in whichever thread: checkpointing computes it a second time."""
    units = _ACTIVE.get()

    def called(*args: Any, **kwargs: Any) -> T:  # noqa: ANN401 (whatever the function takes)
        token = _ACTIVE.set(units)
        try:
            return function(*args, **kwargs)
        finally:
            _ACTIVE.reset(token)

    return called


class UnitLinear(nn.Linear):
    """A linear layer without bias that can tell units apart; an ordinary one outside of such work."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x W^T for x [B, ..., I]."""
        units = active_units()
        stand_in = None if units is None else units.of(self.weight)
        if units is None or stand_in is None:
            return super().forward(x)
        units.check_rows(len(x))
        x, weight = in_one_type(x, self.weight.detach())
        out: Tensor = _UnitProduct.apply(x, weight, stand_in, units.unit_B)  # type: ignore[no-untyped-call]
        return out


class UnitConv2d(nn.Conv2d):
    """Weights of a convolution that `ccfexp.low_rank.convolve` computes, which can tell units apart."""

    def forward(self, x: Tensor) -> Tensor:
        """An ordinary convolution. Raises ConfigError in work that tells units apart, where this one would not."""
        units = active_units()
        if units is not None and units.of(self.weight) is not None:
            raise ConfigError("a trained convolution outside of an adapted layer cannot tell units apart")
        return super().forward(x)


class _UnitProduct(torch.autograd.Function):
    """x W^T; the weight's gradient goes to the stand-in."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_OI: Tensor, stand_in: Tensor, unit_B: Tensor) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(x, weight_OI, unit_B)
        ctx.units = len(stand_in)
        return functional.linear(x, weight_OI)

    @staticmethod
    def backward(ctx: Any, *gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        x, weight_OI, unit_B = ctx.saved_tensors
        (gradient_O,) = gradient
        x_gradient = gradient_O @ weight_OI if ctx.needs_input_grad[0] else None
        rows = len(unit_B)
        gradient_BPO, x_BPI = (part.reshape(rows, -1, part.shape[-1]) for part in (gradient_O, x))
        return x_gradient, None, into_units(product_gradient(gradient_BPO, x_BPI), unit_B, ctx.units), None


def in_one_type(*tensors: Any) -> Any:  # noqa: ANN401 (tensors, one of them perhaps None)
    """The tensors as autocast would hand them to a layer; functions of our own it does not know."""
    kind = tensors[0].device.type
    if not torch.is_autocast_enabled(kind):
        return tensors
    dtype = torch.get_autocast_dtype(kind)
    return tuple(None if tensor is None else tensor.to(dtype) for tensor in tensors)


def product_gradient(gradient_BPO: Tensor, x_BPI: Tensor) -> Tensor:
    """The weight's gradient [B,O,I] of every row of a product x W^T over P positions."""
    return torch.bmm(gradient_BPO.transpose(1, 2), x_BPI)


def convolution_gradient(
    gradient_BOHW: Tensor, x_BIHW: Tensor, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]
) -> Tensor:
    """The weight's gradient [B,O,I,k,k] of every row of a convolution without dilation or groups.

    Of the two images that are correlated the one with fewer channels is unfolded: of a down-projection its gradient.
    """
    (high, wide), (outputs, inputs) = kernel, (gradient_BOHW.shape[1], x_BIHW.shape[1])
    if stride == (1, 1) and outputs <= inputs:
        rest = (high - 1 - padding[0], wide - 1 - padding[1])
        unfolded = functional.unfold(gradient_BOHW, kernel, padding=rest)  # [B, O k k, H W], mirrored
        correlated = torch.bmm(unfolded, x_BIHW.flatten(2).transpose(1, 2))
        return correlated.view(-1, outputs, high, wide, inputs).flip(2, 3).permute(0, 1, 4, 2, 3)
    unfolded = functional.unfold(x_BIHW, kernel, padding=padding, stride=stride)
    return torch.bmm(gradient_BOHW.flatten(2), unfolded.transpose(1, 2)).view(-1, outputs, inputs, high, wide)


def into_units(gradient_B: Tensor, unit_B: Tensor, units: int) -> Tensor:
    """The rows [B, ...] summed by unit [U, ...], at least in single precision whatever the layer computed in."""
    dtype = torch.promote_types(gradient_B.dtype, torch.float32)
    sums = torch.zeros(units, *gradient_B.shape[1:], dtype=dtype, device=gradient_B.device)
    return sums.index_add_(0, unit_B, gradient_B.to(dtype))


def clipped_sum(gradients: Sequence[Tensor], bound: float) -> tuple[list[Tensor], Tensor]:
    """The sum over units of gradients clipped to a norm over all parameters together.

    A unit whose gradient is not finite counts as zero: that too depends on nobody but the unit, so one unit more or
    less still moves the sum by no more than the bound.

    Args:
        gradients: [U, ...] of each parameter.
        bound: per-unit clipping norm.

    Returns:
        The sum of each parameter, in double precision: in single, one unit more rounds the sum of many others by more
        than the margin below. And the norm [U] of each unit before the clip.
    """
    norm_U = torch.stack([part.flatten(1).double().square().sum(1) for part in gradients]).sum(0).sqrt()
    finite_U = norm_U.isfinite()
    # A millionth less than the bound, which is more than rounding can give back.
    factor_U = torch.where(finite_U, (bound * (1 - 1e-6) / norm_U.clamp_min(1e-300)).clamp(max=1.0), 0.0)
    sums = []
    for part in gradients:
        rows = part.flatten(1).double()
        if not bool(finite_U.all()):
            rows = rows.masked_fill(~finite_U[:, None], 0.0)  # zero times infinity is no number
        sums.append((factor_U @ rows).view(part.shape[1:]))
    return sums, norm_U


def trained_weights(model: nn.Module) -> list[nn.Parameter]:
    """What is trained, if no layer takes statistics over a batch. Raises ConfigError otherwise."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training:  # noqa: SLF001 (torch's base class)
            raise ConfigError("a layer that takes statistics over a batch mixes patients; put the model in eval mode")
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def check_layers(model: nn.Module) -> None:
    """Check that everything that is trained can tell units apart.

    Raises:
        ConfigError: nothing is trained, a trained weight is outside of the adapter's own layers, or a layer takes
            statistics over a batch.
    """
    for module in model.modules():
        trained = any(parameter.requires_grad for parameter in module.parameters(recurse=False))
        if trained and not (isinstance(module, UnitLinear | UnitConv2d) and module.bias is None):
            raise ConfigError(
                f"trained layer={type(module).__name__} cannot tell units apart; private training takes adapters alone"
            )
    if not trained_weights(model):
        raise ConfigError("trained weights=0 must be at least 1; attach an adapter first")
