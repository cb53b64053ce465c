"""The attacker: from every step's released gradient to one score a canary.

It knows everything but the coins: the model at every step, the photographs of all who might be in it, and how a step is
made. It does not see who is sampled, nor the noise. What a unit adds to a step is nearly the same whatever timesteps
and noise it is drawn with, so the attacker computes it for a few fixed ones, and then reads from the sum who is in it,
all canaries at once: gradients of faces have a part in common, and one canary's must not pass for another's.

Shapes: N units, patients first; D trained numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ccfexp.losses import CycleConfig, cycle_loss
from ccfexp.training import SiteData, stratified_timesteps

if TYPE_CHECKING:
    from collections.abc import Callable

    from ccfexp.model import CCFExp

_ROWS = 16  # together
_NUMBERS = 1 << 14  # of the trained ones, together


def unit_gradients(
    model: CCFExp,
    data: SiteData,
    cycle: CycleConfig,
    draws: int,
    seed: int,
    on_unit: Callable[[], None] | None = None,
) -> Tensor:
    """The mean gradient [N,D] of every patient, by an ordinary backward of its own: nothing that is audited is used.

    Args:
        model: as it is now.
        data: everybody who might be in the training.
        cycle: the loss.
        draws: timesteps and noises, shared out evenly among a patient's photographs.
        seed: of these.
        on_unit: called after each patient.
    """
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    images, generator = data.images, torch.Generator().manual_seed(seed)
    gradients = torch.zeros(images.patients, sum(weight.numel() for weight in weights))
    for patient in range(images.patients):
        own = images.target_T[images.patient_N[images.target_T] == patient]
        target_R = own.repeat(-(-draws // len(own)))[:draws] if len(own) else own
        t_R = stratified_timesteps(len(target_R), model.config.diffusion.steps, generator)
        for part in torch.arange(len(target_R)).split(_ROWS):
            batch = data.batch(target_R[part], target_R[part], model.device)
            eps = torch.randn(batch.target_B3HW.shape, generator=generator)
            loss_B = cycle_loss(model, batch, t_R[part].to(model.device), eps.to(model.device), cycle).total_B
            parts = torch.autograd.grad(loss_B.sum() / len(target_R), weights, materialize_grads=True)
            gradients[patient] += torch.cat([part.flatten().cpu() for part in parts])
        if on_unit is not None:
            on_unit()
    return gradients


class Evidence:
    """What is known of the coins, gathered over stretches of steps: the normal equations of a linear model.

    The sum of a stretch's gradients is what each unit adds times how often it is expected to be drawn if it is in, plus
    noise. How much noise is told from the sum itself: from what no combination of units explains. So an attacker of a
    mechanism without noise takes the gradients apart exactly, and one who faces much noise averages.
    """

    def __init__(self, units: int) -> None:
        self._matrix_NN = torch.zeros(units, units, dtype=torch.float64)
        self._right_N = torch.zeros(units, dtype=torch.float64)

    def add(self, sum_D: Tensor, expected_ND: Tensor) -> None:
        """One stretch of steps.

        Args:
            sum_D: of the released gradients, as sums over units.
            expected_ND: what each unit adds to it on average if it is in.
        """
        matrix_NN, right_N = torch.zeros_like(self._matrix_NN), torch.zeros_like(self._right_N)
        for part in torch.arange(len(sum_D)).split(_NUMBERS):  # in double precision only a part at a time
            some_ND = expected_ND[:, part].double()
            matrix_NN += some_ND @ some_ND.T
            right_N += some_ND @ sum_D[part].double()
        whole = float(sum_D.double().square().sum())
        explained = float(right_N @ torch.linalg.lstsq(matrix_NN, right_N[:, None], driver="gelsd").solution[:, 0])
        left = max(whole - explained, 1e-12 * whole, 1e-300)
        variance = left / max(1, expected_ND.shape[1] - len(expected_ND))
        self._matrix_NN += matrix_NN / variance
        self._right_N += right_N / variance

    def scores(self) -> Tensor:
        """The best linear guess [N] of how often, of the times expected, each unit was in the sums.

        Units are taken to differ by chance around a common mean. How much they differ is what makes the sums most
        likely (empirical Bayes): nobody tells the attacker how far the mechanism bounds what a unit adds.
        """
        scale_N, basis_NN = torch.linalg.eigh(self._matrix_NN)
        scale_N = scale_N.clamp_min(1e-12 * scale_N.max())
        seen_N, one_N = basis_NN.T @ self._right_N, scale_N * basis_NN.sum(0)  # of the data, and of a mean of one
        spread_K = torch.logspace(-6, 8, 141, dtype=scale_N.dtype)[:, None] / scale_N.mean()
        variance_KN = scale_N + spread_K * scale_N.square()
        mean_K1 = (one_N * seen_N / variance_KN).sum(1, True) / (one_N.square() / variance_KN).sum(1, True)
        left_KN = seen_N - mean_K1 * one_N
        best = int((variance_KN.log() + left_KN.square() / variance_KN).sum(1).argmin())
        shrunk_N = spread_K[best] * scale_N / variance_KN[best] * left_KN[best]
        guess_N: Tensor = mean_K1[best] + basis_NN @ shrunk_N
        return guess_N


def clipped(gradient_ND: Tensor, bound: float) -> Tensor:
    """Each row at most ``bound`` long."""
    factor_N: Tensor = (bound / gradient_ND.norm(dim=1).clamp_min(1e-30)).clamp(max=1.0)
    return gradient_ND * factor_N[:, None]
