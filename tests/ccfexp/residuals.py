"""Adapter states as aggregation makes them: moved factors, and on some layers a residual of a rank of its own."""

from __future__ import annotations

import torch

from ccfexp.residual import factor_names


def moved(state: dict[str, torch.Tensor], seed: int = 5, size: float = 0.1) -> dict[str, torch.Tensor]:
    """Factors that say something."""
    generator = torch.Generator().manual_seed(seed)
    return {name: value + size * torch.randn(value.shape, generator=generator) for name, value in state.items()}


def with_residual(state: dict[str, torch.Tensor], seed: int = 9, every: int = 2) -> dict[str, torch.Tensor]:
    """The state and residuals of every so many layers, of ranks 1 to 4."""
    generator = torch.Generator().manual_seed(seed)
    full = dict(state)
    for number, layer in enumerate(layers_of(state)[::every]):
        down, up = (state[name] for name in factor_names(layer))
        rank = 1 + number % 4
        full[f"{layer}.lora_A.residual.weight"] = 0.2 * torch.randn(rank, *down.shape[1:], generator=generator)
        full[f"{layer}.lora_B.residual.weight"] = 0.2 * torch.randn(len(up), rank, *up.shape[2:], generator=generator)
    return full


def layers_of(state: dict[str, torch.Tensor]) -> list[str]:
    """The layers that have factors, in order."""
    return sorted(name.removesuffix(".lora_A.weight") for name in state if name.endswith(".lora_A.weight"))


def dense(state: dict[str, torch.Tensor], layer: str, scale: float) -> torch.Tensor:
    """U D + s B A of a layer, flattened [m, ...], by the definition and in double precision."""
    down, up = (state[name].double().flatten(1) for name in factor_names(layer))
    total = scale * torch.einsum("mr,rn->mn", up, down)
    if f"{layer}.lora_A.residual.weight" in state:
        down, up = (state[f"{layer}.lora_{factor}.residual.weight"].double().flatten(1) for factor in "AB")
        total = total + torch.einsum("mr,rn->mn", up, down)
    return total
