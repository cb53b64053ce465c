"""Which column of a table holds what, from the hospital's own file."""

from __future__ import annotations

import difflib
import unicodedata
from dataclasses import fields
from typing import TYPE_CHECKING

from ccfexp.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from client.prepare.settings import Columns


_IN_A_MANIFEST = {"subject": "subject_id"}
"""What a manifest calls a column otherwise: it is a table of photographs, too."""


def fold(name: str) -> str:
    """Return a column's name as it is compared: spaces around it and capitals do not count."""
    return unicodedata.normalize("NFKC", name).strip().casefold()


def count_columns(header: Sequence[str], columns: Columns) -> int:
    """Return how many of the columns that are looked for a header has."""
    return len({fold(name) for name in header} & {fold(name) for name in _wanted(columns).values()})


def find_columns(header: Sequence[str], columns: Columns, needed: Iterable[str]) -> dict[str, int]:
    """Find the columns of a table.

    Args:
        header: the names in row 1.
        columns: what the hospital calls them; one that is not named there is called as its key, where there is one.
        needed: keys of `columns` without which the table cannot be used.

    Returns:
        The place, from 0, of every column that was found, by its key.

    Raises:
        ConfigError: a column that is named or needed but absent, one that stands there twice, or two keys for one. A
            name of the table itself is never repeated: it could be a patient's.
    """
    places: dict[str, list[int]] = {}
    for place, name in enumerate(header):
        places.setdefault(fold(name), []).append(place)
    found: dict[str, int] = {}
    for key, name in _wanted(columns).items():
        there = places.get(fold(name), [])
        if not there and getattr(columns, key) is None:
            there = places.get(_IN_A_MANIFEST.get(key, name), [])
        if len(there) > 1:
            raise ConfigError(
                f"table.columns.{key}: columns {there[0] + 1} and {there[1] + 1} of the table are called so; rename one"
            )
        if there:
            found[key] = there[0]
        elif getattr(columns, key) is not None or key in needed:
            raise ConfigError(
                f"table.columns.{key}: the table has no column of the name that is "
                f"{'the default, ' + key if getattr(columns, key) is None else 'given there'}{_similar(name, header)}; "
                f"write its name as table.columns.{key}"
            )
    for key, place in found.items():
        twins = [other for other, elsewhere in found.items() if elsewhere == place and other != key]
        if twins:
            raise ConfigError(f"table.columns.{key} and table.columns.{twins[0]} name the same column; name two")
    return found


def _wanted(columns: Columns) -> dict[str, str]:
    """Return the name of every column that is looked for; a name that one key claims is no other key's default."""
    named = {column.name: getattr(columns, column.name) for column in fields(columns)}
    claimed = {fold(name) for name in named.values() if name is not None}
    return {key: name or key for key, name in named.items() if name is not None or key not in claimed}


def _similar(name: str, header: Sequence[str]) -> str:
    """Point to a column whose name comes near, by its place alone."""
    folded = [fold(other) for other in header]
    matches = difflib.get_close_matches(fold(name), [other[:100] for other in folded], n=1, cutoff=0.6)
    if not matches:
        return ""
    return f" (column {[other[:100] for other in folded].index(matches[0]) + 1} has a similar name)"
