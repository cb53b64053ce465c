"""Paired metrics: a synthesised picture against its true target, a prediction against its label.

Each returns one value a case wherever a case has one, so that intervals and paired differences can be taken over
people afterwards (``bootstrap``).  Pictures are [N, 3, H, W] tensors in one range, which the caller states: a data
range guessed from the pictures themselves makes a dark picture look better than it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy import stats
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ccfexp.evaluation.measures import Array

SSIM_KERNEL = 11  # Gaussian window of Wang et al. 2004
SSIM_BATCH = 32
SSIM_SIGMA = 1.5
_OUTER_CORNERS = (36, 45)


def psnr(image_N3HW: torch.Tensor, target_N3HW: torch.Tensor, *, data_range: float) -> Array:
    """Peak signal-to-noise ratio [N] in dB, higher is better, infinite for identical pictures.

    ``data_range`` is the distance from black to white: 255 for uint8 values, 1 for [0, 1], 2 for [-1, 1].
    Raises ValueError where shapes differ or the range is not positive.
    """
    _check_pair(image_N3HW, target_N3HW, data_range)
    value = peak_signal_noise_ratio(
        image_N3HW.double(), target_N3HW.double(), data_range=data_range, reduction="none", dim=(1, 2, 3)
    )
    return _numpy(value)


def ssim(image_N3HW: torch.Tensor, target_N3HW: torch.Tensor, *, data_range: float) -> Array:
    """Structural similarity [N] with the Gaussian 11 x 11 window, in [-1, 1], 1 for identical pictures.

    The mean over the whole picture with mirrored borders (torchmetrics), not over its interior alone.
    ``data_range`` and errors as :func:`psnr`.
    """
    _check_pair(image_N3HW, target_N3HW, data_range)
    parts = []
    # In double precision a few cases take a second; single precision differs by 2e-7.
    pairs = (tensor.div(data_range).float().split(SSIM_BATCH) for tensor in (image_N3HW, target_N3HW))
    for image, target in zip(*pairs, strict=True):
        value = structural_similarity_index_measure(
            image,
            target,
            gaussian_kernel=True,
            sigma=SSIM_SIGMA,
            kernel_size=SSIM_KERNEL,
            reduction="none",
            data_range=1.0,
        )
        parts.append(value if not isinstance(value, tuple) else value[0])
    return _numpy(torch.cat(parts))


def landmark_nme(predicted: NDArray[Any], true: NDArray[Any]) -> Array:
    """Normalised mean error [...] of landmarks [..., 68, 2], lower is better.

    Mean distance of the 68 points over the inter-ocular distance of the *true* face, taken as in 300-W between the
    outer eye corners (points 36 and 45).  NaN where that distance is zero.  Raises ValueError where shapes differ.
    """
    a, b = np.asarray(predicted, np.float64), np.asarray(true, np.float64)
    if a.shape != b.shape or a.shape[-2:] != (68, 2):
        raise ValueError(f"Expected two sets of landmarks [..., 68, 2], got {list(a.shape)} and {list(b.shape)}.")
    error = np.linalg.norm(a - b, axis=-1).mean(-1)
    right, left = _OUTER_CORNERS
    ocular = np.linalg.norm(b[..., right, :] - b[..., left, :], axis=-1)
    return np.asarray(np.divide(error, ocular, out=np.full_like(error, np.nan), where=ocular > 0))


def accuracy(predicted: NDArray[Any], true: NDArray[Any]) -> float:
    """Share of equal labels [N]; NaN without cases."""
    correct = np.asarray(predicted) == np.asarray(true)
    return float(np.mean(correct)) if correct.size else float("nan")


def balanced_accuracy(predicted: NDArray[Any], true: NDArray[Any]) -> float:
    """Mean over the classes present in ``true`` [N] of the share recognised; NaN without cases.

    With side labels (left, right, none) it does not reward calling everybody healthy, or everybody left.
    """
    p, t = np.asarray(predicted), np.asarray(true)
    recalls = [float(np.mean(p[t == c] == c)) for c in np.unique(t)]
    return float(np.mean(recalls)) if recalls else float("nan")


def spearman(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Spearman rank correlation of two arrays [N] over the cases where both are finite.

    NaN with fewer than three such cases or where one array is constant: a rank correlation is then undefined.
    """
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    both = np.isfinite(x) & np.isfinite(y)
    x, y = x[both], y[both]
    if x.size < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    # Pearson's correlation of mean ranks; scipy's own spearmanr also computes a p-value, at ten times the cost.
    return float(np.corrcoef(stats.rankdata(x), stats.rankdata(y))[0, 1])


def finite_mean(values: NDArray[Any]) -> float:
    """Mean of the cases [N] that have a value (NaN marks those without); NaN if none has."""
    v = np.asarray(values, np.float64)
    v = v[~np.isnan(v)]
    return float(v.mean()) if v.size else float("nan")


def _check_pair(image: torch.Tensor, target: torch.Tensor, data_range: float) -> None:
    if image.shape != target.shape or image.ndim != 4:
        raise ValueError(f"Expected two batches [N, 3, H, W], got {list(image.shape)} and {list(target.shape)}.")
    if not data_range > 0:
        raise ValueError(f"Expected data_range={data_range} > 0: the distance from black to white, e.g. 255 for uint8.")


def _numpy(value: torch.Tensor) -> Array:
    array: Array = value.detach().cpu().numpy().astype(np.float64).reshape(-1)
    return array
