"""FAN (Bulat & Tzimiropoulos, ICCV 2017) as a differentiable landmark encoder, with the network of face-alignment.

The package's own interface detects faces, works without gradients and looks for its weights in a cache that it fills
from the network. Here its network alone is taken, with a file that lies in the hospital's own folder.
"""

import importlib.util
import pickle
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from ccfexp.encoders import Encoded, vector_from_landmarks
from ccfexp.errors import WeightsError
from ccfexp.frozen import freeze

LANDMARKS: Final = 68
_SIDE, _STACKS, _GRID = 256, 4, 7


class FANEncoder(nn.Module):
    """RGB in [-1, 1] in; 68 landmarks as ``landmarks_from_vector`` reads them [B,136] and heat maps [B,68,7,7] out.

    A landmark is the mean position of its heat map, weighted by a softmax (soft-argmax), so that a gradient flows; the
    sharper the softmax, the nearer to the brightest pixel.

    Args:
        sharpness: what heat maps, whose peaks are about 1, are multiplied by before the softmax.
    """

    def __init__(self, sharpness: float = 30.0) -> None:
        super().__init__()
        if importlib.util.find_spec("face_alignment") is None:
            raise WeightsError("FAN needs the package face-alignment; install the extra `photos`")
        from face_alignment.models import FAN

        self.network = FAN(_STACKS)
        self.sharpness = sharpness

    def forward(self, x_B3HW: Tensor) -> Encoded:
        """Landmarks and heat maps of face crops of any size."""
        image = functional.interpolate((x_B3HW + 1) / 2, (_SIDE, _SIDE), mode="bilinear", align_corners=False)
        heat_B68HW: Tensor = self.network(image)[-1]
        landmark_B682 = soft_argmax(self.sharpness * heat_B68HW)
        return Encoded(vector_from_landmarks(landmark_B682), functional.adaptive_avg_pool2d(heat_B68HW, _GRID))


def soft_argmax(logit_BNHW: Tensor) -> Tensor:
    """Mean positions [B,N,2] in fractions of the side (x right, y down), each map weighted by its softmax."""
    height, width = logit_BNHW.shape[-2:]
    weight_BNHW = logit_BNHW.flatten(2).softmax(-1).unflatten(-1, (height, width))
    x_W, y_H = ((torch.arange(size, device=logit_BNHW.device) + 0.5) / size for size in (width, height))
    return torch.stack(((weight_BNHW.sum(-2) * x_W).sum(-1), (weight_BNHW.sum(-1) * y_H).sum(-1)), -1)


def load_fan(path: Path) -> FANEncoder:
    """A frozen FAN from its published file, read by torch's safe loader alone.

    Raises:
        WeightsError: face-alignment is not installed, or the file is missing, damaged or of another network.
    """
    encoder = FANEncoder()
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
        encoder.network.load_state_dict(state)
    # The last three are what the safe loader meets in a file that is nothing of the kind.
    except (
        OSError, EOFError, RuntimeError, TypeError, AttributeError, pickle.UnpicklingError,
        ValueError, LookupError, AssertionError,
    ) as error:  # fmt: skip
        raise WeightsError(
            f"the landmark network's file cannot be read as FAN with {_STACKS} stacks ({type(error).__name__}); "
            "copy it again and check its hash"
        ) from error
    return freeze(encoder)
