"""LoRA adapters by peft: the only thing that is trained at a hospital and the only thing that leaves it.

In CCFExp all attention sits at low resolution, so attention alone cannot change fine features: adapters also sit on the
residual convolutions and the time projections of the U-Net and on every linear layer of the conditioner.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Literal, get_args

import torch
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict
from peft.tuners.lora.layer import Conv2d as ConvolutionFactors
from peft.tuners.lora.layer import LoraLayer
from torch import nn

from ccfexp import residual
from ccfexp.bottleneck import Bottleneck
from ccfexp.errors import CheckpointError, ConfigError
from ccfexp.low_rank import convolve
from ccfexp.privacy.per_unit import UnitConv2d, UnitLinear

AdapterState = dict[str, torch.Tensor]
Factors = Literal["A", "B", "AB"]

_NAME: Final = "default"
TARGETS: Final = {
    "attention": r"unet\.(.*\.(to_q|to_k|to_v|to_out\.0|add_k_proj|add_v_proj)|condition_projection)",
    "convolution": r"unet\.(down_blocks|mid_block|up_blocks)\..*\.(conv1|conv2|conv_shortcut)",
    "time": r"unet\..*\.time_emb_proj",
    "fusion": r"conditioner\..*",
}


@dataclass(frozen=True)
class AdapterConfig:
    """Size and place of the adapter.

    Attributes:
        rank: r of every factor pair.
        alpha: the update is alpha / r * B A.
        targets: parts of the model that get factors, among ``TARGETS``.
        bottleneck: what of the expression photograph's map the adapter is trained with and draws from.
    """

    rank: int = 8
    alpha: float = 8.0
    targets: tuple[str, ...] = ("attention", "convolution", "time", "fusion")
    bottleneck: Bottleneck = field(default_factory=Bottleneck)

    def __post_init__(self) -> None:
        if not 1 <= self.rank <= 256:
            raise ConfigError(f"adapter rank={self.rank} must lie in [1, 256]; 8 is the default")
        if not self.alpha > 0:
            raise ConfigError(f"adapter alpha={self.alpha} must be > 0; the rank itself is a good choice")
        unknown = [target for target in self.targets if target not in TARGETS]
        if unknown or not self.targets:
            raise ConfigError(f"adapter targets={self.targets} must be some of {', '.join(TARGETS)}; name at least one")


def lora_config(model: nn.Module, config: AdapterConfig) -> LoraConfig:
    """Peft's configuration with the targeted layers named one by one.

    Raises:
        ConfigError: a target matches no layer of this model (nothing is ever silently left out).
    """
    layers = [name for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    chosen = []
    for target in config.targets:
        matched = [name for name in layers if re.fullmatch(TARGETS[target], name)]
        if not matched:
            raise ConfigError(
                f"adapter target {target!r} matches no layer of this model; remove it from adapter.targets"
            )
        chosen += matched
    alpha: Any = config.alpha  # declared as an integer by peft, which only divides by the rank
    return LoraConfig(r=config.rank, lora_alpha=alpha, target_modules=sorted(chosen), lora_dropout=0.0, bias="none")


def targets_of(layers: Iterable[str]) -> tuple[str, ...]:
    """The targets that named layers belong to, in the order of ``TARGETS``."""
    names = list(layers)
    return tuple(target for target, pattern in TARGETS.items() if any(re.fullmatch(pattern, name) for name in names))


def attach(model: nn.Module, config: AdapterConfig, seed: int) -> LoraConfig:
    """Freeze the base and put fresh factors on it; B = 0, so the output is unchanged. The model stays in eval mode.

    Args:
        model: a ``CCFExp`` without an adapter.
        config: rank, alpha and targets.
        seed: of the factors A; the global generator is left as it was.

    Raises:
        ConfigError: a target matches no layer of this model.
    """
    peft_config = lora_config(model, config)
    model.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):  # peft draws A from the global generator
        torch.manual_seed(seed)
        # A configuration of its own, because peft shortens the layers' names in the one that it is given.
        inject_adapter_in_model(lora_config(model, config), model, _NAME)
    for layer in model.modules():
        if isinstance(layer, ConvolutionFactors):
            layer.forward = partial(convolve, layer)  # type: ignore[method-assign]
        if isinstance(layer, LoraLayer):
            for factors in (layer.lora_A, layer.lora_B):
                factor: Any = factors[_NAME]
                # Another class for what is there: peft's names, numbers and checks stay as they are.
                factor.__class__ = UnitConv2d if isinstance(factor, nn.Conv2d) else UnitLinear
    model.eval()
    return peft_config


def adapter_state(model: nn.Module) -> AdapterState:
    """The factors by peft's names, single precision, on the CPU, detached copies.

    Without a residual of the base: that is aggregation's, no site trains it or sends it.
    """
    state = get_peft_model_state_dict(model, adapter_name=_NAME)
    return {name: value.detach().to("cpu", torch.float32, copy=True) for name, value in sorted(state.items())}


def load_adapter_state(model: nn.Module, state: AdapterState, pristine: dict[str, torch.Tensor]) -> None:
    """Put factors into the model, and into its base the residual that comes with them or none.

    Args:
        model: with an adapter.
        state: factors, with or without residuals.
        pristine: weights of the base before any residual (see ``ccfexp.residual.set_base``).

    Raises:
        CheckpointError: names or shapes differ from the model's adapter; nothing is changed then.
    """
    factors, pairs = residual.split(state)
    present = adapter_state(model)
    missing, unexpected = sorted(present.keys() - factors.keys()), sorted(factors.keys() - present.keys())
    shapes = [name for name in present.keys() & factors.keys() if present[name].shape != factors[name].shape]
    if missing or unexpected or shapes:
        raise CheckpointError(
            f"adapter does not fit this model: {len(missing)} tensors missing, {len(unexpected)} unexpected, "
            f"{len(shapes)} of another shape; use the rank and targets that the adapter was made with"
        )
    residual.set_base(model, pairs, pristine)
    set_peft_model_state_dict(model, factors, adapter_name=_NAME)


def train_only(model: nn.Module, factors: Factors) -> None:
    """Choose which factors ask for gradients from now on; of a fresh adapter both do.

    With one factor the same at all sites the mean of the products is the product of the means: FFA-LoRA (Sun et al.
    2024, arXiv 2403.12313) trains B alone, RoLoRA (Chen et al. 2025, arXiv 2502.01755) both by turns. B comes first:
    while it is zero, as it begins, the gradient of A is zero too and a round of A changes nothing.

    Args:
        model: with an adapter.
        factors: which of every pair, A [r,n], B [m,r] or both.

    Raises:
        ConfigError: no such choice, or no adapter; nothing is changed then.
    """
    if factors not in get_args(Factors):
        raise ConfigError(f"factors={factors!r} to train must be one of {', '.join(get_args(Factors))}; choose one")
    chosen = {
        factor: [value for name, value in model.named_parameters() if f".lora_{factor}.{_NAME}." in name]
        for factor in "AB"
    }
    if not chosen["A"]:
        raise ConfigError(f"factors={factors!r} to train need an adapter, and the model has none; attach one first")
    for factor, parameters in chosen.items():
        for parameter in parameters:
            parameter.requires_grad_(factor in factors)
            parameter.grad = None  # an earlier round's says nothing of the next


def trainable_names(model: nn.Module) -> set[str]:
    """Adapter names of the parameters that ask for gradients."""
    return {name.replace(f".{_NAME}.", ".") for name, parameter in model.named_parameters() if parameter.requires_grad}
