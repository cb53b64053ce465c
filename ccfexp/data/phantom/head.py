"""The phantom's geometry: one mean head with identity modes, expression units and landmark anchors.

Units: 1 mesh unit = 100 mm; y up, +z towards the camera, +x = the patient's left = image right.
The arrays come from ``ccfexp/assets/head/head.npz`` (CC0-1.0; PROVENANCE.md lies beside it).
"""

from dataclasses import dataclass
from functools import cached_property
from importlib.resources import as_file, files
from typing import overload

import numpy as np
import numpy.typing as npt

from ccfexp.errors import WeightsError

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

MM_PER_UNIT = 100.0
SKIN, EYE, TEETH, TONGUE = 0, 1, 2, 3

TEXTURE_WIDTH, TEXTURE_HEIGHT = 176, 224
X_MIN, X_MAX, Y_MIN, Y_MAX = -0.95, 0.95, 5.9, 8.5


@overload
def smoothstep(edge0: float, edge1: float, x: float) -> float: ...
@overload
def smoothstep(edge0: float, edge1: float, x: FloatArray) -> FloatArray: ...
def smoothstep(edge0: float, edge1: float, x: float | FloatArray) -> float | FloatArray:
    """Hermite step from 0 at ``edge0`` to 1 at ``edge1`` (edges may be given in falling order)."""
    t: FloatArray = np.clip((x - edge0) / (edge1 - edge0), 0, 1)
    return t * t * (3 - 2 * t)


@dataclass(frozen=True)
class Head:
    """The mean head and everything fixed to it.

    Attributes:
        mean_V3: mean vertex positions.
        canonical_V3: canonical coordinates, the texture space of every identity (no UV seams).
        triangle_T3: vertex indices, counter-clockwise towards the camera.
        part_T, part_V: SKIN, EYE, TEETH or TONGUE.
        identity_KV3: identity modes, each already multiplied by its standard deviation.
        unit_UV3: displacement of each expression unit at weight 1.
        unit_index: name of a unit -> its row in ``unit_UV3``.
        landmark_vertex_68: nearest vertex of each landmark.
        anchor_vertex_L3, anchor_weight_L31: landmarks as barycentric points of triangles.
        occlusion_V, lips_V, mouth_V, lash_V: ambient occlusion and masks.
        eye_centre_23: eyeball centres (right eye, left eye) in canonical coordinates.
    """

    mean_V3: FloatArray
    canonical_V3: FloatArray
    triangle_T3: IntArray
    part_T: npt.NDArray[np.uint8]
    part_V: npt.NDArray[np.uint8]
    identity_KV3: FloatArray
    unit_UV3: FloatArray
    unit_index: dict[str, int]
    landmark_vertex_68: IntArray
    anchor_vertex_L3: IntArray
    anchor_weight_L31: FloatArray
    occlusion_V: FloatArray
    lips_V: FloatArray
    mouth_V: FloatArray
    lash_V: FloatArray
    eye_centre_23: FloatArray

    @classmethod
    def load(cls) -> "Head":
        """Read the packaged asset.

        Raises:
            WeightsError: the asset is missing from the installation.
        """
        resource = files("ccfexp") / "assets" / "head" / "head.npz"
        with as_file(resource) as path:
            if not path.is_file():
                raise WeightsError("missing asset head.npz; restore it by installing the package again")
            with np.load(path, allow_pickle=False) as arrays:
                data = {key: arrays[key] for key in arrays.files}

        def real(key: str) -> FloatArray:
            return np.ascontiguousarray(data[key], dtype=np.float32)

        def index(key: str) -> IntArray:
            return np.ascontiguousarray(data[key], dtype=np.int64)

        return cls(
            mean_V3=real("V0"),
            canonical_V3=real("can"),
            triangle_T3=index("tri"),
            part_T=data["part"],
            part_V=data["vpart"],
            identity_KV3=real("IB"),
            unit_UV3=real("UE"),
            unit_index={str(name): row for row, name in enumerate(data["un"])},
            landmark_vertex_68=index("lm"),
            anchor_vertex_L3=index("lmi"),
            anchor_weight_L31=real("lmb")[..., None],
            occlusion_V=real("ao"),
            lips_V=real("lips"),
            mouth_V=real("inm"),
            lash_V=real("lash"),
            eye_centre_23=real("eyec"),
        )

    def locate(self, x: float, y: float) -> tuple[IntArray, FloatArray]:
        """Front-most skin point under canonical (x, y): its triangle's vertices [3] and barycentric weights [3]."""
        corner_T33 = self.canonical_V3[self.triangle_T3]
        origin_T2 = corner_T33[:, 0, :2]
        a_T2, b_T2 = corner_T33[:, 1, :2] - origin_T2, corner_T33[:, 2, :2] - origin_T2
        det_T = a_T2[:, 0] * b_T2[:, 1] - b_T2[:, 0] * a_T2[:, 1]
        dx_T, dy_T = x - origin_T2[:, 0], y - origin_T2[:, 1]
        safe_T = np.where(np.abs(det_T) < 1e-12, np.inf, det_T)
        u_T = (dx_T * b_T2[:, 1] - b_T2[:, 0] * dy_T) / safe_T
        v_T = (a_T2[:, 0] * dy_T - dx_T * a_T2[:, 1]) / safe_T
        inside_T = np.isfinite(safe_T) & (u_T >= -1e-4) & (v_T >= -1e-4) & (u_T + v_T <= 1.0001) & (self.part_T == SKIN)
        candidates = np.nonzero(inside_T)[0]
        best = candidates[corner_T33[candidates, :, 2].mean(1).argmax()]
        weights = np.array([1 - u_T[best] - v_T[best], u_T[best], v_T[best]], np.float32)
        return self.triangle_T3[best], weights

    @cached_property
    def texture_grid(self) -> tuple[FloatArray, FloatArray]:
        """Canonical x and y of every texel, each [TEXTURE_HEIGHT, TEXTURE_WIDTH]."""
        x, y = np.meshgrid(np.linspace(X_MIN, X_MAX, TEXTURE_WIDTH), np.linspace(Y_MAX, Y_MIN, TEXTURE_HEIGHT))
        return x.astype(np.float32), y.astype(np.float32)

    @cached_property
    def folds_2KHW(self) -> FloatArray:
        """Skin folds in texture space per side (right, left): nasolabial, forehead lines, crow's feet."""
        x_HW, y_HW = self.texture_grid
        return np.stack([_side_folds(x_HW * sign, y_HW) for sign in (-1, 1)]).astype(np.float32)


def _side_folds(x_HW: FloatArray, y_HW: FloatArray) -> FloatArray:
    """Depth maps [3,H,W] of one side's folds; ``x_HW`` grows away from the midline on that side."""
    # Nasolabial: from the nostril wing to beside the oral commissure, with a lit ridge outside it.
    along = np.clip((6.93 - y_HW) / 0.43, 0, 1)
    offset = x_HW - (0.155 + 0.19 * along**0.8)
    extent = smoothstep(6.42, 6.55, y_HW) * smoothstep(6.99, 6.90, y_HW)
    nasolabial = (
        np.exp(-((offset / (0.020 + 0.012 * along)) ** 2)) - 0.55 * np.exp(-(((offset - 0.05) / 0.045) ** 2))
    ) * extent

    lines = np.zeros_like(x_HW)
    for depth, height in ((0.9, 7.655), (1.0, 7.735), (0.8, 7.83), (0.5, 7.91)):
        ripple = 0.010 * np.sin(x_HW * 13 + height * 31) + 0.006 * np.sin(x_HW * 31 + height * 7)
        distance = y_HW - (height + 0.045 * np.cos(x_HW * 3.6) + ripple)
        lines += depth * (np.exp(-((distance / 0.013) ** 2)) - 0.55 * np.exp(-(((distance - 0.03) / 0.02) ** 2)))
    forehead = (
        lines
        * smoothstep(-0.02, 0.05, x_HW)
        * smoothstep(0.56, 0.30, x_HW)
        * (0.75 + 0.25 * np.sin(x_HW * 23 + y_HW * 40))
    )

    angle = np.arctan2(y_HW - 7.28, x_HW - 0.42)
    crow = np.exp(-((np.sin(angle * 7) / 0.35) ** 2)) * smoothstep(0.46, 0.50, x_HW) * smoothstep(0.66, 0.55, x_HW)
    crow = crow * smoothstep(0.22, 0.08, np.abs(y_HW - 7.27))
    return np.stack([nasolabial, forehead, crow]).astype(np.float32)
