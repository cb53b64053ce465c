"""The part of a configuration that a hospital needs, as it travels: what to train and how privately. Never a path."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from ccfexp._io import canonical_json
from ccfexp.adapter import AdapterConfig
from ccfexp.errors import ConfigError
from ccfexp.privacy.plan import PrivacyConfig
from ccfexp.training import TrainConfig
from configs._build import build, to_dict


@dataclass(frozen=True)
class ClientPart:
    """What every site of a run has in common."""

    adapter: AdapterConfig
    train: TrainConfig
    seed: int
    privacy: PrivacyConfig | None = None  # calibrated; null: an ordinary run

    def to_json(self) -> str:
        """One line of canonical JSON."""
        return canonical_json(to_dict(self))

    @classmethod
    def from_json(cls, text: str) -> ClientPart:
        """Read what a coordinator sent.

        Raises:
            ConfigError: not JSON, an unknown or missing key, a value of the wrong type or out of its bounds.
        """
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ConfigError("client configuration is not JSON; coordinator and site need the same release") from error
        return build(cls, values)


def plan_text(privacy: PrivacyConfig | None) -> str:
    """A calibrated plan as it stands in the terms of a round, empty without one: equal exactly if all values are."""
    return "" if privacy is None else canonical_json(to_dict(privacy))


def site_seed(seed: int, site: str) -> int:
    """A site's own seed, 0 to 2^63 - 1: a function of the run's seed and the site's name, not of any order."""
    digest = hashlib.sha256(f"{seed}:{site}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
