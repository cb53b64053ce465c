"""What is sent is what stands in the checkpoint, at the rank of who gets it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from server.checkpoint import Progress
from server.standing import Messages, adapter_of, memory_of, state_of
from strategies import registry, wire
from strategies.packing import narrowed, trained_letter, values_sha256
from tests.toys import A_MOVED, B_MOVED, BASE, A, B, initial

WIDTH, RANK, ALPHA = 12, 8, 4.0
State = dict[str, torch.Tensor]


def adapter(*, moved: int = 0) -> State:
    """Factors of which none is zero, and a base residual of some rank."""
    generator = torch.Generator().manual_seed(1)
    state = initial(WIDTH, RANK) | {B: torch.randn(WIDTH, RANK, generator=generator)}
    if moved:
        state[A_MOVED] = torch.randn(moved, WIDTH, generator=generator)
        state[B_MOVED] = torch.randn(WIDTH, moved, generator=generator)
    return state


def messages(rule: str, state: State, number: int = 1, *, keep_tail: bool = False) -> Messages:
    roles = registry.make(rule).roles(number)
    terms = wire.Terms(number, rule, RANK, ALPHA, "a" * 64, BASE, roles.trained, roles.uploaded)
    return Messages(state_of(Progress(number - 1, state, ()), ALPHA / RANK), terms, roles, "{}", keep_tail)


def weight(state: State, scale: float) -> torch.Tensor:
    """What an adapter adds to its layer, float64."""
    moved = state[B_MOVED].double() @ state[A_MOVED].double() if A_MOVED in state else 0.0
    return moved + scale * state[B].double() @ state[A].double()


def bits(state: State) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in state.items()}


@pytest.mark.parametrize("moved", [0, 3, 20])
def test_the_checkpoint_and_the_rules_mean_the_same(moved: int) -> None:
    """There and back to the last bit, what a rule remembers too."""
    memory = {"momentum.B": torch.rand(7, dtype=torch.float64)}
    state = state_of(Progress(3, adapter(moved=moved), (), "fedit", memory), 0.5)

    assert bits(adapter_of(state)) == bits(adapter(moved=moved))
    assert bits(memory_of(state)) == bits(memory)
    assert state.scale == 0.5


@pytest.mark.parametrize("rule", sorted(registry.RULES))
@pytest.mark.parametrize("rank", [2, 5, 8])
def test_a_site_gets_its_rank_and_the_factors_of_the_rule(rule: str, rank: int) -> None:
    """And terms that are true of them."""
    sent = {"ffa": "B", "fedsa": "A"}.get(rule, "AB")
    state = adapter(moved=3)

    message = messages(rule, state).of_rank(rank)

    found = message.state()
    assert {letter for name in found if (letter := trained_letter(name)) is not None} == set(sent)
    assert {A_MOVED, B_MOVED} <= found.keys()  # also to those that get one factor alone
    assert bits(found) == {name: value for name, value in bits(narrowed(state, rank)).items() if name in found}
    assert (message.terms.rank, message.terms.alpha) == (rank, ALPHA / RANK * rank)
    known = values_sha256(narrowed(state, rank), "A") if rule == "ffa" else ""
    assert message.terms.known_sha256 == known


@pytest.mark.parametrize("moved", [0, 3])
def test_what_a_small_site_cannot_train_is_in_its_base(moved: int) -> None:
    """With keep_tail every site trains on the whole model; without, on its first components."""
    state = adapter(moved=moved)

    whole = messages("flex", state, keep_tail=True).of_rank(2).state()
    cut = messages("flex", state).of_rank(2).state()

    torch.testing.assert_close(weight(whole, ALPHA / RANK), weight(state, ALPHA / RANK), rtol=0, atol=1e-5)
    assert whole[A_MOVED].shape == (RANK - 2 + moved, WIDTH)
    assert whole[A].shape == cut[A].shape == (2, WIDTH)
    assert (A_MOVED in cut) == (moved > 0)


@pytest.mark.parametrize(("alpha", "rank", "narrow"), [(1.0, 5, 3), (1.0, 10, 6), (4.0, 18, 7)])
def test_alpha_over_rank_is_the_same_at_every_site(alpha: float, rank: int, narrow: int) -> None:
    """To a rounding error of it, and what is sent is not touched by that."""
    base = messages("flora", adapter())
    state = initial(20, rank) | {B: torch.randn(20, rank, generator=torch.Generator().manual_seed(2))}
    terms = replace(base.terms, rank=rank, alpha=alpha)
    message = replace(base, state=state_of(Progress(0, state, ()), alpha / rank), terms=terms).of_rank(narrow)

    assert message.terms.alpha / narrow == pytest.approx(alpha / rank, rel=1e-15)
    assert bits(message.state()) == bits(narrowed(state, narrow))


def test_a_residual_of_a_convolution_has_its_shape() -> None:
    """[r,c,k,k] and [m,r,1,1], whatever the rank of what was moved."""
    names = [f"conv.lora_{letter}{more}.weight" for letter in "AB" for more in ("", ".residual")]
    shapes = [(2, 3, 3, 3), (5, 3, 3, 3), (4, 2, 1, 1), (4, 5, 1, 1)]
    state = {name: torch.rand(shape) for name, shape in zip(names, shapes, strict=True)}

    back = adapter_of(state_of(Progress(0, state, ()), 1.0))

    assert bits(back) == bits(state)
    assert {name: tuple(value.shape) for name, value in back.items()} == dict(zip(names, shapes, strict=True))


def test_a_state_that_is_sent_is_not_changed() -> None:
    """Messages of several ranks are made from one state."""
    made = messages("flex", adapter(moved=3), keep_tail=True)
    before = np.array(made.state.flat_P)
    first = made.of_rank(2).flat_P.tobytes()
    made.of_rank(5)

    assert made.of_rank(2).flat_P.tobytes() == first
    assert np.array_equal(made.state.flat_P, before)
