"""Is a hospital's privacy budget ready: what is spent, what is left, and what nothing covers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ccfexp.errors import PolicyError
from client import checks
from client.ledger import EgressLedger
from client.payment import Cohort
from client.site import Site, load_site
from tests.client.rounds import cost
from tests.client.sites import write_site
from tests.client.spender import budget


def privacy(site: Site) -> tuple[str, str]:
    """The line of the privacy ledger."""
    found = next(check for check in checks.examine(site).checks if check.name == "privacy ledger")
    return found.level, found.text


PRIVATE = {"max_epsilon": 3.0, "delta": 1e-3}


@pytest.fixture
def private_site(tmp_path: Path, phantoms: Path) -> Callable[..., Site]:
    """Writes the file of a hospital that asks for differential privacy, again and again."""

    def write(**changed: object) -> Site:
        values = {"manifest": str(phantoms / "manifest.csv"), "declared_patients": 2, "policy": PRIVATE} | changed
        return load_site(None, write_site(tmp_path, **values))

    return write


def test_what_is_spent_and_what_is_not_covered_is_told(private_site: Callable[..., Site]) -> None:
    """Before anything is sent: nothing yet, something, updates from before, all of it."""
    site = private_site()
    assert privacy(site) == ("ready", "chain intact; 0 private rounds have cost epsilon=0 of 3.0 at delta=0.001")
    subjects = checks.examine(site).cohort.subjects
    receipt = budget(site.work).reserve(cost(), subjects, max_epsilon=3.0, delta=1e-3)
    assert privacy(site)[1].startswith("chain intact; 1 private rounds have cost epsilon=2.479 of 3.0")
    EgressLedger.of(site).record("update", {"epsilon": receipt.epsilon_run, **receipt.witness})
    assert privacy(site)[0] == "ready"
    EgressLedger.of(site).record("update", {"epsilon": None})
    assert privacy(site) == ("warning", privacy(site)[1])
    assert privacy(site)[1].endswith("; 1 updates have left that this does not cover")
    level, text = privacy(private_site(policy=PRIVATE | {"max_epsilon": 2.0}))
    assert level == "not ready"
    assert "it is spent" in text


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"declared_patients": None}, "declared_patients=null must be a number"),
        ({"compute": {"compile": True}}, "compute.compile=true cannot go with a private run"),
        ({"policy": PRIVATE | {"delta": 0.05}}, ""),
        ({"data_set": "renamed"}, "patients=2 of this manifest have spent under data_set=patients"),
        ({"name": "B"}, "is the ledger of site=A"),
    ],
)
def test_a_budget_that_no_round_could_use_is_told(
    private_site: Callable[..., Site], changed: dict[str, object], message: str
) -> None:
    """With the value and the remedy."""
    site = private_site()
    budget(site.work).reserve(cost(), checks.examine(site).cohort.subjects, max_epsilon=None, delta=1e-3)
    level, text = privacy(private_site(**changed))

    assert level == ("not ready" if message else "ready")
    assert message in text


def test_a_delta_that_gives_a_patient_away_is_told(private_site: Callable[..., Site]) -> None:
    """One of 20 is too many of so few."""
    site = private_site(policy=PRIVATE | {"delta": 0.09})
    cohort = Cohort(frozenset(f"patient-{number}" for number in range(12)))

    with pytest.raises(PolicyError, match=r"delta=0.09 must be above 0 and below 1 / patients=0.0833"):
        checks._privacy(site, cohort)


def test_a_privacy_ledger_that_was_altered_or_removed_is_told(private_site: Callable[..., Site]) -> None:
    """By its own chain, or by the egress ledger."""
    site = private_site()
    receipt = budget(site.work).reserve(cost(), checks.examine(site).cohort.subjects, max_epsilon=3.0, delta=1e-3)
    EgressLedger.of(site).record("failed", receipt.witness)
    path = budget(site.work).chain.path
    content = path.read_bytes()
    path.write_bytes(content.replace(b'"steps":16', b'"steps":1'))
    assert privacy(site)[0] == "not ready"
    for name in site.work.glob("privacy-*"):
        name.unlink()
    assert privacy(site)[0] == "not ready"
    assert "lacks rounds=1" in privacy(site)[1]
