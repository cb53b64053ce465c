"""Before a round is trained: are these the patients who were checked, and is the cost of a private one on the disk?"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime
from typing import TYPE_CHECKING

from ccfexp._io import sha256_file
from ccfexp.errors import ConfigError, LedgerError, PolicyError
from ccfexp.privacy.engines import engine_of
from client.budget import Budget, Receipt

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from client.chain import Entry
    from client.site import Site
    from client.spending import Cost


def local_today() -> date:
    """The day at the hospital, by which its consents end."""
    return datetime.now().astimezone().date()


@dataclass(frozen=True)
class Cohort:
    """Who may be trained on, as a manifest says.

    Attributes:
        subjects: pseudonyms of the training patients with consent; they stay on this machine and in no log.
        manifest_sha256: of the file.
        consent_ends: the first day on which a consent among them ends; None = none does.
    """

    subjects: frozenset[str] = field(default=frozenset(), repr=False)
    manifest_sha256: str = ""
    consent_ends: date | None = None

    def check(self, manifest: Path, today: date) -> None:
        """Whether the patients are still those who were checked, and all still agree.

        Raises:
            PolicyError: the manifest is another by now: somebody may have withdrawn, and nobody would know whose
                privacy a round costs. Or a consent has ended.
        """
        if self.consent_ends is not None and today > self.consent_ends:
            raise PolicyError(
                "the consent of a training patient has ended; leave the rows out (python -m client.prepare does) and "
                "start this site again"
            )
        try:
            digest = sha256_file(manifest)
        except OSError as error:
            raise PolicyError(f"the manifest cannot be read ({error.strerror}); mend its rights") from error
        if digest != self.manifest_sha256:
            raise PolicyError("the manifest has changed and must be the one that was checked; start this site again")


def pay(cost: Cost, site: Site, cohort: Cohort, egress: Callable[[], Sequence[Entry]]) -> Receipt:
    """Charge a private round to the site's budget, before the app hears of it.

    Args:
        cost: as the gate has read it.
        site: who pays.
        cohort: the patients.
        egress: reads all that has left so far; it tells of every round that the budget must know.

    Raises:
        PolicyError: it costs more than is left, the privacy ledger cannot be used, or the machine could not train what
            it would have paid for. The site goes on with what is not private.
    """
    policy = site.policy
    try:
        engine_of(site.file.compute)
    except ConfigError as error:
        raise PolicyError(f"no private round is trained: {error}") from error
    budget = Budget.of(site.work, site.name, site.file.data_set, cost.plan.unit)
    try:
        budget.confirm(egress)
        limits = {"max_epsilon": policy.max_epsilon, "delta": policy.delta}
        return budget.reserve(cost, cohort.subjects, **limits, egress=len(egress()))
    except LedgerError as error:
        raise PolicyError(f"no private round is trained: {error}") from error
