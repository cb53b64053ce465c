"""How a machine computes: precision, memory and compilation. What is learnt stays the same to the precision chosen.

On a CPU the defaults are the fastest. A GPU gains from lower precision; a small one from checkpointing.
"""

import contextlib
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ccfexp.errors import ConfigError
from ccfexp.privacy.per_unit import carried

Precision = Literal["float32", "tf32", "bfloat16"]


@dataclass(frozen=True)
class ComputeConfig:
    """One machine's choices.

    Attributes:
        precision: of the U-Net. "tf32" shortens the factors of products on NVIDIA GPUs since Ampere, everywhere;
            "bfloat16" computes the U-Net in that type where it is safe (autocast), on a device that has it in hardware.
            Losses, judging encoders and the adapter itself stay in single precision.
        checkpointing: the U-Net's maps are computed again on the way back instead of kept: less memory, a third more
            time, the same numbers.
        compile: the U-Net is compiled (``torch.compile``): minutes once, then faster steps on a GPU.
        rows_at_once: examples in memory at a time where patients' gradients are told apart; how many are sampled in
            such a step is chance.
        unit_gradients: how they are told apart. "autograd" is about as fast as an ordinary step; "opacus" is an
            independent implementation, slower, and not with checkpointing.
    """

    precision: Precision = "float32"
    checkpointing: bool = False
    compile: bool = False
    rows_at_once: int = 16
    unit_gradients: Literal["autograd", "opacus"] = "autograd"

    def __post_init__(self) -> None:
        if self.rows_at_once < 1:
            raise ConfigError(f"compute.rows_at_once={self.rows_at_once} must be at least 1; 16 suits most machines")
        if self.precision not in get_args(Precision):
            raise ConfigError(f"compute.precision={self.precision!r} must be one of {', '.join(get_args(Precision))}")

    def check(self, device: torch.device) -> None:
        """Raises ConfigError where a device cannot compute so, or only much slower than in single precision."""
        if self.precision == "tf32" and device.type != "cuda":
            raise ConfigError(f"compute.precision=tf32 needs an NVIDIA GPU, but device={device.type}; use float32")
        if self.precision == "bfloat16" and not _has_bfloat16(device):
            raise ConfigError(
                f"compute.precision=bfloat16 must be a type of the hardware, and device={device.type} here only "
                "imitates it, many times slower; use float32"
            )

    def autocast(self, device: torch.device) -> contextlib.AbstractContextManager[Any]:
        """Within it the U-Net computes in the chosen precision; each thread needs its own."""
        if self.precision != "bfloat16":
            return contextlib.nullcontext()
        return torch.autocast(device.type, dtype=torch.bfloat16)


def prepare(unet: nn.Module, config: ComputeConfig) -> None:
    """Make a U-Net on its device compute as configured; "tf32" holds for the whole process.

    Raises:
        ConfigError: the device cannot compute so.
    """
    network: Any = unet
    config.check(next(unet.parameters()).device)
    if config.precision == "tf32":
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True
    if config.checkpointing:
        network.enable_gradient_checkpointing(_checkpointed)
    if config.compile:
        network.compile()


def _checkpointed(module: nn.Module, *inputs: Any) -> Any:  # noqa: ANN401 (a block of the network, whatever it takes)
    """A block that is computed again on the way back, for the same units as on the way there."""
    return checkpoint(carried(module), *inputs, use_reentrant=False)


def _has_bfloat16(device: torch.device) -> bool:
    cpu = device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported()  # noqa: SLF001 (nothing public says it)
    return bool(torch.cuda.is_bf16_supported(including_emulation=False) if device.type == "cuda" else cpu)
