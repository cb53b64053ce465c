"""From a movement and a palsy to the weights of the expression units.

The palsy model acts where the facial nerve acts: voluntary activation is lost by region (forehead, eye, mouth),
resting tone falls, the mouth is drawn to the healthy side. ``eyeWide`` (levator, cranial nerve III) and ``jawOpen``
(cranial nerve V) are not driven by the facial nerve and stay free.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np

from ccfexp.errors import ConfigError, did_you_mean

Side = Literal["none", "left", "right"]
SIDES: Final[tuple[Side, ...]] = ("none", "left", "right")
Weights = dict[str, float]
Effort = tuple[float, float]
EVEN_EFFORT: Final[Effort] = (1.0, 1.0)

MOVEMENTS: Final[Mapping[str, Mapping[str, float]]] = {
    "rest": {},
    "brow_raise": {"browInnerUp": 1.5, "browOuterUp": 1.5, "eyeWide": 0.35},
    "gentle_eye_closure": {"eyeBlink": 1.0},
    "tight_eye_closure": {"eyeBlink": 1.0, "eyeSquint": 0.7, "cheekSquint": 0.7, "browDown": 0.7, "noseSneer": 0.25},
    "smile_closed": {"mouthSmile": 0.55, "cheekSquint": 0.25},
    "smile_teeth": {
        "mouthSmile": 0.72, "mouthUpperUp": 0.75, "mouthLowerDown": 0.55, "mouthStretch": 0.25, "cheekSquint": 0.55,
        "jawOpen": 0.06,
    },
    "snarl": {"noseSneer": 1.0, "mouthUpperUp": 0.7, "browDown": 0.25, "cheekSquint": 0.3},
    "lip_pucker": {"mouthPucker": 1.0},
    "lower_teeth": {"mouthLowerDown": 1.2, "mouthStretch": 0.9, "mouthUpperUp": 0.25, "jawOpen": 0.05},
    "cheek_puff": {"cheekPuff": 1.0, "mouthPress": 0.3},
    "frown": {"browDown": 1.0, "mouthFrown": 0.6},
}  # fmt: skip

# House-Brackmann grade -> ((forehead, eye, mouth) severity, loss of resting tone).
HOUSE_BRACKMANN: Final[Mapping[int, tuple[tuple[float, float, float], float]]] = {
    1: ((0.0, 0.0, 0.0), 0.0),
    2: ((0.2, 0.08, 0.2), 0.0),
    3: ((0.6, 0.2, 0.45), 0.12),
    4: ((1.0, 0.5, 0.68), 0.3),
    5: ((1.0, 0.8, 0.9), 0.7),
    6: ((1.0, 1.0, 1.0), 1.0),
}
GRADE_JITTER: Final = 0.08

FOREHEAD, EYE_REGION, MOUTH = 0, 1, 2
_REGION_OF_PREFIX: Final = {
    "brow": FOREHEAD, "eyeB": EYE_REGION, "eyeS": EYE_REGION, "chee": MOUTH, "mout": MOUTH, "nose": MOUTH,
}  # fmt: skip
_FREE_UNITS: Final = frozenset({"eyeWide", "jawOpen"})
_SIDES: Final = ("Right", "Left")


@dataclass(frozen=True)
class Palsy:
    """A unilateral facial palsy.

    Attributes:
        side: the patient's affected side, or "none".
        grade: House-Brackmann grade, 1 to 6.
        severity: loss of voluntary movement of (forehead, eye, mouth), each in [0, 1].
        tone_loss: loss of resting tone in [0, 1].
        synkinesis: involuntary co-movement in [0, 1].

    Raises:
        ConfigError: a value is outside its range.
    """

    side: Side = "none"
    grade: int = 1
    severity: tuple[float, float, float] = (0.0, 0.0, 0.0)
    tone_loss: float = 0.0
    synkinesis: float = 0.0

    def __post_init__(self) -> None:
        if self.side not in ("none", "left", "right"):
            raise ConfigError(f"palsy side={self.side!r} must be one of none, left, right (the patient's)")
        if self.grade not in HOUSE_BRACKMANN:
            raise ConfigError(f"House-Brackmann grade={self.grade} must be 1 to 6")
        for name, value in (("tone_loss", self.tone_loss), ("synkinesis", self.synkinesis)):
            if not 0.0 <= value <= 1.0:
                raise ConfigError(f"palsy {name}={value} must lie in [0, 1]")
        severity = list(self.severity)  # a caller without type checks may give another number of values
        if len(severity) != 3 or not all(0.0 <= value <= 1.0 for value in severity):
            raise ConfigError(f"palsy severity={self.severity} must be three values in [0, 1]: forehead, eye, mouth")

    @classmethod
    def of_grade(
        cls, grade: int, side: Side, rng: np.random.Generator | None = None, synkinesis: float = 0.0
    ) -> "Palsy":
        """The typical palsy of a grade; with ``rng`` each severity is jittered by up to ``GRADE_JITTER``."""
        if grade not in HOUSE_BRACKMANN:
            raise ConfigError(f"House-Brackmann grade={grade} must be 1 to 6")
        if grade == 1 or side == "none":
            return cls()
        severity, tone = HOUSE_BRACKMANN[grade]
        jitter = (0.0, 0.0, 0.0) if rng is None else rng.uniform(-GRADE_JITTER, GRADE_JITTER, 3)
        forehead, eye, mouth = (
            float(np.clip(value + delta, 0, 1)) for value, delta in zip(severity, jitter, strict=True)
        )
        return cls(side, grade, (forehead, eye, mouth), tone, synkinesis)

    @property
    def mean_severity(self) -> float:
        """Mean of the three regional severities: the scalar that severity correlations are computed on."""
        return sum(self.severity) / 3

    def mirrored(self) -> "Palsy":
        """The same palsy on the other side."""
        other: dict[Side, Side] = {"left": "right", "right": "left", "none": "none"}
        return replace(self, side=other[self.side])


@dataclass(frozen=True)
class Asymmetry:
    """Healthy asymmetry of one identity: gains per unit family, offsets at rest, lid weights that exactly close.

    Without it a healthy face would be perfectly symmetric and any pixel would give a palsy away.
    """

    gains: Mapping[str, float]
    rest: Mapping[str, float]
    lid_closing: Mapping[str, float]


def movement_activation(movement: str, intensity: float) -> Weights:
    """Voluntary activation of each muscle unit (both sides alike) for a movement.

    Raises:
        ConfigError: unknown movement or intensity outside [0, 1.5].
    """
    if movement not in MOVEMENTS:
        raise ConfigError(
            f"unknown movement={movement!r}; known: {', '.join(MOVEMENTS)}.{did_you_mean(movement, MOVEMENTS)}"
        )
    if not 0.0 <= intensity <= 1.5:
        raise ConfigError(f"movement intensity={intensity} must lie in [0, 1.5]")
    return {unit: weight * intensity for unit, weight in MOVEMENTS[movement].items()}


def unit_weights(
    activation: Mapping[str, float],
    palsy: Palsy,
    units: Mapping[str, int],
    asymmetry: Asymmetry | None = None,
    effort: Effort = EVEN_EFFORT,
    grimace: Mapping[str, float] | None = None,
) -> Weights:
    """Weights of the one-sided expression units for an activation under a palsy (phantom specification, "Palsy").

    Args:
        activation: voluntary activation per muscle unit, as ``movement_activation`` gives.
        palsy: which side is affected and how.
        units: names of the units that the head has (some have no side).
        asymmetry: the identity's healthy asymmetry, or None for a symmetric face.
        effort: voluntary share of each side (right, left): a wink, a smirk, one raised brow.
        grimace: further units by their one-sided names that a healthy person moves at will. A palsied person's are
            not modelled: give one of the two.

    Raises:
        ConfigError: a grimace of a palsied person, or of a unit that the head does not have.
    """
    weights = _driven(activation, palsy, units, effort)
    if grimace:
        _add_grimace(weights, grimace, palsy, units)
    if palsy.side != "none":
        _add_palsy_at_rest(weights, activation, palsy)
    if asymmetry is not None:
        _add_healthy_asymmetry(weights, asymmetry)
    return weights


def _driven(activation: Mapping[str, float], palsy: Palsy, units: Mapping[str, int], effort: Effort) -> Weights:
    affected = palsy.side.capitalize()
    weights: Weights = {}
    for unit, value in activation.items():
        for side, share in zip(_SIDES, effort, strict=True):
            scale = share
            if palsy.side != "none" and unit not in _FREE_UNITS:
                loss = palsy.severity[_REGION_OF_PREFIX[unit[:4]]]
                scale *= 1 - loss if side == affected else 1 + 0.08 * loss  # the healthy side overacts a little
            name = unit + side
            if name in units:
                weights[name] = weights.get(name, 0.0) + value * scale
            else:  # a unit of the midline takes half from each side
                weights[unit] = weights.get(unit, 0.0) + 0.5 * value * scale
    return weights


def _add_grimace(weights: Weights, grimace: Mapping[str, float], palsy: Palsy, units: Mapping[str, int]) -> None:
    if palsy.side != "none":
        raise ConfigError(f"grimace of a person with palsy side={palsy.side!r}: only healthy people grimace here")
    for unit, value in grimace.items():
        if unit not in units:
            raise ConfigError(f"unknown grimace unit={unit!r}.{did_you_mean(unit, units)}")
        weights[unit] = weights.get(unit, 0.0) + value


def _add_palsy_at_rest(weights: Weights, activation: Mapping[str, float], palsy: Palsy) -> None:
    affected = palsy.side.capitalize()
    healthy = "Left" if affected == "Right" else "Right"
    forehead, eye, mouth = (palsy.tone_loss * value for value in palsy.severity)
    blink = activation.get("eyeBlink", 0.0)
    mouth_activation = max((value for unit, value in activation.items() if unit[:4] in ("mout", "nose")), default=0.0)

    def add(unit: str, value: float) -> None:
        weights[unit] = weights.get(unit, 0.0) + value

    add("browOuterUp" + affected, -1.7 * forehead)
    add("browInnerUp" + affected, -1.1 * forehead)
    add("browDown" + affected, 0.10 * forehead)
    # A wide palpebral fissure at rest; it is cancelled while the lid closes.
    add("eyeWide" + affected, 0.45 * eye * (1 - 0.9 * min(1.0, blink * (1 - palsy.severity[EYE_REGION]))))
    add("eyeSquint" + affected, -0.35 * eye)
    add("mouthFrown" + affected, 0.62 * mouth)
    add("mouthSmile" + affected, -0.12 * mouth)
    add("cheekSquint" + affected, -0.2 * mouth)
    add("noseSneer" + affected, -0.15 * mouth)
    add("mouth" + healthy, (0.10 * palsy.tone_loss + 0.24 * mouth_activation) * palsy.severity[MOUTH])
    if palsy.synkinesis > 0:
        smile = activation.get("mouthSmile", 0.8 * activation.get("mouthPucker", 0.0))
        add("eyeBlink" + affected, 0.45 * palsy.synkinesis * smile)
        add("mouthSmile" + affected, 0.3 * palsy.synkinesis * blink)


def _add_healthy_asymmetry(weights: Weights, asymmetry: Asymmetry) -> None:
    for name in weights:
        gain = asymmetry.gains.get(name[:4], 0.0)
        if name.endswith("Left"):
            weights[name] *= 1 + gain
        elif name.endswith("Right"):
            weights[name] *= 1 - gain
    for unit, offset in asymmetry.rest.items():
        weights[unit + "Left"] = weights.get(unit + "Left", 0.0) + offset
        weights[unit + "Right"] = weights.get(unit + "Right", 0.0) - offset
    for side, closing in asymmetry.lid_closing.items():
        if "eyeBlink" + side in weights:
            weights["eyeBlink" + side] *= closing


def fold_strengths(weights: Mapping[str, float]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Strength [2 sides, 3] of nasolabial fold, forehead lines and crow's feet from post-palsy weights.

    Flattened folds and one-sided forehead lines follow for free, because the affected side's weights are lost.
    """

    def of(unit: str) -> float:
        return weights.get(unit, 0.0)

    rows = []
    for side in _SIDES:
        nasolabial = (
            0.16 + 0.55 * of("mouthSmile" + side) + 0.5 * of("noseSneer" + side) + 0.35 * of("cheekSquint" + side)
        )
        nasolabial -= 0.25 * of("mouthFrown" + side)
        forehead = 0.62 * (0.4 * of("browOuterUp" + side) + 0.35 * of("browInnerUp" + side))
        crow = 0.8 * of("cheekSquint" + side) + 0.3 * of("eyeSquint" + side)
        rows.append([nasolabial, forehead, crow])
    return np.clip(np.array(rows, np.float32), 0, 1)
