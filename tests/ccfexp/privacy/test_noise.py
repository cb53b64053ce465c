"""Sampling and noise: the claimed distributions, and numbers that nobody has seen before."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from ccfexp.privacy.noise import SecureSource, SeededSource, Source
from tests.ccfexp.privacy.chance import are_binomial, are_independent, has_deviation, has_rate, is_normal, is_uniform

MANY = 150_000  # more than are made at a time
SOURCES = [SecureSource, lambda: SeededSource((7, 1))]
every_source = pytest.mark.parametrize("make", SOURCES, ids=["secure", "seeded"])


@every_source
def test_normal_numbers_are_standard_normal(make: Callable[[], Source]) -> None:
    """Mean 0 and deviation 1 in the whole and at every part of what is made at a time; nine tenths of it is caught."""
    sample = make().normal(MANY)

    assert sample.dtype == np.float64
    assert is_normal(sample)
    for part in (sample, sample[:20_000], sample[-20_000:]):
        assert has_deviation(part, 1.0)
        assert not has_deviation(0.9 * part, 1.0)
        assert not has_deviation(part / 0.9, 1.0)
    assert not is_normal(0.9 * sample)
    assert not is_normal(sample + 0.1)
    assert np.abs(sample).max() > 4


@every_source
def test_no_number_goes_with_another(make: Callable[[], Source]) -> None:
    """Neighbours, numbers of one block and the next, of two calls, of two kinds."""
    source = make()
    first, second, uniform = source.normal(MANY), source.normal(MANY), source.uniform(MANY)

    assert are_independent(first, second)
    assert are_independent(first, uniform)
    for lag in (1, 2, MANY // 4, MANY // 2, 1 << 15, 1 << 17):
        assert are_independent(first[lag:], first[:-lag]), lag
    assert not are_independent(first, 0.1 * first + second)
    assert not are_independent(first, first * np.sign(second))
    assert len(np.unique(np.concatenate([first, second]))) == 2 * MANY


@every_source
def test_uniform_numbers_are_uniform(make: Callable[[], Source]) -> None:
    """In [0, 1), by 52 bits each at least."""
    sample = make().uniform(MANY)

    assert is_uniform(sample)
    assert not is_uniform(0.9 * sample)
    assert not is_uniform(1 - 1e-20 * sample)
    assert (sample * 2**53 == np.floor(sample * 2**53)).all()
    for bit in (1, 26, 52):
        assert has_rate(int(((sample * 2**bit).astype(np.int64) & 1).sum()), MANY, 0.5)
    assert has_rate(int((sample < 0.05).sum()), MANY, 0.05)
    assert not has_rate(int((sample < 0.045).sum()), MANY, 0.05)


@every_source
@pytest.mark.parametrize("count", [0, 1, 3])
def test_as_many_as_are_asked_for(make: Callable[[], Source], count: int) -> None:
    assert make().uniform(count).shape == make().normal(count).shape == (count,)


def test_the_check_of_a_spread_knows_two_wrong_samplers() -> None:
    """A batch that always has as many, and one that has everybody or nobody."""
    random = np.random.default_rng(3)

    assert are_binomial(random.binomial(40, 0.25, 500).astype(np.float64), 40, 0.25)
    assert not are_binomial(np.full(500, 10.0), 40, 0.25)
    assert not are_binomial(np.where(random.random(500) < 0.25, 40.0, 0.0), 40, 0.25)


def test_only_a_seed_repeats() -> None:
    """No two secure sources agree, nor does one with itself; a seed gives the same again, another seed does not."""
    one, other = SecureSource(), SecureSource()
    for draw in ("uniform", "normal"):
        drawn = [getattr(source, draw)(8).tolist() for source in (one, other, one)]
        assert len({tuple(numbers) for numbers in drawn}) == 3
        same, again, another = (getattr(SeededSource(seed), draw)(8).tolist() for seed in ((7, 1), (7, 1), (7, 2)))
        assert same == again != another


def test_nobody_s_seed_reaches_the_secure_source() -> None:
    """Whatever generator is seeded, it is the operating system that is asked."""
    drawn = []
    for _ in range(2):
        np.random.seed(0)  # noqa: NPY002 (this is the one that must not matter)
        drawn.append(SecureSource().normal(8).tolist())

    assert drawn[0] != drawn[1]


def test_every_call_has_a_key_of_the_operating_system_s(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 256 bits; the same key gives the same numbers, so there is no other randomness, and none is kept."""
    keys: list[int] = []

    def urandom(count: int) -> bytes:
        keys.append(count)
        return bytes(count)

    monkeypatch.setattr("ccfexp.privacy.noise.os.urandom", urandom)
    source = SecureSource()

    assert source.uniform(64).tolist() == source.uniform(64).tolist() == SecureSource().uniform(64).tolist()
    assert source.normal(64).tolist() == SecureSource().normal(64).tolist()
    assert keys == [32] * 5


@pytest.mark.parametrize("rarest", [0.0, 1 - 2.0**-52])
def test_the_rarest_uniform_numbers_give_a_finite_one(monkeypatch: pytest.MonkeyPatch, rarest: float) -> None:
    """No logarithm of zero."""
    monkeypatch.setattr(SecureSource, "uniform", lambda _, count: np.full(count, rarest))

    assert np.isfinite(SecureSource().normal(4)).all()
