"""The chosen frame is at the peak of the movement, on phantoms whose intensity is known frame by frame.

What was measured once: the share of films whose chosen frame has at least .9 of the full movement, over all movements,
40 people, 61 frames, a head that turns aside by a few degrees, landmarks that jump by a share of the distance between
the eyes:

========  =====  =====  =====  =====  =====  =====
noise     I      II     III    IV     V      VI
========  =====  =====  =====  =====  =====  =====
0         .998   1.000  1.000  1.000  1.000  1.000
.25 %     1.000  1.000  .995   1.000  .998   1.000
.5 %      .989   .984   .980   .982   .975   .968
1 %       .864   .859   .866   .875   .861   .855
========  =====  =====  =====  =====  =====  =====
"""

from __future__ import annotations

from collections.abc import Generator
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccfexp.data.files import BadFileError
from ccfexp.data.phantom.expression import MOVEMENTS, Palsy
from ccfexp.data.phantom.render import Phantom
from ccfexp.data.rows import Movement
from ccfexp.detection.faces import Image, Points
from ccfexp.evaluation.measures import eye_distance, mirror
from client.prepare.peak import choose_peak, peak_of_video
from client.prepare.video import Frame
from tests.client.prepare.films import landmark_film

PEOPLE, GRADES, FRAMES = 6, (1, 2, 3, 4, 5, 6), 31
MOVING = [movement for movement in Movement if movement is not Movement.REST]
PHANTOM = Phantom()


def intensities(frames: int = FRAMES) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """From rest to the full movement and back, with the peak off the middle."""
    return np.interp(np.linspace(0, 1, frames), (0, 0.4, 1), (0, 1, 0))


@cache
def film(movement: Movement, seed: int, grade: int) -> Points:
    """Landmarks of a person whose head turns aside by a few degrees meanwhile."""
    rng = np.random.default_rng([seed, grade])
    palsy = Palsy.of_grade(grade, "left" if seed % 2 else "right", rng)
    # The phantom has no blink of its own: it is a short closure.
    drawn = str(movement) if movement in MOVEMENTS else "gentle_eye_closure"
    turning = np.cumsum(rng.normal(0, 0.01, FRAMES))
    return landmark_film(PHANTOM, PHANTOM.identity(seed), drawn, palsy, intensities(), turning)


def noisy(points: Points, share: float, seed: int) -> Points:
    """Each point of each frame jumps by a share of the distance between the eyes."""
    jump = np.random.default_rng(seed).normal(0, share, points.shape) * eye_distance(points).mean()
    return np.asarray(points + jump, np.float32)


@pytest.mark.parametrize("movement", MOVING)
@pytest.mark.parametrize("noise", [0.0, 0.0025])
def test_the_peak_is_found_in_every_grade(movement: Movement, noise: float) -> None:
    """Of grades I to IV in 95 of 100 films at least; of V and VI, where one side hardly moves, as well."""
    found = {
        grade: [intensities()[choose_peak(movement, noisy(film(movement, s, grade), noise, s))] for s in range(PEOPLE)]
        for grade in GRADES
    }

    reached = {grade: np.mean(np.array(values) >= 0.9) for grade, values in found.items()}
    assert np.mean([reached[grade] for grade in (1, 2, 3, 4)]) >= 0.95, found
    assert np.mean([reached[grade] for grade in (5, 6)]) >= 0.95 if noise == 0 else True, found


def test_at_rest_a_blink_is_passed_over() -> None:
    """The median face has its eyes open; five of thirty frames have not."""
    blinking = np.zeros(30)
    blinking[10:15] = (0.5, 1, 1, 1, 0.5)
    for seed in range(PEOPLE):
        points = landmark_film(PHANTOM, PHANTOM.identity(seed), "gentle_eye_closure", Palsy(), blinking.tolist())
        assert blinking[choose_peak(Movement.REST, noisy(points, 0.0025, seed))] == 0


def test_a_blink_of_one_frame_is_found() -> None:
    blinking = np.zeros(30)
    blinking[17] = 1
    points = landmark_film(PHANTOM, PHANTOM.identity(3), "gentle_eye_closure", Palsy(), blinking.tolist())

    assert choose_peak(Movement.BLINK, points) == 17


def test_a_single_frame_whose_points_jump_is_not_the_peak() -> None:
    """At rest for one frame the brows are where no brow is."""
    points = film(Movement.BROW_RAISE, 1, 1).copy()
    points[1, 17:27, 1] -= 20

    assert intensities()[choose_peak(Movement.BROW_RAISE, points)] >= 0.9


def test_the_side_that_moves_decides() -> None:
    """The left eye closes at frame 20, while the palsied right one opens; at frame 5 both close a little.

    The mean of both is closed most at frame 5.
    """
    points = _still(30)
    lids = np.zeros((30, 2))
    lids[19:22] = (-1.0, 2.0)
    lids[4:7] = 0.6
    for side, (upper, lower) in enumerate((([37, 38], [40, 41]), ([43, 44], [46, 47]))):
        points[:, upper, 1] += lids[:, side, None] / 2
        points[:, lower, 1] -= lids[:, side, None] / 2

    assert choose_peak(Movement.GENTLE_EYE_CLOSURE, points) in (19, 20, 21)


def _still(frames: int) -> Points:
    return landmark_film(PHANTOM, PHANTOM.identity(2), "rest", Palsy(), [1.0] * frames)


@given(
    st.sampled_from(list(Movement)), st.integers(0, 5), st.sampled_from(GRADES), st.floats(0.05, 40),
    st.floats(-np.pi, np.pi), st.tuples(st.floats(-500, 500), st.floats(-500, 500)), st.booleans(),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_size_place_roll_and_mirror_do_not_count(
    movement: Movement, seed: int, grade: int, scale: float, roll: float, shift: tuple[float, float], mirrored: bool
) -> None:
    moving = movement if movement is not Movement.REST else Movement.FROWN
    points = noisy(film(moving, seed, grade), 0.003, seed).astype(np.float64)
    turn = np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]])
    other = (mirror(points, 112.0) if mirrored else points) * scale @ turn.T + np.array(shift)

    assert choose_peak(movement, other) == choose_peak(movement, points)  # type: ignore[arg-type]  # float64 for the test


@given(st.sampled_from(list(Movement)), st.sets(st.integers(0, FRAMES - 1), max_size=FRAMES - 1), st.integers(0, 135))
@settings(max_examples=60, deadline=None)
def test_frames_without_a_face_are_left_out(movement: Movement, missing: set[int], value: int) -> None:
    """One missing value is enough; the places are those of the whole film."""
    moving = movement if movement is not Movement.REST else Movement.FROWN
    points = film(moving, 1, 3).copy()
    points[sorted(missing), value // 2, value % 2] = np.nan
    kept = [index for index in range(FRAMES) if index not in missing]

    assert choose_peak(movement, points) == kept[choose_peak(movement, points[kept])]


@pytest.mark.parametrize("frames", [1, 2, 3])
@pytest.mark.parametrize("movement", list(Movement))
def test_few_frames_are_enough(movement: Movement, frames: int) -> None:
    assert 0 <= choose_peak(movement, _still(frames)) < frames


@pytest.mark.parametrize("points", [np.full((4, 68, 2), np.nan), np.zeros((4, 68, 2)), np.zeros((0, 68, 2))])
def test_without_any_face_it_is_refused(points: Points) -> None:
    with pytest.raises(BadFileError, match="no face"):
        choose_peak(Movement.REST, points)


def _frames(count: int, seen: list[int]) -> Generator[Frame]:
    for index in range(count):
        seen.append(index)
        yield Frame(2 * index, index / 10, np.full((2, 2, 3), index, np.uint8))


def test_of_a_video_the_chosen_frame_is_read_again() -> None:
    """Every second frame of the video is looked at, so places and counts differ."""
    points = film(Movement.SMILE_TEETH, 1, 2)
    seen: list[int] = []

    def locate(image_HW3: Image) -> Points | None:
        index = int(image_HW3[0, 0, 0])
        return None if index < 5 else points[index]

    def frame_at(index: int) -> Frame:
        return Frame(index, index / 20, np.zeros((1, 1, 3), np.uint8))

    frame, point_682 = peak_of_video(lambda: _frames(FRAMES, seen), frame_at, locate, Movement.SMILE_TEETH)

    assert intensities()[frame.index // 2] >= 0.9
    np.testing.assert_array_equal(point_682, points[frame.index // 2])
    assert seen == list(range(FRAMES))

    everywhere = np.full((2 * FRAMES, 68, 2), np.nan, np.float32)
    everywhere[::2] = points
    by_supplied, _ = peak_of_video(lambda: _frames(FRAMES, []), frame_at, None, Movement.SMILE_TEETH, everywhere)
    assert by_supplied.index == frame.index


def _no_frame(_index: int) -> Frame:
    raise AssertionError


def test_landmarks_must_come_from_somewhere() -> None:
    with pytest.raises(BadFileError, match="needs landmarks"):
        peak_of_video(lambda: _frames(3, []), _no_frame, None, Movement.REST)
