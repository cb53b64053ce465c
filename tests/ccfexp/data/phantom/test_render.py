"""The phantom's photographs: exact landmarks, pairs that differ in the expression alone, a palsy on one side."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ccfexp.data.phantom.camera import Camera, Crop, Scene, SceneStyle
from ccfexp.data.phantom.expression import MOVEMENTS, Asymmetry, Palsy, movement_activation, unit_weights
from ccfexp.data.phantom.head import EYE, Head
from ccfexp.data.phantom.identity import Identity, Prior
from ccfexp.data.phantom.render import Phantom, Photograph, _bell
from ccfexp.errors import ConfigError

COMPLETE = Palsy.of_grade(6, "left")
LEFT_EYE, RIGHT_EYE = slice(42, 48), slice(36, 42)


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    """The shipped head."""
    return Phantom()


@pytest.fixture(scope="module")
def person(phantom: Phantom) -> Identity:
    """Somebody with short hair, so that the corners of the picture show the wall."""
    return next(p for p in (phantom.identity(seed) for seed in range(20)) if not p.long_hair)


def head_points(phantom: Phantom, person: Identity, movement: str, palsy: Palsy) -> list[list[float]]:
    """The 68 deformed landmarks in mesh units, from the arrays of the asset, in plain floats."""
    head, weights = phantom.head, phantom.weights(person, movement, 1.0, palsy)
    anchors = [(v, w[:, 0]) for v, w in zip(head.anchor_vertex_L3, head.anchor_weight_L31, strict=True)]
    anchors[17:27] = [(v, w[:, 0]) for v, w in zip(person.brow_vertex_10x3, person.brow_weight_10x31, strict=True)]
    points = []
    for vertices, shares in anchors:
        point = [0.0, 0.0, 0.0]
        for vertex, share in zip(vertices, shares, strict=True):
            for axis in range(3):
                moved = float(person.base_V3[vertex, axis])
                for unit, weight in weights.items():
                    moved += weight * float(head.unit_UV3[head.unit_index[unit], vertex, axis])
                point[axis] += float(share) * moved
        points.append(point)
    return points


def project(points: list[list[float]], scene: Scene, size: int, frame: tuple[float, float, float]) -> list[list[float]]:
    """Turn by yaw, then pitch, then roll; weak perspective k = f / (f - z); similarity to the 112-pixel frame."""
    seen = []
    for point in points:
        x, y, z = point[0], point[1] - 7.1, point[2] - 0.9
        x, z = math.cos(scene.yaw) * x + math.sin(scene.yaw) * z, math.cos(scene.yaw) * z - math.sin(scene.yaw) * x
        y, z = (
            math.cos(scene.pitch) * y - math.sin(scene.pitch) * z,
            math.sin(scene.pitch) * y + math.cos(scene.pitch) * z,
        )
        x, y = math.cos(scene.roll) * x - math.sin(scene.roll) * y, math.sin(scene.roll) * x + math.cos(scene.roll) * y
        k = 9.0 / (9.0 - z)
        seen.append([k * x, -k * y])

    def mean(indices: range | tuple[int, ...]) -> tuple[float, float]:
        return tuple(sum(seen[i][axis] for i in indices) / len(indices) for axis in (0, 1))  # type: ignore[return-value]

    right, left, mouth = mean(range(36, 42)), mean(range(42, 48)), mean((48, 54))
    eyes = ((right[0] + left[0]) / 2, (right[1] + left[1]) / 2)
    interocular, eyes_y, mouth_y = frame
    scale = interocular / math.dist(left, right) / 2 + (mouth_y - eyes_y) / math.dist(mouth, eyes) / 2
    scale *= size / 112 * scene.zoom
    shift = [float(value) * size for value in scene.shift_2]
    return [
        [(x - eyes[0]) * scale + 56 * size / 112 + shift[0], (y - eyes[1]) * scale + eyes_y * size / 112 + shift[1]]
        for x, y in seen
    ]


@pytest.mark.parametrize(
    ("size", "crop", "frame"),
    [(112, "aligned", (35.24, 51.6, 92.3)), (64, "aligned", (35.24, 51.6, 92.3)), (96, "loose", (20.0, 50.0, 73.0))],
)
@pytest.mark.parametrize(("movement", "palsy"), [("rest", Palsy()), ("smile_teeth", COMPLETE)])
def test_landmarks_against_an_independent_projection(
    phantom: Phantom,
    person: Identity,
    size: int,
    crop: Crop,
    frame: tuple[float, float, float],
    movement: str,
    palsy: Palsy,
) -> None:
    """Exact to float precision, in any size and crop, brows and palsy included."""
    photo = phantom.render(person, movement, palsy=palsy, seed=3, size=size, crop=crop)

    expected = project(head_points(phantom, person, movement, palsy), Scene.draw(person.seed, 3), size, frame)

    assert photo.landmark_682.dtype == np.float32
    np.testing.assert_allclose(photo.landmark_682, expected, rtol=0, atol=5e-4)


def test_a_pair_shares_all_but_the_expression(phantom: Phantom, person: Identity) -> None:
    """The same wall, light, gain and noise, pixel by pixel; the same scalp; another mouth."""
    rest = phantom.render(person, "rest", seed=5, size=96)
    smile = phantom.render(person, "smile_teeth", palsy=COMPLETE, seed=5, size=96)
    other_day = phantom.render(person, "rest", seed=6, size=96)

    def difference(a: Photograph, b: Photograph, rows: slice, columns: slice = slice(None)) -> float:
        return float(np.abs(a.image_HW3[rows, columns].astype(int) - b.image_HW3[rows, columns]).mean())

    corners = [(slice(0, 6), slice(0, 6)), (slice(0, 6), slice(90, 96))]
    assert [difference(rest, smile, *corner) for corner in corners] == [0.0, 0.0]
    assert difference(rest, smile, slice(65, 90), slice(20, 76)) > 6
    assert min(difference(rest, other_day, *corner) for corner in corners) > 1
    scalp_V = person.hair_weight_V > 0.5
    still, moved = (
        phantom.mesh(person, phantom.weights(person, photo.labels.movement, 1.0, photo.labels.palsy))
        for photo in (rest, smile)
    )
    assert scalp_V.sum() > 100
    np.testing.assert_allclose(moved[scalp_V], still[scalp_V], rtol=0, atol=0.01)  # 1 mm


def test_alignment_to_the_moved_face_hardly_moves_the_head(phantom: Phantom, person: Identity) -> None:
    """The frame follows the deformed landmarks, as the alignment of a photograph does: within a tenth of the size."""
    rest = phantom.render(person, "rest", seed=5)
    for movement in MOVEMENTS:
        moved = phantom.render(person, movement, palsy=COMPLETE, seed=5).landmark_682
        width = float(
            np.linalg.norm(moved[0] - moved[16]) / np.linalg.norm(rest.landmark_682[0] - rest.landmark_682[16])
        )
        assert width == pytest.approx(1, abs=0.1)
        assert np.linalg.norm(moved[27] - rest.landmark_682[27]) < 2.5


def test_pose_does_not_depend_on_the_expression(phantom: Phantom, person: Identity) -> None:
    """At rest a movement of any intensity is the same face; without tone loss also the palsied one."""
    rest = phantom.render(person, "rest", seed=5, size=64)
    flaccid = replace(COMPLETE, tone_loss=0.0)

    half = phantom.render(person, "rest", 0.4, seed=5, size=64)
    palsied = phantom.render(person, "rest", palsy=replace(flaccid, severity=(1.0, 1.0, 0.0)), seed=5, size=64)

    for photo in (half, palsied):
        assert np.array_equal(photo.landmark_682, rest.landmark_682)
        assert np.array_equal(photo.image_HW3, rest.image_HW3)
    assert Scene.draw(1, 5) != Scene.draw(1, 6)
    assert Scene.draw(1, 5).yaw != Scene.draw(2, 5).yaw


def test_the_same_call_gives_the_same_photograph(phantom: Phantom) -> None:
    """From another phantom object, another identity object, and with the global generator moved."""
    first = phantom.render(phantom.identity(4), "snarl", palsy=COMPLETE, seed=2, size=48)
    np.random.seed(1)  # noqa: NPY002 - the global generator is what must not matter

    fresh = Phantom()
    again = fresh.render(fresh.identity(4), "snarl", palsy=COMPLETE, seed=2, size=48)

    assert np.array_equal(again.image_HW3, first.image_HW3)
    assert np.array_equal(again.landmark_682, first.landmark_682)
    assert again.labels == first.labels
    assert (first.labels.identity, first.labels.seed, first.labels.movement) == (4, 2, "snarl")


def _darkness_height(photo: Photograph, eye: slice) -> float:
    """Height (pixels, up) of the dark of one eye over the middle between its corners."""
    points = photo.landmark_682[eye]
    left, right = points[:, 0].min() + 2, points[:, 0].max() - 2
    middle = (points[0, 1] + points[3, 1]) / 2
    rows, columns = slice(int(middle) - 14, int(middle) + 12), slice(int(left), int(right))
    dark = np.clip(110 - photo.image_HW3[rows, columns].mean(2), 0, None)
    height = middle - np.arange(rows.start, rows.stop)[:, None] - 0.5
    return float((dark * height).sum() / dark.sum())


def test_bells_phenomenon(phantom: Phantom, person: Identity) -> None:
    """The eye that cannot close rolls up with the attempt: on the affected side only, and not at rest."""
    scene = replace(Scene.draw(person.seed, 0), yaw=0.0, pitch=0.0, roll=0.0, noise=0.0, blur=0.0)
    light_skin = replace(person, lip_3=person.lip_3)

    def eye(movement: str, palsy: Palsy) -> float:
        return _darkness_height(phantom.render(light_skin, movement, palsy=palsy, size=224, scene=scene), LEFT_EYE)

    attempt, rest = eye("gentle_eye_closure", COMPLETE), eye("rest", COMPLETE)
    mild_attempt = eye("gentle_eye_closure", Palsy.of_grade(6, "right"))
    assert attempt > rest + 2
    assert mild_attempt < rest


def test_bell_grows_with_the_attempt_on_the_affected_side() -> None:
    """5.5 mm at most; nothing where the eye can close."""
    assert _bell(COMPLETE, "gentle_eye_closure", 1.0) == pytest.approx((0, 0.055))
    assert _bell(COMPLETE.mirrored(), "tight_eye_closure", 1.0) == pytest.approx((0.055, 0))
    assert 0 < _bell(Palsy.of_grade(4, "left"), "gentle_eye_closure", 1.0)[1] < 0.055
    for palsy, movement in (
        (COMPLETE, "smile_teeth"),
        (COMPLETE, "rest"),
        (Palsy.of_grade(2, "left"), "gentle_eye_closure"),
    ):
        assert not _bell(palsy, movement, 1.0).any()


SYMMETRIC = Asymmetry({}, {}, {})


def weights_of(phantom: Phantom, movement: str, palsy: Palsy) -> dict[str, float]:
    """Unit weights of a face without any healthy asymmetry."""
    return unit_weights(movement_activation(movement, 1.0), palsy, phantom.head.unit_index, SYMMETRIC)


@pytest.mark.parametrize(("movement", "unit"), [("brow_raise", "eyeWide"), ("smile_teeth", "jawOpen")])
def test_units_of_other_nerves_stay_free(phantom: Phantom, movement: str, unit: str) -> None:
    """The levator (III) and the jaw (V) are not weakened; the facial nerve's units beside them are gone."""
    palsy = replace(COMPLETE, tone_loss=0.0)
    weights = weights_of(phantom, movement, palsy)
    name = unit if unit in weights else unit + "Left"
    lost = "browOuterUpLeft" if movement == "brow_raise" else "cheekSquintLeft"

    assert weights[name] == pytest.approx(MOVEMENTS[movement][unit])
    assert weights[lost] == 0
    assert weights[lost.replace("Left", "Right")] > MOVEMENTS[movement][lost.removesuffix("Left")]


@pytest.mark.parametrize("movement", MOVEMENTS)
@pytest.mark.parametrize("grade", [2, 4, 6])
def test_a_mirrored_palsy_is_the_mirror_image(phantom: Phantom, movement: str, grade: int) -> None:
    """Left and right change places in every unit, tone, shift of the mouth and synkinesis included."""
    palsy = Palsy.of_grade(grade, "left", np.random.default_rng(0), synkinesis=0.5)

    def swapped(name: str) -> str:
        return name[:-4] + "Right" if name.endswith("Left") else name[:-5] + "Left" if name.endswith("Right") else name

    weights, mirrored = weights_of(phantom, movement, palsy), weights_of(phantom, movement, palsy.mirrored())

    assert {swapped(name): value for name, value in weights.items()} == pytest.approx(mirrored)
    assert weights != pytest.approx(mirrored)
    assert palsy.mirrored().mirrored() == palsy
    assert palsy.mirrored().severity == palsy.severity
    assert Palsy().mirrored() == Palsy()


def test_iris_is_1177_mm_across(phantom: Phantom, person: Identity) -> None:
    """Counted in pixels along the middle of the mean head's right eye, wide open, seen from the front.

    In the canonical coordinates of the eye, in which it is drawn; the head's own eye is 5 % wider than those.
    """
    head: Head = phantom.head
    mean = replace(person, base_V3=head.mean_V3, asymmetry=SYMMETRIC, iris_3=np.full(3, 0.25, np.float32))
    scene = replace(
        Scene.draw(0, 0), yaw=0.0, pitch=0.0, roll=0.0, zoom=1.0, shift_2=np.zeros(2, np.float32), noise=0.0, blur=0.01,
        light_azimuth=0.5,
    )  # fmt: skip
    palsy = Palsy("right", 6, (0.0, 1.0, 0.0), tone_loss=1.0)  # the paralysed eye stands wide open
    size = 1000
    photo = phantom.render(mean, "rest", palsy=palsy, size=size, scene=scene)
    mesh_V3 = phantom.mesh(mean, phantom.weights(mean, "rest", 1.0, palsy))
    camera = Camera.frame(scene, phantom.landmarks(mean, mesh_V3), size)
    eye_V3 = mesh_V3[(head.part_V == EYE) & (mesh_V3[:, 0] < 0)]
    front = eye_V3[eye_V3[:, 2].argmax()]
    centre = np.array([*head.eye_centre_23[0][:2], front[2]], np.float32)
    (x, y, _), (aside, _, _) = camera.project(np.stack([centre, centre + np.array([0.1, 0, 0], np.float32)]))
    mm_per_pixel = 10 / float(aside - x)

    row = photo.image_HW3[int(y)].mean(1)
    reach = int(9 / mm_per_pixel)
    segment = row[int(x) - reach : int(x) + reach]
    halfway = (np.percentile(segment, 95) + np.percentile(segment, 10)) / 2
    dark = np.nonzero(segment < halfway)[0]

    right_V = (head.part_V == EYE) & (head.mean_V3[:, 0] < 0)
    stretch = float(np.polyfit(head.canonical_V3[right_V, 0], head.mean_V3[right_V, 0], 1)[0])
    diameter = (dark[-1] - dark[0] + 1) * mm_per_pixel
    assert diameter == pytest.approx(11.77, rel=0.06)
    assert diameter / stretch == pytest.approx(11.77, abs=0.3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"movement": "smile_teth"}, "movement='smile_teth'.*Did you mean 'smile_teeth'"),
        ({"intensity": 1.6}, r"intensity=1.6 must lie in \[0, 1.5\]"),
        ({"intensity": float("nan")}, "intensity=nan"),
        ({"size": 8}, r"size=8 must lie in \[16, 1024\]"),
    ],
)
def test_impossible_photographs(phantom: Phantom, person: Identity, call: dict[str, Any], message: str) -> None:
    """The error names the value, the bound and the nearest word."""
    with pytest.raises(ConfigError, match=message):
        phantom.render(person, **call)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Palsy("both"), "side='both' must be one of none, left, right"),  # type: ignore[arg-type]
        (lambda: Palsy("left", 7), "grade=7 must be 1 to 6"),
        (lambda: Palsy.of_grade(0, "left"), "grade=0 must be 1 to 6"),
        (lambda: Palsy("left", 2, (0.1, 0.2)), "severity=.* must be three values"),  # type: ignore[arg-type]
        (lambda: Palsy("left", 2, (0.1, 0.2, 1.2)), "severity=.* must be three values"),
        (lambda: Palsy("left", 2, synkinesis=-0.1), "synkinesis=-0.1"),
        (lambda: Prior(skin_alpha=0.0), "alpha=0.0"),
        (lambda: Prior(age_range=(0.5, 0.2)), "age_range"),
        (lambda: SceneStyle(backgrounds=(5,)), r"backgrounds=\(5,\) must be indices 0 to 4"),
        (lambda: SceneStyle(blur=(0.5, 0.1)), r"blur=\(0.5, 0.1\) must be given as \(low, high\)"),
    ],
)
def test_impossible_people_and_rooms(make: Callable[[], object], message: str) -> None:
    """The error names the value and the bound."""
    with pytest.raises(ConfigError, match=message):
        make()
