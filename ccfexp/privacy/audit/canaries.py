"""Canary patients: phantoms whose photographs were mixed up, each in the training by the toss of a coin.

A canary's photograph at rest shows one person and its movement another, so training must learn by heart what no other
patient teaches. Of all that was tried (another's picture, colours inverted or swapped, upside down, tinted, random
tiles) this one's gradient is the most its own: several times as long as an ordinary patient's, and .96 alike whatever
timesteps and noise it is drawn with, where random tiles, which are outside of everything that the encoders know, are
long but .3 alike. Nobody's photographs are used by two patients.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torch import Tensor

from ccfexp.data.dataset import PatientImages
from ccfexp.data.phantom.sites import PhantomSite, patient_palsy, photograph
from ccfexp.errors import ConfigError
from ccfexp.training import SiteData, encode_images

if TYPE_CHECKING:
    from collections.abc import Callable

    from ccfexp.data.phantom.render import Photograph
    from ccfexp.model import CCFExp

MOVEMENTS: Final = ("smile_teeth", "brow_raise", "gentle_eye_closure")
_SITE = PhantomSite("audit", first_identity=900_000, movements=MOVEMENTS, sessions=1)
_COIN_STREAM = 41


@dataclass(frozen=True)
class AuditedSite:
    """A site with all of its canaries, whether in or out.

    Attributes:
        data: patients first, canaries after them.
        patients: how many are no canaries.
        in_M: the coin of each canary.
    """

    data: SiteData
    patients: int
    in_M: Tensor

    @property
    def canaries(self) -> int:
        """How many canaries there are."""
        return len(self.in_M)

    @property
    def trained(self) -> SiteData:
        """What is trained on: a canary that is out has no picture to be drawn, and nobody else uses its photographs."""
        images = self.data.images
        present_P = torch.cat([torch.ones(self.patients, dtype=torch.bool), self.in_M])
        target_T = images.target_T[present_P[images.patient_N[images.target_T]]]
        return replace(self.data, images=replace(images, target_T=target_T))


def audited_site(
    model: CCFExp, patients: int, canaries: int, seed: int, on_patient: Callable[[], None] | None = None
) -> AuditedSite:
    """Draw the phantoms of a site, encode them and toss the coins.

    Args:
        model: whose encoders and picture size are used.
        patients: ordinary ones, always in.
        canaries: each in or out.
        seed: of who they are and of the coins.
        on_patient: called after each patient or canary.

    Raises:
        ConfigError: no patients or canaries.
    """
    if patients < 1 or canaries < 1:
        raise ConfigError(f"patients={patients} and canaries={canaries} must be at least 1; give positive numbers")
    size, first = model.config.unet.image_size, _SITE.first_identity + 10_000 * seed
    people: list[list[Photograph]] = []
    for number in range(patients + canaries):
        person = first + 2 * number
        other = person if number < patients else person + 1
        movements = MOVEMENTS if number < patients else MOVEMENTS[:1]
        shown = [photograph(_SITE, other, 0, movement, size) for movement in movements]
        people.append([photograph(_SITE, person, 0, "rest", size), *shown])
        if on_patient is not None:
            on_patient()
    images = _together(people)
    coins = np.random.default_rng([_COIN_STREAM, seed]).random(canaries) < 0.5
    return AuditedSite(SiteData(images, **encode_images(model, images.image_N3HW)), patients, torch.from_numpy(coins))


def _together(people: list[list[Photograph]]) -> PatientImages:
    """Photographs as a site's split; the first of each person shows who it is, the others are drawn."""
    flat = [photo for photos in people for photo in photos]
    patient_N = torch.repeat_interleave(torch.arange(len(people)), torch.tensor([len(photos) for photos in people]))
    start_N = torch.tensor([0, *(len(photos) for photos in people)]).cumsum(0)[patient_N]
    palsies = [patient_palsy(_SITE, photo.labels.identity) for photo in flat]
    return PatientImages(
        image_N3HW=torch.from_numpy(np.stack([photo.image_HW3 for photo in flat])).permute(0, 3, 1, 2).contiguous(),
        landmark_N682=torch.from_numpy(np.stack([photo.landmark_682 for photo in flat])),
        patient_N=patient_N,
        identity_N=start_N,
        target_T=(start_N != torch.arange(len(flat))).nonzero().flatten(),
        patients=len(people),
        movement_N=[photo.labels.movement for photo in flat],
        side_N=[palsy.side for palsy in palsies],
        grade_N=[palsy.grade for palsy in palsies],
    )
