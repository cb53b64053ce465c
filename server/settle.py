"""From a configuration to the federation that it describes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import configs
from ccfexp.model import CCFExp
from configs.client_part import ClientPart, plan_text
from server.exchange import Patience
from server.federation import Federation, Hooks
from strategies.wire import Terms

if TYPE_CHECKING:
    import torch

    from configs.run import RunConfig


def run_folder(config: RunConfig) -> Path:
    """Where a run is written: below CCFEXP_RUNS, which is the coordinator's own and never part of a configuration."""
    return Path(os.environ.get("CCFEXP_RUNS", "runs")) / config.name


def base_model(config: RunConfig) -> CCFExp:
    """The base with the run's first adapter. Raises WeightsError if the base is missing or altered."""
    model = CCFExp.from_base(config.base)
    model.attach_adapter(config.adapter, config.seed)
    return model


def settle(config: RunConfig, *, wanted_sites: int = 0, hooks: Hooks | None = None) -> Federation:
    """The federation of a configuration, written to its run folder.

    Args:
        config: the resolved configuration.
        wanted_sites: how many sites to wait for before the first round; never fewer than `federation.min_sites`.
        hooks: what watches.

    Raises:
        WeightsError: the base is missing or altered.
        ConfigError: as `federation_of`.
    """
    model = base_model(config)
    return federation_of(
        config,
        initial=model.adapter_state(),
        base_sha256=model.base_sha256,
        out_dir=run_folder(config),
        wanted_sites=max(wanted_sites, config.federation.min_sites),
        patience=Patience(config.federation.round_timeout_s),
        hooks=hooks,
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
    """The federation of a resolved configuration; every argument as in `Federation`.

    Raises:
        ConfigError: the run is to be private, and no noise is enough for its epsilon.
    """
    plan = config.private_plan
    terms = Terms(
        round_number=1,
        method=config.federation.rule(mixed_ranks=False, private=plan is not None),
        rank=config.adapter.rank,
        alpha=float(config.adapter.alpha),
        config_sha256=configs.config_hash(config),
        base_sha256=base_sha256,
        privacy=plan_text(plan),
    )
    return Federation(
        config=config.federation,
        terms=terms,
        initial=initial,
        client_config=ClientPart(config.adapter, config.train, config.seed, plan).to_json(),
        out_dir=out_dir,
        wanted_sites=wanted_sites,
        patience=patience,
        seed=config.seed,
        hooks=hooks or Hooks(),
    )
