"""SCRFD (Guo et al. 2021) of insightface's model pack: faces with five points, from a file placed by hand."""

from __future__ import annotations

import contextlib
import io
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
from PIL import Image as PillowImage

from ccfexp.data.quiet import silenced
from ccfexp.detection.faces import Face
from ccfexp.errors import WeightsError
from ccfexp.weights.local import require

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ccfexp.detection.faces import Image, Points

FILE: Final = "insightface/det_10g.onnx"
_SIDE: Final = 640  # the pack's own size of detection
_OUTPUTS: Final = 9  # scores, boxes and points at three strides
_FATAL: Final = 4  # onnxruntime's level of logging that writes only what ends the process
# A face that fills the picture is larger than any that the network was shown; a border makes it smaller.
_SHARES: Final = (1.0, 0.5)


class _Network(Protocol):
    """What is used of the package's detector."""

    def detect(self, img: Image, input_size: tuple[int, int], *, det_thresh: float) -> tuple[Points, Points]:
        """Boxes with scores [N, 5] and points [N, 5, 2] in a BGR picture."""
        ...


class InsightFaceDetector:
    """Finds faces of about a sixtieth to the whole of the photograph's larger side.

    The network's answers scale with the picture from its outer corner, so they are in our coordinates as they come.

    Args:
        weights_folder: the hospital's folder of weights; nothing is downloaded.
        min_score: of a detection, in [0, 1]; what is below is no face.
        device: "cuda" where the installed onnxruntime has it, else the processor works.

    Raises:
        WeightsError: insightface is not installed, or the file is missing, altered or of another network.
    """

    def __init__(self, weights_folder: Path, min_score: float, device: str = "cpu") -> None:
        path = require(weights_folder, FILE)
        self._min_score = min_score
        self._model = _load(path, device)

    def detect(self, image_HW3: Image) -> list[Face]:
        """All faces of an upright RGB photograph [H, W, 3], the surest first; none is an empty list.

        A box may reach beyond the photograph.
        """
        for share in _SHARES:
            faces = self._detect(image_HW3, round(_SIDE * share))
            if faces:
                return faces
        return []

    def _detect(self, image_HW3: Image, longest: int) -> list[Face]:
        """Faces in the photograph brought to a longer side of ``longest`` in the middle of the network's picture.

        A box without extent, or with its middle outside of the photograph, is none.
        """
        height, width = image_HW3.shape[:2]
        scale = longest / max(height, width)
        small_wh = max(1, round(width * scale)), max(1, round(height * scale))
        # Shrunk here, because the package's own shrinking samples single pixels of a large photograph.
        small = PillowImage.fromarray(image_HW3).resize(small_wh, PillowImage.Resampling.BILINEAR, reducing_gap=2.0)
        corner_wh = (_SIDE - small_wh[0]) // 2, (_SIDE - small_wh[1]) // 2
        canvas = PillowImage.new("RGB", (_SIDE, _SIDE))
        canvas.paste(small, corner_wh)
        bgr_HW3 = np.ascontiguousarray(np.asarray(canvas)[..., ::-1])
        with _quiet():
            box_N5, point_N52 = self._model.detect(bgr_HW3, input_size=(_SIDE, _SIDE), det_thresh=self._min_score)
        corner_2, stretch_2 = np.array(corner_wh), np.array([width / small_wh[0], height / small_wh[1]])
        faces = []
        for box_5, found_52 in zip(box_N5, point_N52, strict=True):
            box_22 = (box_5[:4].reshape(2, 2) - corner_2) * stretch_2
            middle_2 = box_22.mean(0)
            if (middle_2 > 0).all() and (middle_2 < (width, height)).all() and (box_22[1] - box_22[0] >= 1).all():
                # The pack's points begin at image left: the patient's right eye first, as ours.
                point_52 = (found_52 - corner_2) * stretch_2
                faces.append(Face(box_22.ravel().astype(np.float32), float(box_5[4]), point_52.astype(np.float32)))
        return faces


def _load(path: Path, device: str) -> _Network:
    """The package's detector; its messages would hold the path, so they are not passed on."""
    try:
        import onnxruntime
    except ImportError:
        raise _missing() from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL
    wanted = ["CUDAExecutionProvider"] if device.startswith("cuda") else []
    available = onnxruntime.get_available_providers()
    providers = [*(name for name in wanted if name in available), "CPUExecutionProvider"]
    with _quiet():
        try:
            from insightface.model_zoo import get_model
        except ImportError:
            raise _missing() from None
        try:
            # One dynamic session; the package would otherwise make a second one for our size.
            model = get_model(str(path), providers=providers, sess_options=options, static_shape_sessions=False)
        except Exception:  # noqa: BLE001  # onnxruntime raises classes of its own for a file that is no network
            raise WeightsError(f"{FILE} cannot be read as a network; copy it again and check its hash") from None
    if getattr(model, "taskname", "") != "detection" or len(model.output_names) != _OUTPUTS:
        raise WeightsError(f"{FILE} is not a detector with five points; copy it again and check its hash")
    detector: _Network = model
    return detector


def _missing() -> WeightsError:
    return WeightsError("finding faces needs the packages insightface and onnxruntime; install the extra `photos`")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Neither warnings nor log lines nor what insightface prints."""
    with silenced("insightface"), contextlib.redirect_stdout(io.StringIO()):
        yield
