"""Copies are found, and nothing else is, where all photographs of a session have one pose, light and background."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ccfexp.data.duplicates import PRINT_SIZE, Pair, face_print, fingerprint, near_duplicates
from ccfexp.data.phantom.presets import SITES
from ccfexp.data.phantom.sites import photograph
from ccfexp.errors import ConfigError
from tests.ccfexp.data.copies import Array, Picture, as_jpeg, cut, exposed, resized, upright_face

Seen = tuple[Picture, Array]


def photographs(subjects: int, sessions: int = 1) -> list[Seen]:
    """All movements of patients of hospital A, loosely framed."""
    site = replace(SITES["A"], subjects=subjects)
    shots = [
        photograph(site, 40000 + subject, session, movement, 224, loose=True)
        for subject in range(subjects)
        for session in range(sessions)
        for movement in ("rest", *site.movements)
    ]
    return [(shot.image_HW3, shot.landmark_682.astype(np.float64)) for shot in shots]


def pairs_of(seen: list[Seen]) -> list[Pair]:
    prints = np.stack([face_print(upright_face(image, points)) for image, points in seen])
    return near_duplicates([fingerprint(image) for image, _ in seen], prints)


def copied(kind: str, shot: Seen, rng: np.random.Generator) -> Seen:
    """One photograph after what ``kind`` names, its points found anew to about 0.7 % of the distance of the eyes."""
    image, points = shot
    if "cut" in kind:
        image, points = cut(image, points, rng, 0.06)
    if "exposed" in kind:
        image = exposed(image, rng.uniform(0.7, 1.3), rng.uniform(-15, 15))
    if "resized" in kind:
        image, points = resized(image, points, rng.uniform(0.4, 1.6))
    if "jpeg" in kind:
        image = as_jpeg(image, int(rng.integers(40, 90)))
    return image, points + rng.normal(0, 0.15, points.shape) + rng.normal(0, 0.2, 2)


@pytest.fixture(scope="module")
def shots() -> list[Seen]:
    return photographs(3)


def test_movements_and_people_are_not_paired(shots: list[Seen]) -> None:
    assert pairs_of(shots) == []


@pytest.mark.parametrize("kind", ["jpeg", "resized", "cut", "exposed", "jpeg resized cut exposed"])
def test_a_copy_is_paired_with_its_own_original(shots: list[Seen], kind: str) -> None:
    rng = np.random.default_rng(1)
    pairs = pairs_of([*shots, *(copied(kind, shot, rng) for shot in shots)])
    right = [pair for pair in pairs if pair.b - pair.a == len(shots)]
    assert len(right) >= len(shots) - 2
    assert len(pairs) - len(right) <= 1


@pytest.mark.slow
def test_rates_over_many_people() -> None:
    """The figures of the module's docstring."""
    shots = photographs(30, sessions=2)
    assert pairs_of(shots) == []
    rng = np.random.default_rng(2)
    for kind, least in (
        ("jpeg", 0.98),
        ("resized", 0.98),
        ("cut", 0.98),
        ("exposed", 0.97),
        ("jpeg resized cut exposed", 0.95),
    ):
        pairs = pairs_of([*shots, *(copied(kind, shot, rng) for shot in shots)])
        right = sum(pair.b - pair.a == len(shots) for pair in pairs)
        assert right >= least * len(shots)
        assert len(pairs) - right <= 0.02 * len(shots)


def test_the_same_file_twice_is_at_no_distance(shots: list[Seen]) -> None:
    (pair,) = pairs_of([*shots[:3], shots[1]])
    assert (pair.a, pair.b) == (1, 3)
    assert pair.distance < 1e-3


def test_a_hash_ignores_size_and_sees_another_picture(shots: list[Seen]) -> None:
    image, points = shots[0]
    own = fingerprint(image)
    assert 0 <= own < 2**64
    assert (own ^ fingerprint(resized(image, points, 0.5)[0])).bit_count() <= 4
    assert (own ^ fingerprint(np.ascontiguousarray(image[:, ::-1]))).bit_count() > 10
    assert (own ^ fingerprint(255 - image)).bit_count() > 50


def test_many_copies_of_one_photograph_cost_no_square(shots: list[Seen]) -> None:
    """Each still has a partner, in another patient too."""
    prints = np.repeat(face_print(upright_face(*shots[0]))[None], 300, axis=0)
    pairs = near_duplicates([fingerprint(shots[0][0])] * 300, prints)
    assert len(pairs) <= 300 * 24
    assert {pair.b for pair in pairs} == set(range(1, 300))


@given(arrays(np.uint8, st.tuples(st.integers(0, 6), st.just(PRINT_SIZE), st.just(PRINT_SIZE))))
def test_any_prints_give_pairs_in_order_or_none(prints: np.ndarray) -> None:
    """Flat and wholly clipped prints among them."""
    pairs = near_duplicates([7] * len(prints), prints)
    assert all(0 <= pair.a < pair.b < len(prints) and np.isfinite(pair.distance) for pair in pairs)
    assert pairs == sorted(pairs, key=lambda pair: (pair.a, pair.b))


def test_prints_of_another_number_are_refused() -> None:
    with pytest.raises(ConfigError, match="face_print"):
        near_duplicates([1, 2], np.zeros((1, PRINT_SIZE, PRINT_SIZE), np.uint8))


@pytest.mark.slow
def test_ten_thousand_photographs_take_seconds() -> None:
    """Faces drawn small at once: 1,250 patients of eight movements, all of one site."""
    rng = np.random.default_rng(0)
    site = SITES["A"]
    few = [photograph(site, 50000 + k, 0, m, 64).image_HW3 for k in range(125) for m in ("rest", *site.movements)]
    # Ten people of each: smooth changes of shading, so that prints of different people stay as alike as they are.
    y, x = np.mgrid[-1:1:32j, -1:1:32j]
    shades = [1 + 0.25 * (a * x + b * y) + 0.15 * np.sin(c * x + d * y) for a, b, c, d in rng.normal(0, 2, (10, 4))]
    prints = np.concatenate([[np.clip(face_print(f) * s, 0, 255).astype(np.uint8) for f in few] for s in shades])
    hashes = [fingerprint(f) ^ int(rng.integers(2**63)) for _ in shades for f in few]
    start = time.process_time()
    near_duplicates(hashes, prints)
    assert len(prints) == 10_000
    assert time.process_time() - start < 10
