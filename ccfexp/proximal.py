"""FedProx: a site does not go further from the shared model than its data are worth.

A site minimises its loss + mu / 2 ||theta - theta_start||^2 over what it trains (Li et al. 2020, arXiv 1812.06127,
eq. 2), so that sites whose patients differ do not drift apart within a round.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Anchor:
    """Where a round starts, and the pull back to it.

    The pull is added to the gradient after that of the loss has been clipped. The clip bounds what images do to a step:
    those of a batch or, under differential privacy, those of one patient. The pull depends on them through theta alone,
    which earlier steps have paid for, so it needs no bound. Within the clip it would shrink with the loss's gradient,
    no longer be the term of eq. 2, and take from every patient some of the room that the noise is made for.

    AdamW divides by the size of the whole gradient: mu weighs the pull against the loss, whose clipped gradient is at
    most ``gradient_clip`` long, and once the pull has the upper hand more of it changes nothing; a step or so of the
    learning rate's size remains.

    Args:
        parameters: what is trained, with the values that the round starts from.
        strength: mu; at 0 nothing is kept and nothing is added.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], strength: float) -> None:
        self._parameters, self._strength = parameters, strength
        self._start: list[Tensor] = [parameter.detach().clone() for parameter in parameters] if strength else []

    @torch.no_grad()
    def pull(self) -> None:
        """Add mu (theta - theta_start) to the gradients, which every parameter must have."""
        if not self._strength:
            return
        for parameter, start in zip(self._parameters, self._start, strict=True):
            assert parameter.grad is not None
            parameter.grad.add_(parameter - start, alpha=self._strength)
