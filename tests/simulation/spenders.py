"""Toy hospitals whose rounds are private: they tell no loss, and the real `simulation.spending` charges them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ccfexp.adapter import AdapterConfig
from ccfexp.privacy.plan import PrivacyConfig
from ccfexp.training import TrainConfig
from client.workbench import BenchPlan, SiteSource
from configs.client_part import ClientPart, plan_text
from server.federation import Federation
from simulation.spending import Spender
from strategies import wire
from tests import toys

STEPS, PATIENTS = 5, 40
PLAN = PrivacyConfig(noise_multiplier=1.0, steps=3 * STEPS)


@dataclass
class PrivateToy(toys.ToyHospital):
    """What the budgets held when a round began: it has been charged by then."""

    ledgers: Path = field(default_factory=Path)
    entries: list[int] = field(default_factory=list)

    def train(self, site: str, message: wire.AdapterMessage) -> wire.AdapterUpdate:
        """As a private round: no loss is told, and the weight is the declared one."""
        lines = [path.read_text().count("\n") for path in (self.ledgers / site).glob("*.jsonl")]
        self.entries.append(sum(lines))
        update = super().train(site, message)
        return replace(update, weight=float(PATIENTS), metrics={"steps": STEPS})


def private(federation: Federation, plan: PrivacyConfig | None = PLAN) -> Federation:
    """The same federation with a plan in its terms and in what it sends to the sites."""
    part = ClientPart(AdapterConfig(), TrainConfig(steps=STEPS), 1, plan)
    return replace(federation, terms=replace(federation.terms, privacy=plan_text(plan)), client_config=part.to_json())


def spender(folder: Path, bench: toys.ToyHospital) -> Spender:
    """The real spender around a toy; its sites have manifests of patients without photographs."""
    sources = []
    for site in bench.sites:
        manifest = folder / "sites" / f"{site}.csv"
        manifest.parent.mkdir(parents=True, exist_ok=True)
        rows = [f"{site}-{index},train" for index in range(PATIENTS)]
        manifest.write_text("\n".join(["subject_id,split", *rows, f"{site}-held-out,holdout"]) + "\n")
        sources.append(SiteSource(site, manifest, declared_patients=PATIENTS))
    return Spender.around(bench, BenchPlan("none", tuple(sources), folder / "memory"), folder / "privacy")


def private_toy(folder: Path, **options: Any) -> PrivateToy:  # noqa: ANN401 (of the toy)
    """A toy that looks into the ledgers of a run's folder."""
    return PrivateToy(folder=folder / "memory", ledgers=folder / "privacy", **options)
