"""A released adapter in the hands of somebody who has diffusers, peft and the U-Net class, and nothing else of ours."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ccfexp.adapter import AdapterConfig
from ccfexp.checkpoint import save_adapter
from ccfexp.model import CCFExp
from tests.ccfexp.residuals import with_residual

CONFIG = AdapterConfig(rank=2, alpha=4.0)
_STRANGER = """
import json, sys
from pathlib import Path
import torch
from peft import LoraConfig, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from ccfexp.unet import CCFExpUNet

folder = Path(sys.argv[1])
unet = CCFExpUNet.from_pretrained(folder / "unet").eval()
config = json.loads((folder / "adapter/adapter_config.json").read_text())
layers = [name.removeprefix("unet.") for name in config["target_modules"] if name.startswith("unet.")]
prefix = "base_model.model.unet."
factors = load_file(folder / "adapter/adapter_model.safetensors")
factors = {name.removeprefix(prefix): value for name, value in factors.items() if name.startswith(prefix)}
patterns = {
    key: {name.removeprefix("unet."): value for name, value in config[key].items()}
    for key in ("rank_pattern", "alpha_pattern")
}
unet.add_adapter(LoraConfig(r=config["r"], lora_alpha=config["lora_alpha"], target_modules=layers, **patterns))
assert not set_peft_model_state_dict(unet, factors).unexpected_keys
inputs = load_file(folder / "inputs.safetensors")
with torch.no_grad():
    (out,) = unet(inputs["x"], inputs["t"], inputs["tokens"], inputs["style"], return_dict=False)
save_file({"out": out}, folder / "theirs.safetensors")
ours = sorted(name for name in sys.modules if name.split(".")[0] in ("ccfexp", "strategies", "configs", "client"))
print(ours)
"""


@pytest.mark.parametrize("aggregated", [False, True], ids=["factors", "residual"])
def test_a_released_adapter_opens_in_diffusers_and_peft(tmp_path: Path, aggregated: bool) -> None:
    """Also one that aggregation has added to the base with, whose layers then have differing ranks."""
    model, generator = CCFExp.from_base("phantom-base"), torch.Generator().manual_seed(2)
    unet: Any = model.unet
    unet.save_pretrained(tmp_path / "unet")
    inputs = {
        "x": torch.randn(1, 48, 16, 16, generator=generator),
        "t": torch.tensor([100]),
        "tokens": torch.randn(1, 192, 128, generator=generator),
        "style": torch.randn(1, 384, generator=generator),
    }
    save_file(inputs, tmp_path / "inputs.safetensors")
    with torch.no_grad():
        (plain,) = unet(inputs["x"], inputs["t"], inputs["tokens"], inputs["style"], return_dict=False)
        model.attach_adapter(CONFIG, 1)
        factors = model.adapter_state()
        for name in factors:
            if "lora_B" in name:
                factors[name] = 0.05 * torch.randn(factors[name].shape, generator=generator)
        if aggregated:
            factors = with_residual(factors)
        model.load_adapter_state(factors)
        save_adapter(tmp_path / "adapter", factors, model, CONFIG, {})
        (ours,) = unet(inputs["x"], inputs["t"], inputs["tokens"], inputs["style"], return_dict=False)
    command = [sys.executable, "-W", "ignore", "-c", _STRANGER, str(tmp_path)]
    said = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[3])
    assert said.stdout.strip().splitlines()[-1] == "['ccfexp', 'ccfexp.errors', 'ccfexp.unet']"
    theirs = load_file(tmp_path / "theirs.safetensors")["out"]
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-4)
    assert float((theirs - plain).abs().max()) > 0.05
