"""What a private run promises, in words that claim no more than its mechanism gives.

They are the definition: with (epsilon, delta)-differential privacy, whatever is concluded from what a site sent is at
most e^epsilon times as likely, plus delta, as it would be without the patient, and the other way round (Dwork & Roth
2014). That is a bound on inference, not a number of people who are safe.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from ccfexp.privacy.accounting import ACCOUNTANT

if TYPE_CHECKING:
    from ccfexp.privacy.plan import PrivacyConfig

NONE: Final = "None: the updates are not anonymous."
LIMITS: Final = (
    (
        "It is of one patient and one run. For a patient of two hospitals, or of two runs, the epsilons add up, and so "
        "do the deltas; for k patients together, a family say, epsilon is k times as large, and delta grows more."
    ),
    (
        "What holds for many patients is learnt, that is what training is for; it may be concluded of a patient who "
        "was never there."
    ),
    (
        "It is of what was computed from patients. The base weights are outside of it, and so are the phantoms or "
        "public data on which clipping norm, learning rate and number of steps were chosen."
    ),
    (
        "That a site takes part, the number of patients that it declares, when it answered, what it refused and how it "
        "failed are not covered."
    ),
)
"""What the statement does not say; whoever shows the one shows the other."""

_SOURCES: Final = {
    "secure": "noise: secure, from the operating system",
    "seeded": "noise: SEEDED, so that it can be repeated; a simulation, no protection from anyone who knows the seed",
}
_COVERED: Final = {
    "patient": "each patient, all of the patient's photographs together",
    "image": (
        "each drawn photograph by itself, as what is drawn (the other photographs of its patient are not covered, nor "
        "is the photograph itself where it shows the identity or the expression of another one)"
    ),
}
_UNITS: Final = {"patient": "patient", "image": "photograph"}


def statement(site: str, epsilon: float | None, plan: PrivacyConfig | None) -> str:
    """One sentence about what a site sent in a run.

    Args:
        site: its public name.
        epsilon: what the run has cost at the plan's delta; None where the site sent nothing of its patients.
        plan: calibrated; None: the run was not private.
    """
    if plan is None:
        return NONE
    if epsilon is None:
        return f"Site {site}: nothing that was computed from its patients is known to have been sent in this run."
    unit = _UNITS[plan.unit]
    assumed = f"{unit}s were sampled and noise was drawn independently and secretly ({_SOURCES[plan.source]})"
    verb = "is" if plan.source == "secure" else "would, with secret noise, be"
    if not math.isfinite(epsilon):
        return f"Site {site}: no bound can be told for {_COVERED[plan.unit]}: this run had too little noise."
    return (
        f"Site {site}: everything that this site computed from its patients and sent in this run {verb} (epsilon = "
        f"{epsilon_text(epsilon)}, delta = {plan.delta:g})-differentially private for {_COVERED[plan.unit]}: nothing "
        f"that can be concluded from it is more than e^epsilon = {_factor(epsilon)} times as likely, plus delta, as if "
        f"that {unit} had never been there, or the other way round; counted by {ACCOUNTANT} {unit}, assuming that "
        f"{assumed}."
    )


def summary(plan: PrivacyConfig | None, steps: int) -> str:
    """One line for a terminal, before a run of so many steps at every site.

    Raises:
        ConfigError: the plan is not calibrated.
    """
    if plan is None:
        return "no differential privacy: the updates are not anonymous"
    return (
        f"differential privacy per {plan.unit}: epsilon {epsilon_text(plan.epsilon_after(steps))} at delta "
        f"{plan.delta:g} after {steps} steps (noise multiplier {plan.noise_multiplier:.3f}, sampling rate "
        f"{plan.sampling_rate:g}, clipping norm {plan.clipping_norm:g}); {_SOURCES[plan.source]}"
    )


def epsilon_text(epsilon: float) -> str:
    """Epsilon with two digits, rounded towards more loss."""
    return f"{math.ceil(round(100 * epsilon, 6)) / 100:.2f}" if math.isfinite(epsilon) else "infinite"


def best_guess(epsilon: float, delta: float) -> float:
    """Bound on how often anyone is right who must say of a unit whether it was there, at even odds before.

    The best test under (epsilon, delta)-differential privacy has both error rates at (1 - delta) / (1 + e^epsilon)
    (Kairouz et al. 2015, arXiv:1311.0776, theorem 2.1).
    """
    return 1 - (1 - delta) / (1 + math.exp(min(epsilon, 700.0)))


def guess_text(epsilon: float, delta: float) -> str:
    """`best_guess` in per cent, rounded up."""
    return f"{math.ceil(round(1e4 * best_guess(epsilon, delta), 6)) / 100:.2f} %"


def _factor(epsilon: float) -> str:
    value = math.exp(min(float(epsilon_text(epsilon)), 700.0))
    return f"{value:.2f}" if value < 10 else f"{value:,.0f}" if value < 1e6 else f"{value:.1e}"
