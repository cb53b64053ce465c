"""From a configuration to the federation that it describes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import configs
from ccfexp.model import CCFExp
from configs.client_part import ClientPart
from configs.run import RunConfig
from server.exchange import Patience
from server.federation import Federation, Hooks
from strategies.wire import Terms

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch


def settle(name: str, overrides: Sequence[str]) -> Federation:
    """The federation of a named configuration, written to `runs/<name>`, waiting for `federation.min_sites` sites.

    Raises:
        ConfigError: an unknown key or impossible value.
        WeightsError: the base is missing or altered.
    """
    config = configs.load(name, overrides, RunConfig)
    model = CCFExp.from_base(config.base)
    model.attach_adapter(config.adapter, config.seed)
    return federation_of(
        config,
        initial=model.adapter_state(),
        base_sha256=model.base_sha256,
        out_dir=Path("runs") / config.name,
        wanted_sites=config.federation.min_sites,
        patience=Patience(config.federation.round_timeout_s),
    )


def federation_of(
    config: RunConfig,
    *,
    initial: dict[str, torch.Tensor],
    base_sha256: str,
    out_dir: Path,
    wanted_sites: int,
    patience: Patience,
    hooks: Hooks | None = None,
) -> Federation:
    """The federation of a resolved configuration; every argument as in `Federation`."""
    terms = Terms(
        round_number=1,
        method=config.federation.strategy,
        rank=config.adapter.rank,
        alpha=float(config.adapter.alpha),
        config_sha256=configs.config_hash(config),
        base_sha256=base_sha256,
    )
    return Federation(
        config=config.federation,
        terms=terms,
        initial=initial,
        client_config=ClientPart(config.adapter, config.train, config.seed).to_json(),
        out_dir=out_dir,
        wanted_sites=wanted_sites,
        patience=patience,
        hooks=hooks or Hooks(),
    )
