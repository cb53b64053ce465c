"""A hospital and the same one without a patient, and a step at both with the same luck."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ccfexp.losses import CycleConfig
from ccfexp.model import CCFExp
from ccfexp.parallel import shares
from ccfexp.privacy.noise import Numbers
from ccfexp.privacy.steps import Outcome, PrivatePlan, Targets
from ccfexp.training import Examples, SiteData, TrainConfig
from tests.ccfexp.privacy.patients import Silent, gradients

TRAIN = TrainConfig()
ONE_PASS = CycleConfig(cycle_weight=0.0)


class SameLuck(Silent):
    """What a patient gets does not depend on who else is there, where all who are there are sampled.

    Args:
        seed: of the luck.
        present: numbers of the patients who are there, increasing.
        patients: how many there might be.
    """

    def __init__(self, seed: int, present: Sequence[int], patients: int) -> None:
        super().__init__((seed,))
        self._present, self._patients = list(present), patients

    def uniform(self, count: int) -> Numbers:
        assert count == len(self._present)
        return super().uniform(self._patients)[self._present]


def without(data: SiteData, patient: int) -> SiteData:
    """The hospital as if the patient had never come: no photograph, no feature, the others' numbers moved up."""
    images = data.images
    kept_N = images.patient_N != patient
    left, moved_N = kept_N.nonzero().flatten(), kept_N.cumsum(0) - 1
    listed = {name: [getattr(images, name)[index] for index in left] for name in ("movement_N", "side_N", "grade_N")}
    fewer_features: Any = {name: value[left] for name, value in features(data).items()}
    fewer = replace(
        images,
        image_N3HW=images.image_N3HW[left],
        landmark_N682=images.landmark_N682[left],
        patient_N=images.patient_N[left] - (images.patient_N[left] > patient).long(),
        identity_N=moved_N[images.identity_N[left]],
        target_T=moved_N[images.target_T[kept_N[images.target_T]]],
        patients=images.patients - 1,
        **listed,
    )
    return replace(data, images=fewer, **fewer_features)


def unreadable(data: SiteData, patient: int) -> SiteData:
    """The hospital with one patient whose features are no numbers."""
    own_N = data.images.patient_N == patient
    broken: Any = {name: value.clone() for name, value in features(data).items()}
    for value in broken.values():
        value[own_N] = torch.nan
    return replace(data, **broken)


def features(data: SiteData) -> dict[str, Tensor]:
    """What the encoders make of the images."""
    return {name: value for name, value in vars(data).items() if isinstance(value, Tensor)}


def step(
    model: CCFExp, data: SiteData, private: PrivatePlan, cycle: CycleConfig = ONE_PASS, seed: int = 1
) -> tuple[dict[str, Tensor], Outcome]:
    """The sum that a step releases, before it is divided, and what it says of itself; everybody's seed is known."""
    targets = Targets(data.images.target_T, data.images.patient_N[data.images.target_T])
    generator = torch.Generator().manual_seed(seed)
    prepare = partial(Examples(model, data, TRAIN).losses, cycle, generator)
    with shares(1) as pool, private.running(model):
        outcome = private.backward(model, private.draw(targets, generator), prepare, pool)
    return {name: part * private.expected for name, part in gradients(model).items()}, outcome
