"""The average of weights that samples are drawn from, with the published warm-up of its decay."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from diffusers.training_utils import EMAModel
    from torch import nn


def running_average(parameters: Iterable[nn.Parameter], decay: float = 0.9999) -> EMAModel:
    """An average that takes over the first two values whole and then forgets ever more slowly.

    The decay of call n is min(``decay``, 1 - (n - 1)^-0.75), 0 for the first two (published: of the U-Net alone; here
    of whatever is handed over, which should be everything that is trained).
    """
    from diffusers.training_utils import EMAModel  # takes seconds to import; few runs average

    return EMAModel(parameters, decay=decay, update_after_step=1, use_ema_warmup=True, inv_gamma=1.0, power=0.75)
