"""One phantom person: shape, skin, hair, brows, lids and healthy asymmetry, all from one seed."""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from ccfexp.data.phantom.expression import Asymmetry
from ccfexp.data.phantom.head import TEXTURE_HEIGHT, TEXTURE_WIDTH, FloatArray, Head, IntArray, smoothstep
from ccfexp.errors import ConfigError

_IDENTITY_STREAM = 7

_SKIN_LIGHT, _SKIN_MID, _SKIN_DARK = np.array([[0.93, 0.74, 0.64], [0.78, 0.56, 0.43], [0.36, 0.22, 0.16]])
_HAIR = np.array(
    [
        [0.06, 0.05, 0.045],
        [0.14, 0.09, 0.06],
        [0.28, 0.17, 0.10],
        [0.45, 0.31, 0.17],
        [0.55, 0.52, 0.50],
        [0.70, 0.55, 0.33],
    ]
)
_IRIS = np.array([[0.20, 0.11, 0.06], [0.30, 0.19, 0.09], [0.22, 0.32, 0.42], [0.30, 0.36, 0.22]])
_BROW_POINTS = np.array([0.165, 0.25, 0.34, 0.43, 0.555])  # |x| of landmarks 17-26, inner to outer


@dataclass(frozen=True)
class Prior:
    """Who comes to a site: the distribution of skin tone and age.

    Attributes:
        skin_alpha, skin_beta: Beta parameters of the tone on the light (0) to dark (1) ramp.
        age_range: bounds of the relative age in [0, 1] (lines from .55, hair loss and grey hair from .5).
    """

    skin_alpha: float = 1.3
    skin_beta: float = 1.6
    age_range: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        if min(self.skin_alpha, self.skin_beta) <= 0:
            raise ConfigError(f"skin prior alpha={self.skin_alpha}, beta={self.skin_beta} must both be > 0")
        low, high = self.age_range
        if not 0 <= low <= high <= 1:
            raise ConfigError(f"age_range={self.age_range} must satisfy 0 <= low <= high <= 1")


@dataclass(frozen=True)
class Identity:
    """A person of the phantom population. Colours are linear RGB in [0, 1]."""

    seed: int
    base_V3: FloatArray
    albedo_HW3: FloatArray
    skin_3: FloatArray
    hair_3: FloatArray
    iris_3: FloatArray
    lip_3: FloatArray
    gloss: float
    long_hair: bool
    hair_weight_V: FloatArray
    hair_volume: float
    strand_noise_NN: FloatArray
    brow_vertex_10x3: IntArray
    brow_weight_10x31: FloatArray
    asymmetry: Asymmetry


@dataclass(frozen=True)
class _Looks:
    """The colours and flags drawn before anything is painted."""

    skin_3: FloatArray
    hair_3: FloatArray
    iris_3: FloatArray
    lip_3: FloatArray
    male: bool
    age: float
    bald: bool
    gloss: float
    long_hair: bool
    hair_volume: float
    hair_line: float


@dataclass(frozen=True)
class _Brow:
    """Brow curve y(|x|) in canonical coordinates: height offset, arch, |x| of the peak, half thickness, density."""

    height: float
    arch: float
    peak: float
    half_thickness: float
    density: float

    def curve(self, x_abs: FloatArray) -> FloatArray:
        t = np.clip((x_abs - 0.13) / 0.43, 0, 1)
        rising_end = (self.peak - 0.13) / 0.43 * 1.6
        u = np.where(t < rising_end, t / rising_end, 1 + (t - rising_end) * 1.2)
        y = 7.478 + self.height + self.arch * np.sin(np.clip(u, 0, 2) * np.pi / 2)
        return np.asarray(y - 0.075 * smoothstep(0.40, 0.58, x_abs))


def make_identity(head: Head, seed: int, prior: Prior | None = None) -> Identity:
    """Draw the person of ``seed`` (phantom specification, "Identity"); deterministic, about 25 ms."""
    prior = prior or Prior()
    rng = np.random.default_rng([_IDENTITY_STREAM, seed])
    modes_K = np.clip(rng.normal(0, 0.95, len(head.identity_KV3)), -2.2, 2.2).astype(np.float32)
    base_V3 = (head.mean_V3 + np.tensordot(modes_K, head.identity_KV3, 1)).astype(np.float32)
    looks = _draw_looks(rng, prior)
    brow = _Brow(
        height=rng.uniform(-0.012, 0.022),
        arch=rng.uniform(0.02, 0.075),
        peak=rng.uniform(0.30, 0.40),
        half_thickness=rng.uniform(0.026, 0.05),
        density=rng.uniform(0.65, 0.95),
    )
    albedo_HW3 = _paint(head, rng, looks, brow)
    brow_vertex, brow_weight = _brow_anchors(head, brow)
    strands = gaussian_filter(rng.normal(size=(128, 128)), (4, 0.6)).astype(np.float32)
    return Identity(
        seed=seed,
        base_V3=base_V3,
        albedo_HW3=albedo_HW3,
        skin_3=looks.skin_3,
        hair_3=looks.hair_3,
        iris_3=looks.iris_3,
        lip_3=looks.lip_3,
        gloss=looks.gloss,
        long_hair=looks.long_hair,
        hair_weight_V=_hair_weight(head, looks),
        hair_volume=looks.hair_volume,
        strand_noise_NN=strands / strands.std(),
        brow_vertex_10x3=brow_vertex,
        brow_weight_10x31=brow_weight,
        asymmetry=_draw_asymmetry(head, rng, base_V3),
    )


def _draw_looks(rng: np.random.Generator, prior: Prior) -> _Looks:
    tone = rng.beta(prior.skin_alpha, prior.skin_beta)
    if tone < 0.5:
        skin = _SKIN_LIGHT * (1 - 2 * tone) + _SKIN_MID * 2 * tone
    else:
        skin = _SKIN_MID * (2 - 2 * tone) + _SKIN_DARK * (2 * tone - 1)
    skin = skin * (1 + rng.normal(0, 0.012, 3))
    male = bool(rng.random() < 0.5)
    age = float(rng.uniform(*prior.age_range))
    odds = np.array([0.34, 0.28, 0.16, 0.08, 0.10 * (age > 0.5) + 0.001, 0.06 * (tone < 0.3) + 0.001])
    hair = _HAIR[rng.choice(len(_HAIR), p=odds / odds.sum())] * (1 + rng.normal(0, 0.06))
    iris = _IRIS[rng.choice(4, p=[0.55, 0.25, 0.12, 0.08]) if tone < 0.45 else rng.choice(2)]
    lip = skin * np.array([0.80, 0.52, 0.52]) + np.array([0.10, 0.0, 0.02]) * (0 if male else rng.uniform(0, 1.4))
    bald = male and age > 0.6 and bool(rng.random() < 0.35)
    return _Looks(
        skin_3=skin.astype(np.float32),
        hair_3=hair.astype(np.float32),
        iris_3=iris.astype(np.float32),
        lip_3=lip.astype(np.float32),
        male=male,
        age=age,
        bald=bald,
        gloss=float(rng.uniform(0.05, 0.22)),
        long_hair=not male and bool(rng.random() < 0.75),
        hair_volume=float(rng.uniform(0.03, 0.12)),
        hair_line=8.6 if bald else float(rng.uniform(7.93, 8.12)),
    )


def _unit_noise(rng: np.random.Generator, sigma: float | tuple[float, float]) -> FloatArray:
    field = gaussian_filter(rng.normal(size=(TEXTURE_HEIGHT, TEXTURE_WIDTH)).astype(np.float32), sigma)
    return np.asarray(field / (field.std() + 1e-6))


def _blob(x_HW: FloatArray, y_HW: FloatArray, centre: tuple[float, float], radius: tuple[float, float]) -> FloatArray:
    return np.asarray(np.exp(-(((x_HW - centre[0]) / radius[0]) ** 2 + ((y_HW - centre[1]) / radius[1]) ** 2)))


def _paint(head: Head, rng: np.random.Generator, looks: _Looks, brow: _Brow) -> FloatArray:
    """Albedo [H,W,3] in canonical coordinates: skin noise, redness, shade, beard, moles, age lines, brows."""
    x_HW, y_HW = head.texture_grid
    ax_HW = np.abs(x_HW)
    mottling = 0.020 * _unit_noise(rng, 7) + 0.014 * _unit_noise(rng, 2) + 0.012 * _unit_noise(rng, 0.7)
    albedo = looks.skin_3 * (1 + mottling)[..., None]

    red = _blob(ax_HW, y_HW, (0.36, 6.88), (0.2, 0.17)) + 0.8 * _blob(x_HW, y_HW, (0.0, 6.93), (0.1, 0.12))
    albedo = albedo * (1 - (red * rng.uniform(0.03, 0.13))[..., None] * np.array([-0.25, 0.75, 0.7]))
    under_eye = _blob(ax_HW, y_HW, (0.31, 7.19 - 0.02 * looks.age), (0.17, 0.05)) * rng.uniform(0.05, 0.22)
    albedo = albedo * (1 - under_eye[..., None] * np.array([0.8, 1.0, 0.9]))
    albedo = albedo * (1 - 0.12 * _blob(ax_HW, y_HW, (0.31, 7.38), (0.17, 0.05)))[..., None]
    if looks.male:
        albedo = _paint_beard(rng, looks, albedo, x_HW, y_HW)
    for _ in range(min(int(rng.poisson(3)), 6)):  # moles: a strong cue of identity
        centre = (rng.uniform(-0.5, 0.5), rng.choice([rng.uniform(6.3, 7.1), rng.uniform(7.6, 7.9)]))
        radius = np.sqrt(2.0) * rng.uniform(0.006, 0.012)
        albedo = albedo * (1 - rng.uniform(0.3, 0.7) * _blob(x_HW, y_HW, centre, (radius, radius)))[..., None]
    if looks.age > 0.55:
        nasolabial, forehead, crow = head.folds_2KHW.clip(0).sum(0)
        lines = (looks.age - 0.55) * 0.5 * (0.6 * nasolabial + 0.45 * forehead + 0.5 * crow)
        albedo = albedo * (1 - lines[..., None] * np.array([0.8, 1.0, 1.0]))
    return _paint_brows(rng, looks, brow, albedo, ax_HW, y_HW).astype(np.float32)


def _paint_beard(
    rng: np.random.Generator, looks: _Looks, albedo: FloatArray, x_HW: FloatArray, y_HW: FloatArray
) -> FloatArray:
    jaw = smoothstep(6.86, 6.70, y_HW) * smoothstep(6.05, 6.2, y_HW)
    jaw = jaw * smoothstep(0.72, 0.55, np.abs(x_HW) + 0.25 * (y_HW - 6.3))
    jaw = jaw * smoothstep(0.10, 0.30, np.hypot(x_HW * 0.9, (y_HW - 6.61) * 1.6))  # lips stay free
    moustache = 0.8 * _blob(x_HW, y_HW, (0.0, 6.765), (0.22, 0.035))
    strength = rng.choice([0.08, 0.25, 0.75], p=[0.5, 0.35, 0.15])
    mask = np.clip(np.maximum(jaw, moustache) * strength * (1 + 0.5 * _unit_noise(rng, 0.6)), 0, 0.95)[..., None]
    return np.asarray(albedo * (1 - mask) + (looks.hair_3 * 0.8 + looks.skin_3 * 0.10) * mask)


def _paint_brows(
    rng: np.random.Generator, looks: _Looks, brow: _Brow, albedo: FloatArray, ax_HW: FloatArray, y_HW: FloatArray
) -> FloatArray:
    along = np.clip((ax_HW - 0.13) / 0.42, 0, 1)
    taper = np.clip(0.80 + 0.35 * np.sin(along * np.pi * 0.9) - 0.65 * along**2, 0.2, 1.1)
    distance = np.abs(y_HW - brow.curve(ax_HW)) / (brow.half_thickness * taper)
    mask = smoothstep(1.35, 0.25, distance) * smoothstep(0.09, 0.22, ax_HW) * smoothstep(0.62, 0.48, ax_HW)
    hairs = np.clip(mask * (brow.density + 0.16 * _unit_noise(rng, (0.5, 1.0))), 0, 0.93)[..., None]
    return np.asarray(albedo * (1 - hairs) + (looks.hair_3 * 0.75 + 0.02) * hairs)


def _brow_anchors(head: Head, brow: _Brow) -> tuple[IntArray, FloatArray]:
    """Landmarks 17-26 on the painted brow: vertices [10,3] and weights [10,3,1], image left to image right."""
    heights = brow.curve(_BROW_POINTS) + 0.35 * brow.half_thickness
    right = [head.locate(-x, y) for x, y in zip(_BROW_POINTS[::-1], heights[::-1], strict=True)]
    left = [head.locate(x, y) for x, y in zip(_BROW_POINTS, heights, strict=True)]
    vertex = np.array([anchor[0] for anchor in right + left])
    weight = np.array([anchor[1] for anchor in right + left], np.float32)[..., None]
    return vertex, weight


def _hair_weight(head: Head, looks: _Looks) -> FloatArray:
    """How much each vertex [V] belongs to the scalp; hair is scalp pushed outwards."""
    c = head.canonical_V3
    ax = np.abs(c[:, 0])
    front = c[:, 1] - (looks.hair_line - 0.55 * np.clip(ax - 0.25, 0, 1) ** 1.3)
    side = np.maximum(np.minimum(c[:, 1] - 7.32, 0.78 - c[:, 2]) * 1.2, np.minimum(c[:, 1] - 7.0, 0.42 - c[:, 2]))
    if looks.bald:
        side = np.minimum(side, 7.7 - c[:, 1])
    weight = smoothstep(-0.02, 0.05, np.maximum(front, side))
    weight[head.part_V > 0] = 0
    weight[(ax > 0.70) & (c[:, 1] > 6.75) & (c[:, 1] < 7.45)] = 0  # ears
    return np.asarray(weight, np.float32)


def _draw_asymmetry(head: Head, rng: np.random.Generator, base_V3: FloatArray) -> Asymmetry:
    def clipped(sd: float) -> float:
        return float(np.clip(rng.normal(0, sd), -2 * sd, 2 * sd))

    gains = {family: clipped(0.07) for family in ("brow", "eyeS", "chee", "mout", "nose")}
    rest = {"browOuterUp": clipped(0.10), "mouthSmile": clipped(0.05), "eyeSquint": clipped(0.10)}
    closing = {"Right": _lid_closing(head, base_V3, "Right"), "Left": _lid_closing(head, base_V3, "Left")}
    return Asymmetry(gains, rest, closing)


def _lid_closing(head: Head, base_V3: FloatArray, side: str) -> float:
    """Weight of eyeBlink that exactly closes this identity's palpebral fissure: gap / closing speed."""
    upper, lower = ((37, 38), (41, 40)) if side == "Right" else ((43, 44), (47, 46))
    vertex = head.landmark_vertex_68
    unit_V3 = head.unit_UV3[head.unit_index["eyeBlink" + side]]
    gap = np.mean([base_V3[vertex[a], 1] - base_V3[vertex[b], 1] for a, b in zip(upper, lower, strict=True)])
    speed = np.mean([unit_V3[vertex[b], 1] - unit_V3[vertex[a], 1] for a, b in zip(upper, lower, strict=True)])
    return float(np.clip(gap / max(speed, 1e-3), 0.5, 1.6))
