"""What a run leaves behind: metrics as JSON and TensorBoard, and the report."""

import platform
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from ccfexp._io import atomic_write_json
from ccfexp.evaluation.cases import FIRST_PERSON, HeldOutCases
from ccfexp.evaluation.comparison import Comparison, compare
from ccfexp.evaluation.judge import case_indices
from ccfexp.evaluation.report import Curve, CurvePanel, PictureRow, PrivacyFacts, ReportData, RunFacts, write_report
from ccfexp.privacy.statement import statement
from ccfexp.published.encoder_files import encoder_hash
from configs import config_hash, resolved_json, to_dict
from server.checkpoint import Progress, RoundRecord
from simulation.baselines import POOLED
from simulation.spending import LEDGERS, spent_in
from simulation.stages import BASE, FEDERATED, TARGET, Outcome

_SHOWN = (
    (5, "smile_teeth"), (6, "gentle_eye_closure"), (4, "brow_raise"), (3, "smile_closed"), (6, "lip_pucker"),
    (1, "smile_teeth"), (4, "snarl"), (5, "lower_teeth"), (6, "rest"), (2, "smile_teeth"),
)  # fmt: skip
_NOTES = (
    (
        "The people who are judged come to the hospitals of the run: their rooms, cameras, skin and age are those of a "
        "hospital. Grades, sides and movements are asked of all alike, whatever a hospital sees."
    ),
    "Each site takes the same steps in the federated run and alone; pooled takes the sum of all sites' steps.",
    (
        "The evaluators are networks trained on other phantom people than those that condition or train the model. "
        "The row 'true target' shows what they read from the pictures that would be right."
    ),
)
_PRIVATE_NOTE = (
    "The models of single hospitals and of pooled data were trained without differential privacy: what the federated "
    "model is behind them is the price of privacy and of the federation together."
)
_PACKAGES = ("torch", "diffusers", "peft", "flwr", "numpy")


def write_outputs(outcome: Outcome, folder: Path) -> Comparison:
    """Write metrics.json, tensorboard/ and report.html; returns the comparison of the models."""
    comparison = _compare(outcome)
    atomic_write_json(folder / "metrics.json", _metrics(outcome, comparison))
    _write_tensorboard(outcome.histories, folder / "tensorboard")
    write_report(folder / "report.html", _report(outcome, comparison))
    return comparison


def privacy_of(outcome: Outcome) -> PrivacyFacts | None:
    """What every site of a private run has spent, by its own ledger: also on updates that were not used.

    Raises:
        LedgerError: a ledger was altered.
    """
    plan, run = outcome.plan.config.private_plan, outcome.histories[FEDERATED].run
    if plan is None:
        return None
    ledgers = outcome.plan.folder / LEDGERS
    return PrivacyFacts(plan, {site: spent_in(run, ledgers, site, plan) for site in sorted(outcome.manifests)})


def _compare(outcome: Outcome) -> Comparison:
    scores = outcome.scores
    return compare(
        scores[FEDERATED],
        scores[BASE],
        [scores[site] for site in sorted(outcome.manifests) if site in scores],
        scores.get(POOLED),
        scores[TARGET],
        seed=outcome.plan.config.seed,
        resamples=outcome.plan.config.evaluation.bootstrap,
    )


def _metrics(outcome: Outcome, comparison: Comparison) -> dict[str, Any]:
    rounds = {
        name: [
            {
                "round": record.round_number,
                "seconds": record.seconds,
                "sites": record.metrics,
                "refused": record.refused,
                "received_bytes": record.received_bytes,
                "sent_bytes": record.sent_bytes,
                "bias": record.bias,
                **record.evaluation,
            }
            for record in progress.history
        ]
        for name, progress in outcome.histories.items()
    }
    facts = {
        "command": outcome.plan.command,
        "seconds": round(outcome.seconds, 1),
        "config_sha256": config_hash(outcome.plan.config),
    }
    return {**facts, "privacy": _privacy(outcome), "comparison": comparison.to_json(), "rounds": rounds}


def _privacy(outcome: Outcome) -> dict[str, Any] | None:
    facts = privacy_of(outcome)
    if facts is None:
        return None
    sites = {
        site: {"epsilon": epsilon, "statement": statement(site, epsilon, facts.plan)}
        for site, epsilon in facts.epsilons.items()
    }
    return {"plan": to_dict(facts.plan), "sites": sites}


def _write_tensorboard(histories: Mapping[str, Progress], folder: Path) -> None:
    """One TensorBoard run per model, written anew so that a repeated command does not append twice."""
    for name, progress in histories.items():
        run = folder / name
        for old in run.glob("events.out.tfevents.*"):
            old.unlink()
        writer = SummaryWriter(str(run))
        for record in progress.history:
            for site, values in record.metrics.items():
                if "loss" in values:  # a hospital may keep it to itself
                    writer.add_scalar(f"training_loss/{site}", values["loss"], record.round_number)
                if "epsilon_run" in values:
                    writer.add_scalar(f"epsilon/{site}", values["epsilon_run"], record.round_number)
            if record.bias is not None:
                writer.add_scalar("bias", record.bias, record.round_number)
            for key, value in record.evaluation.items():
                writer.add_scalar(key, value, record.round_number)
        writer.close()


def _report(outcome: Outcome, comparison: Comparison) -> ReportData:
    config, privacy = outcome.plan.config, privacy_of(outcome)
    return ReportData(
        title=f"Federated CCFExp on phantoms: {config.name}",
        comparison=comparison,
        panels=_panels(outcome.histories),
        sites=outcome.sites,
        pictures=_pictures(outcome),
        facts=_facts(outcome),
        config_json=resolved_json(config),
        privacy=privacy,
        notes=_NOTES if privacy is None else (*_NOTES, _PRIVATE_NOTE),
    )


def _panels(histories: Mapping[str, Progress]) -> tuple[CurvePanel, ...]:
    together = (FEDERATED, POOLED)
    validation = tuple(
        _curve(name if name in together else f"site {name} alone", progress, _validation_loss)
        for name, progress in histories.items()
    )
    federated = histories[FEDERATED]
    sites = sorted({site for record in federated.history for site in record.metrics})
    panels = [CurvePanel("Loss on people never trained on", "round", "denoising loss", validation)]
    # A site tells its loss or, in a private run, what it has spent.
    for title, name, label in (
        ("Training loss in the federated run", "loss", "cycle loss"),
        ("Privacy spent in the federated run", "epsilon_run", "epsilon"),
    ):
        told = tuple(_curve(f"site {site}", federated, partial(_told, site, name)) for site in sites)
        if any(curve.y for curve in told):
            panels.append(CurvePanel(title, "round", label, told))
    return tuple(panels)


def _validation_loss(record: RoundRecord) -> float | None:
    return record.evaluation.get("validation_loss")


def _told(site: str, name: str, record: RoundRecord) -> float | None:
    return record.metrics.get(site, {}).get(name)


def _curve(name: str, progress: Progress, value_of: Callable[[RoundRecord], float | None]) -> Curve:
    values = [(float(record.round_number), value_of(record)) for record in progress.history]
    points = [(x, y) for x, y in values if y is not None]
    return Curve(name, tuple(x for x, _ in points), tuple(y for _, y in points))


def _pictures(outcome: Outcome, most: int = 8) -> tuple[PictureRow, ...]:
    cases = outcome.scorer.cases
    chosen = case_indices(cases, _SHOWN)
    chosen = list(dict.fromkeys([*chosen, *range(len(cases))]))[: min(most, len(cases))]
    return tuple(_picture(cases, c, outcome.pictures) for c in chosen)


def _picture(cases: HeldOutCases, c: int, pictures: Mapping[str, Tensor]) -> PictureRow:
    def image(tensor: Tensor) -> npt.NDArray[np.uint8]:
        return np.ascontiguousarray(tensor[c].permute(1, 2, 0).numpy())

    return PictureRow(
        movement=cases.movement_C[c],
        side=cases.side_C[c],
        grade=cases.grade_C[c],
        identity=image(cases.identity_C3HW),
        expression=image(cases.expression_C3HW),
        base=image(pictures[BASE]),
        federated=image(pictures[FEDERATED]),
        target=image(cases.target_C3HW),
    )


def _facts(outcome: Outcome) -> RunFacts:
    config, model = outcome.plan.config, outcome.scorer.model
    parameters = sum(value.numel() for value in outcome.adapter.values())
    raw = 4 * parameters
    device = "no GPU" if outcome.plan.device == "cpu" else outcome.plan.device
    encoders = {name: encoder_hash(name, model.folder) for name in vars(model.config.encoders).values() if name}
    history = outcome.histories[FEDERATED].history
    return RunFacts(
        command=outcome.plan.command,
        seeds={
            "run": config.seed,
            **{f"site {site.name}, first person": site.first_identity for site in config.hospitals},
            "held-out people from": FIRST_PERSON,
        },
        started=outcome.started,
        seconds=outcome.seconds,
        hardware=f"{platform.machine()}, {torch.get_num_threads()} threads, {device}",
        versions={"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
        base_sha256=model.base_sha256,
        encoder_sha256=encoders,
        config_hash=config_hash(config),
        rounds=config.federation.rounds,
        steps_per_round=config.train.steps,
        adapter_parameters=parameters,
        adapter_bytes=raw,
        wire_bytes_up=sum(sum(record.received_bytes.values()) for record in history),
        wire_bytes_down=sum(sum(record.sent_bytes.values()) for record in history),
    )
