"""A federation's settings go with the rule that runs, also when that is known only from the sites."""

from __future__ import annotations

import pytest

from ccfexp.errors import ConfigError
from configs.federation import FederationConfig
from strategies.options import CombineOptions, ServerOptimiser


def test_auto_is_rolora_or_flex_where_ranks_differ() -> None:
    config = FederationConfig()

    assert config.rule(mixed_ranks=False, private=False) == "rolora"
    assert config.rule(mixed_ranks=True, private=False) == "flex"


@pytest.mark.parametrize(
    ("config", "setting"),
    [
        (FederationConfig(central_noise=1.0), "central_noise"),
        (FederationConfig(min_sites=3, combine=CombineOptions(centre="median")), "combine.centre=median"),
        (FederationConfig(optimiser=ServerOptimiser(kind="momentum")), "optimiser.kind=momentum"),
    ],
    ids=["noise", "median", "momentum"],
)
def test_what_flex_does_not_do_is_refused_and_not_left_out(config: FederationConfig, setting: str) -> None:
    """The sites' ranks turn auto into flex, which would have averaged without noise, or with whoever lies."""
    assert config.rule(mixed_ranks=False, private=False) == "rolora"

    with pytest.raises(ConfigError, match=rf"{setting}\b.*choose"):
        config.rule(mixed_ranks=True, private=False)
