"""What a step takes and what it adds: units by chance alone, noise of the claimed size, an ordinary mean."""

from __future__ import annotations

import ast
import inspect
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ccfexp import training
from ccfexp.model import CCFExp
from ccfexp.parallel import shares
from ccfexp.privacy.noise import Numbers, SecureSource, SeededSource, Source
from ccfexp.privacy.steps import Draw, MeanPlan, Targets
from tests.ccfexp.privacy.chance import are_binomial, are_independent, has_deviation, has_rate, is_normal
from tests.ccfexp.privacy.patients import adapted, gradients, norm, plan, rows, trained

TARGETS = Targets(torch.tensor([0, 1, 3, 4, 6, 7, 9]), torch.tensor([5, 5, 5, 2, 2, 8, 5]))
NOBODY = Draw(torch.arange(0), ())
GENERATOR = torch.Generator()


@given(st.lists(st.integers(1, 5), max_size=8), st.integers(1, 12))
def test_units_are_worked_on_whole_and_in_order(sizes: list[int], at_once: int) -> None:
    """Each once, as many as fit, and what is random of each goes with it."""
    random_U = tuple(torch.Generator() for _ in sizes)
    draw = Draw(torch.arange(sum(sizes)), tuple(sizes), random_U)

    groups = list(draw.groups(at_once))

    assert [row for group in groups for row in group.target_R.tolist()] == list(range(sum(sizes)))
    assert [size for group in groups for size in group.sizes] == sizes
    assert tuple(random for group in groups for random in group.random_U) == random_U
    for group in groups:
        assert sum(group.sizes) == len(group.target_R) <= max(at_once, group.sizes[0])
    for one, following in pairwise(groups):
        assert sum(one.sizes) + following.sizes[0] > at_once


def test_the_rows_of_a_unit_share_its_weight() -> None:
    draw = Draw(torch.arange(6), (1, 3, 2))

    assert draw.unit_R.tolist() == [0, 1, 1, 1, 2, 2]
    assert draw.weight_R.tolist() == pytest.approx([1, 1 / 3, 1 / 3, 1 / 3, 1 / 2, 1 / 2])


def test_a_patient_s_rows_are_drawn_from_its_own_photographs() -> None:
    """At most so many of them, none twice, each as often as it is to be drawn; whoever has fewer gives fewer."""
    seen: Counter[int] = Counter()
    for seed in range(200):
        draw = replace(plan(), source=SeededSource((seed,)), draws_per_image=3).draw(TARGETS, GENERATOR)
        assert draw.sizes == (6, 6, 3)  # of patients 2, 5 and 8
        first, last, only = (own.view(-1, 3) for own in draw.target_R.split(list(draw.sizes)))
        for own, theirs in ((first, {4, 6}), (only, {7}), (last, {0, 1, 3, 9})):
            assert (own == own[:, :1]).all()
            assert set(own[:, 0].tolist()) <= theirs
            assert len(own[:, 0].unique()) == len(own)
        seen.update(last[:, 0].tolist())

    assert sum(seen.values()) == 400
    assert all(has_rate(count, 200, 0.5) for count in seen.values())


def test_every_photograph_may_be_a_unit() -> None:
    """Then nobody's two go together."""
    draw = replace(plan(), by_image=True, images_per_patient=1).draw(TARGETS, GENERATOR)

    assert draw.target_R.tolist() == TARGETS.target_T.repeat_interleave(2).tolist()
    assert draw.sizes == (2,) * 7


@pytest.mark.parametrize(("by_image", "units"), [(False, 40), (True, 120)])
@pytest.mark.parametrize("source", [SecureSource(), SeededSource((4,))], ids=["secure", "seeded"])
def test_every_unit_comes_with_the_claimed_probability_and_by_itself(
    by_image: bool, units: int, source: Source
) -> None:
    """Each at the rate, no two together more often than by chance, batches no more and no less even than by chance."""
    targets = Targets(torch.arange(120), torch.arange(120) // 3)
    private = replace(plan(), sampling_rate=0.25, by_image=by_image, images_per_patient=1, source=source)
    steps = 400
    came = np.zeros((steps, units))
    for step in range(steps):
        index_R = private.draw(targets, GENERATOR).target_R
        came[step, (index_R if by_image else index_R // 3).numpy()] = 1

    assert all(has_rate(int(count), steps, 0.25) for count in came.sum(0))
    assert has_rate(int(came.sum()), came.size, 0.25)
    assert not has_rate(int(0.9 * came.sum()), came.size, 0.25)
    assert are_binomial(came.sum(1), units, 0.25)
    assert are_independent(came[1:].ravel(), came[:-1].ravel())
    for apart in (1, 2, units // 2):
        assert are_independent(came[:, apart:].ravel(), came[:, :-apart].ravel())


@cache
def _model() -> CCFExp:
    return adapted("AB", torch.float32)


def _noise(source: Source, claimed: float = 1.5) -> Numbers:
    """What a step without patients leaves in the gradients."""
    model = _model()
    private = replace(plan(clipping_norm=0.3), noise_multiplier=claimed, expected=8.0, source=source)
    with shares(1) as pool:
        private.backward(model, NOBODY, _nothing_to_prepare, pool)
    return torch.cat([part.flatten() for part in gradients(model).values()]).double().numpy()


def _nothing_to_prepare(_: Draw) -> Callable[[slice], torch.Tensor]:
    raise AssertionError


class _NineTenths(SecureSource):
    def normal(self, count: int) -> Numbers:
        return 0.9 * super().normal(count)


class _OneForAll(SecureSource):
    def normal(self, count: int) -> Numbers:
        return SeededSource((1,)).normal(count)


@pytest.mark.parametrize("source", [SecureSource(), SeededSource((3,))], ids=["secure", "seeded"])
def test_the_noise_of_a_step_is_of_the_claimed_size(source: Source) -> None:
    """Multiplier times clipping norm over the expected number, normal, in every coordinate anew; and in every step."""
    first, second = _noise(source), _noise(source)
    deviation = 1.5 * 0.3 / 8.0

    assert len(first) > 30_000
    for noise in (first, second):
        assert has_deviation(noise, deviation)
        assert is_normal(noise, deviation)
    assert are_independent(first, second)
    assert are_independent(first[1:], first[:-1])
    assert not has_deviation(first, 0.9 * deviation)


def test_less_noise_than_claimed_is_caught() -> None:
    """Nine tenths of it, from the source or the multiplier, and the same in every step."""
    deviation = 1.5 * 0.3 / 8.0

    assert not has_deviation(_noise(_NineTenths()), deviation)
    assert not has_deviation(_noise(SecureSource(), claimed=0.9 * 1.5), deviation)
    assert not are_independent(_noise(_OneForAll()), _noise(_OneForAll()))


def test_only_a_seeded_step_can_be_repeated() -> None:
    assert (_noise(SeededSource((3,))) == _noise(SeededSource((3,)))).all()
    assert (_noise(SeededSource((3,))) != _noise(SeededSource((4,)))).any()
    assert (_noise(SecureSource()) != _noise(SecureSource())).all()


def test_an_ordinary_step_is_the_mean_of_its_batch() -> None:
    """Bit for bit what autograd gives for it, clipped as a whole."""
    examples, model = rows(4), _model()
    draw = Draw(torch.arange(4), (4,))
    weights = list(trained(model).values())
    loss = examples.prepare(model)(draw)(slice(0, 4)).sum() / 4
    expected = torch.autograd.grad(loss, weights)

    for clip in (1e9, 0.01):
        with shares(1) as pool:
            outcome = MeanPlan(4, clip).backward(model, draw, examples.prepare(model), pool)
        found = gradients(model)
        for weight, gradient in zip(weights, expected, strict=True):
            weight.grad = gradient.clone()
        torch.nn.utils.clip_grad_norm_(weights, clip)
        assert all(torch.equal(found[name], gradient) for name, gradient in gradients(model).items())
        assert outcome == (float(loss.detach()), 0)
    assert norm(found) == pytest.approx(0.01, rel=1e-3)


def test_an_ordinary_batch_is_drawn_with_replacement_as_ever() -> None:
    """From the step's generator alone: what was learnt before there were plans is learnt again."""
    index_B = torch.randint(7, (20,), generator=torch.Generator().manual_seed(9))

    draw = MeanPlan(20, 1.0).draw(TARGETS, torch.Generator().manual_seed(9))

    assert torch.equal(draw.target_R, TARGETS.target_T[index_B])
    assert draw.sizes == (20,)


def test_the_training_loop_does_not_know_what_is_private() -> None:
    """It imports the interface alone, and decides nothing by the plan that it is given."""
    tree = ast.parse(inspect.getsource(training))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    known = {name.name for node in imports if "privacy" in str(node.module) for name in node.names}
    conditions = [node.test for node in ast.walk(tree) if isinstance(node, ast.If | ast.IfExp | ast.While | ast.Assert)]
    asked = {name.id for test in conditions for name in ast.walk(test) if isinstance(name, ast.Name)}

    assert known == {"Draw", "Losses", "MeanPlan", "Plan", "Targets"}
    assert not any(isinstance(node, ast.Match) for node in ast.walk(tree))
    assert not asked & {"plan", "isinstance", "Plan", "MeanPlan"}
