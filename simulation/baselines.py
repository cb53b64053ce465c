"""What the federation is compared with: each site alone, and all data in one place.

Both run the loop that the sites of the federation run. A site alone takes exactly the steps that it takes in the
federated run (the same seeds, round by round); pooled takes the sum of all sites' steps.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ccfexp.adapter import AdapterState
from ccfexp.data.dataset import PatientImages
from ccfexp.model import CCFExp
from ccfexp.training import SiteData, TrainConfig, train_local
from configs.client_part import site_seed
from server.checkpoint import CheckpointFolder, Progress, RoundRecord

OnStep = Callable[[str, int, int, int, float], None]  # who, round, step, steps, loss
Evaluate = Callable[[int, AdapterState], dict[str, float]]  # round, adapter

POOLED = "pooled"


@dataclass(frozen=True)
class BaselineRun:
    """One comparison model: who trains on what, for how long."""

    name: str
    data: SiteData
    train: TrainConfig
    seed: int


def local_and_pooled(data: dict[str, SiteData], train: TrainConfig, seed: int) -> list[BaselineRun]:
    """Every site alone, then all together with the sum of the steps."""
    runs = [BaselineRun(site, data[site], train, site_seed(seed, site)) for site in sorted(data)]
    together = pool([data[site] for site in sorted(data)])
    return [
        *runs,
        BaselineRun(POOLED, together, replace(train, steps=train.steps * len(data)), site_seed(seed, POOLED)),
    ]


def train_baseline(
    run: BaselineRun,
    model: CCFExp,
    initial: AdapterState,
    rounds: int,
    folder: Path,
    config_sha256: str,
    *,
    threads: int = 1,
    on_step: OnStep | None = None,
    evaluate: Evaluate | None = None,
) -> Progress:
    """Train from ``initial``, or go on after the last complete round in ``folder``; a checkpoint every round."""
    store = CheckpointFolder(folder, config_sha256=config_sha256, base_sha256=model.base_sha256)
    progress = store.load()
    if progress is None:
        evaluation = evaluate(0, initial) if evaluate else {}
        progress = Progress(0, initial, (RoundRecord(0, 0.0, evaluation=evaluation),))
        store.save(progress)
    while progress.round_number < rounds:
        number = progress.round_number + 1
        model.load_adapter_state(progress.adapter)
        report = None if on_step is None else _reporter(on_step, run.name, number)
        result = train_local(
            model, run.data, run.train, seed=run.seed, round_number=number, threads=threads, on_step=report
        )
        adapter = model.adapter_state()
        record = RoundRecord(
            number,
            0.0,
            weights={run.name: float(result.patients)},
            metrics={run.name: {"loss": result.loss}},
            evaluation=evaluate(number, adapter) if evaluate else {},
        )
        progress = Progress(number, adapter, (*progress.history, record))
        store.save(progress)
    return progress


def _reporter(on_step: OnStep, name: str, number: int) -> Callable[[int, int, float], None]:
    return lambda step, steps, loss: on_step(name, number, step, steps, loss)


def pool(parts: list[SiteData]) -> SiteData:
    """All sites' images as one data set; patients and identity images keep their meaning."""
    first_image, first_patient = 0, 0
    patient, identity, target = [], [], []
    for part in parts:
        patient.append(part.images.patient_N + first_patient)
        identity.append(part.images.identity_N + first_image)
        target.append(part.images.target_T + first_image)
        first_image += len(part.images)
        first_patient += part.images.patients
    images = PatientImages(
        image_N3HW=torch.cat([part.images.image_N3HW for part in parts]),
        landmark_N682=torch.cat([part.images.landmark_N682 for part in parts]),
        patient_N=torch.cat(patient),
        identity_N=torch.cat(identity),
        target_T=torch.cat(target),
        patients=first_patient,
        movement_N=[name for part in parts for name in part.images.movement_N],
        side_N=[name for part in parts for name in part.images.side_N],
        grade_N=[grade for part in parts for grade in part.images.grade_N],
    )
    return SiteData(
        images,
        identity_ND=torch.cat([part.identity_ND for part in parts]),
        identity_map_NCGG=torch.cat([part.identity_map_NCGG for part in parts]),
        deviation_ND=torch.cat([part.deviation_ND for part in parts]),
        landmark_map_NCGG=torch.cat([part.landmark_map_NCGG for part in parts]),
        landmark_N136=torch.cat([part.landmark_N136 for part in parts]),
        recogniser_ND=_together([part.recogniser_ND for part in parts]),
    )


def _together(parts: list[Tensor | None]) -> Tensor | None:
    """One tensor of all; None where the base has no such network, and then no site has it."""
    known = [part for part in parts if part is not None]
    return torch.cat(known) if known else None
