"""Many phantom people rendered once and kept in memory: the training material of the shipped weights."""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ccfexp._io import atomic_write_bytes, canonical_json
from ccfexp.data.phantom.camera import Scene, SceneStyle
from ccfexp.data.phantom.expression import EVEN_EFFORT, MOVEMENTS, SIDES, Effort, Palsy, Weights
from ccfexp.data.phantom.render import Phantom
from ccfexp.errors import ConfigError
from ccfexp.training import to_unit_range

_STREAM = 23
INTENSITIES = (0.4, 0.7, 1.0, 1.2)
# Voluntary share of (right, left): even, or more on one side than on the other.
EFFORTS: tuple[Effort, ...] = (
    EVEN_EFFORT, (0.65, 1.0), (0.3, 1.0), (0.0, 1.0), (1.0, 0.65), (1.0, 0.3), (1.0, 0.0),
)  # fmt: skip
FIRST_GRIMACE = len(INTENSITIES) * len(EFFORTS)
MOVEMENT_NAMES = tuple(MOVEMENTS)
# One-sided units whose post-palsy weights describe an expression completely enough to be regressed.
_UNITS = (
    "browInnerUp", "browOuterUp", "browDown", "eyeBlink", "eyeWide", "eyeSquint", "cheekSquint", "cheekPuff",
    "noseSneer", "mouthSmile", "mouthFrown", "mouthUpperUp", "mouthLowerDown", "mouthStretch", "mouthPucker",
)  # fmt: skip
# What healthy people can move at will beyond the named movements, on either side; the mouth goes to either side whole.
_GRIMACE_UNITS = (
    "browInnerUp", "browOuterUp", "browDown", "eyeBlink", "eyeWide", "eyeSquint", "cheekSquint", "noseSneer",
    "mouthSmile", "mouthFrown", "mouthUpperUp", "mouthLowerDown", "mouthStretch",
)  # fmt: skip
EXPRESSION_UNITS = tuple(f"{unit}{side}" for unit in _UNITS for side in ("Right", "Left"))
# Every light, room and camera that the networks are pretrained on. Hospitals may lie outside it, as real ones do: an
# adapter learns their pictures too, and what the evaluators still read there is measured beside every result.
WIDE_STYLE = SceneStyle(
    light_azimuth=(-0.9, 0.9), light_elevation=(0.05, 0.85), key_light=(0.4, 0.8), noise=(0.002, 0.016),
    blur=(0.2, 0.7), white_balance=0.05,
)  # fmt: skip


@dataclass(frozen=True)
class Expression:
    """What a person of a population does: a movement, and for a grimace further units; ``level`` names all but it."""

    movement: int
    intensity: float
    effort: Effort
    grimace: Weights
    level: int


@cache
def grimaces() -> tuple[Expression, ...]:
    """A catalogue, so that different people make the very same one and the crossed pairs of the base are exact."""
    rng = np.random.default_rng(_STREAM)
    catalogue = []
    for number in range(400):
        units = rng.choice(_GRIMACE_UNITS, int(rng.integers(2, 5)), replace=False)
        grimace: Weights = {}
        for unit in units:
            sides = (("Right",), ("Left",), ("Right", "Left"))[int(rng.integers(3))]
            strength = float(rng.uniform(0.3, 1.0))
            grimace |= {f"{unit}{side}": strength for side in sides}
        if rng.random() < 0.4:
            grimace["mouthRight" if rng.random() < 0.5 else "mouthLeft"] = float(rng.uniform(0.2, 0.6))
        movement = int(rng.integers(len(MOVEMENT_NAMES))) if rng.random() < 0.6 else 0
        effort = EFFORTS[int(rng.integers(len(EFFORTS)))]
        catalogue.append(Expression(movement, 0.6, effort, grimace, FIRST_GRIMACE + number))
    return tuple(catalogue)


@dataclass(frozen=True)
class PopulationSpec:
    """Which people are rendered.

    Attributes:
        first_identity: seed of the first person; people are numbered from there.
        identities: number of people.
        sessions: photograph sessions (light, pose, background) per person.
        movements: movements per session beside rest, drawn without replacement.
        palsied: share of sessions in which the person has a palsy of grade II to VI; 0 = healthy people only.
        size: image side in pixels.
        lateral: share of movements made more on one side than on the other, as healthy people wink and smirk.
        grimaces: share of movements replaced by one of ``grimaces()``; only a healthy population grimaces.
    """

    first_identity: int
    identities: int
    sessions: int
    movements: int
    palsied: float
    size: int = 64
    lateral: float = 0.0
    grimaces: float = 0.0

    def __post_init__(self) -> None:
        if not 1 <= self.movements <= len(MOVEMENTS) - 1:
            raise ConfigError(f"movements={self.movements} must lie in [1, {len(MOVEMENTS) - 1}]")
        if not 0 <= self.palsied <= 1:
            raise ConfigError(f"palsied={self.palsied} must lie in [0, 1]")
        if not 0 <= self.grimaces <= 1 or (self.grimaces and self.palsied):
            raise ConfigError(f"grimaces={self.grimaces} must lie in [0, 1], and be 0 where palsied={self.palsied} > 0")

    @property
    def images(self) -> int:
        """Number of images of the population."""
        return self.identities * self.sessions * (1 + self.movements)


@dataclass(frozen=True)
class Population:
    """Rendered people. N images; the rest image of a session comes first in it.

    Attributes:
        image_N3HW: uint8.
        landmark_N682: fractions of the image side.
        person_N, session_N: running numbers; rest_N: index of the session's rest image.
        movement_N: index into MOVEMENT_NAMES; level_N: index into INTENSITIES plus their number times that of EFFORTS,
            or, from ``FIRST_GRIMACE``, a grimace. Images alike in both show the same expression.
        side_N: index into SIDES; severity_N3: forehead, eye, mouth; unit_NU: weights of EXPRESSION_UNITS.
    """

    image_N3HW: Tensor
    landmark_N682: Tensor
    person_N: Tensor
    session_N: Tensor
    rest_N: Tensor
    movement_N: Tensor
    level_N: Tensor
    side_N: Tensor
    severity_N3: Tensor
    unit_NU: Tensor

    def batch(self, index_B: Tensor) -> Tensor:
        """Images x_B3HW in [-1, 1]."""
        return to_unit_range(self.image_N3HW[index_B])


Arrays = dict[str, npt.NDArray[np.generic]]


@cache
def _phantom() -> Phantom:
    return Phantom()


def _render_person(spec: PopulationSpec, person: int) -> Arrays:
    """All images of one person."""
    identity_seed = spec.first_identity + person
    phantom = _phantom()
    identity = phantom.identity(identity_seed)
    rng = np.random.default_rng([_STREAM, identity_seed])
    rows: list[dict[str, npt.ArrayLike]] = []
    for session in range(spec.sessions):
        scene = Scene.draw(identity_seed, session, WIDE_STYLE)
        palsy = _draw_palsy(rng, spec.palsied)
        chosen = rng.choice(np.arange(1, len(MOVEMENT_NAMES)), spec.movements, replace=False)
        for movement in (0, *chosen):
            shown = _draw_expression(rng, int(movement), spec)
            name, effort, grimace = MOVEMENT_NAMES[shown.movement], shown.effort, shown.grimace
            photo = phantom.render(
                identity, name, shown.intensity, palsy, session, spec.size, scene=scene, effort=effort, grimace=grimace
            )
            weights = phantom.weights(identity, name, shown.intensity, palsy, effort, grimace)
            rows.append(
                {
                    "image": photo.image_HW3.transpose(2, 0, 1),
                    "landmark": photo.landmark_682 / np.float32(spec.size),
                    "session": np.int64(session),
                    "movement": np.int64(shown.movement),
                    "level": np.int64(shown.level),
                    "side": np.int64(SIDES.index(palsy.side)),
                    "severity": np.array(palsy.severity, np.float32),
                    "unit": np.array([weights.get(unit, 0.0) for unit in EXPRESSION_UNITS], np.float32),
                }
            )
    return {key: np.stack([row[key] for row in rows]) for key in rows[0]}


def _draw_expression(rng: np.random.Generator, movement: int, spec: PopulationSpec) -> Expression:
    """The movement at some intensity and effort, or a grimace in its place (at rest the face stays at rest)."""
    if movement and spec.grimaces and rng.random() < spec.grimaces:
        return grimaces()[int(rng.integers(len(grimaces())))]
    intensity = int(rng.choice(len(INTENSITIES), p=(0.15, 0.25, 0.45, 0.15)))
    effort = _draw_effort(rng, spec.lateral if movement else 0.0)
    level = intensity + len(INTENSITIES) * effort
    return Expression(movement, INTENSITIES[intensity], EFFORTS[effort], {}, level)


def _draw_effort(rng: np.random.Generator, lateral: float) -> int:
    """Index into EFFORTS; nothing is drawn where no movement is lateral."""
    if lateral == 0.0 or rng.random() >= lateral:
        return 0
    return int(rng.integers(1, len(EFFORTS)))


def _draw_palsy(rng: np.random.Generator, palsied: float) -> Palsy:
    if rng.random() >= palsied:
        return Palsy()
    grade = int(rng.integers(2, 7))
    synkinesis = float(rng.random() < 0.25) * float(rng.uniform(0.2, 0.9))
    return Palsy.of_grade(grade, "left" if rng.random() < 0.5 else "right", rng, synkinesis)


def render_population(spec: PopulationSpec, workers: int = 2) -> Population:
    """Render everybody (about 250 images per second and core at 64 pixels)."""
    people = range(spec.identities)
    if workers > 1:
        with ProcessPoolExecutor(workers) as pool:
            parts = list(pool.map(_render_person, [spec] * spec.identities, people, chunksize=16))
    else:
        parts = [_render_person(spec, person) for person in people]
    return _assemble(spec, parts)


def _assemble(spec: PopulationSpec, parts: list[Arrays]) -> Population:
    def joined(key: str) -> Tensor:
        return torch.from_numpy(np.concatenate([part[key] for part in parts]))

    per_session = 1 + spec.movements
    index = torch.arange(spec.images)
    return Population(
        image_N3HW=joined("image"),
        landmark_N682=joined("landmark"),
        person_N=index // (per_session * spec.sessions),
        session_N=index // per_session,
        rest_N=index // per_session * per_session,
        movement_N=joined("movement"),
        level_N=joined("level"),
        side_N=joined("side"),
        severity_N3=joined("severity"),
        unit_NU=joined("unit"),
    )


def cached_population(spec: PopulationSpec, folder: Path, workers: int = 2) -> Population:
    """The population from ``folder``, rendered and stored there on first use."""
    from safetensors.torch import load_file, save

    key = hashlib.sha256(canonical_json(vars(spec)).encode()).hexdigest()[:16]
    path = folder / f"population-{key}.safetensors"
    if not path.is_file():
        atomic_write_bytes(
            path, save({name: value.contiguous() for name, value in vars(render_population(spec, workers)).items()})
        )
    return Population(**load_file(path))


def batches(size: int, count: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Endless shuffled batches of indices 0..count-1."""
    while True:
        order = torch.randperm(count, generator=generator)
        for start in range(0, count - size + 1, size):
            yield order[start : start + size]
