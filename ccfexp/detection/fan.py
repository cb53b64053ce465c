"""FAN (Bulat & Tzimiropoulos, ICCV 2017): the 68 points of a face that was found, by face-alignment's own protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from ccfexp.data.quiet import silenced
from ccfexp.detection.faces import Landmarks
from ccfexp.published.fan import load_fan
from ccfexp.weights.local import require

if TYPE_CHECKING:
    from pathlib import Path

    from ccfexp.detection.faces import Face, Image

FILE: Final = "face_alignment/2DFAN4-11f355bf06.pth.tar"
# How large a detector's boxes are for one face. face-alignment 1.5 has 195 for S3FD and 165 for SCRFD, ours.
REFERENCE_SCALE: Final = 165.0
_CROP, _HEAT, _BODY = 256, 64, 200.0  # sides of the crop and of the heat maps; length that a scale of 1 stands for
_UPWARDS: Final = 0.12  # of the box's height: the points' centre above the box's


class FanLandmarker:
    """Finds 68 points, each to about a quarter of a 64th of the crop around the face.

    Crop, heat maps (of the crop and its mirror image) and their reading are the package's. Its last step, back to the
    photograph, is done here without its rounding to whole pixels, which is coarse on a small face. A rounded index is
    the pixel that holds the point, so the value before it counts from the outer corner.

    Args:
        weights_folder: the hospital's folder of weights; nothing is downloaded.
        device: that the network works on.

    Raises:
        WeightsError: face-alignment is not installed, or the file is missing, altered or of another network.
    """

    def __init__(self, weights_folder: Path, device: str = "cpu") -> None:
        self._device = torch.device(device)
        self._network = load_fan(require(weights_folder, FILE)).network.to(self._device)

    @torch.no_grad()
    def locate(self, image_HW3: Image, face: Face) -> Landmarks:
        """The points of one face of an upright RGB photograph [H, W, 3]; some may lie beyond its border."""
        with silenced():
            from face_alignment.utils import crop, flip, get_preds_fromhm

            centre_2, scale = _centre_and_scale(face)
            crop_HW3 = crop(image_HW3, centre_2, scale)
            x_13HW = torch.from_numpy(crop_HW3.transpose(2, 0, 1).astype(np.float32) / 255.0)[None].to(self._device)
            heat_1PHW = self._network(x_13HW)[-1] + flip(self._network(flip(x_13HW))[-1], is_label=True)
            heat_1PHW = heat_1PHW.float().cpu().numpy()
            place_1P2, _, peak_1P = get_preds_fromhm(heat_1PHW)
        point_682 = (place_1P2[0] / _HEAT - 0.5) * (_BODY * scale) + centre_2
        # Two maps were added, each with a peak of about 1.
        return Landmarks(point_682.astype(np.float32), np.clip(peak_1P[0] / 2, 0, 1).astype(np.float32))


def _centre_and_scale(face: Face) -> tuple[np.ndarray[tuple[int], np.dtype[np.float64]], float]:
    """Where the crop lies: its centre in pixels, and its side over `_BODY`."""
    left, top, right, bottom = face.box_4.astype(np.float64)
    centre_2 = np.array([(left + right) / 2, (top + bottom) / 2 - _UPWARDS * (bottom - top)])
    return centre_2, float((right - left + bottom - top) / REFERENCE_SCALE)
