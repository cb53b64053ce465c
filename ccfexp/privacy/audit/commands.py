"""The audit's two commands: from chosen arguments to lines for a person and a record for a file."""

import math
from argparse import Namespace
from dataclasses import dataclass
from typing import Any

from ccfexp.adapter import AdapterConfig, train_only
from ccfexp.checkpoint import attach_saved_adapter
from ccfexp.errors import ConfigError
from ccfexp.evaluation.bootstrap import Interval
from ccfexp.model import CCFExp
from ccfexp.privacy.accounting import ACCOUNTANT
from ccfexp.privacy.audit.broken import BREAKS
from ccfexp.privacy.audit.canaries import audited_site
from ccfexp.privacy.audit.membership import Membership, attack, patient_losses
from ccfexp.privacy.audit.one_run import OneRunConfig, OneRunResult, audit_training
from ccfexp.privacy.plan import PrivacyConfig
from ccfexp.privacy.statement import epsilon_text
from ccfexp.progress import WorkProgress
from ccfexp.training import SiteData

_DRAWN = 3.0  # examples that could be worked on while a patient is drawn


@dataclass(frozen=True)
class Outcome:
    """What a command found."""

    lines: list[str]
    record: dict[str, Any]
    refuted: bool = False


def canaries(chosen: Namespace) -> Outcome:
    """Train with canaries and compare claim and lower bound.

    Raises:
        ConfigError: an argument out of its bounds.
        WeightsError: a base that cannot be used.
    """
    _check_seed(chosen.seed)
    privacy = PrivacyConfig(
        epsilon=chosen.epsilon,
        delta=chosen.delta,
        sampling_rate=chosen.sampling_rate,
        clipping_norm=chosen.clipping_norm,
        steps=chosen.steps,
        source=chosen.source,
    )
    config = OneRunConfig(privacy, learning_rate=chosen.learning_rate, draws=chosen.draws)
    adapter = AdapterConfig(rank=chosen.rank, alpha=float(chosen.rank))
    model = CCFExp.from_base(chosen.base)
    model.attach_adapter(adapter, chosen.seed)
    train_only(model, "B")  # as private runs do by default
    people = chosen.patients + chosen.canaries
    with WorkProgress(config.work(chosen.patients, chosen.canaries) + _DRAWN * people) as progress:
        site = audited_site(
            model, chosen.patients, chosen.canaries, chosen.seed, lambda: progress.advance(_DRAWN, "drawing phantoms")
        )
        result = audit_training(
            model, site, config, seed=chosen.seed, spoil=BREAKS[chosen.broken], threads=chosen.threads,
            on_work=progress.advance,
        )  # fmt: skip
    asked = {name: getattr(chosen, name) for name in _ASKED}
    return Outcome(_canary_lines(result, chosen), {"asked": asked, **result.to_json()}, result.refuted)


_ASKED = (
    "base", "seed", "canaries", "patients", "epsilon", "delta", "steps", "sampling_rate", "clipping_norm",
    "learning_rate", "rank", "draws", "source", "broken",
)  # fmt: skip


def _canary_lines(result: OneRunResult, chosen: Namespace) -> list[str]:
    bound, claimed = result.bound, epsilon_text(result.claimed)
    verdict = "not refuted (which is no proof)"
    if result.refuted:
        verdict = "REFUTED: the training is less private than claimed"
    elif result.highest <= result.claimed:
        verdict = "not refuted, and so few canaries could not refute it; take more"
    most = f"at most {_down(result.highest)} with so many canaries"
    mechanism = {"nothing": "as it is", "noise": "broken: no noise", "clipping": "broken: nothing is clipped"}
    return [
        f"mechanism        {mechanism[chosen.broken]}",
        f"claimed epsilon  {claimed} at delta {bound.delta:g} ({ACCOUNTANT}; {result.steps} steps)",
        f"lower bound      {_down(bound.epsilon)} at {bound.confidence:.0%} confidence ({most})",
        f"guesses          {bound.correct} of {bound.guesses} right, {bound.canaries} canaries",
        f"claim            {verdict}",
    ]


def membership(chosen: Namespace) -> Outcome:
    """Attack an adapter with the patients of a manifest.

    Raises:
        ConfigError: an argument out of its bounds.
        CheckpointError: an adapter that cannot be used.
        ManifestError: a manifest that cannot be used, or without one of the splits.
        WeightsError: a base that cannot be used.
    """
    _check_seed(chosen.seed)
    model = CCFExp.from_base(chosen.base)
    splits = [SiteData.prepare(model, chosen.manifest, split) for split in ("train", "holdout")]
    rows = 2 * chosen.draws * sum(len(data.images.target_T) for data in splits)
    with WorkProgress(rows) as progress:
        before = [
            patient_losses(model, data, chosen.draws, chosen.seed, lambda n: progress.advance(n, "losses of the base"))
            for data in splits
        ]
        adapter = attach_saved_adapter(model, chosen.adapter)
        after = [
            patient_losses(model, data, chosen.draws, chosen.seed, lambda n: progress.advance(n, "of the adapter"))
            for data in splits
        ]
    members, others = ((base - trained).numpy() for base, trained in zip(before, after, strict=True))
    found = attack(members, others, seed=chosen.seed)
    asked = {"base": chosen.base, "adapter_sha256": adapter, "draws": chosen.draws, "seed": chosen.seed}
    return Outcome(_membership_lines(found), {"asked": asked, **found.to_json()})


def _membership_lines(found: Membership) -> list[str]:
    told = "not told: at a rate of 1 % it takes 100 patients who were not trained on, and there are "
    rate = f"{told}{found.others}" if found.true_positives is None else _interval(found.true_positives)
    return [
        f"patients             {found.members} trained on, {found.others} not",
        f"area under the curve {_interval(found.auc)}; chance is 0.500",
        f"TPR at 1 % FPR       {rate}" + ("" if found.true_positives is None else "; chance is 0.010"),
    ]


def _interval(value: Interval) -> str:
    if math.isnan(value.low):
        return f"{value.estimate:.3f} (too few patients for an interval)"
    return f"{value.estimate:.3f} ({value.level:.0%} interval {value.low:.3f} to {value.high:.3f})"


def _down(epsilon: float) -> str:
    """A lower bound with two digits, rounded towards less."""
    return f"{math.floor(round(100 * epsilon, 6)) / 100:.2f}"


def _check_seed(seed: int) -> None:
    if not 0 <= seed < 2**31:
        raise ConfigError(f"--seed={seed} must be 0 to 2^31 - 1; choose another")
