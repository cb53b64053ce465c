"""A run by the words of a command line: the name of a configuration and overrides, in any order."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

from configs._door import load
from configs.run import RunConfig

if TYPE_CHECKING:
    from collections.abc import Sequence


def load_named(name: str, overrides: Sequence[str]) -> RunConfig:
    """A run's configuration; a changed one has a name, and so a folder, of its own.

    Without that, a changed run would be mistaken for, or refused because of, the unchanged one.

    Raises:
        ConfigError: as `configs.load`.
    """
    config = load(name, overrides, RunConfig)
    changed = any(not word.startswith("name=") for word in overrides)
    named = any(word.startswith("name=") for word in overrides)
    if changed and not named:
        config = replace(config, name=f"{config.name}-{_tag(overrides)}")
    return config


def _tag(overrides: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(sorted(overrides)).encode()).hexdigest()[:8]
