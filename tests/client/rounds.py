"""What a coordinator asks of a hospital in tests: rounds of the toy's factors, ordinary and private ones."""

from __future__ import annotations

from dataclasses import replace

from ccfexp._io import canonical_json
from ccfexp.adapter import AdapterConfig
from ccfexp.privacy.plan import PrivacyConfig
from ccfexp.training import TrainConfig
from client.spending import Cost
from configs import to_dict
from configs.client_part import ClientPart
from strategies import wire
from tests.toys import BASE, initial

STEPS = 16
PLAN = PrivacyConfig(noise_multiplier=1.5, delta=1e-3, sampling_rate=0.25)
TERMS = wire.Terms(2, "fedit", 2, 2.0, "a" * 64, BASE, run="c" * 16)


def asked_for(plan: PrivacyConfig | None = None, terms: wire.Terms = TERMS, steps: int = STEPS) -> wire.AdapterMessage:
    """The message of a round; private with a plan."""
    part = ClientPart(AdapterConfig(rank=2, alpha=2.0), TrainConfig(steps=steps), 0, plan)
    if plan is not None:
        terms = replace(terms, privacy=canonical_json(to_dict(plan)))
    return wire.AdapterMessage.of(terms, initial(), part.to_json())


def cost(run: str = "c" * 16, number: int = 1, plan: PrivacyConfig = PLAN, steps: int = STEPS) -> Cost:
    """What a private round costs."""
    return Cost(run, number, "fedit", "a" * 64, plan, steps)
