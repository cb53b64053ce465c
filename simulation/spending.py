"""The sites of a simulation pay for private rounds as hospitals do: before they train, each in a ledger of its own.

    <run folder>/privacy/<SITE>/    as `client.budget` writes it

A round that is repeated, because the run was killed in the middle of it, is charged again: nobody can know what became
of the first one's noise.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ccfexp.errors import ConfigError
from ccfexp.privacy.accounting import epsilon
from client.app import RequestRefusedError, Trainer
from client.budget import Budget, Cost
from client.workbench import BenchPlan, bench_of
from configs.client_part import ClientPart, plan_text

if TYPE_CHECKING:
    from flwr.app import Context

    from ccfexp.privacy.plan import PrivacyConfig
    from strategies import wire

LEDGERS = "privacy"
"""The ledgers' folder in that of a run."""

_DATA_SET = "phantoms"


@dataclass(frozen=True)
class Spender:
    """A bench whose private rounds are charged before they are trained; other rounds it only hands on.

    Attributes:
        bench: trains.
        manifests: site name -> its manifest.csv.
        folder: gets one folder a site.
    """

    bench: Trainer
    manifests: Mapping[str, Path]
    folder: Path

    @classmethod
    def around(cls, bench: Trainer, plan: BenchPlan, folder: Path) -> Spender:
        """A spender of the sites of a bench's plan."""
        return cls(bench, {source.name: source.manifest for source in plan.sites}, folder)

    def site(self, context: Context) -> str:
        """As the bench."""
        return self.bench.site(context)

    def hello(self, context: Context) -> wire.SiteHello:
        """As the bench."""
        return self.bench.hello(context)

    def train(self, site: str, message: wire.AdapterMessage) -> wire.AdapterUpdate:
        """Charge the round, train it, and tell what has been spent.

        Raises:
            RequestRefusedError: as the bench; the terms name another plan than the client configuration.
            PolicyError: it would cost more than can be told.
            LedgerError: the ledger was altered or cannot be written; nothing was trained.
        """
        try:
            part = ClientPart.from_json(message.client_config)
        except ConfigError as error:
            raise RequestRefusedError(str(error)) from error
        terms, plan = message.terms, part.privacy
        if plan_text(plan) != terms.privacy:
            raise RequestRefusedError("privacy of the terms is not the plan of the client configuration")
        if plan is None:
            return self.bench.train(site, message)
        cost = Cost(terms.run, terms.round_number, terms.method, terms.config_sha256, plan, part.train.steps)
        subjects = training_patients(self.manifests[site])
        receipt = ledger_of(self.folder, site, plan).reserve(cost, subjects, max_epsilon=None, delta=None)
        update = self.bench.train(site, message)
        spent = {"epsilon_run": receipt.epsilon_run, "epsilon_total": receipt.epsilon_total}
        return replace(update, metrics={**update.metrics, **spent})


def spender_of(plan: BenchPlan, folder: Path) -> Spender:
    """The spender of a process, around its one bench; a function of this module, so that workers can make it too."""
    return Spender.around(bench_of(plan), plan, folder)


def ledger_of(folder: Path, site: str, plan: PrivacyConfig) -> Budget:
    """The ledger of a simulated site."""
    return Budget.of(folder / site, site, _DATA_SET, plan.unit)


def spent_in(run: str, folder: Path, site: str, plan: PrivacyConfig) -> float | None:
    """Epsilon of all rounds that a site was charged in a run, used or not; None if there was none.

    Raises:
        LedgerError: the ledger was altered.
    """
    rounds = [item.spent for item in ledger_of(folder, site, plan).history() if item.run == run]
    return epsilon(rounds, plan.delta) if rounds else None


def training_patients(manifest: Path) -> frozenset[str]:
    """Pseudonyms of a data set's training patients; its files are checked by whoever opens them."""
    with manifest.open(encoding="utf-8", newline="") as file:
        return frozenset(row["subject_id"] for row in csv.DictReader(file) if row["split"] == "train")
