"""The frame against an independent fit, the pixels against an independent integral, and both against drawn phantoms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import center_of_mass, gaussian_filter, label

from ccfexp.data.alignment import (
    TEMPLATE_52,
    Similarity,
    five_points,
    outside_share,
    points_outside,
    similarity,
    warp,
)
from ccfexp.data.files import BadFileError
from ccfexp.data.phantom.camera import Camera, Scene
from ccfexp.data.phantom.expression import Palsy
from ccfexp.data.phantom.render import Phantom

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[np.float64]

transform: Any = pytest.importorskip("skimage.transform")

TEMPLATE = np.array(TEMPLATE_52)
SIDE = 112


def drawn(angle: float, scale: float, shift: tuple[float, float]) -> Similarity:
    """A similarity by its definition."""
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    return Similarity(np.array([[c, -s, shift[0]], [s, c, shift[1]]]))


def reduced(point_52: Array) -> Array:
    """Eyes, nose and mid-point of the mouth, as often as they weigh: 1, 1, 1/4 and 1/10 are 20, 20, 5 and 2."""
    four = [point_52[0], point_52[1], point_52[2], (point_52[3] + point_52[4]) / 2]
    return np.repeat(four, (20, 20, 5, 2), axis=0)


similarities = st.builds(
    drawn,
    st.floats(-np.pi, np.pi),
    st.floats(0.02, 40),
    st.tuples(st.floats(-3000, 3000), st.floats(-3000, 3000)),
)


def test_the_template_is_the_published_one_half_a_pixel_on() -> None:
    """The arcface_dst of insightface counts pixels by their centres."""
    published = pytest.importorskip("insightface.utils.face_align").arcface_dst
    np.testing.assert_allclose(TEMPLATE, published + 0.5, atol=1e-4)


@settings(max_examples=60, deadline=None)
@given(similarities, st.integers(16, 1024))
def test_a_moved_template_is_brought_back(moved: Similarity, size: int) -> None:
    """Any turn, scale and shift of the template is undone, and a round trip ends where it began."""
    if moved.scale * 35 < 2:
        moved = drawn(0.3, 0.1, (5, 5))
    point_52 = moved.points(TEMPLATE)
    frame = similarity(point_52, size)
    np.testing.assert_allclose(frame.points(point_52), TEMPLATE * size / SIDE, atol=1e-6 * size)
    np.testing.assert_allclose(frame.inverse().points(frame.points(point_52)), point_52, atol=1e-6)
    assert frame.scale == pytest.approx(size / SIDE / moved.scale)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([64, 112, 256]))
def test_the_fit_is_weighted_least_squares(seed: int, size: int) -> None:
    """On points that no similarity maps onto the template, against scikit-image's fit of repeated points."""
    rng = np.random.default_rng(seed)
    point_52 = drawn(rng.uniform(-1, 1), rng.uniform(0.5, 20), (300, 200)).points(TEMPLATE + rng.normal(0, 4, (5, 2)))
    expected = transform.SimilarityTransform.from_estimate(reduced(point_52), reduced(TEMPLATE) * size / SIDE)
    np.testing.assert_allclose(similarity(point_52, size).matrix_23, expected.params[:2], rtol=1e-6, atol=1e-6)


def test_five_points_of_68() -> None:
    landmark_682 = np.arange(136, dtype=np.float32).reshape(68, 2)
    expected = [(75, 76), (87, 88), (60, 61), (96, 97), (108, 109)]  # 2i, 2i + 1; eyes the mid-points of their corners
    np.testing.assert_array_equal(five_points(landmark_682), expected)


@pytest.mark.parametrize(
    ("points", "reason"),
    [
        (np.full((5, 2), 7.0), "span no face"),
        (TEMPLATE * (1, 0), "span no face"),
        (TEMPLATE * (0, 1), "span no face"),
        (TEMPLATE * 0.01, "span no face"),
        (np.where(np.arange(10).reshape(5, 2) == 3, np.nan, TEMPLATE), "not finite"),
        (TEMPLATE * (-1, 1) + (112, 0), "mirrored face"),
        (TEMPLATE * (1, -1) + (0, 112), "mirrored face"),
        (TEMPLATE[[1, 0, 2, 4, 3]], "mirrored face"),
    ],
)
def test_points_of_no_face(points: Array, reason: str) -> None:
    with pytest.raises(BadFileError, match=reason):
        similarity(points, SIDE)


@pytest.mark.parametrize("scale", [0.4, 1.0, 2.3, 7.9, 21.0])
def test_pixels_are_means_of_what_they_cover(scale: float) -> None:
    """Against an integral on a grid 12 times finer, sampled by scikit-image, of a soft picture with sharp edges."""
    rng = np.random.default_rng(3)
    side = int(60 * scale) + 60
    sigma = max(1.5, 0.5 * scale)
    image_HW3 = 128 + 100 * sigma * (gaussian_filter(rng.uniform(-1, 1, (side, side, 3)), (sigma, sigma, 0)))
    image_HW3[side // 3 : side // 2, side // 4 : side // 2] = (250, 20, 120)
    image_HW3 = np.clip(image_HW3, 0, 255).astype(np.uint8)
    frame = drawn(0.35, scale, (20, 30)).inverse()
    size, fine = 40, 12
    centre = (np.arange(size * fine) + 0.5) / fine
    place = frame.inverse().points(np.stack(np.meshgrid(centre, centre), -1)) - 0.5
    expected = np.stack(
        [
            transform.warp(image_HW3[..., c].astype(float), np.moveaxis(place, -1, 0)[::-1], order=1, mode="edge")
            for c in range(3)
        ],
        -1,
    )
    expected = expected.reshape(size, fine, size, fine, 3).mean((1, 3))
    difference = warp(image_HW3, frame, size) - expected
    assert np.sqrt((difference**2).mean()) < 2
    assert abs(difference.mean()) < 0.2


def test_shrinking_does_not_alias() -> None:
    """A chequerboard of single pixels becomes an even grey; sampling alone would give black, white or stripes."""
    board = np.indices((1200, 1200)).sum(0) % 2 * 255
    image_HW3 = np.repeat(board[..., None], 3, -1).astype(np.uint8)
    for scale in (2.0, 5.3, 9.7):
        crop_HW3 = warp(image_HW3, drawn(0.2, scale, (300, 100)).inverse(), 64)
        assert np.abs(crop_HW3.astype(int) - 127).max() <= 16


def test_the_identity_changes_nothing() -> None:
    image_HW3 = np.random.default_rng(0).integers(0, 256, (50, 50, 3), np.uint8)
    np.testing.assert_array_equal(warp(image_HW3, drawn(0, 1, (0, 0)), 50), image_HW3)


@settings(max_examples=25, deadline=None)
@given(st.floats(-0.6, 0.6), st.floats(0.5, 12), st.integers(0, 100))
def test_pixels_move_with_the_points(angle: float, scale: float, seed: int) -> None:
    """White discs at the five points of a photograph lie, in the crop, where the frame says."""
    rng = np.random.default_rng(seed)
    frame_back = drawn(angle, scale, (rng.uniform(300, 500), rng.uniform(200, 300)))
    point_52 = frame_back.points(TEMPLATE)
    low, high = point_52.min(0) - 10 * scale, point_52.max(0) + 10 * scale
    point_52 -= low
    width, height = np.ceil(high - low).astype(int)
    y, x = np.mgrid[:height, :width] + 0.5
    image_HW3 = np.zeros((height, width, 3), np.uint8)
    for px, py in point_52:
        cover_HW = np.clip(3 * max(scale, 1) + 0.5 - np.hypot(x - px, y - py), 0, 1)
        image_HW3 = np.maximum(image_HW3, (255 * cover_HW[..., None]).astype(np.uint8))
    frame = similarity(point_52, SIDE)
    crop_HW = warp(image_HW3, frame, SIDE)[..., 0].astype(float)
    spots, count = label(crop_HW > 60)
    assert count == 5
    found = np.array(center_of_mass(crop_HW, spots, range(1, 6)))[:, ::-1] + 0.5
    distance = np.linalg.norm(found[:, None] - frame.points(point_52), axis=-1)
    assert distance.min(0).max() < 0.35


def test_a_loose_phantom_and_a_tight_one_align_alike() -> None:
    """The same person and moment, drawn at 512 pixels loosely and at 224 tightly, give the same crop."""
    phantom = Phantom()
    crops = []
    for size, crop in ((512, "loose"), (224, "aligned")):
        photograph = phantom.render(phantom.identity(7), "smile_teeth", size=size, crop=crop, seed=1)  # type: ignore[arg-type]
        frame = similarity(five_points(photograph.landmark_682), 96)
        assert outside_share(photograph.image_HW3, frame, 96) < 0.2
        face = np.s_[20:80, 20:76]
        crops.append(gaussian_filter(warp(photograph.image_HW3, frame, 96).astype(float)[face], (1, 1, 0)))
    error = np.sqrt(((crops[0] - crops[1]) ** 2).mean())
    shifted = np.sqrt(((crops[0][:, 1:] - crops[1][:, :-1]) ** 2).mean())
    assert error < 6
    assert error < 0.6 * shifted


def test_a_palsy_does_not_drag_the_frame() -> None:
    """The docstring's figures: turn of the frame in a full smile of grades V and VI, against the head at rest."""
    phantom = Phantom()
    turn: dict[str, list[float]] = {"here": [], "one weight": []}
    for seed in range(6000, 6012):
        person, scene = phantom.identity(seed), Scene.draw(seed, 0)
        rest = phantom.landmarks(person, phantom.mesh(person, {}))
        camera = Camera.frame(scene, rest, SIDE)
        for grade in (5, 6):
            weights = phantom.weights(
                person, "smile_teeth", 1.0, Palsy.of_grade(grade, "left" if seed % 2 else "right")
            )
            smile = phantom.landmarks(person, phantom.mesh(person, weights))
            points = [five_points(camera.project(landmark_683)[:, :2]) for landmark_683 in (rest, smile)]
            ours = [np.arctan2(*similarity(point_52, SIDE).matrix_23[::-1, 0]) for point_52 in points]
            plain = [transform.SimilarityTransform.from_estimate(point_52, TEMPLATE).rotation for point_52 in points]
            turn["here"].append(abs(ours[1] - ours[0]))
            turn["one weight"].append(abs(plain[1] - plain[0]))
    here, one_weight = (np.degrees(np.mean(values)) for values in turn.values())
    assert here == pytest.approx(0.95, abs=0.3)
    assert one_weight == pytest.approx(5.7, abs=0.8)


def test_what_the_photograph_does_not_reach() -> None:
    """Half of the crop beyond the left border: half is made up, by repeating the border."""
    image_HW3 = np.full((100, 100, 3), 90, np.uint8)
    image_HW3[:, 0] = 200
    frame = drawn(0, 1, (30, 0))
    assert outside_share(image_HW3, frame, 60) == pytest.approx(0.5)
    crop_HW3 = warp(image_HW3, frame, 60)
    assert (crop_HW3[:, :31] == 200).all()
    assert (crop_HW3[:, 31:] == 90).all()
    assert outside_share(image_HW3, drawn(0, 1, (0, 0)), 100) == 0
    beyond = drawn(0, 1, (-500, 0))
    assert outside_share(image_HW3, beyond, 60) == 1
    with pytest.raises(BadFileError, match="belong to another photograph"):
        warp(image_HW3, beyond, 60)


def test_points_outside_are_counted() -> None:
    image_HW3 = np.zeros((100, 200, 3), np.uint8)
    landmark_682 = np.full((68, 2), 50.0)
    assert points_outside(landmark_682, image_HW3) == 0
    landmark_682[:4] = (-0.1, 50), (200.1, 50), (50, 100.1), (200, 100)
    assert points_outside(landmark_682, image_HW3) == 3
