"""The camera and the scene: pose, light, background and noise of one photograph."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ccfexp.data.phantom.head import FloatArray
from ccfexp.errors import ConfigError

_SCENE_STREAM = 11
_FOCAL = 9.0  # distance of the camera in mesh units (0.9 m)
_TURNING_POINT = np.array([0.0, 7.1, 0.9])
ALIGNMENT_SIZE = 112.0

Crop = Literal["aligned", "loose"]
# (inter-ocular distance, height of the eyes, height of the mouth) in the 112-pixel alignment frame
_CROPS: dict[Crop, tuple[float, float, float]] = {"aligned": (35.24, 51.6, 92.3), "loose": (20.0, 50.0, 73.0)}

BACKGROUNDS = ((0.55, 0.62, 0.70), (0.72, 0.72, 0.70), (0.35, 0.45, 0.52), (0.80, 0.82, 0.84), (0.25, 0.28, 0.32))


@dataclass(frozen=True)
class SceneStyle:
    """What a site's room and camera look like: ranges that scenes are drawn from.

    Attributes:
        backgrounds: indices into ``BACKGROUNDS``.
        light_azimuth, light_elevation: range of the key light's direction in radians (+ = the patient's left).
        key_light: range of the key light's strength.
        noise: range of the sensor noise (standard deviation, full scale 1).
        blur: range of the optical blur (Gaussian sigma, pixels at size 112).
        white_balance: standard deviation of the per-channel gain.
        warmth: systematic colour cast, red gain minus blue gain.
    """

    backgrounds: tuple[int, ...] = (0, 1, 2, 3, 4)
    light_azimuth: tuple[float, float] = (-0.7, 0.7)
    light_elevation: tuple[float, float] = (0.15, 0.75)
    key_light: tuple[float, float] = (0.45, 0.75)
    noise: tuple[float, float] = (0.004, 0.012)
    blur: tuple[float, float] = (0.25, 0.55)
    white_balance: float = 0.022
    warmth: float = 0.0

    def __post_init__(self) -> None:
        if not self.backgrounds or not all(0 <= index < len(BACKGROUNDS) for index in self.backgrounds):
            raise ConfigError(f"backgrounds={self.backgrounds} must be indices 0 to {len(BACKGROUNDS) - 1}")
        for name in ("light_azimuth", "light_elevation", "key_light", "noise", "blur"):
            low, high = getattr(self, name)
            if low > high:
                raise ConfigError(f"{name}=({low}, {high}) must be given as (low, high)")


@dataclass(frozen=True)
class Scene:
    """Everything about one photograph except the person and the expression."""

    yaw: float
    pitch: float
    roll: float
    zoom: float
    shift_2: FloatArray  # fractions of the image size
    light_azimuth: float
    light_elevation: float
    key_light: float
    background_3: FloatArray
    background_slope: float
    gain_3: FloatArray
    blur: float
    noise: float
    noise_seed: int

    @classmethod
    def draw(cls, identity_seed: int, seed: int, style: SceneStyle | None = None) -> "Scene":
        """Scene of (identity, seed): the same pair always gives the same pose, light, background and noise."""
        style = style or SceneStyle()
        rng = np.random.default_rng([_SCENE_STREAM, identity_seed, seed])
        yaw, pitch, roll = np.deg2rad(rng.normal(0, (5.0, 3.5, 2.5)))
        zoom = 1 + rng.normal(0, 0.02)
        shift = rng.normal(0, 0.8, 2) / ALIGNMENT_SIZE
        background = np.array(BACKGROUNDS[style.backgrounds[rng.integers(len(style.backgrounds))]])
        cast = np.array([1 + style.warmth / 2, 1.0, 1 - style.warmth / 2])
        return cls(
            yaw=yaw,
            pitch=pitch,
            roll=roll,
            zoom=zoom,
            shift_2=shift.astype(np.float32),
            light_azimuth=rng.uniform(*style.light_azimuth),
            light_elevation=rng.uniform(*style.light_elevation),
            key_light=rng.uniform(*style.key_light),
            background_3=(background * rng.uniform(0.85, 1.1)).astype(np.float32),
            background_slope=0.18 * rng.normal(),
            gain_3=((1 + rng.normal(0, style.white_balance, 3)) * cast * rng.uniform(0.88, 1.1)).astype(np.float32),
            blur=rng.uniform(*style.blur),
            noise=rng.uniform(*style.noise),
            noise_seed=int(rng.integers(2**31)),
        )


@dataclass(frozen=True)
class Camera:
    """Rotation, weak perspective and a similarity to the pixel frame.

    ``project`` maps mesh coordinates [N,3] to pixels: columns x right, y down (pixel-edge origin) and depth towards
    the camera in mesh units.
    """

    rotation_33: FloatArray
    scale: float
    offset_2: FloatArray

    @classmethod
    def frame(cls, scene: Scene, landmark_683: FloatArray, size: int, crop: Crop = "aligned") -> "Camera":
        """Camera that brings the *deformed* landmarks to the alignment frame (insightface-style 112-pixel frame)."""
        rotation = _rotation(scene.yaw, scene.pitch, scene.roll)
        pinhole = cls(rotation, 1.0, np.zeros(2, np.float32))
        points = pinhole.project(landmark_683)[:, :2]
        eye_right, eye_left = points[36:42].mean(0), points[42:48].mean(0)
        eyes, mouth = (eye_right + eye_left) / 2, (points[48] + points[54]) / 2
        interocular, eyes_y, mouth_y = _CROPS[crop]
        ratio = interocular / np.linalg.norm(eye_left - eye_right) + (mouth_y - eyes_y) / np.linalg.norm(mouth - eyes)
        pixel = size / ALIGNMENT_SIZE
        scale = 0.5 * ratio * pixel * scene.zoom
        offset = np.array([ALIGNMENT_SIZE / 2, eyes_y]) * pixel - eyes * scale + scene.shift_2 * size
        return cls(rotation, float(scale), offset.astype(np.float32))

    def project(self, point_N3: FloatArray) -> FloatArray:
        """Pixels x, y and depth [N,3] of mesh points [N,3]."""
        turned = (point_N3 - _TURNING_POINT) @ self.rotation_33.T
        perspective = _FOCAL / (_FOCAL - turned[:, 2])
        x = turned[:, 0] * perspective * self.scale + self.offset_2[0]
        y = -turned[:, 1] * perspective * self.scale + self.offset_2[1]
        return np.stack([x, y, turned[:, 2]], 1).astype(np.float32)


def _rotation(yaw: float, pitch: float, roll: float) -> FloatArray:
    cy, sy, cp, sp, cr, sr = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch), np.cos(roll), np.sin(roll)
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    rotation_33: FloatArray = (about_z @ about_x @ about_y).astype(np.float32)
    return rotation_33
