"""How a machine computes: the same numbers to the precision chosen, and never a slower way by mistake."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from ccfexp.adapter import AdapterConfig
from ccfexp.compute import ComputeConfig
from ccfexp.errors import ConfigError
from ccfexp.losses import Batch, CycleConfig, cycle_loss
from tests.ccfexp import tiny

if TYPE_CHECKING:
    from ccfexp.model import CCFExp

CPU = torch.device("cpu")
HAS_BFLOAT16 = torch.ops.mkldnn._is_mkldnn_bf16_supported()


def model_and_gradients(config: ComputeConfig, device: torch.device = CPU) -> tuple[CCFExp, list[torch.Tensor]]:
    """A tiny model that computes so, and the gradient of the two-pass loss with respect to its factors."""
    model = tiny.model()
    batch = on(device, tiny.batch(model))
    model.attach_adapter(AdapterConfig(rank=3), 0)
    model.to(device)
    generator = torch.Generator().manual_seed(0)
    factors = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with torch.no_grad():
        for factor in factors:
            factor.copy_(0.2 * torch.randn(factor.shape, generator=generator))
    model.compute_as(config)
    eps = tiny.noise().to(device)
    t_B = torch.full((len(eps),), 300, device=device)
    loss = cycle_loss(model, batch, t_B, eps, CycleConfig()).total_B.mean()
    return model, list(torch.autograd.grad(loss, factors))


def on(device: torch.device, batch: Batch) -> Batch:
    """The examples on a device."""
    parts: Any = (
        part.to(device) if isinstance(part, torch.Tensor) else type(part)(*(value.to(device) for value in part))
        for part in batch
    )
    return Batch(*parts)


def agree(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> float:
    """Cosine of the angle between two gradients."""
    one, other = (torch.cat([part.cpu().flatten() for part in parts]) for parts in (ours, theirs))
    return float(torch.nn.functional.cosine_similarity(one, other, dim=0))


def test_checkpointing_changes_no_gradient() -> None:
    """What is computed again is the same, through both passes."""
    model, again = model_and_gradients(ComputeConfig(checkpointing=True))
    assert any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
    for ours, theirs in zip(again, model_and_gradients(ComputeConfig())[1], strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.skipif(not HAS_BFLOAT16, reason="this processor has no bfloat16")
def test_bfloat16_learns_the_same() -> None:
    """The U-Net computes in the shorter type, the factors and their gradients stay in single precision."""
    model, short = model_and_gradients(ComputeConfig(precision="bfloat16"))
    exact = model_and_gradients(ComputeConfig())[1]
    assert {gradient.dtype for gradient in short} == {torch.float32}
    assert agree(short, exact) > 0.98
    assert any(not torch.equal(one, other) for one, other in zip(short, exact, strict=True))
    kinds = set()
    hook = model.unet.register_forward_hook(lambda _module, _inputs, output: kinds.add(output[0].dtype))
    with torch.no_grad():
        examples = tiny.batch(model)
        condition = model.condition(examples.identity, examples.expression)
        assert model(tiny.noise(), torch.full((3,), 300), condition).dtype == torch.float32
    hook.remove()
    assert kinds == {torch.bfloat16}


@pytest.mark.gpu
@pytest.mark.parametrize(
    "config",
    [
        ComputeConfig(precision="tf32"),
        ComputeConfig(precision="bfloat16"),
        ComputeConfig(checkpointing=True),
        ComputeConfig(precision="bfloat16", compile=True),
    ],
)
def test_on_a_gpu(config: ComputeConfig) -> None:
    """Every choice gives the gradient that the processor gives, to its precision."""
    _, ours = model_and_gradients(config, torch.device("cuda"))
    assert agree(ours, model_and_gradients(ComputeConfig())[1]) > 0.97


def test_what_a_device_cannot_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing falls back in silence."""
    with pytest.raises(ConfigError, match=r"compute\.precision=tf32 needs an NVIDIA GPU, but device=cpu"):
        ComputeConfig(precision="tf32").check(CPU)
    monkeypatch.setattr("ccfexp.compute._has_bfloat16", lambda _device: False)
    with pytest.raises(ConfigError, match=r"compute\.precision=bfloat16 must be a type of the hardware"):
        tiny.model().compute_as(ComputeConfig(precision="bfloat16"))
    with pytest.raises(ConfigError, match=r"compute\.precision='half' must be one of float32, tf32, bfloat16"):
        ComputeConfig(precision="half")  # type: ignore[arg-type]
