"""What a surface point looks like: skin with folds, lips, hair, eyes, teeth, lit by one key light."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ccfexp.data.phantom.camera import Scene
from ccfexp.data.phantom.expression import fold_strengths
from ccfexp.data.phantom.head import (
    EYE,
    TEETH,
    TEXTURE_HEIGHT,
    TEXTURE_WIDTH,
    TONGUE,
    X_MAX,
    X_MIN,
    Y_MAX,
    Y_MIN,
    FloatArray,
    Head,
    smoothstep,
)
from ccfexp.data.phantom.identity import Identity
from ccfexp.data.phantom.raster import sample_texture

# Half the visible iris, 11.77 mm across: the calibration length of the field (Guarin 2018).
IRIS_RADIUS = 0.05885
_WRAP = np.array([0.38, 0.24, 0.20], np.float32)
# Columns of the interpolated vertex attributes.
CANONICAL_X, CANONICAL_Y, OCCLUSION, LIPS, MOUTH_INSIDE, LASH, HAIR, NORMAL = range(8)


@dataclass(frozen=True)
class Surface:
    """Interpolated attributes of N visible samples."""

    attribute_NC: FloatArray
    normal_N3: FloatArray
    part_N: npt.NDArray[np.uint8]


def shade(
    head: Head, identity: Identity, scene: Scene, weights: Mapping[str, float], bell_2: FloatArray, surface: Surface
) -> FloatArray:
    """Linear RGB [N,3] of the samples.

    Args:
        head: geometry shared by all identities.
        identity: whose skin, hair and eyes.
        scene: light of this photograph.
        weights: post-palsy unit weights (they decide the folds).
        bell_2: upward gaze of Bell's phenomenon per eye (right, left), mesh units.
        surface: the visible samples.
    """
    a, part = surface.attribute_NC, surface.part_N
    albedo, gloss = _skin(head, identity, weights, a)
    eyes = part == EYE
    if eyes.any():
        albedo[eyes] = _eye_albedo(head, identity, a[eyes], bell_2)
        gloss[eyes] = 0.0
    teeth = part == TEETH
    if teeth.any():
        albedo[teeth] = _teeth_albedo(a[teeth, CANONICAL_X])
        gloss[teeth] = 0.15
    albedo[part == TONGUE] = (0.55, 0.25, 0.25)
    light_N1or3, highlight_N = _light(scene, surface, gloss, eyes)
    colour = albedo * light_N1or3 + highlight_N[:, None]
    if eyes.any():
        colour[eyes] = np.clip(colour[eyes] + _catch_light(head, scene, a[eyes])[:, None], 0, 1)
    return colour


def _skin(head: Head, identity: Identity, weights: Mapping[str, float], a: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Albedo [N,3] and gloss [N] of skin, lips, lashes and scalp."""
    folds_HW = np.tensordot(
        fold_strengths(weights).ravel(), head.folds_2KHW.reshape(6, TEXTURE_HEIGHT, TEXTURE_WIDTH), 1
    )
    texture = np.concatenate([identity.albedo_HW3, folds_HW[..., None]], 2)
    u = (a[:, CANONICAL_X] - X_MIN) * np.float32((TEXTURE_WIDTH - 1) / (X_MAX - X_MIN))
    v = (Y_MAX - a[:, CANONICAL_Y]) * np.float32((TEXTURE_HEIGHT - 1) / (Y_MAX - Y_MIN))
    texel = sample_texture(texture, u, v)
    albedo = texel[:, :3] * (1 - 0.30 * texel[:, 3:] * np.array([0.8, 1.0, 1.05], np.float32))
    lip = np.clip(a[:, LIPS] * 1.1, 0, 1)[:, None]
    albedo = albedo * (1 - 0.85 * lip) + identity.lip_3 * (0.85 * lip)
    albedo = albedo * (1 - a[:, MOUTH_INSIDE, None] * np.array([0.55, 0.85, 0.85], np.float32))
    albedo = albedo * (1 - 0.8 * a[:, LASH, None])

    weight = a[:, HAIR]
    row = np.abs(a[:, CANONICAL_Y] * 40).astype(np.int64) % 128
    column = np.abs(a[:, CANONICAL_X] * 90).astype(np.int64) % 128
    strand = identity.strand_noise_NN[row, column]
    edge = (weight > 0.02) & (weight < 0.98)
    hair = np.clip(weight * 1.15 + 0.12 * strand * edge, 0, 1)[:, None]
    albedo = albedo * (1 - hair) + np.clip(identity.hair_3 * (1 + 0.28 * strand[:, None]), 0, 1) * hair
    gloss = identity.gloss * (1 - hair[:, 0]) * (1 + 1.2 * a[:, LIPS])
    return albedo.astype(np.float32), gloss.astype(np.float32)


def _eye_offset(head: Head, a: FloatArray) -> tuple[FloatArray, FloatArray, npt.NDArray[np.int64]]:
    left = (a[:, CANONICAL_X] > 0).astype(np.int64)
    centre = head.eye_centre_23[left]
    return a[:, CANONICAL_X] - centre[:, 0], a[:, CANONICAL_Y] - centre[:, 1], left


def _eye_albedo(head: Head, identity: Identity, a: FloatArray, bell_2: FloatArray) -> FloatArray:
    dx, dy, left = _eye_offset(head, a)
    dy = dy - bell_2[left]
    radius = np.hypot(dx, dy)
    sclera = np.array([0.90, 0.87, 0.84], np.float32) * (1 - 0.35 * smoothstep(0.07, 0.16, np.abs(dx)))[:, None]
    iris = smoothstep(IRIS_RADIUS + 0.0035, IRIS_RADIUS - 0.0035, radius)[:, None]
    limbal_ring = smoothstep(0.041, 0.056, radius)[:, None]
    spokes = (1 + 0.25 * np.sin(np.arctan2(dy, dx) * 17))[:, None]
    albedo = sclera * (1 - iris) + identity.iris_3 * (1.15 - 0.75 * limbal_ring) * spokes * iris
    pupil = smoothstep(0.027, 0.021, radius)[:, None]
    return np.asarray(albedo * (1 - pupil) + 0.02 * pupil, np.float32)


def _teeth_albedo(x_N: FloatArray) -> FloatArray:
    gap = np.abs((np.abs(x_N) / 0.062) % 1 - 0.5)
    enamel = np.array([0.88, 0.84, 0.74], np.float32) * (1 - 0.30 * smoothstep(0.40, 0.5, gap))[:, None]
    return np.asarray(enamel * np.clip(1.05 - 2.2 * np.abs(x_N), 0.35, 1)[:, None], np.float32)


def _light(
    scene: Scene, surface: Surface, gloss_N: FloatArray, eyes_N: npt.NDArray[np.bool_]
) -> tuple[FloatArray, FloatArray]:
    """Irradiance [N,3] (ambient with occlusion, wrapped diffuse key light) and Blinn highlight [N]."""
    azimuth, elevation = scene.light_azimuth, scene.light_elevation
    direction = np.array(
        [np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation)], np.float32
    )
    normal, open_N = surface.normal_N3, surface.attribute_NC[:, OCCLUSION]
    diffuse = np.clip(((normal @ direction)[:, None] + _WRAP) / (1 + _WRAP), 0, 1)
    ambient = (0.50 + 0.14 * normal[:, 1] + 0.10 * normal[:, 2]) * (0.35 + 0.65 * open_N)
    key = np.float32(scene.key_light)
    light = ambient[:, None] * (1.15 - 0.45 * key) + key * diffuse * (0.55 + 0.45 * open_N)[:, None]
    lid_shadow = np.clip(0.75 - 0.9 * normal[eyes_N, 1:2], 0, 1)  # the upper part of the eyeball lies in shade
    light[eyes_N] = light[eyes_N] * 0.55 + 0.45 * (0.35 + 0.65 * lid_shadow)
    half = direction + np.array([0, 0, 1], np.float32)
    half /= np.linalg.norm(half)
    highlight = np.clip(normal @ half, 0, 1) ** 22 * gloss_N * key
    return light.astype(np.float32), highlight.astype(np.float32)


def _catch_light(head: Head, scene: Scene, a: FloatArray) -> FloatArray:
    dx, dy, _ = _eye_offset(head, a)
    shift = 0.022 if scene.light_azimuth >= 0 else -0.022
    return np.asarray(0.8 * np.exp(-((dx - shift) ** 2 + (dy - 0.024) ** 2) / (2 * 0.0095**2)), np.float32)
