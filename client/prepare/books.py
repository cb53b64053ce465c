"""The hospital's private books of its photographs, opened together: key, record, withdrawals."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from client.prepare.place import Place
from client.prepare.pseudonyms import Pseudonyms
from client.prepare.publish import adopt_corrections, check_ours
from client.prepare.store import Store
from client.prepare.withdrawal import Withdrawals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime


@dataclass(frozen=True)
class Books:
    """Open books of one site."""

    place: Place
    pseudonyms: Pseudonyms
    store: Store
    withdrawals: Withdrawals


@contextmanager
def open_books(place: Place, clock: Callable[[], datetime]) -> Iterator[Books]:
    """Open the books for this process alone, and take over what was corrected by hand since.

    Raises:
        ConfigError: another process has them open, the key or the record cannot be used, or the manifest names
            photographs that were not prepared here.
    """
    with place.alone():
        pseudonyms = Pseudonyms.of(place.key, make=not place.record.exists())
        with Store.open(place.record, pseudonyms.fingerprint) as store:
            check_ours(place.manifest, store.items().values())
            adopt_corrections(place.manifest, store)
            yield Books(place, pseudonyms, store, Withdrawals.of(place, clock))
