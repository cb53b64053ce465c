"""Every error that this project raises on purpose.

The tree::

    CCFExpError
    ├── ConfigError (also ValueError)   a configuration key or value that cannot be used
    ├── ManifestError                   rows of a manifest that cannot be used; ``problems`` lists them all
    ├── WeightsError                    shipped or given weights that are missing or altered
    ├── CheckpointError                 a checkpoint that is missing, damaged or of another run
    ├── WireError                       a message between server and site that is refused
    ├── RoundError                      a federated round that cannot be completed
    ├── PolicyError                     what a hospital's own rules do not allow
    └── LedgerError                     a ledger that is unreadable, altered or cannot be written

A message says what happened, names the value as ``name=value``, gives the bound and ends with the remedy.
It never holds a subject identifier, an image path or an image value: errors leave the site.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = [
    "CCFExpError",
    "CheckpointError",
    "ConfigError",
    "LedgerError",
    "ManifestError",
    "PolicyError",
    "RoundError",
    "WeightsError",
    "WireError",
    "did_you_mean",
]


class CCFExpError(Exception):
    """Root of the tree: whatever this project refuses on purpose."""


class ConfigError(CCFExpError, ValueError):
    """A configuration key that does not exist or a value that is impossible."""


class ManifestError(CCFExpError):
    """A manifest that cannot be used.

    Attributes:
        problems: one line per problem, each naming the row number and the reason, never a path or a subject.
    """

    def __init__(self, summary: str, problems: Sequence[str] = ()) -> None:
        """Join the summary and all problems into one message."""
        self.problems: tuple[str, ...] = tuple(problems)
        super().__init__("\n  ".join([summary, *self.problems]))


class WeightsError(CCFExpError):
    """A weight file that is missing, unreadable, or whose hash is not the expected one."""


class CheckpointError(CCFExpError):
    """A checkpoint that is missing, damaged, or belongs to another configuration."""


class WireError(CCFExpError):
    """A message between server and site that fails a check and is refused."""


class RoundError(CCFExpError):
    """A federated round that cannot be completed, for example with too few sites."""


class PolicyError(CCFExpError):
    """Something that a hospital's own rules do not allow, whoever asks for it."""


class LedgerError(CCFExpError):
    """A ledger that cannot be read, was altered, or cannot be written; nothing may leave until it is mended."""


def did_you_mean(key: str, known: Iterable[str]) -> str:
    """Return a suggestion for a mistyped key.

    Args:
        key: what was written.
        known: the keys that exist.

    Returns:
        `` Did you mean 'x'?`` (with the leading space) for the closest known key, else the empty string.
    """
    matches = difflib.get_close_matches(key, sorted(str(name) for name in known), n=1, cutoff=0.6)
    return f" Did you mean {matches[0]!r}?" if matches else ""
