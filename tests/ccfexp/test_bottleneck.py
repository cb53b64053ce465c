"""What of the expression photograph's map gets through: less of it, and an adapter remembers how much."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from ccfexp.adapter import AdapterConfig
from ccfexp.bottleneck import Bottleneck
from ccfexp.checkpoint import attach_saved_adapter, load_adapter, save_adapter
from ccfexp.errors import ConfigError
from tests.ccfexp import tiny

if TYPE_CHECKING:
    from pathlib import Path

MAP = torch.randn(3, 6, 8, 8, generator=torch.Generator().manual_seed(0)) * 5 + 2


def test_nothing_is_changed_by_default() -> None:
    assert Bottleneck().narrow(MAP) is MAP
    assert Bottleneck().drop(MAP, torch.Generator()) is MAP
    assert Bottleneck(grid=8).narrow(MAP) is MAP


def test_a_grid_keeps_means_and_nothing_finer() -> None:
    """Two maps with the same means over 2 x 2 positions become the same map."""
    narrow = Bottleneck(grid=4).narrow(MAP)
    mean = MAP.unflatten(3, (4, 2)).unflatten(2, (4, 2)).mean((3, 5))
    torch.testing.assert_close(narrow[..., ::2, ::2], mean)
    torch.testing.assert_close(narrow[..., 1::2, 1::2], mean)


def test_strength_does_not_get_through_a_normalised_map() -> None:
    narrow = Bottleneck(normalised=True).narrow
    torch.testing.assert_close(narrow(MAP), narrow(3 * MAP + 1), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(narrow(MAP).mean(1), torch.zeros(3, 8, 8), atol=1e-5, rtol=0)


def test_dropout_drops_whole_maps_at_its_rate() -> None:
    many = torch.ones(4000, 1, 2, 2)
    dropped = Bottleneck(dropout=0.2).drop(many, torch.Generator().manual_seed(1))
    assert set(dropped.flatten(1).sum(1).tolist()) == {0.0, 4.0}
    share = float((dropped[:, 0, 0, 0] == 0).float().mean())
    assert abs(share - 0.2) < 4 * (0.2 * 0.8 / 4000) ** 0.5


def test_an_adapter_is_drawn_with_what_it_was_trained_with(tmp_path: Path) -> None:
    """The bottleneck travels with the saved adapter, and changes the condition."""
    model = tiny.model()
    config = AdapterConfig(rank=2, bottleneck=Bottleneck(grid=2, normalised=True, dropout=0.1))
    model.attach_adapter(config, 0)
    save_adapter(tmp_path, model.adapter_state(), model, config, {})
    assert load_adapter(tmp_path)[1] == config
    again, plain = tiny.model(), tiny.model()
    attach_saved_adapter(again, tmp_path)
    batch = tiny.batch(plain)
    conditions = [each.condition(batch.identity, batch.expression).token_BNT for each in (model, again, plain)]
    assert torch.equal(conditions[0], conditions[1])
    assert not torch.allclose(conditions[0], conditions[2])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"grid": -1}, r"bottleneck\.grid=-1 must lie in \[0, 64\]"),
        ({"dropout": 1.0}, r"bottleneck\.dropout=1.0 must lie in \[0, 1\)"),
    ],
)
def test_impossible_values(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Bottleneck(**values)
