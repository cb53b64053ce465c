"""Who was in the training? An attack on a released adapter, patient by patient.

A patient's score is how much lower the adapter's denoising loss is than the base's, on the same photographs, timesteps
and noises: what makes a photograph easy or hard is in both and cancels (Watson et al. 2022, arXiv:2111.08440). Members
are patients who were trained on, the others those of the same hospital who were not. What an attack reaches is what at
least leaks; that a better one would reach no more is not shown.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from torch import Tensor

from ccfexp.errors import ConfigError
from ccfexp.evaluation.bootstrap import Interval, interval
from ccfexp.losses import CycleConfig, cycle_loss
from ccfexp.training import SiteData, stratified_timesteps

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from ccfexp.model import CCFExp

FALSE_POSITIVES: Final = 0.01  # the rate at which true positives are told
_DENOISING = CycleConfig(identity_weight=0.0, landmark_weight=0.0, expression_weight=0.0, cycle_weight=0.0)
_ROWS = 16  # together


@dataclass(frozen=True)
class Membership:
    """What the attack reaches; intervals resample patients.

    Attributes:
        members, others: patients of each kind.
        auc: probability that a member scores higher than another patient; .5 is chance.
        true_positives: share of members found where at most 1 % of the others are taken for members; None with too few
            others to say.
    """

    members: int
    others: int
    auc: Interval
    true_positives: Interval | None

    @property
    def wanted(self) -> int:
        """How many others the second figure needs."""
        return math.ceil(1 / FALSE_POSITIVES)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        told = self.true_positives
        return {
            "members": self.members,
            "others": self.others,
            "auc": self.auc.to_json(),
            "false_positive_rate": FALSE_POSITIVES,
            "true_positive_rate": None if told is None else told.to_json(),
        }


@torch.no_grad()
def patient_losses(
    model: CCFExp, data: SiteData, draws: int, seed: int = 0, on_row: Callable[[int], None] | None = None
) -> Tensor:
    """The mean denoising loss [patients] over all of a patient's photographs, each drawn in the same ways.

    Args:
        model: the base, or the base with an adapter.
        data: one split of a site.
        draws: timesteps and noises, the same for every photograph.
        seed: of these.
        on_row: called with the number of rows done.

    Raises:
        ConfigError: fewer than one draw.
    """
    if draws < 1:
        raise ConfigError(f"draws={draws} must be at least 1; 8 is enough for phantoms")
    images, size, generator = data.images, model.config.unet.image_size, torch.Generator().manual_seed(seed)
    t_K = stratified_timesteps(draws, model.config.diffusion.steps, generator)
    eps_K3HW = torch.randn(draws, 3, size, size, generator=generator)
    repeats = images.repeats()
    target_T = images.target_T
    shown_T = torch.tensor([int(repeats[t][0]) if len(repeats[t]) else t for t in target_T.tolist()])
    total_P, rows_P = torch.zeros(images.patients, dtype=torch.float64), torch.zeros(images.patients)
    for part in torch.arange(len(target_T) * draws).split(_ROWS):
        which, draw = part // draws, part % draws
        batch = data.batch(target_T[which], shown_T[which], model.device)
        eps = eps_K3HW[draw].to(model.device)
        loss_B = cycle_loss(model, batch, t_K[draw].to(model.device), eps, _DENOISING).total_B
        patient_B = images.patient_N[target_T[which]]
        total_P.index_add_(0, patient_B, loss_B.double().cpu())
        rows_P.index_add_(0, patient_B, torch.ones(len(part)))
        if on_row is not None:
            on_row(len(part))
    drawn_P = rows_P > 0  # a patient may have photographs of which none is ever drawn
    return total_P[drawn_P] / rows_P[drawn_P]


def attack(member_M: NDArray[Any], other_O: NDArray[Any], *, seed: int = 0, resamples: int = 1000) -> Membership:
    """How well scores tell members from others.

    Args:
        member_M: scores of patients who were trained on.
        other_O: scores of patients who were not.
        seed: of the intervals.
        resamples: of the intervals.

    Raises:
        ConfigError: no patients of one kind, or scores that are no numbers.
    """
    score = np.concatenate([member_M, other_O]).astype(np.float64)
    if not len(member_M) or not len(other_O) or not np.isfinite(score).all():
        raise ConfigError(f"members={len(member_M)} and others={len(other_O)} must be at least 1, with finite scores")
    member = np.arange(len(score)) < len(member_M)

    def told(statistic: Callable[..., float]) -> Interval:
        rng = np.random.default_rng(seed)
        return interval(statistic, [score, member], np.arange(len(score)), rng=rng, resamples=resamples)

    enough = len(other_O) * FALSE_POSITIVES >= 1
    return Membership(len(member_M), len(other_O), told(auc), told(true_positive_rate) if enough else None)


def auc(score_N: NDArray[Any], member_N: NDArray[Any]) -> float:
    """Area under the curve: the share of pairs in the right order, ties counting half; NaN without both kinds."""
    inside, outside = score_N[member_N], np.sort(score_N[~member_N])
    if not len(inside) or not len(outside):
        return math.nan
    below, upto = (np.searchsorted(outside, inside, side) for side in ("left", "right"))
    return float((below + upto).mean() / (2 * len(outside)))


def true_positive_rate(score_N: NDArray[Any], member_N: NDArray[Any]) -> float:
    """Share of members above a threshold that at most 1 % of the others pass; NaN without both kinds."""
    inside, outside = score_N[member_N], np.sort(score_N[~member_N])[::-1]
    if not len(inside) or not len(outside):
        return math.nan
    allowed = int(len(outside) * FALSE_POSITIVES + 1e-9)
    return float((inside > outside[allowed]).mean())
