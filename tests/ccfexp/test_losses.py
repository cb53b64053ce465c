"""The two-pass loss: recomputed here from the paper's description, with every switch both ways."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
from torch.nn.functional import cosine_similarity

from ccfexp.conditioning import ExpressionFeatures, IdentityFeatures
from ccfexp.errors import ConfigError
from ccfexp.losses import Batch, CycleConfig, cycle_loss
from ccfexp.model import CCFExp
from tests.ccfexp import tiny

OFFICIAL = CycleConfig(
    landmark_weight=10.0, expression_weight=0.0, estimate_from="first", clip="hard", trust_by_signal=False
)
T_B = torch.tensor([30, 400, 800])


@pytest.fixture(scope="module")
def epsilon_model() -> CCFExp:
    """A model in the published parametrisation."""
    return tiny.model(tiny.EPSILON)


def recompute(model: CCFExp, batch: Batch, t_B: torch.Tensor, eps: torch.Tensor, config: CycleConfig) -> torch.Tensor:
    """Total [B] for a model that predicts epsilon with plain weights."""
    beta_T = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    a = (1 - beta_T).cumprod(0)[t_B].float()[:, None, None, None]
    late, trust = t_B / 1000, a.flatten().sqrt() if config.trust_by_signal else torch.ones(len(t_B))

    def clip(x: torch.Tensor) -> torch.Tensor:
        hard = x.clamp(-1, 1)
        return hard if config.clip == "hard" else x + (hard - x).detach()

    def judged(x0: torch.Tensor) -> torch.Tensor:
        vector = model.encoders.identity(x0).vector_BD
        person = 1 - cosine_similarity(vector, batch.identity.vector_BD)
        image = 1 - cosine_similarity(vector, batch.target_identity_BD)
        landmark = ((model.encoders.landmark(x0).vector_BD - batch.target_landmark_B136) ** 2).mean(1)
        identity = late * person + (1 - late) * image
        deviation = model.encoders.face(x0).vector_BD - vector
        expression = 1 - cosine_similarity(deviation, batch.target_deviation_BD)
        weighted = config.identity_weight * identity + config.landmark_weight * landmark
        return trust * (weighted + config.expression_weight * expression)

    x_t = a.sqrt() * batch.target_B3HW + (1 - a).sqrt() * eps
    eps_1 = model(x_t, t_B, model.condition(batch.identity, batch.expression))
    x0_1 = clip((x_t - (1 - a).sqrt() * eps_1) / a.sqrt())
    first = ((eps_1 - eps) ** 2).mean((1, 2, 3)) + judged(x0_1)

    image = x0_1.detach() if config.detach_first else x0_1
    landmark = model.encoders.landmark(image)
    deviation = model.encoders.face(image).vector_BD - model.encoders.identity(image).vector_BD
    x_again = a.sqrt() * image + (1 - a).sqrt() * eps
    expression = ExpressionFeatures(deviation, landmark.map_BCGG, landmark.vector_BD)
    eps_2 = model(x_again, t_B, model.condition(batch.identity, expression))
    noisy = x_t if config.estimate_from == "first" else x_again
    x0_2 = clip((noisy - (1 - a).sqrt() * eps_2) / a.sqrt())
    second = ((eps_2 - eps) ** 2).mean((1, 2, 3)) + judged(x0_2)
    total_B: torch.Tensor = first + config.cycle_weight * second
    return total_B


def gradients(model: CCFExp, total_B: torch.Tensor) -> dict[str, torch.Tensor]:
    """Gradients of the mean loss for every parameter of the U-Net and the conditioner."""
    names, parameters = zip(*model.named_parameters(), strict=True)
    found = torch.autograd.grad(total_B.mean(), parameters, materialize_grads=True)
    return dict(zip(names, found, strict=True))


@pytest.mark.parametrize(
    "config",
    [OFFICIAL, CycleConfig(), replace(OFFICIAL, detach_first=True), replace(OFFICIAL, estimate_from="second")],
    ids=["official", "corrected", "detached", "second"],
)
def test_value_and_gradients_of_every_mode(epsilon_model: CCFExp, config: CycleConfig) -> None:
    """The same total for every example and the same gradient for every parameter."""
    model, batch, eps = epsilon_model, tiny.batch(epsilon_model), tiny.noise()
    model.requires_grad_(True)

    total_B = cycle_loss(model, batch, T_B, eps, config).total_B
    expected_B = recompute(model, batch, T_B, eps, config)

    torch.testing.assert_close(total_B, expected_B, rtol=1e-4, atol=1e-5)
    found, expected = gradients(model, total_B), gradients(model, expected_B)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=2e-3, atol=1e-3 * float(gradient.abs().max()) + 1e-7)


def test_the_modes_are_different(epsilon_model: CCFExp) -> None:
    """Each switch changes the total; only detaching keeps it and changes the gradient."""
    model, batch, eps = epsilon_model, tiny.batch(epsilon_model), tiny.noise()
    model.requires_grad_(True)
    base = CycleConfig()
    configs = {
        "base": base,
        "first": replace(base, estimate_from="first"),
        "trust": replace(base, trust_by_signal=False),
        "one pass": replace(base, cycle_weight=0.0),
        "detached": replace(base, detach_first=True),
    }
    totals = {name: cycle_loss(model, batch, T_B, eps, config).total_B for name, config in configs.items()}

    for name in ("first", "trust", "one pass"):
        assert not torch.allclose(totals[name], totals["base"], rtol=1e-4), name
    torch.testing.assert_close(totals["detached"], totals["base"])
    whole, cut = gradients(model, totals["base"]), gradients(model, totals["detached"])
    assert any(not torch.allclose(whole[name], cut[name], rtol=1e-2) for name in whole)


def test_terms_add_up(epsilon_model: CCFExp) -> None:
    """What is reported beside the total is what the total is made of, and carries no gradient."""
    model, config = epsilon_model, CycleConfig()
    model.requires_grad_(True)
    terms = cycle_loss(model, tiny.batch(model), T_B, tiny.noise(), config)

    total_B = terms.diffusion_B + config.identity_weight * terms.identity_B + config.landmark_weight * terms.landmark_B
    total_B = total_B + config.expression_weight * terms.expression_B
    torch.testing.assert_close(terms.total_B.detach(), total_B + config.cycle_weight * terms.cycle_B)
    assert terms.total_B.requires_grad
    assert not any(term.requires_grad for term in terms[1:])
    assert all((term > 0).all() for term in terms)


@pytest.mark.parametrize(("clip", "passes"), [("hard", False), ("straight_through", True)])
def test_gradients_where_every_pixel_is_clipped(
    epsilon_model: CCFExp, clip: Literal["hard", "straight_through"], passes: bool
) -> None:
    """At the last timestep an estimate is x_t times 157; with noise of +-2 no pixel of it lies within [-1, 1]."""
    model, batch = epsilon_model, tiny.batch(epsilon_model)
    model.requires_grad_(True)
    eps = 2 * torch.sign(tiny.noise())
    t_B = torch.tensor([999, 999, 999])
    config = CycleConfig(cycle_weight=0.0, expression_weight=0.0, clip=clip, trust_by_signal=False, identity_weight=0.0)

    def first_layer(landmark_weight: float) -> torch.Tensor:
        terms = cycle_loss(model, batch, t_B, eps, replace(config, landmark_weight=landmark_weight))
        return gradients(model, terms.total_B)["unet.conv_in.weight"]

    difference = (first_layer(100.0) - first_layer(0.0)).abs().max()
    assert (difference > 0) if passes else (difference == 0)


def test_second_pass_looks_at_the_identity_photograph(epsilon_model: CCFExp) -> None:
    """Both passes are told who it is by the same photograph; only the expression is read again."""
    model, batch = epsilon_model, tiny.batch(epsilon_model)
    seen: list[tuple[IdentityFeatures, ExpressionFeatures]] = []
    handle = model.conditioner.register_forward_pre_hook(lambda _, arguments: seen.append(arguments))
    try:
        cycle_loss(model, batch, T_B, tiny.noise(), CycleConfig())
    finally:
        handle.remove()

    (identity_1, expression_1), (identity_2, expression_2) = seen
    assert identity_1 is batch.identity
    assert all(a is b for a, b in zip(identity_2, batch.identity, strict=True))
    assert expression_1 is batch.expression
    assert not torch.allclose(expression_2.deviation_BD, expression_1.deviation_BD)


def test_v_prediction_weighs_its_error() -> None:
    """The diffusion term of the phantom's parametrisation, written down again."""
    model = tiny.model()
    batch, eps = tiny.batch(model), tiny.noise()
    a = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0)[T_B].float()[:, None, None, None]
    x_t = a.sqrt() * batch.target_B3HW + (1 - a).sqrt() * eps
    v = model(x_t, T_B, model.condition(batch.identity, batch.expression))
    error_B = (v - (a.sqrt() * eps - (1 - a).sqrt() * batch.target_B3HW)).square().mean((1, 2, 3))
    snr_B = (a / (1 - a)).flatten()

    found = cycle_loss(model, batch, T_B, eps, CycleConfig(cycle_weight=0.0)).diffusion_B

    torch.testing.assert_close(found, snr_B.clamp(max=5.0) / (snr_B + 1) * error_B, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"cycle_weight": -0.1}, "cycle_weight=-0.1 must be >= 0"),
        ({"estimate_from": "third"}, "estimate_from='third' must be second or first"),
        ({"clip": "soft"}, "clip='soft' must be straight_through or hard"),
    ],
)
def test_impossible_configurations(values: dict[str, Any], message: str) -> None:
    """The error names the value and the choice."""
    with pytest.raises(ConfigError, match=message):
        CycleConfig(**values)
