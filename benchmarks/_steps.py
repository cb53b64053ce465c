"""One training step at full size, two ways: as published, and as this project takes it.

Both have the same networks of the same sizes with random weights, the same batch and two passes. The published side is
the procedure of the published code in our own modules: everything is computed where it is needed, as often as it is
needed, all weights of the U-Net, the identity embedder and the fusion get gradients, and the U-Net's running average is
kept.

``python -m benchmarks._steps SIDE`` prints the seconds of one step and the peak memory of the process.
"""

from __future__ import annotations

import json
import resource
import statistics
import sys
import time
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from ccfexp.adapter import AdapterConfig
from ccfexp.averaging import running_average
from ccfexp.conditioning import ConditioningConfig, ExpressionFeatures, IdentityFeatures
from ccfexp.diffusion import DiffusionConfig
from ccfexp.frozen import freeze, freeze_encoder
from ccfexp.losses import OFFICIAL_CYCLE, Batch, CycleConfig, cycle_loss
from ccfexp.model import OFFICIAL, CCFExp, FrozenEncoders, ModelConfig
from ccfexp.published.ir50 import IR50Encoder
from ccfexp.published.mobilefacenet import MobileFaceNet
from ccfexp.unet import UNetConfig

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

BATCH, REPEATS = 2, 3
TERMS = CycleConfig(expression_weight=0.0)  # those of the published loss: the same mathematics on both sides
SIDES = ("published", "published_unet", "corrected", "corrected_unet")


def images(count: int = BATCH, side: int = 112) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Target images, identity photographs, noise and timesteps."""
    generator = torch.Generator().manual_seed(0)
    target, person = (torch.rand(count, 3, side, side, generator=generator) * 2 - 1 for _ in range(2))
    t_B = torch.linspace(100, 700, count).long()
    return target, person, torch.randn(count, 3, side, side, generator=generator), t_B


def published_loss(
    model: CCFExp, embed: Callable[[Tensor], IdentityFeatures], x: Tensor, person: Tensor, eps: Tensor, t_B: Tensor
) -> Tensor:
    """Final loss of one step, every network run where the published code runs it (12 IR-50 passes, 6 of landmarks)."""
    encoders = model.encoders
    recogniser, neutral = encoders.recogniser, encoders.neutral
    assert recogniser is not None
    assert neutral is not None

    def cycle(image: Tensor, x_estimate: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        identity = embed(person)
        landmark = encoders.landmark(image)
        deviation_BD = encoders.face(image).vector_BD - neutral(image).vector_BD
        expression = ExpressionFeatures(deviation_BD, landmark.map_BCGG, landmark.vector_BD)
        x_t = model.diffusion.add_noise(image, eps, t_B)
        prediction = model(x_t, t_B, model.condition(identity, expression))
        estimate, _ = model.diffusion.x0_and_eps(prediction, x_t if x_estimate is None else x_estimate, t_B)
        x0 = estimate.clamp(-1, 1)
        late_B = t_B / model.diffusion.config.steps
        vector_BD = recogniser(x0).vector_BD
        to_person_B = 1 - functional.cosine_similarity(vector_BD, recogniser(person).vector_BD)
        to_image_B = 1 - functional.cosine_similarity(vector_BD, recogniser(image).vector_BD)
        person_term = (late_B * to_person_B + (1 - late_B) * to_image_B).mean()
        landmark_term = functional.mse_loss(encoders.landmark(x0).vector_BD, encoders.landmark(x).vector_BD)
        loss = functional.mse_loss(prediction, eps) + OFFICIAL_CYCLE.identity_weight * person_term
        return loss + OFFICIAL_CYCLE.landmark_weight * landmark_term, x0, x_t

    first, x0_1, x_t = cycle(x, None)
    second, _, _ = cycle(x0_1, x_t)
    return first + OFFICIAL_CYCLE.cycle_weight * second


def published_side(*, only_unet: bool) -> Callable[[], None]:
    """A step that trains the U-Net, the embedder (its dropout and batch statistics active) and the fusion."""
    recogniser, neutral, face = (freeze(IR50Encoder()) for _ in range(3))
    embedder = IR50Encoder().train()
    encoders: Any = FrozenEncoders(embedder, face, freeze(MobileFaceNet("published")), neutral, recogniser)
    model = CCFExp(OFFICIAL, encoders)
    trained = [*model.parameters(), *embedder.parameters()]
    optimiser = torch.optim.AdamW(trained, lr=1e-4)
    network: Any = model.unet  # diffusers' modules do not show as such to a type checker
    average = running_average(network.parameters())
    x, person, eps, t_B = images()
    if only_unet:
        return _unet_passes(model, optimiser)

    def step() -> None:
        optimiser.zero_grad()
        loss = published_loss(model, lambda photo: IdentityFeatures(*embedder(photo)), x, person, eps, t_B)
        loss.backward()
        optimiser.step()
        average.step(network.parameters())

    return step


def corrected_side(*, only_unet: bool) -> Callable[[], None]:
    """A step of ``train_local``: LoRA on a frozen base, features of real images computed before."""
    identity, face = (freeze_encoder(IR50Encoder(), 112) for _ in range(2))
    encoders: Any = FrozenEncoders(identity, face, freeze_encoder(MobileFaceNet("own"), 112))
    conditioning = ConditioningConfig(vector=512, map_channels=512, grid=7, token_size=512)
    config = ModelConfig(unet=UNetConfig(), conditioning=conditioning, diffusion=DiffusionConfig())
    model = freeze(CCFExp(config, encoders))
    unet: Any = model.unet
    unet.to(memory_format=torch.channels_last)
    model.attach_adapter(AdapterConfig(), seed=0)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=1e-3, weight_decay=0.0)
    x, person, eps, t_B = images()
    with torch.no_grad():
        photo, shown = encoders.identity_features(person), encoders.expression_features(x)
        batch = Batch(
            x, photo, shown, encoders.identity(x).vector_BD, shown.landmark_B136, shown.deviation_BD, photo.vector_BD
        )
    if only_unet:
        return _unet_passes(model, optimiser)

    def step() -> None:
        optimiser.zero_grad()
        cycle_loss(model, batch, t_B, eps, TERMS).total_B.mean().backward()
        optimiser.step()

    return step


def _unet_passes(model: CCFExp, optimiser: torch.optim.Optimizer) -> Callable[[], None]:
    """The share of the U-Net alone: its two passes forward and back."""
    x, _, eps, t_B = images()
    size = model.config.conditioning
    tokens = torch.randn(BATCH, 3 * size.grid**2, size.token_size, requires_grad=True)
    style = torch.randn(BATCH, size.style_size, requires_grad=True)

    def step() -> None:
        optimiser.zero_grad()
        for image in (x, x.clone().requires_grad_()):
            model.unet.predict(image, t_B, tokens, style).sub(eps).square().mean().backward()

    return step


def measure_side(side: str) -> dict[str, float]:
    """Median seconds of a step after a first one, and the peak resident bytes of this process."""
    torch.set_num_threads(1)  # a step of a site has one thread; more would measure the machine's other work
    make = published_side if side.startswith("published") else corrected_side
    step, seconds = make(only_unet=side.endswith("_unet")), []
    for repeat in range(REPEATS + 1):
        started = time.perf_counter()
        step()
        if repeat:
            seconds.append(time.perf_counter() - started)
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": statistics.median(seconds), "bytes": float(peak)}


if __name__ == "__main__":
    print(json.dumps(measure_side(sys.argv[1])))
