"""What a site starts a round from, and what it sends of the outcome."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ccfexp.errors import WireError
from client.app import RequestRefusedError
from client.memory import SiteMemory
from client.update import start_of, update_of
from strategies import registry, wire
from strategies.coding import CODINGS, Coding
from strategies.packing import AdapterManifest, FlatArray, narrowed, pack, trained_letter, values_sha256

WIDTH, RANK = 40, 4
A, B = "layer.lora_A.weight", "layer.lora_B.weight"
A_MOVED, B_MOVED = "layer.lora_A.residual.weight", "layer.lora_B.residual.weight"
UPLOADED = {"fedit": {*"AB"}, "ffa": {"B"}, "fedsvd": {"B"}, "rolora": {*"AB"}, "flora": {*"AB"}, "flex": {*"AB"}}
UPLOADED |= {"fedsa": {"A"}}  # over two rounds
State = dict[str, torch.Tensor]


def drawn(seed: int, size: float = 1.0, rank: int = RANK) -> State:
    """Random factors."""
    generator = torch.Generator().manual_seed(seed)
    return {
        A: size * torch.randn(rank, WIDTH, generator=generator),
        B: size * torch.randn(WIDTH, rank, generator=generator),
    }


INITIAL = drawn(0)
MODEL = AdapterManifest.of(INITIAL)


def message(rule: str, number: int, state: State, coding: Coding = "float32", **terms: str) -> wire.AdapterMessage:
    """What the coordinator sends in a round of a rule."""
    roles = registry.make(rule).roles(number)
    known = "".join(sorted({"A", "B"} - set(roles.sent) - set(roles.trained)))
    values = {"trained": roles.trained, "uploaded": roles.uploaded} | terms
    agreed = wire.Terms(number, rule, RANK, 4.0, "a" * 64, "b" * 64, coding=coding, **values)  # type: ignore[arg-type]
    agreed = replace(agreed, known_sha256=terms.get("known_sha256", values_sha256(INITIAL, known) if known else ""))
    sent = {name: value for name, value in state.items() if (trained_letter(name) or roles.sent[0]) in roles.sent}
    return wire.AdapterMessage.of(agreed, sent, "{}")


def sent_by(
    rule: str, number: int, start: State, change: State, memory: SiteMemory, coding: Coding
) -> tuple[AdapterManifest, FlatArray]:
    """What leaves a site that trained so far."""
    trained = {name: start[name] + change[name] for name in (A, B)}
    return update_of(message(rule, number, start, coding), start, trained, memory, np.random.default_rng(number))


# --- the start --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["fedit", "fedsvd", "rolora", "flora", "flex"])
def test_both_factors_and_what_was_moved_into_the_base_are_those_that_were_sent(tmp_path: Path, rule: str) -> None:
    """Nothing of the site's own gets in, however much it remembers."""
    memory = SiteMemory(tmp_path)
    memory.remember("personal", 1, {B: torch.full((WIDTH, RANK), 7.0)})
    state = drawn(1) | {A_MOVED: torch.ones(9, WIDTH), B_MOVED: torch.ones(WIDTH, 9)}

    start = start_of(message(rule, 2, state), MODEL, INITIAL, memory)

    assert start.keys() == state.keys()
    assert all(torch.equal(start[name], state[name]) for name in state)


def test_the_agreed_factor_is_the_sites_own_and_must_be_the_agreed_one(tmp_path: Path) -> None:
    """FFA: another seed, another release or one other bit is refused."""
    memory, state = SiteMemory(tmp_path), drawn(1)
    memory.remember("personal", 1, {A: torch.full((RANK, WIDTH), 7.0)})

    start = start_of(message("ffa", 2, state), MODEL, INITIAL, memory)
    assert torch.equal(start[A], INITIAL[A])
    assert torch.equal(start[B], state[B])

    other = INITIAL | {A: INITIAL[A].clone()}
    other[A][0, 0] = torch.nextafter(other[A][0, 0], torch.tensor(9.0))
    with pytest.raises(RequestRefusedError, match=r"known_sha256=[0-9a-f]{12} of the message is not that of the fact"):
        start_of(message("ffa", 2, state), MODEL, other, memory)
    with pytest.raises(RequestRefusedError, match="known_sha256= of the message"):
        start_of(message("ffa", 2, state, known_sha256=""), MODEL, INITIAL, memory)


def test_a_personal_factor_is_the_last_one_that_this_site_had(tmp_path: Path) -> None:
    """FedSA: before the first round that of the run's seed, and in a repeated round the same as the first time."""
    memory, state = SiteMemory(tmp_path), drawn(1)
    asked = [message("fedsa", number, state) for number in (1, 2, 3)]

    assert torch.equal(start_of(asked[0], MODEL, INITIAL, memory)[B], INITIAL[B])
    for number in (1, 2, 2):
        start = start_of(asked[number - 1], MODEL, INITIAL, memory)
        trained = start | {B: start[B] + number}
        update_of(asked[number - 1], start, trained, memory, np.random.default_rng(0))

    assert torch.equal(start_of(asked[2], MODEL, INITIAL, memory)[B], INITIAL[B] + 1 + 2)
    assert torch.equal(start_of(asked[2], MODEL, INITIAL, memory)[A], state[A])


@pytest.mark.parametrize("rank", [2, 6])
def test_a_personal_factor_outlives_a_change_of_the_sites_rank(tmp_path: Path, rank: int) -> None:
    """A hospital that lends less memory from now on, or more, keeps the components that it has."""
    memory, own = SiteMemory(tmp_path), torch.randn(WIDTH, RANK, generator=torch.Generator().manual_seed(5))
    memory.remember("personal", 1, {B: own})
    first = drawn(0, rank=rank) | {B: torch.zeros(WIDTH, rank)}
    terms = replace(message("fedsa", 2, INITIAL).terms, rank=rank, alpha=float(rank))
    asked = wire.AdapterMessage.of(terms, {A: drawn(1, rank=rank)[A]}, "{}")

    start = start_of(asked, AdapterManifest.of(first), first, memory)

    assert start[B].shape == (WIDTH, rank)
    assert torch.equal(start[B][:, :RANK], own[:, :rank])
    assert not start[B][:, RANK:].any()


def test_a_message_for_another_adapter_is_refused(tmp_path: Path) -> None:
    """Of another rank, of another layer, or with a factor too few."""
    memory = SiteMemory(tmp_path)
    for state in (drawn(1, rank=3), {name.replace("layer", "other"): value for name, value in drawn(1).items()}):
        with pytest.raises(WireError, match=r"check '(shapes|names)'"):
            start_of(message("fedit", 1, state), MODEL, INITIAL, memory)
    two = INITIAL | {name.replace("layer", "other"): value for name, value in INITIAL.items()}
    with pytest.raises(WireError, match=r"tensors missing='other.lora_A.weight'"):
        start_of(message("fedit", 1, drawn(1)), AdapterManifest.of(two), two, memory)


# --- the update -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", sorted(registry.RULES))
@pytest.mark.parametrize("number", [1, 2])
def test_the_change_of_what_the_round_uploads_is_sent_and_nothing_else(tmp_path: Path, rule: str, number: int) -> None:
    """In float32 to the last bit; a factor of the site's own stays on its disk."""
    start, change = drawn(1), drawn(2, 0.01)
    letters = registry.make(rule).roles(number).uploaded

    manifest, change_P = sent_by(rule, number, start, change, SiteMemory(tmp_path), "float32")

    moved = {name: (start[name] + change[name]).double() - start[name].double() for name in (A, B)}
    expected = {name: value.float() for name, value in moved.items() if trained_letter(name) in set(letters)}
    assert manifest == AdapterManifest.of(expected)
    assert change_P.tobytes() == pack(expected)[1].tobytes()
    assert (tmp_path / f"personal-{number:06d}.safetensors").exists() == (rule == "fedsa")


@pytest.mark.parametrize("rule", ["fedit", "rolora", "fedsa", "flex"])
@pytest.mark.parametrize("coding", CODINGS)
def test_a_repeated_round_sends_the_same_bytes(tmp_path: Path, rule: str, coding: Coding) -> None:
    """Every round once and, at another site of the same name and seed, every round up to three times."""
    once, often = SiteMemory(tmp_path / "once"), SiteMemory(tmp_path / "often")
    for number in range(1, 7):
        start, change = drawn(number), drawn(100 + number, 0.01)
        expected = sent_by(rule, number, start, change, once, coding)
        for _ in range(1 + number % 3):
            found = sent_by(rule, number, start, change, often, coding)
            assert found[0] == expected[0]
            assert found[1].tobytes() == expected[1].tobytes()


def kept_back(folder: Path, rule: str, coding: Coding) -> dict[str, float]:
    """By how many of its last rounding steps the sum of what a site sent in 20 rounds falls short, by factor."""
    memory, start = SiteMemory(folder), drawn(0)
    short: dict[str, np.ndarray] = {}
    step: dict[str, np.ndarray] = {}
    for number in range(1, 21):
        change = drawn(number, 0.01)
        manifest, change_P = sent_by(rule, number, start, change, memory, coding)
        place = 0
        for name, shape in manifest.entries:
            sent_P = change_P[place : place + int(np.prod(shape))]
            moved = (start[name] + change[name]).double() - start[name].double()
            short[name] = short.get(name, 0.0) + moved.numpy().ravel() - sent_P
            step[name] = steps(sent_P, coding)
            place += sent_P.size
    return {name: float(np.abs(short[name] / step[name]).max()) for name in short}


def steps(sent_P: FlatArray, coding: Coding) -> np.ndarray:
    """The distance of neighbours in the coding, at least at each value, computed apart from `strategies.coding`."""
    if coding == "int8":  # 127 steps cover the largest of 32 values
        peak_P = np.repeat(np.abs(sent_P).reshape(-1, 32).max(1), 32)
        return np.exp2(np.ceil(np.log2(peak_P / 127)))
    bits = {"float16": 10, "bfloat16": 7}[coding]
    return np.exp2(np.floor(np.log2(np.maximum(np.abs(sent_P), 2.0**-14))) - bits)  # type: ignore[no-any-return]


@pytest.mark.parametrize("rule", ["fedit", "rolora", "ffa", "fedsa"])
@pytest.mark.parametrize("coding", ["float16", "bfloat16", "int8"])
def test_what_rounding_took_away_is_sent_later(tmp_path: Path, rule: str, coding: Coding) -> None:
    """After 20 rounds the sum of what was sent is that of the changes, to within one step of the last rounding."""
    in_steps = kept_back(tmp_path, rule, coding)

    assert {trained_letter(name) for name in in_steps} == UPLOADED[rule]
    assert all(0.1 < value <= 1.001 for value in in_steps.values())


@pytest.mark.parametrize("rule", ["fedsvd", "flora", "flex"])
@pytest.mark.parametrize("coding", ["float16", "bfloat16", "int8"])
def test_where_the_basis_changes_nothing_is_carried_over(tmp_path: Path, rule: str, coding: Coding) -> None:
    """What was left over belongs to factors that are no more; the sum then wanders off by several steps."""
    in_steps = kept_back(tmp_path, rule, coding)

    assert {trained_letter(name) for name in in_steps} == UPLOADED[rule]
    assert all(value > 2.0 for value in in_steps.values())
    assert list(tmp_path.iterdir()) == []


def test_what_is_left_over_of_another_shape_is_not_added(tmp_path: Path) -> None:
    """A site that trains with another rank from now on."""
    memory = SiteMemory(tmp_path)
    sent_by("fedit", 1, drawn(0), drawn(1, 0.01), memory, "int8")
    narrow = narrowed(drawn(0), 2)
    agreed = replace(message("fedit", 2, drawn(0), "int8").terms, rank=2, alpha=2.0)
    asked = wire.AdapterMessage.of(agreed, narrow, "{}")

    manifest, change_P = update_of(asked, narrow, narrow, memory, np.random.default_rng(0))

    assert manifest == AdapterManifest.of(narrow)
    assert not change_P.any()


def test_nothing_is_sent_that_could_not_be_remembered(tmp_path: Path) -> None:
    """A file stands where the folder should be."""
    (tmp_path / "site").touch()

    for rule, coding in (("fedsa", "float32"), ("fedit", "int8")):
        with pytest.raises(OSError, match="exists"):
            sent_by(rule, 1, drawn(0), drawn(1), SiteMemory(tmp_path / "site"), coding)  # type: ignore[arg-type]


def test_training_that_ran_away_sends_nothing(tmp_path: Path) -> None:
    """And leaves nothing behind that would spoil the next round."""
    start = drawn(0)
    trained = start | {B: torch.full((WIDTH, RANK), torch.nan)}

    with pytest.raises(WireError, match="check 'finite'"):
        update_of(message("fedit", 1, start, "int8"), start, trained, SiteMemory(tmp_path), np.random.default_rng(0))
    assert SiteMemory(tmp_path).before("left-over", 2) == {}
