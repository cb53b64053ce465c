"""The phantom: image, exact landmarks and labels of a chosen person, movement and palsy."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

from ccfexp.data.phantom.camera import ALIGNMENT_SIZE, Camera, Crop, Scene
from ccfexp.data.phantom.expression import (
    EVEN_EFFORT,
    EYE_REGION,
    Effort,
    Palsy,
    Weights,
    movement_activation,
    unit_weights,
)
from ccfexp.data.phantom.head import EYE, MM_PER_UNIT, FloatArray, Head, smoothstep
from ccfexp.data.phantom.identity import Identity, Prior, make_identity
from ccfexp.data.phantom.raster import EYE_BIAS, interpolate, vertex_normals, z_buffer
from ccfexp.data.phantom.shading import NORMAL, Surface, shade
from ccfexp.errors import ConfigError

_SUPERSAMPLING = 2
_SAME_SURFACE_DEPTH = 0.05  # mesh units over a 2x2 block


@dataclass(frozen=True)
class Labels:
    """Ground truth of one photograph; sides are the patient's."""

    identity: int
    seed: int
    movement: str
    intensity: float
    palsy: Palsy


@dataclass(frozen=True)
class Photograph:
    """A rendered photograph: ``image_HW3`` uint8 RGB and ``landmark_682`` float32 pixels (x right, y down)."""

    image_HW3: npt.NDArray[np.uint8]
    landmark_682: FloatArray
    labels: Labels


class Phantom:
    """Renders people of the phantom population. Holds only constants: safe to share, nothing random inside."""

    def __init__(self, head: Head | None = None) -> None:
        self.head = head or Head.load()

    def identity(self, seed: int, prior: Prior | None = None) -> Identity:
        """The person of ``seed``."""
        return make_identity(self.head, seed, prior)

    def render(
        self,
        identity: Identity,
        movement: str = "rest",
        intensity: float = 1.0,
        palsy: Palsy | None = None,
        seed: int = 0,
        size: int = 112,
        *,
        scene: Scene | None = None,
        crop: Crop = "aligned",
        effort: Effort = EVEN_EFFORT,
        grimace: Mapping[str, float] | None = None,
    ) -> Photograph:
        """One photograph.

        The same (identity, seed) with another movement or palsy keeps light, pose, background and noise: exact paired
        targets. A ``scene`` given replaces the one of (identity, seed). ``effort`` is the voluntary share of each side
        (right, left): healthy people can wink and smirk, and make a ``grimace`` of further one-sided units.

        Raises:
            ConfigError: unknown movement, impossible intensity, palsy, grimace or size.
        """
        if not 16 <= size <= 1024:
            raise ConfigError(f"phantom size={size} must lie in [16, 1024] pixels")
        palsy = palsy or Palsy()
        scene = scene or Scene.draw(identity.seed, seed)
        weights = self.weights(identity, movement, intensity, palsy, effort, grimace)
        mesh_V3 = self.mesh(identity, weights)
        landmark_683 = self.landmarks(identity, mesh_V3)
        camera = Camera.frame(scene, landmark_683, size * _SUPERSAMPLING, crop)
        colour_HW3 = self._draw(identity, scene, camera, mesh_V3, weights, _bell(palsy, movement, intensity), size)
        landmark_682 = camera.project(landmark_683)[:, :2] / np.float32(_SUPERSAMPLING)
        return Photograph(
            _expose(colour_HW3, scene), landmark_682, Labels(identity.seed, seed, movement, intensity, palsy)
        )

    def weights(
        self,
        identity: Identity,
        movement: str,
        intensity: float,
        palsy: Palsy,
        effort: Effort = EVEN_EFFORT,
        grimace: Mapping[str, float] | None = None,
    ) -> Weights:
        """Weights of the expression units of this person making this movement under this palsy."""
        activation = movement_activation(movement, intensity)
        return unit_weights(activation, palsy, self.head.unit_index, identity.asymmetry, effort, grimace)

    def mesh(self, identity: Identity, weights: Mapping[str, float]) -> FloatArray:
        """Deformed vertices [V,3] in mesh units."""
        if not weights:
            return identity.base_V3
        rows = [self.head.unit_index[name] for name in weights]
        values = np.array(list(weights.values()), np.float32)
        return identity.base_V3 + np.tensordot(values, self.head.unit_UV3[rows], 1)

    def landmarks(self, identity: Identity, mesh_V3: FloatArray) -> FloatArray:
        """The 68 landmarks [68,3] on a deformed mesh; 17-26 ride on this person's brows."""
        head = self.head
        points = (mesh_V3[head.anchor_vertex_L3] * head.anchor_weight_L31).sum(1)
        points[17:27] = (mesh_V3[identity.brow_vertex_10x3] * identity.brow_weight_10x31).sum(1)
        return np.asarray(points, np.float32)

    def frontal_landmarks_mm(self, identity: Identity, movement: str, palsy: Palsy) -> FloatArray:
        """Landmarks [68,2] in millimetres, seen straight from the front without perspective (x right, y down)."""
        points = self.landmarks(identity, self.mesh(identity, self.weights(identity, movement, 1.0, palsy)))
        return points[:, :2] * np.array([MM_PER_UNIT, -MM_PER_UNIT], np.float32)

    @cached_property
    def _depth_bias_T(self) -> FloatArray:
        return np.where(self.head.part_T == EYE, EYE_BIAS, 0.0).astype(np.float32)

    def _draw(
        self,
        identity: Identity,
        scene: Scene,
        camera: Camera,
        mesh_V3: FloatArray,
        weights: Mapping[str, float],
        bell_2: FloatArray,
        size: int,
    ) -> FloatArray:
        """Anti-aliased linear colours [size,size,3]: one shade per 2x2 block, four where the block has an edge."""
        head = self.head
        normal_V3 = vertex_normals(mesh_V3, head.triangle_T3)
        hair_V3 = normal_V3 * (identity.hair_weight_V * identity.hair_volume)[:, None]
        point_V3 = camera.project(mesh_V3 + hair_V3)
        ids, bary, depth = z_buffer(point_V3, head.triangle_T3, self._depth_bias_T, size * _SUPERSAMPLING)
        pixel, sample, weight = _choose_samples(ids, depth, head.part_T, size)

        attribute_VC = np.concatenate(
            [
                head.canonical_V3[:, :2],
                np.stack([head.occlusion_V, head.lips_V, head.mouth_V, head.lash_V, identity.hair_weight_V], 1),
                normal_V3 @ camera.rotation_33.T,
            ],
            1,
        ).astype(np.float32)
        attribute_NC = interpolate(attribute_VC, head.triangle_T3, ids[sample], bary[sample])
        normal_N3 = attribute_NC[:, NORMAL:]
        normal_N3 = normal_N3 / (np.linalg.norm(normal_N3, axis=1, keepdims=True) + 1e-6)
        surface = Surface(attribute_NC, normal_N3, head.part_T[ids[sample]])
        colour_N3 = shade(head, identity, scene, weights, bell_2, surface) * weight[:, None]

        total = size * size
        covered = np.bincount(pixel, weight, total).astype(np.float32)
        face = np.stack([np.bincount(pixel, colour_N3[:, c], total) for c in range(3)], 1).astype(np.float32)
        behind = _background(head, identity, scene, point_V3, size).reshape(-1, 3)
        return (behind * (1 - covered)[:, None] + face).reshape(size, size, 3)


def _choose_samples(
    ids: npt.NDArray[np.int64], depth: FloatArray, part_T: npt.NDArray[np.uint8], size: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], FloatArray]:
    """Pixel, sample index and weight of everything to shade."""
    side = size * _SUPERSAMPLING
    order = np.arange(side * side).reshape(size, 2, size, 2).transpose(0, 2, 1, 3).reshape(-1, 4)
    id_P4 = ids[order]
    part_P4 = np.where(id_P4 >= 0, part_T[id_P4], 99)
    depth_P4 = depth[order]
    flat_P = (np.ptp(part_P4, axis=1) == 0) & (np.ptp(depth_P4, axis=1) < _SAME_SURFACE_DEPTH)
    whole = np.nonzero(flat_P & (id_P4[:, 0] >= 0))[0]
    edge, sub = np.nonzero(~flat_P[:, None] & (id_P4 >= 0))
    # A smooth block is shaded at one of its four samples; alternate the corner so that no shift is introduced.
    corner = (whole + whole // size) % 2 * 3
    pixel = np.concatenate([whole, edge])
    sample = np.concatenate([order[whole, corner], order[edge, sub]])
    weight = np.concatenate([np.ones(len(whole), np.float32), np.full(len(edge), 0.25, np.float32)])
    return pixel, sample, weight


def _background(head: Head, identity: Identity, scene: Scene, point_V3: FloatArray, size: int) -> FloatArray:
    """Wall with a gradient and, behind the head, long hair [size,size,3]."""
    y_HW, x_HW = np.mgrid[0:size, 0:size].astype(np.float32) / size
    slope = 1 + np.float32(scene.background_slope) * (x_HW - 0.5) - 0.15 * y_HW
    wall = scene.background_3 * slope[..., None]
    if not identity.long_hair:
        return np.asarray(wall, np.float32)
    side = size * _SUPERSAMPLING
    nose_root = point_V3[head.landmark_vertex_68[27]]
    corners = point_V3[head.landmark_vertex_68[[36, 45]], 0]
    width = abs(corners[1] - corners[0])
    dx = (x_HW * side - nose_root[0]) / (1.22 * width)
    dy = np.minimum((y_HW * side - nose_root[1]) / (1.25 * width), 0)
    mask = smoothstep(1.04, 0.97, np.hypot(dx, dy))[..., None]
    strand = identity.strand_noise_NN[(y_HW * 60).astype(np.int64) % 128, (x_HW * 200).astype(np.int64) % 128][
        ..., None
    ]
    hair = np.clip(identity.hair_3 * 0.75 * (1 + 0.3 * strand), 0, 1)
    return np.asarray(wall * (1 - mask) + hair * mask, np.float32)


def _bell(palsy: Palsy, movement: str, intensity: float) -> FloatArray:
    """Bell's phenomenon: the eye that cannot close rolls upwards with the attempt; mesh units (right, left)."""
    attempt = movement_activation(movement, intensity).get("eyeBlink", 0.0)
    upward = 0.055 * smoothstep(0.15, 0.8, palsy.severity[EYE_REGION] * attempt)
    return np.array([upward * (palsy.side == "right"), upward * (palsy.side == "left")], np.float32)


def _expose(colour_HW3: FloatArray, scene: Scene) -> npt.NDArray[np.uint8]:
    """White balance, exposure, optical blur (scaled with the image) and sensor noise."""
    pixel = colour_HW3.shape[0] / ALIGNMENT_SIZE
    image = gaussian_filter(colour_HW3 * scene.gain_3, (scene.blur * pixel, scene.blur * pixel, 0))
    noise = np.random.default_rng(scene.noise_seed).standard_normal(image.shape, np.float32)
    image = image + np.float32(scene.noise) * noise
    return np.asarray(np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)
